"""Rows of runs: ids of experiments, and the words that were typed."""

import json
import shlex
from dataclasses import replace

import pandas as pd
import pytest
from rows import CARD

from cifar_fast.export.measure import seconds_to
from cifar_fast.recipe import describe, load_recipe, override
from cifar_fast.reporting.results import (
    COLUMNS,
    changes,
    recipe_id,
    row,
)


def id_of(name, *words):
    return recipe_id(describe(override(load_recipe(name), list(words))))


def test_an_id_is_that_of_an_experiment():
    base = id_of("final")
    assert base == id_of("final", "seed=7", "device=cpu", "exports=elsewhere", "workers=2", "name=again")
    assert base == id_of("final", "valid=0.0", f"epochs={load_recipe('final').epochs}")  # 0.0 is the 0 of the file
    different = {base, *(id_of("final", w) for w in ("epochs=25", "lr=0.1", "fit.pct_start=0.3", "mix=none", "bs=64"))}
    assert len(different) == 6 and all(len(i) == 8 and int(i, 16) >= 0 for i in different)
    told = describe(load_recipe("final"))
    assert recipe_id({k: v for k, v in told.items() if k != "patience"}) == base  # from before there was this setting


@pytest.mark.parametrize("name, words", [
    ("final", ""),
    ("final", "epochs=1 valid=5000"),
    ("final", "valid=0.1 patience=3 channels_last=false"),
    ("final", "fit.pct_start=0.33 mix.cutmix=0.33"),
    ("final", "'fit.moms=(0.95,0.85,0.95)' mix=none ema=none"),
    ("net", "epochs=10 lr=0.01 sched=step sched.step_size=8 sched.gamma=0.1"),
    ("netv2", "sched=none"),
    ("final", "data=digits epochs=8"),
    ("netv2", "data='/some where/mushrooms' epochs=8"),
    ("final", "epochs=60 budget.max_params=25000 budget.max_flash_kb=96.5"),
    ("micro", "budget.dilated=2 budget.max_ram_kb=none"),
])
def test_changes_are_the_words_that_were_typed(name, words):
    typed = changes(changed := override(load_recipe(name), shlex.split(words)))
    assert shlex.split(typed) == shlex.split(words)
    assert recipe_id(describe(override(load_recipe(name), shlex.split(typed)))) == recipe_id(describe(changed))
    assert changes(replace(changed, seed=7, workers=1, device="cpu", exports="there")) == typed


def test_changes_of_other_names_and_files():
    final = load_recipe("final")
    assert changes(replace(final, name="final-s7", epochs=3)) == "epochs=3"
    assert changes(replace(final, name="mine", epochs=3)) == ""  # of what, nobody says
    assert changes(replace(final, name="mine", epochs=3, lr=0.2), final) == "epochs=3 lr=0.2"
    assert changes(replace(final, augment=final.augment[1:], epochs=3)) == ""  # somebody's own final.py
    assert changes(override(final, ["views=2", "views.weight=3"])) == "views=2 views.weight=3"
    assert changes(replace(final, epochs=3), finds_lr=True) == "epochs=3 lr=find"


def test_a_row_of_a_card():
    found = row(CARD)
    assert tuple(found) == COLUMNS
    assert found["recipe_id"] == id_of("net") and found["settings"] == "epochs=2" and found["seed"] == 42
    assert (found["last_accuracy"], found["best_accuracy"], found["best_epoch"]) == (0.79, 0.8, 1)
    assert found["seconds"] == 12.3 and found["seconds_to_85"] is None and found["train_loss"] == 1.2346
    assert found["selected_on_test"] and found["split"] == "test" and found["images"] == 1000
    nothing = row(replace(CARD, metrics=None, best_epoch=None, last_epoch={"train_loss": 1.0}, split=None))
    assert nothing["accuracy"] is nothing["last_accuracy"] is nothing["best_accuracy"] is None
    assert not nothing["selected_on_test"]


def test_an_id_outlives_a_move_of_our_functions():
    told = describe(load_recipe("final"))
    moved = json.loads(json.dumps(told).replace("cifar_fast.training.", "cifar_fast.elsewhere."))
    assert moved != told and recipe_id(moved) == recipe_id(told)
    own = json.loads(json.dumps(told).replace("cifar_fast.training.losses", "cifar_fast_recipe_mine"))
    assert recipe_id(own) != recipe_id(told)


def test_seconds_to_85():
    frame = pd.DataFrame({"seconds": [10.0, 20.0, 30.0], "valid_accuracy": [0.8, 0.85, 0.84]})
    assert seconds_to(0.85, frame) == 30
    assert seconds_to(0.86, frame) is None and seconds_to(0.85, frame[["seconds"]]) is None
    assert seconds_to(0.85, frame.assign(valid_ema_accuracy=[0.9, 0.9, 0.9])) == 10  # of the weights that are exported
