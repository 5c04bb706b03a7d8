"""Corrupted images: each kind at each severity, its draws, what it damages, and a run measured on them."""

import json
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image

from cifar_fast.cli.main import main
from cifar_fast.export.card_checks import Corruptions
from cifar_fast.export.card_file import read_card
from cifar_fast.export.card_format import ExportError
from cifar_fast.export.corruptions import CORRUPTIONS, QUALITIES, SEVERITIES, corrupt
from cifar_fast.export.corruptions.blur import disk
from cifar_fast.export.corruptions.digital import compressed
from cifar_fast.export.corruptions.measure import chosen, measure
from cifar_fast.export.corruptions.shared import line
from cifar_fast.reporting.report.corrupted import corruption_rows

FIFTEEN = ["gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur",
           "snow", "frost", "fog", "brightness", "contrast", "elastic", "pixelate", "jpeg"]


@pytest.fixture(scope="module")
def images():
    "(24, 32, 32, 3) uint8 with edges, gradients and colours, none near black or white as a whole."
    noise = np.random.default_rng(0).normal(size=(24, 32, 32, 3)).astype(np.float32)
    smooth = np.stack([cv2.GaussianBlur(image, (0, 0), 1.6) for image in noise])  # at no grid that a scaling could meet
    return np.clip(128 + 40 * smooth / smooth.std(), 20, 235).astype(np.uint8)


def test_all_fifteen_are_there():
    assert list(CORRUPTIONS) == FIFTEEN and SEVERITIES == (1, 2, 3, 4, 5) and QUALITIES[0] == 90 and len(QUALITIES) == 9


@pytest.mark.parametrize("name", FIFTEEN)
def test_severity_grows_the_damage(images, name):
    before, damage = images.copy(), []
    for severity in SEVERITIES:
        changed = np.stack([corrupt(image, name, severity, seed=3, row=i) for i, image in enumerate(images)])
        assert changed.dtype == np.uint8 and changed.shape == images.shape
        damage.append(np.abs(changed.astype(float) - images).mean())
    assert damage == sorted(damage) and damage[0] > 0.3 and damage[-1] > 1.2 * damage[0]
    assert (images == before).all()  # a copy is changed


@pytest.mark.parametrize("name", FIFTEEN)
def test_images_may_be_as_small_as_a_recipe_takes(images, name):
    for side in (8, 9, 16):
        small = np.ascontiguousarray(images[0][:side, :side])
        assert corrupt(small, name, 5, seed=0, row=0).shape == small.shape


@pytest.mark.parametrize("name", FIFTEEN)
def test_draws_follow_from_seed_and_row(images, name):
    image = images[0]
    again = [corrupt(image, name, 3, seed=1, row=7) for _ in range(2)]
    assert (again[0] == again[1]).all()
    drawn = name not in ("defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg")
    for other in (corrupt(image, name, 3, seed=2, row=7), corrupt(image, name, 3, seed=1, row=8)):
        assert (other != again[0]).any() == drawn


@pytest.mark.parametrize("name", FIFTEEN)
def test_lengths_grow_with_the_image(images, name):
    large = np.asarray(Image.fromarray(images[0]).resize((96, 96), Image.Resampling.BICUBIC))
    changed = corrupt(large, name, 5)
    assert changed.shape == (96, 96, 3) and changed.dtype == np.uint8 and (changed != large).any()


@pytest.mark.parametrize("grey", [0, 255])
def test_black_and_white_images_stay_images(grey):
    image = np.full((32, 32, 3), grey, np.uint8)
    assert all(corrupt(image, name, 5).shape == image.shape for name in CORRUPTIONS)


def test_values_by_hand():
    image = np.full((32, 32, 3), (40, 80, 120), np.uint8)
    assert (corrupt(image, "contrast", 5) == image).all()  # its mean is itself
    assert corrupt(image, "brightness", 5)[0, 0].tolist() == [66, 131, 197]  # 120/255 + 0.3, in the same proportions
    hit = (corrupt(np.full((100, 100, 3), 99, np.uint8), "impulse_noise", 5) != 99).mean()
    assert hit == pytest.approx(0.07, abs=0.005)
    noise = corrupt(np.full((100, 100, 3), 128, np.uint8), "gaussian_noise", 5).astype(float)
    assert noise.std() == pytest.approx(25.5, rel=0.05)
    shot = corrupt(np.full((100, 100, 3), 102, np.uint8), "shot_noise", 5).astype(float)
    assert shot.mean() == pytest.approx(102, rel=0.01)
    assert shot.std() == pytest.approx((0.4 / 50) ** 0.5 * 255, rel=0.05)  # that of 20 photons of 50


def test_kernels_sum_to_one_and_point_where_they_should():
    assert disk(1.5, 0.1).sum() == pytest.approx(1) and disk(0.3, 0.4).argmax() == disk(0.3, 0.4).size // 2
    right, down = line(4, 2, 0), line(4, 2, 90)
    assert right.sum() == pytest.approx(1) and right[4, 4:].sum() == pytest.approx(1)
    assert down == pytest.approx(right.T)


def test_jpeg_keeps_red_and_blue_apart():
    image = np.zeros((32, 32, 3), np.uint8)
    image[..., 0] = 200
    assert np.abs(compressed(image, 90).astype(int) - image).max() < 10


@pytest.mark.parametrize("severity", [0, 6, 2.5])
def test_a_severity_that_there_is_not(images, severity):
    with pytest.raises(ValueError, match=str(severity)):
        corrupt(images[0], "fog", severity)


def test_a_choice_is_stratified_seeded_and_in_order():
    labels = np.repeat([0, 1, 2, -1], [400, 200, 100, 50])
    rows = np.flatnonzero(labels >= 0)
    some = chosen(labels, rows, 70, 5)
    assert np.bincount(labels[some]).tolist() == [40, 20, 10] and (np.diff(some) > 0).all()
    assert (some == chosen(labels, rows, 70, 5)).all() and (some != chosen(labels, rows, 70, 6)).any()
    assert (chosen(labels, rows, None, 5) == rows).all() and (chosen(labels, rows, 10_000, 5) == rows).all()


class Brightest:
    "Predicts class 1 where an image is brighter than 140 on average."

    def predict(self, images):
        bright = images.reshape(len(images), -1).mean(1) > 140
        return np.stack([~bright, bright], 1).astype(float)


def test_the_mean_is_that_of_the_means():
    images = np.full((4, 32, 32, 3), 100, np.uint8)
    found = measure(Brightest(), images, np.array([0, 0, 0, 1]), np.arange(4))
    assert found.clean == 0.75 and found.n == 4
    assert found.severities["brightness"] == [0.75, 0.75, 0.75, 0.25, 0.25]  # 100 + 0.15 · 255 is below, 0.2 above
    assert found.means["brightness"] == pytest.approx(0.55) and found.jpeg["10"] == 0.75
    assert found.mean == pytest.approx(np.mean([np.mean(values) for values in found.severities.values()]))
    rows = corruption_rows(found)
    assert rows[0] == ["corruption", "1", "2", "3", "4", "5", "mean"] and len(rows) == 17
    assert rows[-1][-1] == f"{found.mean:.1%}" and rows[11][0] == "brightness" and rows[11][-1] == "55.0%"


# ---------------------------------------------------------------- a run


@pytest.fixture(scope="module")
def run(tmp_path_factory, digits):
    exports = tmp_path_factory.mktemp("corrupted")
    assert main(["recipe", "sprint", "data=digits", "epochs=2", "bs=64", "name=held", "report=false",
                 f"exports={exports}", "device=cpu"]) == 0
    return exports / "held"


def test_a_run_keeps_what_was_measured_and_shows_it(run, capsys):
    assert main(["evaluate", str(run), "--corruptions", "--images", "40", "--json"]) == 0
    found, card = json.loads(capsys.readouterr().out), read_card(run)
    assert found["n"] == 40 and list(found["severities"]) == FIFTEEN and len(found["jpeg"]) == 9
    assert found["mean"] == pytest.approx(card.corruptions.mean) and card.corruptions.seed == 0
    assert found["mean"] < found["clean"]
    assert (run / "corruptions.png").is_file() and (run / "corrupted.png").is_file()
    assert main(["report", str(run)]) == 0
    shown = f"{card.corruptions.mean:.2%} mean accuracy over 15 corruptions"
    assert shown in (run / "report.html").read_text("utf-8") and shown in (run / "README.md").read_text("utf-8")
    capsys.readouterr()
    assert main(["evaluate", str(run), "--corruptions", "--images", "40", "--seed", "9"]) == 0
    again = read_card(run).corruptions
    assert f"{again.mean:.1%}" in capsys.readouterr().out and again.seed == 9 != card.corruptions.severities
    assert again.severities["fog"] != card.corruptions.severities["fog"]


def test_images_of_ones_own_are_measured_and_not_kept(run, digits, tmp_path, capsys):
    before = (run / "card.json").read_bytes()
    for i in range(30):
        folder = tmp_path / "mine" / digits.vocab[digits.test.labels[i]]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.array(digits.test.images[i])).save(folder / f"{i}.png")
    assert main(["evaluate", str(run), f"data={tmp_path / 'mine'}", "--corruptions", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["n"] == 30 and (run / "card.json").read_bytes() == before


def test_images_that_are_not_measured_are_named(run, digits, tmp_path, capsys):
    for i, name in enumerate((*digits.vocab[:2], "axolotl")):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for j in range(3):
            Image.fromarray(np.array(digits.test.images[3 * i + j])).save(tmp_path / "mine" / name / f"{j}.png")
    (tmp_path / "mine" / digits.vocab[0] / "2.png").write_bytes(b"no image")
    capsys.readouterr()
    assert main(["evaluate", str(run), f"data={tmp_path / 'mine'}", "--corruptions"]) == 0
    err = capsys.readouterr().err
    assert "left out: 1 unreadable image" in err and "axolotl" in err


def test_another_copy_of_the_runs_dataset_is_measured_and_that_is_said(run, tmp_path, capsys):
    "Of CIFAR-10 as a download, for example, where the run had a folder of JPEG files."
    other = tmp_path / "held"
    shutil.copytree(run, other)
    card = read_card(other)
    replace(card, data=replace(card.data, fingerprint="0" * 64)).write(other)
    capsys.readouterr()
    for command in (["evaluate", str(other), "--corruptions", "--images", "20"], ["evaluate", str(other)],
                    ["report", str(other)]):
        assert main(command) == 0
        out, err = capsys.readouterr()
        assert "digits is another copy here than the run was trained on" in out + err, command
    (other / "card.json").write_text((other / "card.json").read_text().replace('"test": 359', '"test": 358'))
    assert main(["evaluate", str(other), "--corruptions", "--images", "20"]) == 2
    assert "have changed" in capsys.readouterr().err


def test_a_file_of_the_run_is_measured_and_not_kept(run, capsys):
    before = {name: (run / name).read_bytes() for name in ("card.json", "corruptions.png", "README.md")}
    capsys.readouterr()
    assert main(["evaluate", str(run / "model.onnx"), "--corruptions", "--images", "20"]) == 0
    assert "not kept" in capsys.readouterr().out
    assert {name: (run / name).read_bytes() for name in before} == before


def test_of_the_runs_own_folder_only_the_test_part_is_measured(digits, tmp_path, capsys):
    for i in range(40):
        folder = tmp_path / "own" / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.array(digits.test.images[i])).save(folder / f"{i}.png")
    own, exports = f"data={tmp_path / 'own'}", tmp_path / "exports"
    assert main(["recipe", "sprint", own, "epochs=1", "bs=8", "name=own", "report=false", "device=cpu",
                 f"exports={exports}"]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(exports / "own"), own, "--corruptions", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["n"] == read_card(exports / "own").metrics.n == 8
    assert found["clean"] == pytest.approx(read_card(exports / "own").metrics.accuracy)


@pytest.mark.parametrize("options", [["--corruptions", "--images", "0"], ["--images", "5"],
                                     ["--corruptions", "--seed", "-1"],
                                     ["--corruptions", "--csv", "x.csv"]])
def test_options_that_cannot_be(run, options, capsys):
    before = (run / "card.json").read_bytes()
    assert main(["evaluate", str(run), *options]) == 2
    assert (run / "card.json").read_bytes() == before
    assert options[-2] in capsys.readouterr().err


def test_a_card_holds_only_accuracies(run):
    card = read_card(run)
    for wrong in ({"fog": [0.5] * 4}, {"fog": [0.5] * 4 + [1.5]}, {}):
        with pytest.raises(ExportError, match="corruptions.severities"):
            type(card).from_dict({**card.to_dict(), "corruptions": {"n": 1, "seed": 0, "clean": 1.0,
                                                                    "severities": wrong}})
    assert Corruptions(n=1, seed=0, clean=1.0, severities={"fog": [1, 1, 1, 1, 0.5]}).mean == 0.9
