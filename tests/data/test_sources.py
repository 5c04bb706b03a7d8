"""Datasets from folders and digits: layouts, splits, statistics, bad input."""

import errno
import hashlib
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from cifar_fast.data import fill
from cifar_fast.data.cifar10 import CLASSES
from cifar_fast.data.registry import in_cache, named_datasets
from cifar_fast.data.sources import DataError, load_source

SKIPPED = pytest.mark.filterwarnings("ignore:left out")


@pytest.fixture(autouse=True)
def no_settings(monkeypatch, tmp_path):
    monkeypatch.delenv("CIFAR_FAST_DATA", raising=False)
    monkeypatch.setenv("CIFAR_FAST_CACHE", str(tmp_path / "cache"))


def test_a_folder_called_like_a_dataset_is_mentioned(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not any("your folder" in note for note in load_source("digits").notes)
    for name in ("cat", "dog"):
        for i in range(5):
            paint(tmp_path / "digits" / name / f"{i}.png", 40 * i + len(name) * (name == "cat"))
    named, own = load_source("digits"), load_source("./digits")
    assert len(named.vocab) == 10 and own.vocab == ("cat", "dog")
    assert "data=digits is the dataset of that name; your folder is data=./digits" in named.notes
    assert not any("your folder" in note for note in own.notes)
    shelf = tmp_path / "cache" / "data"
    assert in_cache(named_datasets()["digits"], shelf) == "decoded at 32 pixels"
    for entry in shelf.glob("digits-official@*"):
        shutil.rmtree(entry)
    assert in_cache(named_datasets()["digits"], shelf) == ""  # what is left is the folder's


def entries(tmp_path) -> int:
    "How many datasets the cache holds."
    return len(list((tmp_path / "cache" / "data").glob("*@*")))


def paint(path, value: int, size=(32, 32)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, 2 * value % 256, 255 - value)).save(path)


@pytest.fixture
def pets(tmp_path):
    "train/ and test/ of two classes: 4 and 2 images each."
    for split, count in (("train", 4), ("test", 2)):
        for label, name in enumerate(("cat", "dog")):
            for i in range(count):
                paint(tmp_path / "pets" / split / name / f"p{i}.png", 100 * label + 10 * i)
    return tmp_path / "pets"


def test_a_tree(pets):
    source = load_source(pets)
    assert (source.name, source.vocab, source.others) == ("pets", ("cat", "dog"), 0)
    assert source.train.images.shape == (8, 32, 32, 3) and source.train.images.dtype == np.uint8
    assert source.train.labels.tolist() == [0] * 4 + [1] * 4 and source.train.labels.dtype == np.int64
    assert len(source.test) == 4 and source.test.labels.tolist() == [0, 0, 1, 1]
    assert source.train.images[:, 0, 0, 0].tolist() == [0, 10, 20, 30, 100, 110, 120, 130]
    assert isinstance(source.train.images, np.memmap) and not source.train.images.flags.writeable
    pixels = source.train.images.reshape(-1, 3) / 255
    assert np.allclose(source.mean, pixels.mean(0)) and np.allclose(source.std, pixels.std(0))
    assert str(pets) in source.origin and source.skipped == ()


def test_no_test_set(pets, tmp_path):
    (pets / "test").rename(tmp_path / "away")
    assert load_source(pets).test is None


def test_class_folders_alone_are_split_by_seed(tmp_path, monkeypatch):
    for name, count in (("a", 20), ("b", 10), ("c", 1)):
        for i in range(count):
            paint(tmp_path / "mine" / name / f"{i:02}.png", i)
    monkeypatch.chdir(tmp_path)
    one, again, other = load_source("./mine"), load_source(tmp_path / "mine"), load_source("mine", seed=1)
    assert np.bincount(one.train.labels).tolist() == [16, 8, 1]
    assert np.bincount(one.test.labels).tolist() == [4, 2]
    assert one.fingerprint == again.fingerprint != other.fingerprint
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_source("~/mine").fingerprint == one.fingerprint
    assert entries(tmp_path) == 2  # one a seed


def test_one_image_of_each_class_leaves_none_to_test_on(tmp_path):
    for name in "abc":
        paint(tmp_path / "few" / name / "only.png", 7)
    with pytest.raises(DataError, match="few has one image of each class.*train/"):
        load_source(tmp_path / "few")
    (tmp_path / "train").mkdir()
    (tmp_path / "few").rename(tmp_path / "train" / "train")  # the way out that the error names
    source = load_source(tmp_path / "train")
    assert len(source.train) == 3 and source.test is None


@pytest.mark.parametrize("names", [
    ("$5", "$10", "a$b$c"), ("猫", "犬", "馬"), tuple(f"class {i:03}" for i in range(120)),
], ids=["dollars", "CJK", "120 classes"])
def test_classes_of_any_name_and_number(tmp_path, names):
    for i, name in enumerate(names):
        for j in range(2):
            paint(tmp_path / "own" / name / f"{j}.png", i)
    source = load_source(tmp_path / "own")
    assert source.vocab == tuple(sorted(names))
    assert len(source.train) == len(source.test) == len(names)
    assert [names[v] for v in source.test.images[:, 0, 0, 0]] == [source.vocab[i] for i in source.test.labels]


def test_leading_numbers_give_the_order(tmp_path):
    for name, numbers in (("a", (10, 2)), ("b", (9, 1))):
        for number in numbers:
            paint(tmp_path / "t" / "train" / name / f"{number}_{name}.png", number)
    source = load_source(tmp_path / "t")
    assert source.train.images[:, 0, 0, 0].tolist() == [1, 2, 9, 10]
    assert source.train.labels.tolist() == [1, 0, 1, 0]


def test_nested_hidden_other_and_oddly_named_files(pets):
    cat = pets / "train" / "cat"
    paint(cat / "more" / "deep" / "x.PNG", 1)
    paint(cat / "Zoë 猫\n.png", 1, size=(5, 9))
    (cat / "notes.txt").write_text("no image")
    (cat / ".hidden.png").write_text("no image")
    (pets / "train" / ".ipynb_checkpoints").mkdir()
    (pets / "labels.txt").write_text("cat dog")
    (cat / "loop").symlink_to(cat, target_is_directory=True)
    (cat / "self.png").symlink_to(cat / "self.png")
    (cat / "folder.png").mkdir()
    with pytest.warns(UserWarning, match=r"left out 1 unreadable image in pets: .*self\.png"):
        source = load_source(pets)
    assert len(source.train) == 10 and source.others == 1 and source.vocab == ("cat", "dog")
    assert len(source.skipped) == 1


@SKIPPED
def test_unreadable_images_are_skipped_or_refused(pets):
    (pets / "train" / "cat" / "p1.png").write_bytes(b"")
    (pets / "test" / "dog" / "p0.png").write_text("a text")
    for _ in range(2):  # built, and from the cache
        source = load_source(pets)
        assert (len(source.train), len(source.test), len(source.skipped)) == (7, 3, 2)
        assert "p1.png: is empty (0 bytes)" in source.skipped[0]
        with pytest.raises(DataError, match=r"2 unreadable images in pets: .*p1\.png"):
            load_source(pets, on_error="refuse")
    paint(pets / "train" / "cat" / "p1.png", 10)
    (pets / "test" / "dog" / "p0.png").unlink()
    assert load_source(pets, on_error="refuse").skipped == ()


def test_a_class_with_no_readable_image(pets):
    for path in (pets / "train" / "dog").iterdir():
        path.write_bytes(b"no image")
    (pets / "train" / "eel").mkdir()  # its error is not the dog's
    (pets / "train" / "eel" / "torn.png").write_bytes(b"no image")
    paint(pets / "train" / "eel" / "whole.png", 7)
    with pytest.raises(DataError, match=r"'dog' in train .*dog.p\d.png"):
        load_source(pets)
    assert entries(pets.parent) == 0


def test_a_passing_fault_is_not_remembered(pets, monkeypatch):
    def worn_out(*args):
        raise fill.ImageError("p0.png: Input/output error") from OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(fill, "read_image", worn_out)
        with pytest.raises(DataError, match="p0.png"):
            load_source(pets)
    assert load_source(pets).skipped == ()


def test_bad_folders(pets, tmp_path):
    def refused(data, match):
        with pytest.raises(DataError, match=match):
            load_source(data)

    refused("imagenet", "data=imagenet")
    refused(tmp_path / "nowhere", "nowhere")
    refused("", "data= ")
    refused("x" * 5000, "xxxx")
    (tmp_path / "file").write_text("")
    refused(tmp_path / "file", "is a file")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "has no class folders")
    (tmp_path / "empty" / "only").mkdir()
    refused(tmp_path / "empty", "has one class only, 'only'")
    (pets / "test" / "bird").mkdir()
    refused(pets, "test has the class 'bird'")
    (pets / "test" / "bird").rmdir()
    (pets / "train" / "bird").mkdir()
    refused(pets, "class 'bird' has no images")
    (pets / "train" / "bird" / "a.doc").write_text("")
    refused(pets, "empty but for 1 other files")
    with pytest.raises(DataError, match="on_error='maybe'"):
        load_source(pets, on_error="maybe")


def test_a_folder_that_may_not_be_listed(pets, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match="pets.*Permission denied"):
        load_source(pets)


def test_flat_channels_have_a_usable_std(tmp_path):
    for name in "ab":
        paint(tmp_path / "flat" / "train" / name / "x.png", 7)
    assert load_source(tmp_path / "flat").std == (1 / 255,) * 3


def test_digits(tmp_path):
    source, again = load_source("digits"), load_source("digits", seed=5)
    assert (len(source.train), len(source.test)) == (1438, 359) and source.vocab == tuple("0123456789")
    assert source.fingerprint == again.fingerprint
    assert source.train.images.min() == 0 and source.train.images.max() == 255
    assert np.bincount(source.test.labels).min() >= 34
    for name in "ab":  # a folder of the same name has its own place in the cache
        paint(tmp_path / "digits" / "train" / name / "x.png", 7)
    assert load_source(tmp_path / "digits").vocab == ("a", "b")
    assert entries(tmp_path) == 2


def test_the_variable_names_a_tree(tmp_path, monkeypatch):
    for number, name in enumerate(CLASSES):
        paint(tmp_path / "data" / "cifar10" / "train" / name / f"{number}_{name}.png", number)
    for value in (tmp_path / "data", tmp_path / "data" / "cifar10"):
        monkeypatch.setenv("CIFAR_FAST_DATA", str(value))
        source = load_source()
        assert source.name == "cifar10" and source.vocab == CLASSES and len(source.train) == 10


def test_a_variable_that_names_nothing_usable(pets, tmp_path, monkeypatch):
    monkeypatch.setenv("CIFAR_FAST_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="CIFAR_FAST_DATA=.*nowhere"):
        load_source()
    monkeypatch.setenv("CIFAR_FAST_DATA", str(pets))
    with pytest.raises(DataError, match="pets.*cat, dog"):
        load_source()
    assert load_source(pets).name == "pets"  # which the variable does not concern


@pytest.mark.parametrize("data, seed, value", [
    ("a\0b", 0, r"a\\x00b"), ("a\ud800b", 0, r"a\\ud800b"), ("digits", -1, "seed=-1"),
])
def test_what_no_file_system_could_find(data, seed, value):
    with pytest.raises(DataError, match=value):
        load_source(data, seed=seed)


def test_two_classes_that_are_shown_alike_are_refused(pets):
    (pets / "train" / "cat").rename(pets / "train" / os.fsdecode(b"\xff"))
    (pets / "train" / "dog").rename(pets / "train" / "\\udcff")
    with pytest.raises(DataError, match="udcff"):
        load_source(pets)


def test_nothing_heavy_is_imported():
    code = "import sys, cifar_fast.data.sources; print(*{'torch', 'fastai', 'sklearn'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stdout.strip()) == (0, "")


@pytest.mark.real
def test_real_cifar10(monkeypatch):
    from cifar_fast.data.cache import cache_folder

    tree = REAL.get("CIFAR_FAST_DATA")
    if not tree:
        pytest.skip("CIFAR_FAST_DATA names no CIFAR-10 tree")
    monkeypatch.setenv("CIFAR_FAST_DATA", tree)
    monkeypatch.delenv("CIFAR_FAST_CACHE")
    if "CIFAR_FAST_CACHE" in REAL:
        monkeypatch.setenv("CIFAR_FAST_CACHE", REAL["CIFAR_FAST_CACHE"])
    source = load_source(cache=cache_folder())

    def digest(arrays):
        return hashlib.sha256(arrays.images.tobytes() + arrays.labels.astype(np.uint8).tobytes()).hexdigest()

    assert digest(source.train) == "d28d69ffc3d7e2d096c21c34e1dd56b7c219a1b33aa3121ff02a0e8d54579fe7"
    assert digest(source.test) == "36f35f1379b4eae9f3a161dede7a4011300cc8cd445d66d756f1a2f870f1c328"
    assert np.allclose(source.mean, (0.49140, 0.48216, 0.44653), atol=1e-5)
    assert np.allclose(source.std, (0.24703, 0.24348, 0.26159), atol=1e-5)
    assert source.vocab == CLASSES and source.skipped == ()


REAL = dict(os.environ)  # as it was before the fixture above


def test_images_know_their_files(tmp_path):
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            for i in range(3):
                paint(tmp_path / "set" / split / name / f"{i}.png", 7 * i)
    (tmp_path / "set" / "train" / "cat" / "1.png").write_bytes(b"damaged")
    with pytest.warns(UserWarning, match="left out"):
        source = load_source(tmp_path / "set", cache=tmp_path / "cache")
    assert source.train.files() == ("cat/0.png", "cat/2.png", "dog/0.png", "dog/1.png", "dog/2.png")
    assert source.train.files([4, 0]) == ("dog/2.png", "cat/0.png") and len(source.test.files()) == 6
    assert load_source("digits").train.files() is None
