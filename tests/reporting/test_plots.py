"""Figures: names as they are written in any script, many classes, lines only where they mean something."""

import warnings

import numpy as np
import pandas as pd
import pytest
from fastcore.xml import to_xml
from matplotlib.font_manager import findfont

from cifar_fast.reporting import plots
from cifar_fast.reporting.report import figures
from cifar_fast.reporting.report.page import cell
from cifar_fast.reporting.report.page import figures as sections
from cifar_fast.utils import fonts
from cifar_fast.utils.terminal import accuracy_curves


@pytest.fixture
def no_more_fonts(monkeypatch):
    "Only the font that comes with matplotlib."
    monkeypatch.setattr(fonts, "installed", lambda: [(fonts.DEFAULT, findfont(fonts.DEFAULT))])
    monkeypatch.setattr(fonts, "explained", set())


def labels(fig):
    return [text.get_text() for text in fig.axes[0].get_yticklabels()]


def drawn(fig, path):
    "The figure, once it is written; a glyph that no font has would be a warning."
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plots.save(fig, path)
    assert path.stat().st_size > 1000
    return fig


DOLLARS = ["$5_$10", "$10_$20", r"\$ $a^{", r"$\frac{"]


def test_dollars_are_no_mathematics(tmp_path):
    fig = drawn(plots.confusion(np.eye(4, dtype=int), DOLLARS, "$a$ and $b$"), tmp_path / "c.png")
    assert labels(fig) == DOLLARS
    assert not any(text.get_parse_math() for text in (fig._suptitle, *fig.axes[0].get_yticklabels()))
    drawn(figures.classes(dict.fromkeys(DOLLARS, 0.5), "$x_"), tmp_path / "b.png")
    drawn(plots.image_grid([("$h$ $", [np.zeros((4, 4, 3), np.uint8)], ["$5_$10 $"])]), tmp_path / "g.png")
    drawn(figures.layers([["layer", "op", "out", "p", "m", "r", "j"], ["$a_$", *"abcdef"]], "$t_$"), tmp_path / "l.png")
    frame = pd.DataFrame({"epoch": [1, 2], "train_loss": [2, 1], "train_accuracy": [0.1, 0.2]})
    drawn(plots.history(frame, "$_$"), tmp_path / "h.png")


def test_a_users_own_figures_keep_their_mathematics(tmp_path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    drawn(plots.confusion(np.eye(2, dtype=int), ["$a$", "b"], "t"), tmp_path / "c.png")
    assert dict(matplotlib.rcParams) == before


def test_names_that_no_font_has_are_numbers_and_one_line_says_so(tmp_path, capsys, no_more_fonts):
    names = ["苹果", "cat", "हिन्दी", "عربي", "\U0001f34e"]
    fig = drawn(plots.confusion(np.eye(5, dtype=int), names, "run 香蕉"), tmp_path / "c.png")
    assert labels(fig) == ["class 0", "cat", "class 2", "عربي", "class 4"]  # matplotlib's own font has Arabic
    assert fig._suptitle.get_text() == "run ??: % of each true class"
    drawn(figures.classes(dict.fromkeys(names, 0.5), "t"), tmp_path / "b.png")
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1 and "苹" in shown.err and "class 0" in shown.err


def test_a_quiet_command_does_not_say_it(tmp_path, capsys, no_more_fonts, monkeypatch):
    monkeypatch.setattr("cifar_fast.utils.log._level", -1)
    drawn(plots.confusion(np.eye(2, dtype=int), ["苹果", "香蕉"], "t"), tmp_path / "c.png")
    assert capsys.readouterr() == ("", "")


def test_a_font_that_has_the_characters_is_found(monkeypatch, tmp_path):
    "STIX comes with matplotlib and stands for any font that a user has installed."
    stix = findfont("STIXGeneral")
    name = "".join(sorted(fonts.characters(stix) - fonts.characters(findfont(fonts.DEFAULT)))[:3])
    monkeypatch.setattr(fonts, "installed", lambda: [("STIXGeneral", stix)])
    fig = drawn(plots.confusion(np.eye(2, dtype=int), [name, "b"], "t"), tmp_path / "c.png")
    assert labels(fig) == [name, "b"]
    assert fig.axes[0].get_yticklabels()[0].get_fontfamily() == [fonts.DEFAULT, "STIXGeneral"]
    assert ("STIXGeneral", stix) in fonts.installed() and all(fonts.BOXES not in f for f, _ in fonts.installed())


def test_a_damaged_font_is_passed_over(tmp_path):
    (tmp_path / "bad.ttf").write_bytes(b"no font")
    assert fonts.characters(str(tmp_path / "bad.ttf")) == fonts.characters(str(tmp_path / "gone.ttf")) == frozenset()


def test_control_characters_are_shown():
    assert fonts.figure_names(["a\nb", "\x1b[31m"], 20) == ["a\\nb", "\\x1b[31m"]


def extents(fig, labels):
    fig.draw_without_rendering()
    return [label.get_window_extent() for label in labels if label.get_text()]


@pytest.mark.parametrize("count", [2, 10, 21, 120, 400])
def test_class_names_of_a_confusion_matrix_do_not_overlap(count):
    fig = plots.confusion(np.eye(count, dtype=int), [f"species_{i:03}_with_a_long_name" for i in range(count)], "t")
    boxes = extents(fig, fig.axes[0].get_yticklabels())
    assert len(boxes) == -(-count // -(-count // plots.MOST_TICKS))
    assert all(upper.y0 >= lower.y1 - 1 for upper, lower in zip(boxes, boxes[1:], strict=False))
    if count > plots.NUMBERED:
        boxes = extents(fig, fig.axes[0].get_xticklabels())
        assert all(left.x1 <= right.x0 + 1 for left, right in zip(boxes, boxes[1:], strict=False))
    whole = fig.bbox
    assert all(whole.x0 <= box.x0 and box.x1 <= whole.x1 for box in boxes)


def test_long_titles_and_names_stay_inside(tmp_path):
    per_class = {f"species_{i:03}_with_a_very_long_name_of_a_beetle": i / 100 for i in range(100)}
    fig = drawn(figures.classes(per_class, "a-run-with-a-long-name-of-its-own, test"), tmp_path / "c.png")
    assert "the 40 worst of 100 classes" in fig._suptitle.get_text().replace("\n", " ")
    title, = extents(fig, [fig._suptitle])
    assert fig.bbox.x0 <= title.x0 and title.x1 <= fig.bbox.x1
    assert len(set(labels(fig))) == 40 and max(map(len, labels(fig))) <= 32


def test_a_target_is_drawn_only_where_there_is_one():
    frame = pd.DataFrame({"epoch": [1, 2], "train_loss": [2, 1], "train_accuracy": [0.1, 0.2]})
    assert len(plots.history(frame).axes[1].lines) == 1
    line = plots.history(frame, target=0.925).axes[1].lines[-1]
    assert line.get_ydata()[0] == pytest.approx(92.5) and line.get_label() == "target 92.5 %"
    assert "target" not in accuracy_curves(frame) and "- target 92.5%" in accuracy_curves(frame, 0.925)


def test_log_axes_are_written_out(tmp_path):
    search = {"lr": [1e-6, 1e-3, 1], "loss": [2, 1, 5], "suggestions": {"valley": {"lr": 1e-3, "loss": 1}},
              "recipe": {"lr": 0.05}}
    fig = drawn(plots.lr_find(search), tmp_path / "lr.png")
    ticks = [text.get_text() for text in fig.axes[0].get_xticklabels()]
    assert "0.001" in ticks and "0.000001" in ticks and not any("$" in tick or "e" in tick for tick in ticks)


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_few_epochs_are_whole_numbers(tmp_path, epochs):
    frame = pd.DataFrame({"epoch": range(1, epochs + 1), "train_loss": 1.0, "train_accuracy": 0.5})
    fig = drawn(plots.history(frame), tmp_path / "h.png")
    for ax in fig.axes:
        low, high = ax.get_xlim()
        assert [t for t in ax.get_xticks() if low <= t <= high] == list(range(1, epochs + 1))


def test_a_page_names_the_classes_that_figures_number(tmp_path, no_more_fonts):
    (tmp_path / "classes.png").write_bytes(b"")
    (_, parts), = sections(tmp_path, None, fonts.numbered_in_figures(["b", "苹果"]))
    assert "苹果" in to_xml(parts[-1]) and "class 1" in to_xml(parts[-1]) and "class 0" not in to_xml(parts[-1])
    assert cell("train_accuracy", 0.91234) == "91.23%" and cell("lr", 0.05) == "0.05" and cell("epoch", 3.0) == "3"


def triangle(cycles, up=4, top=0.01):
    "(learning rate, momentum) of each step of a triangular cycle of 2·`up` steps; the momentum goes the other way."
    heights = [min(i, 2 * up - i) / up for i in range(2 * up)] * cycles
    return [(top * h, 0.9 - 0.1 * h) for h in heights]


def test_a_learning_rate_that_cycles_a_thousand_times_is_drawn_by_its_first_cycles_and_its_range(tmp_path):
    fig = drawn(plots.learning_rate(triangle(1000)), tmp_path / "learning_rate.png")
    first, whole, momentum, _ = fig.axes
    assert len(first.lines[0].get_ydata()) == 4 * 17  # a turn every four steps, the first at step 4
    assert "the first 68 of 8,000" in first.get_xlabel() and "momentum" in momentum.get_ylabel()
    band = whole.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == (0, 0.01) and "range" in whole.get_ylabel()


def test_a_momentum_that_stays_has_no_panel(tmp_path):
    fig = drawn(plots.learning_rate([(i / 9999, 0.9) for i in range(10_000)], "mine"), tmp_path / "learning_rate.png")
    assert len(fig.axes) == 1 and fig._suptitle.get_text() == "mine"
    assert "5,000" in [text.get_text() for text in fig.axes[0].get_xticklabels()]


def test_a_learning_rate_of_a_few_cycles_is_drawn_whole(tmp_path):
    steps = triangle(20)
    fig = drawn(plots.learning_rate(steps), tmp_path / "learning_rate.png")
    assert len(fig.axes) == 2 and list(fig.axes[0].lines[0].get_ydata()) == [lr for lr, _ in steps]
    fig = drawn(plots.learning_rate([(lr, None) for lr, _ in triangle(1000)]), tmp_path / "learning_rate.png")
    assert len(fig.axes) == 2  # no momentum, dense: the first cycles and the range


@pytest.mark.parametrize("values, turns", [([1, 1, 1], []), ([0, 1, 1, 0], [2]), ([0, 1, 0, 1], [1, 2]), ([3], [])])
def test_turning_points(values, turns):
    assert plots.turning_points(np.array(values)).tolist() == turns
