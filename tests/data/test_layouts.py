"""What a folder is taken for: splits in any spelling, classes, what the system left there, and what is not clear."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cifar_fast.data.block import split_rows
from cifar_fast.data.errors import DataError
from cifar_fast.data.labelled import scan_labelled
from cifar_fast.data.layout import split_role
from cifar_fast.data.sources import load_source
from cifar_fast.data.table import scan_table
from cifar_fast.data.tree import scan_tree


def fill(root: Path, *folders: str, images: int = 3) -> Path:
    "Images of noise in each folder, no two of them equal."
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for i in range(images):
            rng = np.random.default_rng([i, *map(ord, folder)])
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(root / folder / f"{i}.png")
    return root


def sizes(root: Path) -> dict[str, int]:
    return {split: len(files) for split, files in scan_tree(root).splits.items()}


@pytest.mark.parametrize("name, role", [
    ("Train", "train"), ("TRAINING", "train"), ("train_set", "train"), ("01-train", "train"), ("train2017", "train"),
    ("Validation", "valid"), ("val", "valid"), ("DEV", "valid"), ("Testing", "test"), ("test images", "test"),
    ("ｔｅｓｔ", "test"), ("cat", None), ("trainer", None), ("steam train", None), ("contest", None), ("猫", None),
    ("2017", None), ("", None),
])
def test_names_of_splits(name, role):
    assert split_role(name) == role


@pytest.mark.parametrize("folders, expected", [
    (("Train/a", "Train/b", "Test/a", "Test/b"), {"train": 6, "test": 6}),
    (("training/a", "training/b", "validation/a", "validation/b"), {"train": 6, "valid": 6}),
    (("train/a", "train/b", "Val/a", "Val/b", "testing/a", "testing/b"), {"train": 6, "test": 6, "valid": 6}),
    (("a", "b", "test/a", "test/b"), {"train": 6, "test": 6}),  # the classes to train on lie beside test/
    (("train", "bus", "car"), {"train": 6, "test": 3}),  # vehicles: 20 % of each class, at least one
    (("seg_train/seg_train/a", "seg_train/seg_train/b", "seg_test/seg_test/a", "seg_test/seg_test/b"),
     {"train": 6, "test": 6}),
    (("cats-Train/a", "cats-Train/b", "cats-Val/a", "other"), {"train": 6, "valid": 3}),
    (("steam train", "train station"), {"train": 4, "test": 2}),
    (("train/images/a", "train/images/b"), None),
])
def test_layouts(tmp_path, folders, expected):
    fill(tmp_path, *folders)
    if expected is None:
        with pytest.raises(DataError, match="one class only, 'images'.*images"):
            scan_tree(tmp_path)
    else:
        assert sizes(tmp_path) == expected


def test_a_class_may_be_called_train(tmp_path):
    tree = scan_tree(fill(tmp_path, "train", "bus", "car"))
    assert tree.vocab == ("bus", "car", "train") and tree.seeded


def test_an_empty_folder_that_is_called_like_a_split_is_not_used(tmp_path):
    fill(tmp_path, "a", "b")
    (tmp_path / "test").mkdir()
    tree = scan_tree(tmp_path)
    assert tree.vocab == ("a", "b") and {s: len(files) for s, files in tree.splits.items()} == {"train": 4, "test": 2}
    assert "not used: the folder test/, which holds no image" in tree.notes
    (tmp_path / "train").mkdir()  # what should be in it is missing
    with pytest.raises(DataError, match="train"):
        scan_tree(tmp_path)


def test_what_is_not_used_is_named(tmp_path):
    fill(tmp_path, "train/a", "train/b", "test", "unlabelled")
    fill(tmp_path, "train", images=1)
    notes = " | ".join(scan_tree(tmp_path).notes)
    assert sizes(tmp_path) == {"train": 6}
    assert "test/, which holds 3 images but no class folders" in notes
    assert "unlabelled/" in notes and "1 image beside the class folders" in notes


@pytest.mark.parametrize("folders, words", [
    (("one/cat", "one/dog", "two/cat", "two/dog"), ["one and two", "cat and dog", "train/", "labels.csv"]),
    (("one/cat", "one/dog", "two/cat", "two/dog", "two/owl"), ["one and two", "cat and dog"]),
    (("one/images/cat", "one/images/dog", "two/images/cat", "two/images/dog"), ["one and two", "cat and dog"]),
    (("cat_train", "cat_test", "dog_train", "dog_test"), ["cat_test, cat_train", "images lie directly"]),
    (("cat/train", "cat/test", "dog/train", "dog/test"), ["cat and dog", "train/<class>"]),
    (("train", "test"), ["test and train", "images lie directly"]),
    (("train/a", "val/a", "validation/a"), ["val and validation", "valid split"]),
    (("test/a", "test/b"), ["test", "evaluate"]),
    (("train/a", "train/b", "bus", "car"), ["train/", "bus and car"]),
    (("train/Cat", "train/dog", "test/cat"), ["'cat'", "there is 'Cat'"]),
    (("train/cat_1", "train/dog", "test/Cat 1"), ["'Cat 1'", "there is 'cat_1'"]),
    (("pets/cat", "pets/dog"), ["one class only, 'pets'", "did you mean data=", "/pets?"]),
    (("a",), ["one class only, 'a'"]),
])
def test_what_is_not_clear_is_refused_with_the_reason(tmp_path, folders, words):
    fill(tmp_path, *folders)
    with pytest.raises(DataError) as error:
        scan_tree(tmp_path)
    assert [word for word in words if word not in str(error.value)] == []


def test_one_folder_inside_every_class_is_no_split(tmp_path):
    fill(tmp_path, "train/n01/images", "train/n02/images", "cat/2023")
    assert scan_tree(tmp_path).vocab == ("n01", "n02")
    assert scan_tree(fill(tmp_path / "flat", "cat/2023", "cat/2024", "dog/2024")).vocab == ("cat", "dog")


def test_a_table_beside_the_images_is_pointed_at(tmp_path):
    fill(tmp_path, "images")
    (tmp_path / "labels.tsv").write_text("file\tlabel\n")
    with pytest.raises(DataError, match=r"did you mean the table data=.*labels\.tsv"):
        scan_tree(tmp_path)


def test_what_the_system_leaves_is_passed_over_and_counted(tmp_path):
    fill(tmp_path, "cat", "dog", "__MACOSX/cat", "$RECYCLE.BIN", "cat/@eaDir", ".Trash-1000")
    for name in (".DS_Store", "Thumbs.db", "dog/desktop.ini", "cat/._0.png"):
        (tmp_path / name).write_bytes(b"\0")
    tree = scan_tree(tmp_path)
    assert tree.vocab == ("cat", "dog") and sum(map(len, tree.splits.values())) == 6 and tree.others == 0
    assert "passed over: 8 hidden or system files and folders" in " ".join(tree.notes)


@pytest.mark.parametrize("name", ["bébé", "ångström", "がく"])
def test_names_are_compared_normalised(tmp_path, name):
    for split, form in (("train", "NFC"), ("test", "NFD")):
        fill(tmp_path, f"{split}/{unicodedata.normalize(form, name)}", f"{split}/chat")
    tree = scan_tree(tmp_path)
    assert set(tree.vocab) == {unicodedata.normalize("NFC", name), "chat"}
    assert [sorted({f.label for f in files}) for files in tree.splits.values()] == [[0, 1], [0, 1]]


def test_a_class_with_none_to_test_on_is_said(tmp_path):
    fill(tmp_path, "many", images=10)
    fill(tmp_path, "single", images=1)
    tree = scan_tree(tmp_path)
    assert {split: len(files) for split, files in tree.splits.items()} == {"train": 9, "test": 2}
    assert "the test split has no image of single" in " ".join(tree.notes)
    fill(tmp_path / "own", "train/a", "train/b", "test/a", "valid/b")
    notes = " ".join(scan_tree(tmp_path / "own").notes)
    assert "the test split has no image of b" in notes and "the valid split has no image of a" in notes


def test_equal_images_on_both_sides_are_said(tmp_path):
    fill(tmp_path, "train/a", "train/b", "test/a", "test/b")
    (tmp_path / "test" / "a" / "0.png").write_bytes((tmp_path / "train" / "a" / "1.png").read_bytes())
    (tmp_path / "train" / "b" / "2.png").write_bytes((tmp_path / "train" / "a" / "2.png").read_bytes())
    source = load_source(tmp_path, cache=tmp_path / "cache")
    assert "1 image of test is also trained on: equal pixels (a/0.png)" in source.notes
    assert "2 images to train on are equal to one of another class (a/2.png and b/2.png)" in source.notes
    assert load_source(tmp_path, cache=tmp_path / "cache", on_error="refuse").problems == ()


@pytest.mark.parametrize("name", ["cifar10", "own"])
def test_they_are_said_whatever_the_folder_is_called(tmp_path, name):
    fill(tmp_path / name, "train/a", "train/b", "test/a", "test/b")
    (tmp_path / name / "test" / "a" / "0.png").write_bytes((tmp_path / name / "train" / "a" / "1.png").read_bytes())
    notes = load_source(tmp_path / name, cache=tmp_path / "cache").notes
    assert "1 image of test is also trained on: equal pixels (a/0.png)" in notes


# ---------------------------------------------------------------- validation


def source_of(tmp_path, *sizes: int):
    for label, images in enumerate(sizes):
        fill(tmp_path / "own", f"train/{label}", images=images)
    return load_source(tmp_path / "own", cache=tmp_path / "cache")


def test_a_validation_split_of_the_data_validates(tmp_path):
    fill(tmp_path / "own", "valid/0", "valid/1", "test/0", "test/1", images=2)
    source = source_of(tmp_path, 5, 5)
    assert list(source.splits) == ["train", "test", "valid"]
    for valid in (0, 0.3):
        train, held = split_rows(source, valid, "held_out", 1)
        assert train.tolist() == list(range(10)) and held.tolist() == [14, 15, 16, 17]
    assert split_rows(source, 0, "test", 1)[1].tolist() == [10, 11, 12, 13]
    arrays, places = source.locate(held)
    assert arrays is source.valid and source.labels[held].tolist() == arrays.labels[places].tolist() == [0, 0, 1, 1]
    assert arrays.files(places)[0] == "0/0.png"


@pytest.mark.parametrize("images, valid, held_out", [
    ((50, 2), 0.1, [4, 1]), ((48, 2, 1), 3, [2, 1, 0]), ((20, 20, 1), 0.5, [10, 10, 0]), ((2, 2, 2), 3, [1, 1, 1]),
    ((90, 3, 3), 0.04, [2, 1, 1]), ((6, 2, 2), 0.7, [5, 1, 1]),
])
def test_every_class_of_two_or_more_is_on_both_sides(tmp_path, images, valid, held_out):
    source = source_of(tmp_path, *images)
    for seed in range(3):
        train, held = split_rows(source, valid, "held_out", seed)
        counts = np.bincount(source.train.labels[held], minlength=len(images))
        assert counts.tolist() == held_out and sorted([*train, *held]) == list(range(sum(images)))
    with pytest.raises(DataError, match=f"valid={sum(images)}"):
        split_rows(source, sum(images), "held_out", 0)


def test_a_link_to_a_folder_above_brings_no_images(tmp_path):
    root = fill(tmp_path / "set", "cat", "dog")
    (root / "cat" / "again").symlink_to("..", target_is_directory=True)
    assert sizes(root) == {"train": 4, "test": 2}
    (root / "self").symlink_to(".", target_is_directory=True)
    with pytest.raises(DataError, match="'self' is a link to a folder that it lies in: remove .*self"):
        scan_tree(root)


def test_the_run_and_evaluate_split_numbered_files_alike(tmp_path):
    "Names that begin with numbers of their own come in the order of these."
    for i in range(40):
        path = tmp_path / "ab"[i % 2] / f"{i}_photo.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (i, 0, 0)).save(path)
    tree, listed = scan_tree(tmp_path, 42), scan_labelled(tmp_path, ("a", "b"), seed=42)
    assert [file.name for file in tree.splits["test"]] == [file.name for file in listed.splits["test"]]
    assert tree.splits.keys() == listed.splits.keys() and len(listed.splits["test"]) == 8


def test_class_folders_without_an_image_are_refused(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
    with pytest.raises(DataError, match="it has no image at all, the model knows a and b"):
        scan_labelled(tmp_path, ("a", "b"))


@pytest.mark.parametrize("data", ["digits", "folder"])
def test_a_column_of_what_is_no_table_is_refused(tmp_path, data):
    fill(tmp_path / "folder", "a", "b")
    with pytest.raises(DataError, match="data.label=kind names a column of a label table, and data=.* is none"):
        load_source(str(tmp_path / data) if data == "folder" else data, columns={"label": "kind"})


def test_classes_that_may_be_one_are_said(tmp_path):
    fill(tmp_path / "own", "cup", "Cup ", "key", "new_cup")
    assert [note for note in scan_tree(tmp_path / "own").notes if "'Cup ' and 'cup'" in note]
    lines = [f"own/key/{i}.png,{label}" for i, label in enumerate(("KEY", "key", "lamp"))]
    (tmp_path / "labels.csv").write_text("\n".join(["file,label", *lines, "own/cup/0.png,KEY", "own/cup/1.png,key",
                                                   "own/cup/2.png,lamp"]))
    said = " ".join(scan_table(tmp_path / "labels.csv").notes)
    assert "'KEY' and 'key'; if they are one, give them one name" in said and "lamp" not in said


def test_files_that_are_no_images_are_counted(tmp_path):
    root = fill(tmp_path / "set", "cat", "dog")
    (root / "cat" / "clip.mp4").write_bytes(b"x")
    assert "passed over: 1 file not named like an image" in load_source(root).notes
