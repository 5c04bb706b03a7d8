"""data=hf:owner/name, by the real package on small datasets in the layout of the Hub."""

import io
import sys

import datasets
import numpy as np
import pytest
from PIL import Image

from cifar_fast.data.errors import DataError
from cifar_fast.data.sources import load_source
from cifar_fast.recipe import load_recipe, override
from cifar_fast.utils.text import printable


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    "A folder ./owner/name stands in for the Hub's owner/name, as `datasets` itself has it."
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    monkeypatch.setenv("CIFAR_FAST_CACHE", str(tmp_path / "cache"))


def publish(splits, features, name="owner/name", label="label", encode=None):
    "Parquet files as a dataset's page has them; the grey of an image is 50 times its label."
    def image(value):
        file = io.BytesIO()
        Image.new("L", (40, 30), 50 * max(value, 0)).save(file, "PNG")
        return {"bytes": file.getvalue(), "path": None}

    for split, values in splits.items():
        column = [value if encode is None else encode(value) for value in values]
        rows = datasets.Dataset.from_dict({"image": [image(v) for v in values], label: column},
                                          features=datasets.Features({"image": datasets.Image(), label: features}))
        rows.to_parquet(f"{name}/data/{split}-00000-of-00001.parquet")


def test_class_labels_and_splits():
    publish({"train": [2, 0, 1, 1], "validation": [0, 2], "test": [1, 1, -1]}, datasets.ClassLabel(names=list("abc")))
    source = load_source("hf:owner/name", size=32)
    assert source.vocab == ("a", "b", "c")
    assert {k: v.labels.tolist() for k, v in source.splits.items()} == {
        "train": [2, 0, 1, 1], "test": [1, 1], "valid": [0, 2]}
    assert (source.train.images[:, 16, 16, 0] == [100, 0, 50, 50]).all()
    assert any("1 of 3 images of test have no label" in note for note in source.notes)


def test_labels_as_text_and_one_split():
    publish({"train": [0, 1] * 5}, datasets.Value("string"), encode="cat dog".split().__getitem__)
    source = load_source("hf:owner/name", size=32)
    assert source.vocab == ("cat", "dog") and (len(source.train), len(source.test)) == (8, 2)
    assert (source.train.images[:, 0, 0, 0] == 50 * source.train.labels).all()


def test_names_of_classes_are_those_of_folders():
    "Printable, and none is empty: a card could not hold another."
    odd = ["cafe\u0301", "tab\there", ""].__getitem__
    publish({"train": [0, 1] * 5 + [2]}, datasets.Value("string"), encode=odd)
    source = load_source("hf:owner/name", size=32)
    assert source.vocab == ("caf\u00e9", printable("tab\there")) and len(source.train) + len(source.test) == 10
    publish({"train": [0, 1] * 5}, datasets.ClassLabel(names=["cafe\u0301", "line\nbreak"]), name="owner/lines")
    assert load_source("hf:owner/lines", size=32).vocab == ("caf\u00e9", printable("line\nbreak"))
    publish({"train": [0, 1] * 5}, datasets.ClassLabel(names=["cafe\u0301", "caf\u00e9"]), name="owner/twice")
    with pytest.raises(DataError, match="two of the dataset's classes are called 'caf\u00e9'"):
        load_source("hf:owner/twice", size=32)


def test_a_column_of_splits_is_refused():
    publish({"train": [0, 1] * 5}, datasets.ClassLabel(names=["a", "b"]))
    with pytest.raises(DataError, match="data.split=fold has no effect"):
        load_source("hf:owner/name", columns={"split": "fold"})


def test_column_of_labels_is_asked_for():
    publish({"train": [0, 1] * 5}, datasets.Value("int64"), label="kind")
    with pytest.raises(DataError, match="image, kind.*data.label=COLUMN"):
        load_source("hf:owner/name")
    assert load_source("hf:owner/name", columns={"label": "kind"}).vocab == ("0", "1")


def test_broken_image_is_named():
    publish({"train": [0, 1] * 5}, datasets.ClassLabel(names=["a", "b"]))
    rows = datasets.Dataset.from_dict(
        {"image": [{"bytes": b"no image", "path": None}] * 2, "label": [0, 1]},
        features=datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])}))
    rows = datasets.concatenate_datasets([datasets.load_dataset("owner/name")["train"], rows])
    rows.to_parquet("owner/other/data/train-00000-of-00001.parquet")
    with pytest.warns(UserWarning, match="train-10"):
        source = load_source("hf:owner/other")
    assert len(source.skipped) == 2


def test_names_that_differ_in_a_sign_are_two_datasets():
    for name, labels in (("owner/my.data", [0, 1] * 5), ("owner/my-data", [1] * 5 + [0] * 5)):
        publish({"train": labels, "test": [0, 1]}, datasets.ClassLabel(names=["a", "b"]), name=name)
    dot, dash = (load_source(f"hf:{name}", size=32) for name in ("owner/my.data", "owner/my-data"))
    assert dot.train.labels.tolist() != dash.train.labels.tolist() and dot.fingerprint != dash.fingerprint


def test_several_labels_of_an_image_are_refused():
    publish({"train": [0, 1] * 5}, datasets.Sequence(datasets.ClassLabel(names=["a", "b"])), label="labels",
            encode=lambda value: [value])
    with pytest.raises(DataError, match="labels holds several values.*data.label="):
        load_source("hf:owner/name")


def test_a_row_without_an_image_is_skipped():
    publish({"train": [0, 1] * 10}, datasets.ClassLabel(names=["a", "b"]))
    rows = datasets.load_dataset("owner/name")["train"].to_list()
    rows[3]["image"] = None
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    datasets.Dataset.from_list(rows, features=features).to_parquet("owner/gaps/data/train-00000-of-00001.parquet")
    with pytest.warns(UserWarning, match="train-3: the dataset has no image"):
        source = load_source("hf:owner/gaps", size=32)
    assert len(source.skipped) == 1 and len(source.train) + len(source.test) == 19


def test_images_of_16_bits_have_one_range():
    def deep(value):
        file = io.BytesIO()
        Image.fromarray(np.full((32, 32), value, np.uint16)).save(file, "PNG")
        return {"bytes": file.getvalue(), "path": None}

    values = [1000, 4095, 4100, 8200] * 3
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    for split in ("train", "test"):
        rows = datasets.Dataset.from_dict({"image": [deep(v) for v in values], "label": [0, 1] * 6}, features=features)
        rows.to_parquet(f"owner/deep/data/{split}-00000-of-00001.parquet")
    source = load_source("hf:owner/deep", size=32)
    assert (source.train.images[:4, 0, 0, 0].tolist()) == [round(v / 16383 * 255) for v in values[:4]]
    assert any("16" in note or "14" in note for note in source.notes), source.notes


@pytest.mark.parametrize("data,names", [
    ("hf:nobody/nothing", "hf:nobody/nothing"), ("hf:", "owner/name"), ("hf:a/b/c", "a/b/c")])
def test_not_to_be_had(data, names, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=names) as error:
        load_source(data)
    assert "\n" not in str(error.value)


def test_missing_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"cifar_fast\[hf\]"):
        load_source("hf:owner/name")


def test_run_is_named_after_the_dataset():
    assert override(load_recipe("sprint"), ["data=hf:owner/name:config@main"]).name == "sprint-name-config-main"
