"""Near-duplicates: copies that were made are found, others are not; the list, its accuracy, the command."""

import json

import cv2
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text
from PIL import Image

from cifar_fast.cli.main import main
from cifar_fast.export.card_file import read_card
from cifar_fast.export.duplicates.detail import mirrored, similarity
from cifar_fast.export.duplicates.find import Found, Pair, find, is_copy, nearest
from cifar_fast.export.duplicates.listing import ListingError, read, with_and_without
from cifar_fast.export.predictions import Predictions
from cifar_fast.reporting.report.copies import around, figure_of_pairs
from cifar_fast.utils.text import printable

CHANGES = {
    "the same": lambda image: image,
    "mirrored": lambda image: image[:, ::-1],
    "brighter": lambda image: (image * 0.7 + 70).astype(np.uint8),
    "grey": lambda image: np.repeat(image.mean(2, keepdims=True), 3, 2).astype(np.uint8),
    "moved": lambda image: np.roll(image, (1, -1), (0, 1)),
    "softer": lambda image: cv2.GaussianBlur(image, (0, 0), 0.7),
}


def textures(n, seed):
    "(n, 32, 32, 3) uint8, no two alike."
    coarse = np.random.default_rng(seed).integers(0, 256, (n, 11, 11, 3)).astype(np.uint8)
    return np.stack([cv2.resize(image, (32, 32), interpolation=cv2.INTER_CUBIC) for image in coarse])


def test_copies_are_found_whatever_was_done_to_them():
    train, others = textures(60, 0), textures(20, 1)
    copies = np.stack([change(train[3 + 7 * i]) for i, change in enumerate(CHANGES.values())])
    found = find(train, np.concatenate([others, copies]))
    assert {pair.test: pair.train for pair in found.pairs} == {20 + i: 3 + 7 * i for i in range(len(CHANGES))}
    kinds = {pair.test - 20: pair.kind for pair in found.pairs}
    assert kinds == {0: "equal", 1: "equal", 2: "near", 3: "near", 4: "near", 5: "near"}
    assert all(not is_copy(pair) for pair in found.missed)
    assert {pair.found_by for pair in found.pairs} == {"detail"} and found.pairs[0].features is None


def test_skies_are_not_alike():
    "Two gradients from blue to white with a small thing at different places: their pixels correlate, they do not."
    sky = np.linspace((60, 120, 220), (240, 240, 250), 32)[:, None].repeat(32, 1)
    one, other = (sky + np.random.default_rng(i).normal(0, 1, sky.shape) for i in (0, 1))
    one[8:12, 4:14] = 30
    other[20:25, 22:25] = (200, 30, 30)
    one, other = one.astype(np.uint8), other.astype(np.uint8)
    assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.8 and similarity(one, other) < 0.6
    assert similarity(one, one[:, ::-1]) == pytest.approx(1)


def test_what_both_searches_name_needs_less():
    pair = Pair(0, 0, "near", "detail", 0.7, None, 20.0)
    assert not is_copy(pair)
    assert is_copy(Pair(**{**vars(pair), "found_by": "both"})) and is_copy(Pair(**{**vars(pair), "detail": 0.86}))
    assert is_copy(Pair(**{**vars(pair), "kind": "equal", "detail": 0.0}))  # e.g. two black images


def test_an_image_of_one_colour_is_alike_to_its_equal_alone():
    white = np.full((32, 32, 3), 255, np.uint8)
    marked = white.copy()
    marked[4:8, 4:8] = 0
    assert similarity(marked, white) == similarity(white, marked) == 0
    train, test = np.stack([*textures(20, 0), white]), np.stack([*textures(4, 1), white, marked])
    seen = np.eye(21, 12, dtype=np.float32)
    for features in (None, (seen, seen[[0, 1, 2, 3, 20, 20]])):  # features take both for the white one
        assert [(pair.test, pair.train, pair.kind) for pair in find(train, test, features).pairs] == [(4, 20, "equal")]


def test_features_name_pairs_of_their_own():
    train, test = textures(30, 0), textures(5, 1)
    maps = np.random.default_rng(0).normal(size=(30, 12)).astype(np.float32)
    seen = mirrored(maps[[4, 9, 2, 1, 0]], 2)  # as of mirror images
    found = find(train, test, (maps, seen))
    by_features = [pair for pair in found.missed if pair.found_by == "features"]
    assert all(pair.train == [4, 9, 2, 1, 0][pair.test] for pair in by_features) and by_features
    assert all(pair.features == pytest.approx(1, abs=1e-5) for pair in by_features)


def test_the_nearest_is_searched_in_blocks(monkeypatch):
    monkeypatch.setattr("cifar_fast.export.duplicates.find.BLOCK", 3)
    rng = np.random.default_rng(0)
    keys, queries = rng.normal(size=(20, 6)), rng.normal(size=(8, 6))
    place, value = nearest(keys, (queries, -queries))
    products = np.abs(queries @ keys.T)
    assert place.tolist() == products.argmax(1).tolist() and value == pytest.approx(products.max(1), rel=1e-5)


def test_the_figure_shows_the_pairs_next_to_each_threshold():
    def pairs(found_by, *details):
        return [Pair(i, i, "near", found_by, detail, None, 5.0) for i, detail in enumerate(details)]

    found = Found(pairs("both", 0.95, 0.61) + pairs("detail", 0.9, 0.86),
                  pairs("features", 0.84, 0.7) + pairs("both", 0.59))
    assert [(heading, [pair.detail for pair in shown]) for heading, shown in around(found)] == [
        ("Found by both searches, listed: correlation of detail from 0.6 up", [0.95, 0.61]),
        ("Found by both searches, not listed: below 0.6", [0.59]),
        ("Found by one search, listed: correlation of detail from 0.85 up", [0.9, 0.86]),
        ("Found by one search, not listed: below 0.85", [0.84, 0.7])]
    texts = [text.get_text() for text in figure_of_pairs(found, textures(3, 0), textures(3, 1)).findobj(Text)]
    assert "0.610" in texts and "0.840 by features" in texts and any("Left: test, right: train" in t for t in texts)


# ---------------------------------------------------------------- the list


def predictions(right, files=None):
    labels = np.zeros(len(right), int)
    predicted = np.where(right, 0, 1)
    return Predictions(labels, predicted, np.eye(2)[predicted], ("a", "b"), "x/test", "test", files=files)


def test_accuracy_with_and_without_by_hand():
    predicted = predictions([True, True, False, True, False], files=tuple("abcde"))
    found = with_and_without(predicted, pd.DataFrame({"test": [0, 1, 2], "test_file": ["a", "b", "c"]}))
    assert (found.n, found.images, found.accuracy, found.accuracy_without) == (3, 5, pytest.approx(2 / 3), 0.5)
    none = with_and_without(predicted, pd.DataFrame({"test": [], "test_file": []}))
    assert none.n == 0 and none.accuracy is None and none.accuracy_without == 0.6
    for wrong in ({"test": [7], "test_file": ["a"]}, {"test": [1], "test_file": ["a"]}):
        with pytest.raises(ListingError, match="other images"):
            with_and_without(predicted, pd.DataFrame(wrong))


def test_a_list_of_another_dataset_is_refused_by_its_labels(tmp_path):
    "Images that were no files have no names to compare."
    predicted = predictions([True, False, True])
    right = pd.DataFrame({"test": [0, 1], "test_file": ["", ""], "test_label": ["a", "a"]})
    right.to_csv(tmp_path / "pairs.csv")
    assert with_and_without(predicted, read(tmp_path / "pairs.csv")).n == 2
    with pytest.raises(ListingError, match="other images"):
        with_and_without(predicted, right.assign(test_label=["ship", "truck"]))


def test_names_are_compared_as_they_are_shown(tmp_path):
    "Predictions hold them with escapes, a table with a quote before what a spreadsheet takes for a formula."
    names = ("-1/1.23\u202fPM.png", "+1/b.png")
    pd.DataFrame({"test": [0, 1], "test_file": ["'" + name for name in names]}).to_csv(tmp_path / "pairs.csv")
    predicted = predictions([True, False], files=tuple(map(printable, names)))
    assert with_and_without(predicted, read(tmp_path / "pairs.csv")).n == 2


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", "test,test_file\nx,y\n", "\xff\x00"])
def test_a_file_that_is_no_list(tmp_path, content):
    path = tmp_path / "pairs.csv"
    path.write_text(content, "latin-1")
    with pytest.raises(ListingError, match="pairs.csv"):
        read(path)


# ---------------------------------------------------------------- the command


@pytest.fixture(scope="module")
def mine(tmp_path_factory, digits):
    "A folder with train and test of two classes, three images of test copied from train, one mirrored, one brighter."
    root = tmp_path_factory.mktemp("mine") / "mine"
    train, test = textures(40, 0), textures(12, 1)
    for i, source in ((2, 5), (3, 20), (7, 33)):
        test[i] = [train[source], train[source][:, ::-1], CHANGES["brighter"](train[source])][i % 3]
    for split, images in (("train", train), ("test", test)):
        for i, image in enumerate(images):
            folder = root / split / "ab"[i % 2]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{i:02}.png")
    return root


@pytest.fixture(scope="module")
def run(mine):
    assert main(["recipe", "sprint", f"data={mine}", "epochs=1", "bs=20", "name=copies", "report=false",
                 f"exports={mine.parent}", "device=cpu"]) == 0
    return mine.parent / "copies"


def test_a_folder_is_searched_by_pixels_alone(mine, tmp_path, capsys):
    assert main(["duplicates", f"data={mine}", "--csv", str(tmp_path / "pairs.csv"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = pd.read_csv(tmp_path / "pairs.csv", keep_default_na=False)
    assert {row["test_file"]: row["train_file"] for row in found["duplicates"]} == dict(
        zip(rows["test_file"], rows["train_file"], strict=True)) == {
            "a/02.png": "b/05.png", "b/03.png": "a/20.png", "b/07.png": "b/33.png"}
    assert (tmp_path / "pairs.png").is_file() and found["runs"] == {}
    assert rows["test_label"].tolist() == ["a", "b", "b"] and rows["train_label"].tolist() == ["b", "a", "b"]


def test_the_figure_replaces_no_picture_of_the_user(mine, tmp_path, capsys):
    (tmp_path / "holiday.png").write_bytes(b"a photograph")
    assert main(["duplicates", f"data={mine}", "--csv", str(tmp_path / "holiday.csv")]) == 2
    assert "would replace" in capsys.readouterr().err and (tmp_path / "holiday.png").read_bytes() == b"a photograph"
    assert not (tmp_path / "holiday.csv").exists()


def test_a_run_is_measured_with_and_without_them(run, capsys):
    assert main(["duplicates", str(run)]) == 0
    told, kept = capsys.readouterr().out, read_card(run).duplicates
    predicted = Predictions.load(run / "predictions.npz")
    listed = np.isin(predicted.files, ["a/02.png", "b/03.png", "b/07.png"])
    assert (kept.n, kept.images) == (3, 12) and f"{kept}" in told and "3 of 12" in told
    assert kept.accuracy == pytest.approx(predicted.correct[listed].mean())
    assert kept.accuracy_without == pytest.approx(predicted.correct[~listed].mean())
    assert (run / "duplicates.csv").is_file() and (run / "duplicates.png").is_file()
    assert f"{kept}" in (run / "README.md").read_text("utf-8")
    assert main(["duplicates", str(run), "--list", str(run / "duplicates.csv"), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["runs"][str(run)]["accuracy_without"] == kept.accuracy_without and len(again["duplicates"]) == 3
    assert main(["report", str(run)]) == 0
    assert f"{kept}" in (run / "report.html").read_text("utf-8")


@pytest.mark.parametrize("words, named", [([], "data="), (["data=digits", "--list", "x.csv"], "--list"),
                                          (["nowhere"], "nowhere"), (["final", "data=digits"], "data=")])
def test_arguments_that_do_not_go_together(words, named, capsys):
    assert main(["duplicates", *words]) == 2
    assert named in capsys.readouterr().err
