"""The figure of accuracy against cost: whose points it has, and that its names can be read."""


import numpy as np
import pytest
from rows import made, rows_of

from cifar_fast.reporting import plots
from cifar_fast.reporting.compare import PUBLIC, figure_points
from cifar_fast.reporting.tradeoffs import tradeoffs


def test_what_others_state_is_hollow_and_stands_where_it_is_known():
    points, data, left_out = figure_points(rows_of(made(), made(recipe="mine", data="digits")))
    assert data == "cifar10" and left_out == ["mine: not on cifar10"]
    public, published = points[points["kind"] == "public"], points[points["kind"] == "published"]
    assert len(public) == len(PUBLIC) and public[["multiply_adds", "seconds"]].isna().all(axis=None)
    assert set(published["label"]) == {"net", "netv2", "strided", "optimized200k", "mobile"}
    times = published.set_index("label")["seconds"]
    assert np.isnan(times["mobile"]) and times.drop("mobile").between(13 * 60, 45 * 60).all()
    assert published.set_index("label").loc["net", "multiply_adds"] == 200_109_216
    assert points["source"].str.len().gt(4).all()
    fig = tradeoffs(points, target=0.85)
    marks = {line.get_marker(): line for line in fig.axes[0].lines if line.get_marker() in "os^"}
    assert marks["o"].get_markerfacecolor() == plots.BLUE
    assert marks["s"].get_markerfacecolor() == marks["^"].get_markerfacecolor() == "white"
    assert [len({line.get_marker(): 0 for line in ax.lines if len(line.get_xdata()) and line.get_marker() in "os^"})
            for ax in fig.axes] == [3, 2, 2]
    for ax in fig.axes:
        flat_lines = {line.get_linestyle(): line for line in ax.lines if line.get_linestyle() in ("--", ":")}
        assert flat_lines["--"].get_color() == "red" and flat_lines["--"].get_ydata()[0] == 85
        assert ":" not in flat_lines  # an accuracy whose source nobody names was drawn as a dotted line
    assert [ax.get_xscale() for ax in fig.axes] == ["log"] * 3
    legend = [text.get_text() for text in fig.legends[0].get_texts()]
    assert "ours" in legend  # one run, no spread
    assert any("stated by others" in text for text in legend) and not any("rules" in text for text in legend)


def test_flash_has_a_panel_where_a_run_of_ours_knows_it():
    points, *_ = figure_points(rows_of(made(), made(recipe="micro", flash=93_000)))
    fig = tradeoffs(points)
    panel = next(ax for ax in fig.axes if "flash" in ax.get_xlabel())
    marks = {line.get_marker(): list(line.get_xdata()) for line in panel.lines if line.get_marker() in "os^"}
    assert marks["o"] == [93_000 / 1024] and len(marks["s"]) == 5 and not marks["^"]
    assert len(fig.axes) == 4


def test_a_recipe_at_several_sizes_is_a_curve_of_whatever_cost_is_known():
    rows = [made(recipe=size, parameters=n, flash=2 * n, accuracy=a) for size, n, a in
            (("big", 198_170, 0.937), ("small", 24_302, 0.869), ("middle", 49_000, 0.9))]
    points, *_ = figure_points(rows_of(*rows).assign(seconds=None))
    fig = tradeoffs(points, joined=True)
    assert [ax.get_xlabel().split()[0] for ax in fig.axes] == ["parameters", "multiply-adds", "flash"]
    flash = [48_604 / 1024, 98_000 / 1024, 396_340 / 1024]
    for ax, sizes in ((fig.axes[0], [24.302, 49.0, 198.17]), (fig.axes[2], flash)):
        (curve,) = [line for line in ax.lines if line.get_linestyle() == "-" and line.get_marker() in ("None", "")]
        assert list(curve.get_xdata()) == sizes and list(curve.get_ydata()) == pytest.approx([86.9, 90.0, 93.7])
    alone = tradeoffs(points)
    assert not [line for line in alone.axes[0].lines if line.get_linestyle() == "-"]


def test_rows_far_below_or_without_accuracy_are_left_out_and_named():
    rows = rows_of(made(), made(recipe="one-epoch", accuracy=0.4), made(recipe="none", accuracy=""))
    points, _, left_out = figure_points(rows, floor=80)
    assert list(points["label"][points["kind"] == "ours"]) == ["final"]
    assert left_out == ["none: no accuracy", "one-epoch: below 80 %"]
    points, _, left_out = figure_points(rows_of(made(accuracy=0.4)), floor=80)
    assert list(points["label"][points["kind"] == "ours"]) == ["final"] and not left_out  # better low than nothing
    digits, data, _ = figure_points(rows_of(made(data="digits", split="held-out")))
    assert data == "digits" and list(digits["label"]) == ["final (held-out)"]  # others' figures are of CIFAR-10


def test_rows_on_test_and_on_held_out_images_are_not_drawn_together():
    arm = made(recipe="arm", split="held-out", images=5000)
    points, _, left_out = figure_points(rows_of(made(), arm))  # as many of each: test
    assert list(points["label"][points["kind"] == "ours"]) == ["final"]
    assert left_out == ["arm: measured on held-out images, most others on test ones"]
    points, _, left_out = figure_points(rows_of(made(), arm, made(recipe="other", split="held-out", images=5000)))
    assert list(points["label"][points["kind"] == "ours"]) == ["arm (held-out)", "other (held-out)"]
    assert left_out == ["final: measured on test images, most others on held-out ones"]
    points, _, left_out = figure_points(rows_of(arm))
    assert list(points["label"][points["kind"] == "ours"]) == ["arm (held-out)"] and not left_out


@pytest.mark.parametrize("ours", [1, 12])
def test_no_name_covers_another_or_a_point(ours):
    rng = np.random.default_rng(3)
    rows = rows_of(*(made(recipe=f"run number {i}", accuracy=0.85 + 0.03 * rng.random(),
                          seconds=100 + 500 * rng.random(), parameters=int(100_000 + 90_000 * rng.random()))
                     for i in range(ours)))
    points, *_ = figure_points(rows)
    fig = tradeoffs(points, target=0.85)
    for ax in fig.axes:
        names = [text for text in ax.texts if text.get_text()]
        boxes = [text.get_window_extent() for text in names]
        spots = ax.transData.transform([text.xy for text in names])
        assert len(names) == len({text.get_text() + str(text.xy) for text in names}) >= ours
        overlaps = [(a.get_text(), b.get_text()) for i, a in enumerate(names) for j, b in enumerate(names[:i])
                    if boxes[i].overlaps(boxes[j])]
        assert not overlaps
        assert not [text.get_text() for text, box in zip(names, boxes, strict=True) if any(
            box.contains(*spot) for spot in spots)]
        assert all(ax.bbox.x0 <= box.x0 and box.x1 <= ax.bbox.x1 for box in boxes)
