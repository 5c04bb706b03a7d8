"""Runs beside each other: the table, the figure, two runs image by image."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rows import made, rows_of
from scipy.stats import binomtest

from cifar_fast.cli.main import main
from cifar_fast.export.card import Card
from cifar_fast.export.card_file import read_card
from cifar_fast.export.card_parts import Audited, BestEpoch, Data, Machine, Metrics, Normalization, Seconds
from cifar_fast.export.predictions import NAME, Predictions
from cifar_fast.recipe import describe, load_recipe
from cifar_fast.reporting.compare import (
    CompareError,
    Run,
    draw,
    figure_points,
    find_runs,
    lines_of_runs,
    newcombe,
    ordered,
    pair,
    table,
    table_text,
)
from cifar_fast.reporting.compare.paired import mcnemar
from cifar_fast.reporting.compare.words import verdict
from cifar_fast.reporting.results import COLUMNS, OWN, add_row, leave_row, recipe_id, row

VOCAB = [f"class {i}" for i in range(10)]


def predictions(wrong, n=1000, images="abc/test", seed=0):
    "Predictions of `n` images that are wrong on the first `wrong` of them."
    labels = np.random.default_rng(seed).integers(0, 10, n)
    predicted = np.where(np.arange(n) < wrong, (labels + 1) % 10, labels)
    return Predictions(labels, predicted, np.eye(10, dtype=np.float32)[predicted], tuple(VOCAB), images, "test")


def card_of(name, recipe="final", accuracy=0.9, seed=42, **changes):
    "The card of a run that nobody trained."
    described = {**describe(load_recipe(recipe)), "seed": seed}
    card = Card(name=name, arch=described["arch"], vocab=VOCAB, recipe=described, recipe_name=recipe, epochs=3,
                normalize=Normalization(mean=[0.5] * 3, std=[0.2] * 3), split="test", data=Data(name="cifar10"),
                metrics=Metrics(n=1000, accuracy=accuracy, accuracy_tta=accuracy + 0.01),
                last_epoch={"train_loss": 1.0}, date="2026-11-21", commit="abc",
                seconds=Seconds(training=100.0, epoch=30.0),
                audit=Audited(params=192_642, receptive_field=65, macs=21_911_760),
                machine=Machine(device="cpu (x86_64)", threads=2, precision="fp32", compiled=False))
    return replace(card, **changes)


def leave(folder, name, wrong=None, rows=True, **values):
    "A run's folder: card, row, and predictions that are wrong on `wrong` of 1,000 images."
    card = card_of(name, **({} if wrong is None else {"accuracy": 1 - wrong / 1000}), **values)
    (folder / name).mkdir(parents=True)
    card.write(folder / name)
    if wrong is not None:
        predictions(wrong).save(folder / name / NAME)
    if rows:
        leave_row(folder / name, row(card))
        add_row(folder / name)
    return folder / name


@pytest.fixture
def exports(tmp_path, monkeypatch):
    "exports/ with final (10 % wrong), sprint (15 %, all of final's mistakes among them) and two more seeds of sprint."
    monkeypatch.chdir(tmp_path)
    folder = Path("exports")
    leave(folder, "final", wrong=100)
    leave(folder, "sprint", wrong=150, recipe="sprint")
    leave(folder, "sprint-43", wrong=152, recipe="sprint", seed=43)
    return folder


# ---------------------------------------------------------------- two runs


def run_of(tmp_path, name, found):
    (tmp_path / name).mkdir()
    found.save(tmp_path / name / NAME)
    return Run(name, tmp_path / name, card_of(name))


def test_a_pair_counts_images(tmp_path):
    a, b = predictions(100), predictions(150)
    other = b.predicted.copy()
    other[:30] = b.labels[:30]  # wrong in a alone
    b = replace(b, predicted=other, probabilities=np.eye(10, dtype=np.float32)[other])
    found = pair(run_of(tmp_path, "a", a), run_of(tmp_path, "b", b))
    assert (found.both, found.first_only, found.second_only, found.neither) == (850, 50, 30, 70)
    assert found.accuracy == (0.9, 0.88) and found.difference == pytest.approx(0.02) and found.n == 1000
    assert found.p == binomtest(50, 80).pvalue and found.interval == newcombe(850, 50, 30, 70)
    by_hand = {c: ((a.correct[a.labels == i]).mean(), (other == a.labels)[a.labels == i].mean())
               for i, c in enumerate(VOCAB)}
    most = sorted(by_hand, key=lambda c: -abs(by_hand[c][0] - by_hand[c][1]))[0]
    assert found.classes[0][1:] == pytest.approx(by_hand[most]) and len(found.classes) <= 3
    json.dumps(found.as_dict())


def test_only_what_is_beyond_noise_is_called_better(tmp_path):
    a, b = run_of(tmp_path, "a", predictions(100)), run_of(tmp_path, "b", predictions(150))
    assert verdict(pair(a, b)).startswith("a is better by 3.") and verdict(pair(b, a)).startswith("a is better by 3.")
    equal = pair(a, run_of(tmp_path, "c", predictions(100)))
    assert equal.p == 1 and equal.classes == () and verdict(equal) == "The difference is within noise."
    # Cavo's table: the interval leaves 0 out, the exact test does not agree (p = 0.052), so nothing is claimed.
    doubtful = replace(equal, first_only=6, second_only=16, interval=newcombe(59, 6, 16, 80), p=mcnemar(6, 16))
    assert doubtful.interval[1] < 0 and not doubtful.real
    small = replace(equal, difference=0.002, interval=(0.0004, 0.0036), p=0.01)
    assert verdict(small) == "a is better by 0.04 to 0.36 points."


def test_a_card_of_many_classes_can_be_read_again(tmp_path):
    n = 2_000
    card = card_of("many", vocab=[f"class {i}" for i in range(n)], metrics=Metrics(
        n=n, accuracy=1.0, accuracy_tta=1.0, confusion=[[int(i == j) for j in range(n)] for i in range(n)]))
    card.write(tmp_path)
    assert read_card(tmp_path).metrics.n == n and (tmp_path / "card.json").stat().st_size < 16e6


def on_data(run, data):
    return replace(run, card=replace(run.card, recipe={**run.card.recipe, "data": data}))


def test_two_copies_of_a_named_dataset_are_paired(tmp_path):
    "As its archive has it and as a folder of JPEG files, which are other pixels."
    files = tuple(f"cup/{i}.png" for i in range(1000))
    a, b = run_of(tmp_path, "a", predictions(100)), run_of(tmp_path, "b", predictions(150, images="xyz/test"))
    assert a.card.recipe["data"] == "cifar10" and pair(a, b).n == 1000
    named, turned = (replace(predictions(150, images="xyz/test"), files=f) for f in (files, files[::-1]))
    assert pair(a, run_of(tmp_path, "c", named)).n == 1000
    held = replace(predictions(150, images="xyz/held"), on="held-out", items=np.arange(1000))
    for one, other in ((run_of(tmp_path, "d", replace(predictions(100), files=files)), run_of(tmp_path, "e", turned)),
                       (on_data(a, "photos"), on_data(b, "photos")), (a, on_data(b, "digits")),
                       (a, run_of(tmp_path, "f", held))):
        with pytest.raises(CompareError, match="measured on different images"):
            pair(one, other)


def test_runs_of_other_images_are_not_paired(tmp_path):
    a = on_data(run_of(tmp_path, "a", predictions(10)), "photos")
    others = [predictions(10, images="xyz/test"), predictions(10, n=900), predictions(10, seed=1),
              replace(predictions(10), vocab=tuple("abcdefghij"))]
    for i, other in enumerate(others):
        with pytest.raises(CompareError, match="a and b. were measured on different images"):
            pair(a, on_data(run_of(tmp_path, f"b{i}", other), "photos"))


def test_runs_that_saw_the_same_files_in_other_sizes_are_paired(tmp_path):
    "Which of two sizes or crops is better is what one wants to know."
    files = tuple(f"cup/{i}.png" for i in range(1000))
    a = on_data(run_of(tmp_path, "a", replace(predictions(100), files=files)), "photos")
    b = on_data(run_of(tmp_path, "b", replace(predictions(150), files=files, images="xyz/test")), "photos")
    larger = replace(b, card=replace(b.card, size=64))
    assert pair(a, larger).n == 1000
    c = run_of(tmp_path, "c", replace(b.predictions(), files=files[::-1]))
    for other in (b, replace(larger, card=replace(larger.card, recipe={**b.card.recipe, "data": "elsewhere"})),
                  replace(c, card=larger.card)):  # in the same size their pixels have changed
        with pytest.raises(CompareError, match="measured on different images"):
            pair(a, other)


def test_two_runs_on_the_command_line(exports, capsys):
    assert main(["compare", "exports/final", "sprint"]) == 0
    out = capsys.readouterr().out
    assert all(len(line) <= 80 for line in out.splitlines())
    assert "only this one right on  50" in out and "both right on 850, neither on 100" in out
    assert "difference +5.00 points" in out and "final is better by 3." in out
    assert "final: 90.00 % over 1 seed" in out and "sprint: 84.90 ± 0.14 % over 2 seeds" in out
    assert "nothing about other seeds" in out.replace("\n", " ") and "n = 1,000, 95 % interval 88.0 to 91.7 %" in out
    settings = {line.split(":")[0]: line for line in out.splitlines()}
    assert settings["epochs"].split()[1:] == ["80", "|", "8"] and "seed" not in settings
    assert (exports / "compare-final-sprint.png").stat().st_size > 20_000
    assert not (exports / "runs.png").exists()  # that of all runs is left alone
    assert main(["compare", "sprint", "sprint-43"]) == 0
    out = capsys.readouterr().out
    assert "within noise" in out and "Both are runs of one recipe" in out
    assert main(["compare", "exports/sprint/card.json", "exports/final", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [r["run"] for r in found["runs"]] == ["sprint", "final"] and found["pair"]["difference"] == -0.05
    assert found["pair"]["beyond_noise"] and found["runs"][0]["parameters"] == 192_642


def test_a_run_that_was_selected_on_test_says_so(exports, capsys):
    card = {"last_epoch": {"train_loss": 1.0, "valid_accuracy": 0.8}, "best_epoch": BestEpoch(epoch=2, accuracy=0.85)}
    leave(exports, "net", wrong=150, recipe="net", **card)
    assert main(["compare", "final", "net"]) == 0
    out = capsys.readouterr().out
    assert "net: its epoch was selected on these very images" in out and "80.00*" in out


# ---------------------------------------------------------------- which runs


def test_a_run_is_a_name_a_stem_or_a_file(exports, tmp_path):
    leave(tmp_path / "more", "final")
    for name in ("final", "exports/final", "exports/final/", "exports/final/learner.pkl",
                 str(tmp_path / "exports" / "final")):
        assert [r.name for r in find_runs([name], exports)] == ["final"]
    both = find_runs(["final", "more/final"], exports)
    assert [r.name for r in both] == [str(Path("exports/final")), str(Path("more/final"))]
    assert find_runs([], exports) == []


@pytest.mark.parametrize("args, named", [
    (["finale"], "did you mean final"),
    (["exports/sprnt", "final"], "no run exports/sprnt (did you mean sprint?)"),
    (["nowhere/final"], "there is no folder nowhere"),
    (["final", "exports/final/card.json"], "exports/final is named twice"),
    (["--sort", "acuracy"], "did you mean accuracy"),
    (["--exports", "nowhere"], "python -m cifar_fast recipe final"),
    (["final", "unpredicted"], "python -m cifar_fast report exports/unpredicted"),
    (["odd"], "exports/odd/card.json: audit.params: "),
    (["worded"], "exports/worded/card.json: metrics.accuracy: "),
    (["--recipes", "final", "sprnt"], "did you mean sprint"),
    (["final", "--recipes", "final", "sprint"], "--recipes"),
    (["--plot", "x.svg"], "ending in .png"),
])
def test_bad_input_is_refused_with_the_next_step(args, named, exports, capsys):
    leave(exports, "unpredicted", rows=False)
    leave(exports, "odd", rows=False)
    leave(exports, "worded", rows=False)
    for name, odd in (("odd", {"audit": {}}), ("worded", {"metrics": {"n": 5, "accuracy": "good"}})):
        (exports / name / "card.json").write_text(json.dumps(card_of(name).to_dict() | odd))
    assert main(["compare", *args]) == 2
    err = capsys.readouterr().err
    assert named in err and err.count("\n") == 1, err


def test_an_empty_table_is_named(exports, capsys):
    (exports / OWN).write_text(",".join(COLUMNS) + "\n")
    assert main(["compare"]) == 2
    assert "holds no run yet; python -m cifar_fast recipe final" in capsys.readouterr().err


# ---------------------------------------------------------------- the table


def test_all_recipes_and_three_runs_have_no_pair(exports, capsys):
    assert main(["compare"]) == 0
    out = capsys.readouterr().out
    assert "84.90±0.14" in out and out.index("final ") < out.index("sprint ") and "only this one right" not in out
    assert main(["compare", "sprint", "final", "sprint-43", "--csv"]) == 0
    shown = capsys.readouterr()
    assert shown.err == "" and "drew" not in shown.out
    assert [line.split(",")[0] for line in shown.out.splitlines()] == ["run", "sprint", "final", "sprint-43"]
    assert ",192642," in shown.out
    assert main(["compare", "sprint", "final", "--sort", "accuracy", "--csv", "--plot", "x/y.png"]) == 0
    shown = capsys.readouterr()
    assert [line.split(",")[0] for line in shown.out.splitlines()] == ["run", "final", "sprint"]
    assert "drew x/y.png" in shown.err and Path("x/y.png").is_file()
    assert main(["compare", "sprint", "final", "--sort", "accuracy", "--reverse", "--csv"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("sprint,")


def test_the_table_holds_in_80_columns():
    rows = rows_of(made(recipe="final-a-folder-with-a-very-long-name-44", accuracy_tta=0.91, seconds=1234567),
                   made(recipe="final-a-folder-with-a-very-long-name-45", data="digits", device="cuda"),
                   made(recipe="net", selected_on_test=True, last_accuracy=0.85, best_accuracy=0.87,
                        accuracy=0.87, parameters=11_173_962, multiply_adds=557_000_000))
    shown = table_text(rows).splitlines()
    assert max(map(len, shown)) <= 80
    assert shown[1].split()[0] == "final-a…-name-44" and shown[2].split()[0] == "final-a…-name-45"
    net = next(line for line in shown if line.startswith("net"))
    assert "85.00*" in net and "87.00" not in net and "557.0M" in net
    said = " ".join(" ".join(shown).split())
    assert "different images" in said and "different devices" in said and "selected on test" in said


def test_a_file_of_a_published_run_is_shown_by_its_own_accuracy():
    "Not by that of the last epoch, which is the trained network's."
    card = card_of("netv2", "netv2", last_epoch={"train_loss": 1.0, "valid_accuracy": 0.85},
                   best_epoch=BestEpoch(epoch=3, accuracy=0.86))
    measured = replace(card, metrics=replace(card.metrics, accuracy=0.8))
    lines = lines_of_runs([Run("netv2", Path("netv2"), card),
                           Run("netv2/model.int8.onnx", Path("x"), measured, predictions(200))])
    assert list(table(lines)["accuracy"]) == [0.85, 0.8]


def test_runs_of_one_dataset_are_ranked_together_and_the_column_says_which():
    rows = ordered(rows_of(made(recipe="a", data="digits", accuracy=0.99), made(recipe="b", accuracy=0.8),
                           made(recipe="c", data="digits", accuracy=0.95), made(recipe="d", accuracy=0.9)), "accuracy")
    assert list(rows["run"]) == ["d", "b", "a", "c"]
    lines = table_text(rows).splitlines()
    assert lines[0].split()[:2] == ["run", "data"] and [line.split()[1] for line in lines[1:5]] == [
        "cifar10", "cifar10", "digits", "digits"]


def test_test_images_come_before_held_out_ones_which_are_marked():
    rows = ordered(rows_of(made(recipe="a", accuracy=0.95, split="held-out", images=5000), made(recipe="b"),
                           made(recipe="c", data="digits", accuracy=0.99)), "accuracy")
    assert list(rows["run"]) == ["b", "a", "c"]
    text = table_text(rows)
    assert "95.00†" in text and "90.00†" not in text and "the two do not" in text


def test_where_nothing_was_measured_nothing_is_drawn(tmp_path):
    said = draw(rows_of(made(accuracy="", accuracy_tta="")), tmp_path / "x.png")
    assert said.splitlines()[0] == "no figure: no run has an accuracy" and not (tmp_path / "x.png").exists()


def test_the_figure_is_of_the_dataset_that_most_runs_have():
    rows = rows_of(made(recipe="a", data="blank"), made(recipe="b", data="digits"), made(recipe="c", data="digits"))
    points, data, left_out = figure_points(rows)
    assert data == "digits" and list(points["label"]) == ["b", "c"] and left_out == ["a: not on digits"]


def test_two_runs_with_long_names_have_a_figure(exports, capsys):
    names = ["蘑菇" * 30 + end for end in "ab"]
    for name in names:
        leave(exports, name, 100)
    assert main(["compare", *names]) == 0
    assert "drew exports/compare-蘑菇" in capsys.readouterr().out
    assert len(list(exports.glob("compare-*.png"))) == 1


def test_a_run_is_of_the_experiment_of_its_recipe():
    assert recipe_id(card_of("a", "sprint").recipe) == recipe_id(card_of("b", "sprint", seed=43).recipe)
