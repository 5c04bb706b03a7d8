"""A run on folders and tables of one's own, and `evaluate` on labelled images: what is used, measured and said."""

import contextlib
import io
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cifar_fast.cli.main import main
from cifar_fast.export.card_file import read_card
from cifar_fast.export.predictions import Predictions
from cifar_fast.export.trained import NAME
from cifar_fast.recipe import RecipeError, load_recipe, override
from cifar_fast.runs.data_lines import counts_line
from cifar_fast.training.prepare import prepare

COLOURS = {"cup": (220, 30, 30), "key": (30, 220, 30), "coin": (30, 30, 220)}


def fill(folder, images: int, *names: str, first: int = 0) -> None:
    "Images of one colour a class, with noise."
    for name in names or COLOURS:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(first, first + images):
            noise = np.random.default_rng([i, len(name)]).integers(-25, 26, (20, 20, 3))
            pixels = np.clip(COLOURS.get(name, (99, 99, 99)) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")


def settings(*more: str) -> list[str]:
    return ["epochs=2", "bs=8", "report=no", "device=cpu", *more]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    "(run, its output) of cups, keys and coins with Train/, validation/, TEST/ and a folder that is not used."
    folder = tmp_path_factory.mktemp("things")
    for split, images, first in (("Train", 12, 0), ("validation", 3, 20), ("TEST", 4, 30)):
        fill(folder / "things" / split, images, first=first)
    fill(folder / "things" / "extra", 1, "cup")
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(["recipe", "sprint", f"data={folder / 'things'}", f"exports={folder}", "keep=best",
                     *settings()]) == 0
    return folder / "sprint-things", out.getvalue()


def evaluated(capsys, run, *args: str) -> dict:
    assert main(["evaluate", str(run), "--json", *map(str, args)]) == 0
    return json.loads(capsys.readouterr().out)


def test_each_split_is_used_for_what_its_name_says(trained):
    run, out = trained
    card = read_card(run)
    assert (card.split, card.metrics.n, card.data.train, card.data.test) == ("test", 12, 36, 12)
    assert card.best_epoch and "9 of its own validation split" in out
    assert "3 classes (train/validation/test): coin 12/3/4, cup 12/3/4, key 12/3/4" in out
    assert "not used: the folder extra/" in out
    assert Predictions.load(run / "predictions.npz").on == "test"


def test_all_images_are_measured_whatever_the_layout(trained, tmp_path, capsys):
    run, _ = trained
    fill(tmp_path / "only" / "test", 4)
    fill(tmp_path / "two", 5, "cup", "key")
    fill(tmp_path / "more", 3, "cup", "coin", "KEY", "lamp")
    assert evaluated(capsys, run, f"data={tmp_path / 'only'}")["n"] == 12
    two = evaluated(capsys, run, f"data={tmp_path / 'two'}")
    assert (two["n"], two["missing"], two["splits"]) == (10, ["coin"], {})
    assert two["per_class"]["coin"] is None
    assert two["balanced_accuracy"] == pytest.approx(np.mean([two["per_class"][c] for c in ("cup", "key")]))
    more = evaluated(capsys, run, f"data={tmp_path / 'more'}")
    assert (more["n"], more["unknown"], more["missing"]) == (6, {"KEY": 3, "lamp": 3}, ["key"])
    assert "did you mean key?" in " ".join(more["notes"])
    assert main(["evaluate", str(run), f"data={tmp_path / 'two'}"]) == 0
    out = capsys.readouterr().out
    assert "balanced" not in out  # as many images of both
    fill(tmp_path / "two", 3, "key", first=5)
    assert main(["evaluate", str(run), f"data={tmp_path / 'two'}"]) == 0
    assert capsys.readouterr().out.count("balanced") == 1
    assert "of 10 images" in out and "n = 10, 95 % interval" in out and "no images of coin" in out
    fill(tmp_path / "none", 2, "lamp", "sofa")
    assert main(["evaluate", str(run), f"data={tmp_path / 'none'}"]) == 2
    assert "lamp and sofa" in capsys.readouterr().err


def test_a_single_class_is_said_to_be_one(trained, tmp_path, capsys):
    run, _ = trained
    fill(tmp_path / "one", 4, "cup")
    one = evaluated(capsys, run, f"data={tmp_path / 'one'}")
    assert one["n"] == 4 and one["accuracy"] == one["per_class"]["cup"]
    assert "one class, cup" in " ".join(one["notes"])
    assert main(["evaluate", str(run), f"data={tmp_path / 'one' / 'cup'}"]) == 2  # the folder of a class
    assert f"did you mean data={tmp_path / 'one'}?" in capsys.readouterr().err
    fill(tmp_path / "archive" / "images", 2)
    assert main(["evaluate", str(run), f"data={tmp_path / 'archive'}"]) == 2  # a folder around the classes
    assert f"did you mean data={tmp_path / 'archive' / 'images'}?" in capsys.readouterr().err


def test_its_own_images_are_told_apart(trained, capsys):
    run, _ = trained
    own = evaluated(capsys, run, f"data={run.parent / 'things'}")
    assert own["n"] == 57 and {split: of["n"] for split, of in own["splits"].items()} == {
        "train": 36, "test": 12, "valid": 9}
    assert (own["trained_on"]["images"], own["trained_on"]["others"]) == (36, 21)
    alone = evaluated(capsys, run)
    assert alone["n"] == 12 and alone["trained_on"]["images"] == 0 and alone["notes"] == []
    assert alone["accuracy"] == own["splits"]["test"]["accuracy"] == read_card(run).metrics.accuracy


def test_images_that_were_trained_on_are_known_under_any_name(trained, tmp_path, capsys):
    run, _ = trained
    fill(tmp_path / "again", 15)  # twelve of each class are those of Train
    for path in (tmp_path / "again").rglob("*.png"):
        path.rename(path.with_name(f"photo-{path.name}"))
    again = evaluated(capsys, run, f"data={tmp_path / 'again'}")
    assert (again["n"], again["trained_on"]["images"], again["trained_on"]["others"]) == (45, 36, 9)
    assert main(["evaluate", str(run), f"data={tmp_path / 'again'}"]) == 0
    out = capsys.readouterr().out
    assert "36 of these images were trained on" in out and "without them: " in out and "n = 9" in out
    assert main(["calibrate", str(run), f"data={tmp_path / 'again'}"]) == 2
    assert "trained on 36 of the 45 images" in capsys.readouterr().err and read_card(run).calibration is None
    (run / NAME).rename(tmp_path / NAME)
    assert evaluated(capsys, run, f"data={tmp_path / 'again'}")["trained_on"] is None  # a run of before
    (run / NAME).write_bytes(b"damaged")
    assert main(["evaluate", str(run), f"data={tmp_path / 'again'}"]) == 2
    assert f"{run / NAME} does not list" in capsys.readouterr().err
    (tmp_path / NAME).replace(run / NAME)


def test_a_folder_that_grew_is_not_taken_for_the_one_of_the_run(tmp_path, capsys, monkeypatch):
    fill(tmp_path / "own", 10)
    monkeypatch.chdir(tmp_path)
    assert main(["recipe", "sprint", "data=own", f"exports={tmp_path}", *settings("epochs=1", "valid=0.2")]) == 0
    run = tmp_path / "sprint-own"
    capsys.readouterr()
    assert len(np.load(run / NAME)) == read_card(run).data.train < 24  # without the held-out images
    fill(tmp_path / "own", 10, first=10)
    found = evaluated(capsys, run)
    assert found["n"] == 12 and 0 < found["trained_on"]["images"] < 12
    assert "have changed since the run was trained, or data=own is another folder" in found["notes"][0]
    for command in (["calibrate", str(run)], ["evaluate", str(run), "--corruptions", "--images", "5"]):
        assert main(command) == 2
        assert "restore them" in capsys.readouterr().err
    whole = evaluated(capsys, run, "data=own")
    assert (whole["n"], whole["trained_on"]["images"]) == (60, read_card(run).data.train)
    monkeypatch.chdir("/")
    assert main(["evaluate", str(run)]) == 2
    assert "trained on data=own, as seen from the folder it was started in" in capsys.readouterr().err


def test_weights_of_another_seed_have_seen_the_test_images_of_this_one(tmp_path, capsys):
    fill(tmp_path / "own", 10)
    common = ["sprint", f"data={tmp_path / 'own'}", f"exports={tmp_path}", *settings("epochs=1")]
    assert main(["recipe", *common]) == 0

    def start(*more):
        recipe = override(load_recipe("sprint"), [*common[1:], f"init={tmp_path / 'sprint-own'}", *more])
        return prepare(recipe).start.saw_held_out

    assert not start() and not start("size=64") and start("seed=1") and start("seed=1", "size=64")
    copy = f"data={tmp_path / 'copy'}"
    fill(tmp_path / "copy" / "train", 6, first=20)
    fill(tmp_path / "copy" / "test", 10)
    assert start(copy) and not start(copy, "size=64") and not start(copy, "valid=0.5")  # measured on images of train
    (tmp_path / "copy" / "test").rename(tmp_path / "copy" / "valid")
    assert start(copy)
    fill(tmp_path / "own", 10, first=30)  # the same seed splits otherwise now
    assert start() and start("valid=0.2")
    assert main(["recipe", "sprint", copy, f"exports={tmp_path}", f"init={tmp_path / 'sprint-own'}",
                 *settings("epochs=1")]) == 0
    assert len(np.load(tmp_path / "sprint-copy" / NAME)) == 24 + 18  # with those that its weights had seen


def test_a_table_and_the_predictions_as_csv(trained, tmp_path, capsys):
    run, _ = trained
    fill(tmp_path / "images", 3, "cup", "key", "lamp")
    (tmp_path / "images" / "cup" / "0.png").write_bytes(b"damaged")
    lines = [f"images/{name}/{i}.png;{name}" for name in ("cup", "key", "lamp") for i in range(3)]
    (tmp_path / "list.csv").write_text("\n".join(["where;what", *lines, "images/gone.png;cup"]))
    result = evaluated(capsys, run, f"data={tmp_path / 'list.csv'}", "data.label=what", "--csv", tmp_path / "out.csv")
    assert (result["n"], result["unknown"]) == (5, {"lamp": 3})
    notes = " ".join(result["notes"])
    assert "gone.png" in notes and "1 unreadable image" in notes
    frame = pd.read_csv(tmp_path / "out.csv")
    assert list(frame) == ["file", "label", "prediction", "coin", "cup", "key"]
    assert frame["file"].tolist() == [line.split(";")[0] for line in lines[1:6]]
    assert frame["label"].tolist() == ["cup"] * 2 + ["key"] * 3
    assert np.allclose(frame[["coin", "cup", "key"]].sum(axis=1), 1, atol=1e-5)
    assert (frame["label"] == frame["prediction"]).mean() == result["accuracy"]
    assert main(["evaluate", str(run), "data=list.csv", "split=test"]) == 2
    assert "split=test" in capsys.readouterr().err


def test_a_run_on_a_table(tmp_path, capsys):
    fill(tmp_path / "images", 10, "cup", "key")
    lines = [f"images/{name}/{i}.png,{name}" for name in ("cup", "key") for i in range(10)]
    (tmp_path / "labels.csv").write_text("\n".join(["picture,what", *lines, "images/gone.png,key"]))
    args = ["recipe", "sprint", f"data={tmp_path / 'labels.csv'}", "data.label=what", f"exports={tmp_path}",
            *settings("epochs=1", "valid=0.2")]
    assert main([*args, "on_error=refuse"]) == 2
    assert "gone.png" in capsys.readouterr().err
    assert main(args) == 0
    out = capsys.readouterr().out
    assert "left out: 1 file not found (images/gone.png)" in out
    assert "2 classes (train/held out/test): cup 6/2/2, key 7/1/2" in out or "cup 7/1/2, key 6/2/2" in out
    predicted = Predictions.load(tmp_path / "sprint-labels" / "predictions.npz")
    assert predicted.on == "held-out" and set(predicted.files) <= {line.split(",")[0] for line in lines}


def test_a_validation_split_alone_is_measured_on(tmp_path, capsys):
    fill(tmp_path / "own" / "train", 8)
    fill(tmp_path / "own" / "val", 3, first=10)
    assert main(["recipe", "sprint", f"data={tmp_path / 'own'}", f"exports={tmp_path}", *settings("valid=0.1")]) == 0
    out, card = capsys.readouterr().out, read_card(tmp_path / "sprint-own")
    assert (card.split, card.metrics.n) == ("held-out", 9) and "test was not used" not in out + card.measured_how
    assert "valid=0.1 has no effect" in out
    predicted = Predictions.load(tmp_path / "sprint-own" / "predictions.npz")
    assert predicted.items.tolist() == list(range(24, 33)) and predicted.files[0] == "coin/10.png"
    assert evaluated(capsys, tmp_path / "sprint-own")["accuracy"] == card.metrics.accuracy
    assert main(["report", str(tmp_path / "sprint-own")]) == 0


def test_no_image_to_measure_on_is_said_before_training(tmp_path, capsys):
    fill(tmp_path / "own" / "train", 9, "cup", "key")
    (tmp_path / "own" / "labels.csv").write_text("file,label,split\n" + "".join(
        f"{path.relative_to(tmp_path / 'own')},{path.parent.name},train\n"
        for path in (tmp_path / "own").glob("*/*/*.png")))
    command = ["recipe", "sprint", f"data={tmp_path / 'own' / 'labels.csv'}", "--dry-run"]
    assert main([*command, *settings("valid=0")]) == 0
    assert "there will be no accuracy" in capsys.readouterr().out
    assert main([*command, *settings("valid=4")]) == 0
    assert "there will be no accuracy" not in capsys.readouterr().out


def test_one_image_of_a_class_is_said_before_training(tmp_path, capsys):
    fill(tmp_path / "own" / "train", 9, "cup", "key")
    fill(tmp_path / "own" / "train", 1, "coin")
    assert main(["recipe", "sprint", f"data={tmp_path / 'own'}", "--dry-run", *settings("valid=4")]) == 0
    out = capsys.readouterr().out
    assert "3 classes (train/held out): coin 1/0, cup 7/2, key 7/2" in out
    assert "too few images of coin to hold one out" in out


def test_settings_that_need_validation_wait_for_the_data(tmp_path):
    fill(tmp_path / "own", 6)
    recipe = override(load_recipe("sprint"), [f"data={tmp_path / 'own'}", "keep=best", *settings()])
    with pytest.raises(RecipeError, match="keep=best.*valid=0.1"):
        prepare(recipe)


def test_many_classes_take_one_short_line():
    counts = {"train": np.arange(2, 122), "test": np.full(120, 1)}
    line = counts_line(tuple(f"species_{i:03}" for i in range(120)), counts)
    assert line.startswith("120 classes (train/test): species_000 2/1, ") and "species_119 121/1" in line
    assert "2 to 121" in line and len(line) < 220 and "\n" not in line
