"""One line a recipe, and README's block."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rows import CARD, made

from cifar_fast.cli.main import main
from cifar_fast.export.card_parts import Machine
from cifar_fast.recipe import describe, load_recipe, override
from cifar_fast.reporting.results import (
    END,
    START,
    ResultsError,
    block,
    by_budget,
    by_epochs,
    by_pruning,
    epochs_markdown,
    facts,
    markdown,
    read,
    recipe_id,
    replace_block,
    reproductions_markdown,
    row,
    size_markdown,
    summarize,
    terminal,
)

ROOT = Path(__file__).parents[2]
FACTS = {"final": {"line": "ours", "stated": {}, "recipe_id": "aaaaaaaa", "data": "cifar10"},
         "net": {"line": "a | net", "recipe_id": "bbbbbbbb", "data": "cifar10",
                 "stated": {"parameters": 199_368, "receptive_field": 44, "accuracy": 87.02, "epochs": 50}}}
IDS = {name: fact["recipe_id"] for name, fact in FACTS.items()}


def lines(*rows):
    return summarize(pd.DataFrame(rows, dtype=str), IDS).set_index("recipe", drop=False)


# ---------------------------------------------------------------- one line a recipe


def test_means_and_deviations_over_seeds():
    found = lines(*(made(seed=s, accuracy=a, accuracy_tta=t, seconds=100 + s, accuracy_without_ema=w)
                    for s, a, t, w in ((1, 0.90, 0.91, 0.90), (2, 0.91, 0.92, 0.89), (3, 0.95, 0.93, ""))))
    final = found.loc["final"]
    assert final["n"] == 3 and final["current"] and final["seeds"] == "1 2 3"
    assert final["accuracy"] == pytest.approx(0.92) and final["accuracy_std"] == pytest.approx(0.07**0.5 / 10)
    assert final["accuracy_tta_std"] == pytest.approx(0.01) and final["seconds"] == 102
    assert np.isnan(final["accuracy_without_ema"]) and np.isnan(final["seconds_to_85"])  # not of all three
    assert found.loc["net", "n"] == 0 and (final["seconds_min"], final["seconds_max"]) == (101, 103)
    again = lines(made(seed=1, accuracy=0.5), made(seed=1, accuracy=0.9)).loc["final"]
    assert again["n"] == 1 and again["accuracy"] == 0.9 and np.isnan(again["accuracy_std"])


def test_the_experiment_of_the_recipe_as_it_stands_or_else_the_latest():
    tuned = made(recipe_id="cccccccc", settings="valid=5000", split="held-out")
    found = lines(made(seed=1), made(seed=2, recipe="final-s2"), tuned)
    assert found.loc["final", "n"] == 2 and found.loc["final", "current"] and "final-s2" not in found.index
    found = lines(made(recipe_id="cccccccc", settings="epochs=1"), made(recipe_id="dddddddd", settings="epochs=2"),
                  made(recipe="mine", recipe_id="eeeeeeee"))
    assert found.loc["final", "settings"] == "epochs=2" and not found.loc["final", "current"]
    assert list(found.index) == ["final", "net", "mine"] and found.loc["mine", "n"] == 1
    old = lines(*({"recipe": "final", "seed": seed, "accuracy": "0.8"} for seed in "12"))
    assert old.loc["final", "n"] == 2 and not old.loc["final", "current"]  # rows from before there were ids


REPRODUCED = made(recipe="net", recipe_id="cccccccc", settings="epochs=1", selected_on_test=True,
                  accuracy="0.87", last_accuracy="0.8552", best_accuracy="0.87", accuracy_without_ema="0.5",
                  parameters="199368", receptive_field="49", epochs="1", seconds_to_85="1234.5",
                  device="NVIDIA GeForce RTX 4090 Laptop GPU")


def test_the_terminals_table():
    long = made(recipe="final-a-folder-with-a-very-long-name", recipe_id="dddddddd", seconds="123456", seed="1",
                accuracy_tta="0.91", split="held-out")
    shown = terminal(lines(made(seed=1, accuracy=0.9), made(seed=2, accuracy=0.91), REPRODUCED, long)).splitlines()
    assert max(map(len, shown)) <= 100
    final, net = (next(s for s in shown if s.startswith(n)) for n in ("final", "net"))
    assert "90.50±0.71 2" in final
    assert "85.52" in net and "87.00*" in net and net.index("85.52") < net.index("87.00*") and "1,234" in net
    said = " ".join(" ".join(shown).split())
    assert "net: run with epochs=1; averaged weights (EMA); without averaging 50.00 %" in said
    assert "90.00† 1" in said and "† on images held out of train" in said
    assert "not run" in terminal(lines(made()))


def test_readmes_table():
    table = markdown(lines(made(seed=1, accuracy_tta=0.91), made(seed=2, accuracy=0.91, accuracy_tta=0.92), REPRODUCED,
                           made(recipe="mine", recipe_id="dddddddd")), FACTS).splitlines()
    assert len(table) == 4 and {row.replace(r"\|", "").count("|") for row in table} == {8}
    assert table[2] == ("| `final` | ours | 192,642 | 65 | – | 90.50 ± 0.71 % accuracy, 91.50 ± 0.71 % TTA, 24 epochs, "
                        "n = 2 | 100 s, cpu (x86_64), fp32, 2026-11-21 |")
    assert table[3] == (r"| `net` | a \| net | 199,368 | 49 (stated: 44) | 87.02 % in 50 epochs | 85.52 % last epoch, "
                        "87.00 % best (selected on test), 50.00 % without EMA, 1 epoch, n = 1; run with `epochs=1` | "
                        "100 s (85 % after 1,234 s), NVIDIA GeForce RTX 4090 Laptop GPU, fp32, 2026-11-21 |")
    slow = lines(made(seed=1), made(seed=2, seconds=151))  # on another machine, say: a mean is no run's
    assert "| 100–151 s, cpu" in markdown(slow, FACTS) and " 100–151 " in terminal(slow)
    for threads, told in (("1", ", 1 thread,"), ("2", ", 2 threads,")):
        assert f"cpu (x86_64){told} fp32" in markdown(lines(made(seed=1, threads=threads)), FACTS)
    assert "thread" not in markdown(lines(made(threads="16", device="NVIDIA H100")), FACTS)
    assert "| – | – | – | not run | – |" in markdown(lines(REPRODUCED), FACTS)


def test_published_systems_beside_what_was_published():
    again = REPRODUCED | {"seed": "2", "best_accuracy": "0.8722", "last_accuracy": "0.8552"}
    mine = made(selected_on_test="True", best_accuracy="0.9", last_accuracy="0.9")  # nothing was published for it
    table = reproductions_markdown(lines(REPRODUCED, again, mine), FACTS).splitlines()
    assert table[2:] == ["| `net` | 87.02 | 87.11 ± 0.16 | +0.09 | 85.52 ± 0.00 | 50, 1 | 2 |"]
    behind = reproductions_markdown(lines(REPRODUCED), FACTS).splitlines()
    assert behind[2:] == ["| `net` | 87.02 | 87.00 | −0.02 | 85.52 | 50, 1 | 1 |"]
    assert reproductions_markdown(lines(made()), FACTS) == ""  # `net` was not run


def test_what_epochs_give():
    def run(epochs, **changes):
        recipe = replace(load_recipe("final"), epochs=epochs)
        return made(recipe=f"final-{epochs}", recipe_id=recipe_id(describe(recipe)), epochs=epochs) | changes

    rows = pd.DataFrame([run(60, accuracy="0.92", accuracy_tta="0.93"), run(15, seed="1"), run(15, accuracy="0.91"),
                         made(epochs="15"), run(30, recipe_id="bbbbbbbb")])
    found = by_epochs(rows, "final")
    assert list(found["recipe"]) == ["15", "60"] and list(found["n"]) == [2, 1]
    assert epochs_markdown("final", found).splitlines()[2:] == [
        "| 15 | 90.50 ± 0.71 | – | 2 | 100 s, cpu (x86_64), fp32, 2026-11-21 |",
        "| 60 | 92.00 | 93.00 | 1 | 100 s, cpu (x86_64), fp32, 2026-11-21 |"]
    assert epochs_markdown("final", found[:1]) == ""
    older = [made(recipe="final", recipe_id="cccccccc", settings="epochs=15", epochs="15", accuracy="0.8"),  # not shown
             made(recipe="final", recipe_id="dddddddd", settings="epochs=200", epochs="200", accuracy="0.8"),
             made(recipe="final", recipe_id="eeeeeeee", settings="epochs=200", epochs="200", accuracy="0.94")]
    with_older = by_epochs(pd.concat([pd.DataFrame(older), rows]), "final")
    assert epochs_markdown("final", with_older).splitlines()[4:] == [
        "| 200 | 94.00 | – | 1 | 100 s, cpu (x86_64), fp32, 2026-11-21; an earlier state of the recipe |"]
    usual = made(recipe="final", recipe_id="ffffffff", epochs=str(load_recipe("final").epochs))
    assert list(by_epochs(pd.DataFrame([usual, *older]), "final")["recipe"]) == ["15", usual["epochs"], "200"]
    assert by_epochs(pd.DataFrame([{"recipe": "final", "accuracy": "0.9"}]), "final").empty  # a table made by hand


def test_what_a_smaller_budget_gives():
    def run(*words, **changes):
        return made(recipe="final-small", settings=" ".join(words), multiply_adds="5942698", flash="52224",
                    recipe_id=recipe_id(describe(override(load_recipe("final"), list(words)))), epochs="60") | changes

    rows = pd.DataFrame([run("epochs=60", accuracy="0.93", parameters="198170"), run("epochs=30"),
                         run("epochs=60", "budget.max_params=50000", accuracy="0.9", parameters="49000"),
                         run("epochs=60", "budget.max_params=25000", accuracy="0.87", parameters="24302"),
                         run("epochs=60", "budget.max_params=25000", seed="1", accuracy="0.88", parameters="24302"),
                         run("epochs=60", "lr=0.1", "budget.max_params=25000")])
    found = by_budget(rows, "final")
    assert list(found["recipe"]) == ["25,000", "50,000", "199,999"] and list(found["n"]) == [2, 1, 1]
    assert size_markdown("recipe final budget.max_params=", found).splitlines()[2:] == [
        "| 25_000 | 60 | 24,302 | 5.9 M | 51 KB | 87.50 ± 0.71 | 2 |",
        "| 50_000 | 60 | 49,000 | 5.9 M | 51 KB | 90.00 | 1 |",
        "| 199_999 | 60 | 198,170 | 5.9 M | 51 KB | 93.00 | 1 |"]
    assert by_budget(rows[:2], "final").empty and size_markdown("recipe final", found[:1]) == ""


def test_of_several_runs_with_a_smaller_budget_the_longest_of_the_recipe_as_it_is_now_is_shown():
    usual = load_recipe("final").epochs

    def run(*words, epochs=usual, now=True, **changes):
        id_ = recipe_id(describe(override(load_recipe("final"), list(words)))) if now else f"old-{' '.join(words)}"
        return made(recipe="final-small", settings=" ".join(words), recipe_id=id_, epochs=str(epochs)) | changes

    size, twice = "budget.max_params=25000", 2 * usual
    earlier = [run(f"epochs={n}", size, epochs=n, now=False) for n in (60, twice)]
    whole = [made(recipe="final", settings="", recipe_id=recipe_id(describe(load_recipe("final"))), epochs=str(usual)),
             run("epochs=60", epochs=60, now=False)]

    def shown(*rows):
        found = by_budget(pd.DataFrame([*earlier, *rows, *whole]), "final")
        return list(zip(found["recipe"], found["epochs"], found["current"], strict=True))

    assert shown() == [("25,000", twice, False), ("199,999", 60, False)]  # the whole one with as many epochs as a size
    assert shown(run(size)) == [("25,000", usual, True), ("199,999", usual, True)]
    assert shown(run(size), run("epochs=60", size, epochs=60)) == [("25,000", usual, True), ("199,999", usual, True)]


def test_the_hardware_of_several_processes_is_that_of_all():
    def of(**machine):
        made = row(replace(CARD, machine=Machine(precision="fp32", **machine)))
        return made["device"], made["threads"]

    assert of(device="cpu (x86_64)", threads=1, procs=2) == ("cpu (x86_64)", 2)
    assert of(device="cpu (x86_64)", threads=2) == ("cpu (x86_64)", 2)
    assert of(device="NVIDIA H100", threads=8, procs=4) == ("4 × NVIDIA H100", 32)
    assert of(device="NVIDIA H100") == ("NVIDIA H100", None)


def test_what_pruning_costs():
    def run(settings, accuracy, recipe_id, **changes):
        return made(recipe=f"final-{recipe_id}", settings=settings, accuracy=accuracy, recipe_id=recipe_id, epochs="20",
                    parameters="50162", multiply_adds="11115268", flash="102868") | changes

    rows = pd.DataFrame([run("epochs=20 init=exports/final prune=0.5", "0.89", "a"),
                         run("epochs=20 init=exports/final prune=0.5", "0.90", "a", seed="1"),
                         run("epochs=20 init=exports/final prune=0.25", "0.92", "b"),
                         run("epochs=20 init=exports/sprint prune=0.25", "0.8", "c"),
                         run("epochs=20 init=exports/final lr=0.1 prune=0.25", "0.8", "d"), run("", "0.94", "e")])
    found = by_pruning(rows, "final")
    assert list(found["recipe"]) == ["0.25", "0.5"] and list(found["n"]) == [1, 2]
    assert size_markdown("recipe final init=exports/final prune=", found).splitlines() == [
        "| `recipe final init=exports/final prune=` | epochs | parameters | multiply-adds | flash in int8 | accuracy % "
        "| n |", "| --- | --- | --- | --- | --- | --- | --- |",
        "| 0.25 | 20 | 50,162 | 11.1 M | 100 KB | 92.00 | 1 |",
        "| 0.5 | 20 | 50,162 | 11.1 M | 100 KB | 89.50 ± 0.71 | 2 |"]
    assert by_pruning(rows[-1:], "final").empty


def test_a_block_is_replaced_between_its_markers_alone():
    text = f"before\n{START}\nold\n{END}\nafter\n"
    assert replace_block(text, "| new |") == f"before\n{START}\n| new |\n{END}\nafter\n"
    for wrong in ("no markers", START, END, f"{END} {START}", text + text):
        with pytest.raises(ResultsError, match="X.md needs these two lines once"):
            replace_block(wrong, "", "X.md")


def test_readme_has_the_tables_of_the_committed_rows():
    "After a run or a change of a recipe: python -m cifar_fast results --readme."
    text = (ROOT / "exports" / "README.md").read_text("utf-8")
    assert replace_block(text, block(read(ROOT / "exports" / "results.csv"), facts())) == text


def test_the_command(tmp_path, capsys):
    committed, readme = str(ROOT / "exports" / "results.csv"), tmp_path / "README.md"
    assert main(["results", committed]) == 0
    assert all(len(line) <= 100 for line in capsys.readouterr().out.splitlines())
    assert main(["results", committed, "--csv"]) == 0
    assert capsys.readouterr().out.startswith("recipe,recipe_id,current,n,")
    assert main(["results", committed, "--json"]) == 0
    assert '"recipe":"final"' in capsys.readouterr().out
    readme.write_text(f"{START}\n{END}")
    assert main(["results", committed, "--readme", str(readme)]) == 0
    assert "`optimized200k`" in readme.read_text("utf-8")
    readme.write_text("no markers")
    assert main(["results", committed, "--readme", str(readme)]) == 2
    assert readme.read_text() == "no markers" and str(readme) in capsys.readouterr().err


def test_a_run_named_after_its_seed_is_its_recipe_s(capsys):
    "Of a former state of the recipe it makes no line of its own."
    rows = pd.DataFrame([made(recipe="sprint-43", seed="43", recipe_id="old"), made(recipe="sprint", recipe_id="new"),
                         made(recipe="mine-7", seed="7", recipe_id="x")])
    found = summarize(rows, {"sprint": "new"})
    assert list(found["recipe"]) == ["sprint", "mine-7"] and list(found["n"]) == [1, 1]


def test_runs_of_a_recipe_with_other_settings_keep_their_line():
    "`seeds=2 lr=0.1` names them after their seeds; a run with other settings may have had the recipe's name first."
    rows = [made(recipe="sprint", recipe_id="old"),
            *(made(recipe=f"sprint-{s}", seed=s, recipe_id="x", settings="lr=0.1", accuracy=a)
              for s, a in (("42", "0.86"), ("43", "0.88"))),
            made(recipe="final", recipe_id="y", settings="epochs=20"), made(recipe="final-2", recipe_id="z"),
            made(recipe="teacher", recipe_id="w", settings="valid=500"),
            made(recipe="micro", recipe_id="taken over", settings="epochs=1"), made(recipe="micro", recipe_id="m")]
    ids = {"sprint": "old", "final": "z", "teacher": "v", "micro": "m"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = summarize(pd.DataFrame(rows), ids).set_index("recipe")
    assert list(found.index) == [*ids, "sprint lr=0.1", "final epochs=20"]
    assert found.loc["sprint lr=0.1", ["n", "accuracy"]].tolist() == [2, pytest.approx(0.87)]
    assert list(found["n"]) == [1, 1, 1, 1, 2, 1]


def test_seeds_of_one_experiment_are_one_line_whatever_their_runs_are_called():
    "Finished runs are never replaced, so another seed has another name."
    rows = [made(recipe="sprint-digits", recipe_id="x", seed="42", accuracy="0.9", settings="data=digits"),
            made(recipe="sprint-digits-2", recipe_id="x", seed="43", accuracy="0.92", settings="data=digits"),
            made(recipe="sprint-digits-3", recipe_id="y", settings="data=digits lr=0.1")]
    found = summarize(pd.DataFrame(rows), {}).set_index("recipe")
    assert list(found.index) == ["sprint-digits", "sprint-digits-3"] and found.loc["sprint-digits", "n"] == 2
    assert found.loc["sprint-digits", "accuracy"] == pytest.approx(0.91)
    shown = terminal(summarize(pd.DataFrame([{**row, "images": "60"} for row in rows]), {}))
    assert "sprint-digits-3: data=digits lr=0.1" in shown
    said = " ".join(shown.split())
    assert "mean of sprint-digits, sprint-digits-2; for one run alone: n = 60" in said
    replaced = summarize(pd.DataFrame([*rows, made(recipe="sprint-digits", recipe_id="z")]), {})
    assert list(replaced["recipe_id"]) == ["x", "y", "z"] and list(replaced["n"]) == [1, 1, 1]


def test_runs_on_different_numbers_of_images_are_said_to_be_no_experiment():
    rows = [made(recipe=f"mine-{seed}", recipe_id="x", seed=seed, data="photos", accuracy=a, images=n)
            for seed, a, n in ((42, 0.9, 60), (43, 0.7, 600))]
    found = summarize(pd.DataFrame(rows), {})
    said = " ".join(terminal(found).split())
    assert np.isnan(found.loc[0, "images"]) and "one run alone" not in said and "n = 330" not in said
    assert "not one experiment: its runs were measured on 60 to 600 images" in said


def test_rows_by_hand_without_a_seed_are_runs_of_their_own():
    found = summarize(pd.DataFrame([{"recipe": "mine", "accuracy": a} for a in ("0.9", "0.8", "0.7")]), {})
    assert found.loc[0, "n"] == 3 and found.loc[0, "accuracy"] == pytest.approx(0.8) and found.loc[0, "seeds"] == ""


def test_accuracies_on_held_out_images_are_marked():
    rows = pd.DataFrame([made(), made(recipe="tuned", recipe_id="b", split="held-out", images=5000)])
    said = terminal(summarize(rows, {}))
    assert "90.00†" in said and said.count("†") == 2 and "†" not in terminal(summarize(rows[:1], {}))


def test_few_images_have_their_interval_in_the_tables():
    few = summarize(pd.DataFrame([made(recipe="sprint-digits", recipe_id="x", accuracy=354 / 359, images=359)]), {})
    assert "n = 359, 95 % interval 96.8 to 99.4 %" in terminal(few)
    assert "interval" not in terminal(summarize(pd.DataFrame([made()]), {}))
