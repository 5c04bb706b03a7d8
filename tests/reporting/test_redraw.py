"""The images of the runs that the project ships, again from what it ships of them."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from cifar_fast.cli.main import main
from cifar_fast.data import sources
from cifar_fast.export.card_file import read_card
from cifar_fast.export.predictions import NAME, Predictions
from cifar_fast.recipe import recipes_dir
from cifar_fast.reporting import plots
from cifar_fast.reporting.report import redraw
from cifar_fast.reporting.report.build import measured

EXPORTS = recipes_dir().parent / "exports"
DRAWN = ["history.png", "confusion.png", "layers.png", "classes.png", "calibration.png", "corruptions.png"]


@pytest.fixture
def exports(tmp_path, monkeypatch):
    "exports/ with what a checkout has of final but its weights and images; no dataset can be opened."
    def opened(*args, **kw):
        raise AssertionError("a dataset was opened")

    monkeypatch.setattr(sources, "cached", opened)
    folder = tmp_path / "exports"
    (folder / "final").mkdir(parents=True)
    for name in ("card.json", "history.csv", NAME):
        shutil.copy(EXPORTS / "final" / name, folder / "final" / name)
    return folder


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.png")}


def test_one_command_redraws_everything_and_twice_gives_the_same_bytes(exports, capsys):
    shutil.copy(EXPORTS / "results.csv", exports)
    (exports / "final" / "mistakes.png").write_bytes(b"drawn where the images were")
    assert main(["figures", str(exports)]) == 0
    out, err = capsys.readouterr()
    assert ", ".join(DRAWN) in out and "mistakes.png (shows images" in out and "drew compare.png" in out and not err
    first = contents(exports)
    assert set(first) == {"compare.png", "sizes.png", "final/mistakes.png", *(f"final/{name}" for name in DRAWN)}
    for name in DRAWN:
        assert Image.open(exports / "final" / name).size[0] > 300
    assert first.pop("final/mistakes.png") == b"drawn where the images were"
    for name in first:
        (exports / name).unlink()
    assert main(["figures", str(exports)]) == 0
    (exports / "final" / "mistakes.png").unlink()
    assert contents(exports) == first


def test_a_reproduction_is_drawn_beside_its_authors_record(exports):
    card = read_card(exports / "final")
    replace(card, recipe_name="netv2", recipe={**card.recipe, "validate_on": "test"}).write(exports / "final")
    assert exports / "final" / "published.png" in redraw(exports / "final")[0]


def test_a_run_of_which_little_is_there_is_drawn_as_far_as_it_goes(exports, capsys):
    for name in ("history.csv", NAME):
        (exports / "final" / name).unlink()
    assert main(["figures", str(exports)]) == 0
    out = capsys.readouterr().out
    assert "drew confusion.png, layers.png" in out and f"calibration.png (no {NAME})" in out and "no history" in out


@pytest.mark.parametrize("odd", [None, {"split": 5}, {"metrics": 5}, {"name": []}, {"date": {}}, {"audit": "none"}])
def test_a_broken_run_is_named_and_the_others_are_drawn(exports, capsys, odd):
    card = json.loads((exports / "final" / "card.json").read_text())
    shutil.copytree(exports / "final", exports / "broken")
    (exports / "broken" / "card.json").write_text(json.dumps(card | odd) if odd else "{")
    if odd:
        assert main(["report", str(exports / "broken")]) == 2
        assert f"broken/card.json: {next(iter(odd))}: " in capsys.readouterr().err
    assert main(["figures", str(exports)]) == 1
    out, err = capsys.readouterr()
    assert "broken/card.json" in err and "final: drew" in out


def test_without_a_run_the_next_step_is_told(tmp_path, capsys):
    assert main(["figures", str(tmp_path)]) == 2
    assert "python -m cifar_fast recipe final" in capsys.readouterr().err


def test_a_near_tie_counts_as_it_was_predicted(tmp_path):
    "Kept as float16 both probabilities are one: the class must not change with it."
    probs = np.array([[0.5, 0.50001], [0.50001, 0.5]], np.float32)
    Predictions(np.array([1, 0]), probs.argmax(1), probs, ("a", "b"), "x/test", "test").save(tmp_path / NAME)
    said = Predictions.load(tmp_path / NAME)
    assert (said.probabilities[0] == said.probabilities[0, 0]).all()
    assert measured(said)["confusion"] == [[1, 0], [0, 1]] and measured(said)["accuracy"] == 1


def test_the_image_is_the_one_that_the_run_left(exports):
    "Where the very matplotlib that drew the committed one is here."
    redraw(exports / "final")
    committed = EXPORTS / "final" / "history.png"
    with Image.open(committed) as image:
        if image.info.get("Software") != f"matplotlib {plots.matplotlib.__version__}":
            pytest.skip("another matplotlib drew it")
    assert (exports / "final" / "history.png").read_bytes() == committed.read_bytes()
