"""Published curves of accuracy, and measured ones beside them."""

from dataclasses import replace

import pandas as pd
import pytest
from rows import CARD

from cifar_fast.cli.main import main
from cifar_fast.recipe import describe, load_recipe
from cifar_fast.reporting import plots
from cifar_fast.reporting.results import ResultsError, draw_published, published_curve, redraw

HISTORY = pd.DataFrame({"epoch": [1, 2], "train_accuracy": [0.5, 0.6], "valid_accuracy": [0.55, 0.65]})


@pytest.mark.parametrize("name, rows, epochs, best", [
    ("netv2", 42, 42, 0.8521), ("net", 50, 50, 0.8702), ("strided", 30, 30, 0.8737), ("mobile", 9, 80, 0.8725)])
def test_published_curves(name, rows, epochs, best):
    record = published_curve(name)
    assert len(record) == rows and record["epoch"].min() == 1 and record["epoch"].max() == epochs
    assert record["valid_accuracy"].max() == pytest.approx(best) and record["train_accuracy"].between(0.2, 0.95).all()
    assert list(published_curve("netv2").columns) == ["epoch", "train_accuracy", "valid_accuracy"]


def test_published_against_measured_in_one_figure():
    fig = plots.published(HISTORY, published_curve("mobile"), "mobile", target=0.85)
    train, valid = fig.axes
    assert train.get_ylabel() == "training accuracy (%)" and valid.get_xlabel() == "epoch"
    published, measured, target = valid.lines
    assert published.get_linestyle() == "--" and published.get_marker() == "o"  # nine rows are points
    assert measured.get_linestyle() == "-" and measured.get_label() == "measured (selected on test)"
    assert list(measured.get_ydata()) == pytest.approx([55, 65])
    assert target.get_color() == "red" and target.get_ydata()[0] == 85
    unvalidated = HISTORY.drop(columns="valid_accuracy")
    two = plots.published({"one": HISTORY, "another": unvalidated}, published_curve("strided"))
    assert [len(ax.lines) for ax in two.axes] == [3, 2]  # without a target no line
    assert two.axes[0].lines[1].get_color() != two.axes[0].lines[2].get_color()


def test_published_png_stands_beside_histories_of_cifar10(tmp_path, capsys):
    card = replace(CARD, name="strided-2", recipe_name="strided", recipe=describe(load_recipe("strided")))
    assert draw_published(tmp_path, replace(card, recipe_name="final"), HISTORY) is None
    assert draw_published(tmp_path, replace(card, recipe_name="../published/strided"), HISTORY) is None
    assert draw_published(tmp_path, replace(card, recipe={**card.recipe, "data": "digits"}), HISTORY) is None
    with pytest.raises(ResultsError, match="recipe netv2"):
        redraw(tmp_path)
    folder = tmp_path / "strided-2"
    folder.mkdir()
    card.write(folder)
    (folder / "history.csv").write_text("epoch\n1\n")
    with pytest.raises(ResultsError, match="strided-2/history.csv is no history"):
        redraw(tmp_path)
    HISTORY.to_csv(folder / "history.csv", index=False)
    assert main(["results", str(tmp_path), "--curves"]) == 0
    assert (folder / "published.png").stat().st_size > 10_000 and "published.png" in capsys.readouterr().out
