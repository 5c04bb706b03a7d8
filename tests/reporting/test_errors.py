"""Which images were predicted wrongly: by name in the report, as copies in a folder."""

import csv
import shutil

import numpy as np
import pytest
from PIL import Image

from cifar_fast.export.card import Card
from cifar_fast.export.card_parts import Normalization
from cifar_fast.export.predictions import Predictions
from cifar_fast.reporting.report import page
from cifar_fast.reporting.report.errors import ErrorsFolderError, error_rows, lay_out

VOCAB = ("cat", "a/b: <i>dog</i>", "=owl")
CARD = Card(arch="cifar_sprint", name="photos", vocab=list(VOCAB),
            normalize=Normalization(mean=[0.5] * 3, std=[0.25] * 3))
PROBABILITIES = np.array([[.8, .1, .1], [.6, .2, .2], [.1, .2, .7], [.3, .5, .2], [.05, .9, .05]], np.float32)
LABELS = np.array([0, 1, 0, 1, 2])  # wrong: 4 with 90 %, 2 with 70 %, 1 with 60 %
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)


def predictions(**kw):
    return Predictions(LABELS, PROBABILITIES.argmax(1), PROBABILITIES, VOCAB, "x/test", "test", **kw)


@pytest.fixture
def photos(tmp_path):
    "Five files, the last of them one that browsers do not show."
    paths = [tmp_path / f"p{i}.{'tif' if i == 4 else 'jpg'}" for i in range(5)]
    for path, image in zip(paths, IMAGES, strict=True):
        Image.fromarray(image).resize((90, 60)).save(path)
    return tuple(map(str, paths))


def test_the_most_confident_come_first_and_name_their_files():
    files = tuple(f"cat/{i}.png" for i in range(5))
    rows = error_rows(predictions(files=files))
    assert rows[1:] == [["1", "=owl", VOCAB[1], "90.0%", "cat/4.png"], ["2", "cat", "=owl", "70.0%", "cat/2.png"],
                        ["3", VOCAB[1], "cat", "60.0%", "cat/1.png"]]
    assert [row[-1] for row in error_rows(predictions())[1:]] == ["row 4 of test", "row 2 of test", "row 1 of test"]


def test_the_report_names_them(tmp_path):
    text = page(CARD, tmp_path, None, None, errors=error_rows(predictions(files=tuple("abcde"))))
    assert "<i>" not in text and text.index("&lt;i&gt;dog") and "report photos --errors DIR" in text
    assert "--errors" not in page(CARD, tmp_path, None, None, errors=error_rows(predictions())[:1])


def test_a_folder_has_the_originals_and_a_table(tmp_path, photos):
    target = tmp_path / "wrong"
    result = lay_out(target, CARD, predictions(files=tuple("abcde")), IMAGES, photos)
    assert (result.errors, result.copied, result.images) == (3, 3, 5)
    with open(target / "errors.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["image"], r["label"], r["confidence"], r["file"]) for r in rows] == [
        ("e", "'=owl", "0.9", photos[4]), ("c", "cat", "0.7", photos[2]), ("b", VOCAB[1], "0.6", photos[1])]
    assert [r["copy"] for r in rows] == ["images/0001 =owl → a_b_ _i_dog__i_.tif", "images/0002 cat → =owl.jpg",
                                        "images/0003 a_b_ _i_dog__i_ → cat.jpg"]
    for row in rows:
        assert (target / row["copy"]).read_bytes() == open(row["file"], "rb").read()
    with Image.open(target / "images/0001 =owl → a_b_ _i_dog__i_.tif.preview.png") as shown:
        assert shown.size == (90, 60)
    text = (target / "index.html").read_text("utf-8")
    assert text.startswith("<!doctype html>") and text.count("<!doctype") == 1
    assert "<i>" not in text and text.count("<img") == 3 and "3 errors in 5 test images" in text


def test_images_that_were_no_files_are_saved(tmp_path):
    lay_out(tmp_path / "wrong", CARD, predictions(), IMAGES, None)
    with Image.open(tmp_path / "wrong/images/0002 cat → =owl.png") as image:
        assert (np.asarray(image) == IMAGES[2]).all()


def test_only_its_own_folder_is_replaced(tmp_path, photos):
    target = tmp_path / "wrong"
    target.mkdir()
    for _ in range(2):  # an empty one, and its own
        lay_out(target, CARD, predictions(), IMAGES, photos)
    for name in ("notes.txt", "images/mine.jpg"):
        (target / name).write_text("mine")
        with pytest.raises(ErrorsFolderError, match=name.removeprefix("images/")):
            lay_out(target, CARD, predictions(), IMAGES, photos)
        assert (target / name).read_text() == "mine" and (target / "index.html").is_file()
        (target / name).unlink()
    (target / "errors.csv").unlink()
    with pytest.raises(ErrorsFolderError):
        lay_out(target, CARD, predictions(), IMAGES, photos)
    shutil.rmtree(target)
    target.write_text("a file")
    with pytest.raises(ErrorsFolderError):
        lay_out(target, CARD, predictions(), IMAGES, photos)
    assert target.read_text() == "a file"


def test_without_errors_nothing_is_written(tmp_path):
    right = Predictions(LABELS, LABELS, np.eye(3, dtype=np.float32)[LABELS], VOCAB, "x/test", "test")
    assert lay_out(tmp_path / "wrong", CARD, right, IMAGES, None).errors == 0 and not (tmp_path / "wrong").exists()
