"""Recipes as values: every one loads, prints, compares and pickles; every mistake is answered with what would work."""

import ast
import copy
import json
import pickle
import re
from dataclasses import fields, replace
from functools import partial

import numpy as np
import pytest
from torch.nn import CrossEntropyLoss

from cifar_fast.recipe import (
    Recipe,
    RecipeError,
    check,
    describe,
    list_recipes,
    load_recipe,
    override,
    recipe_path,
    settings_that,
)
from cifar_fast.recipe.checks import EXAMPLES
from cifar_fast.training.schedules import cosine

NAMES = list(list_recipes())


def sprint(*changes):
    return override(load_recipe("sprint"), list(changes))


# ---------------------------------------------------------------- every recipe


def test_which_recipes_there_are():
    assert NAMES == ["digits", "final", "micro", "mobile", "net", "netv2", "optimized200k", "sprint", "strided",
                     "teacher"]


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe(name):
    recipe = load_recipe(name)
    check(recipe)
    assert recipe.name == name and recipe.data == ("digits" if name == "digits" else "cifar10")
    assert recipe.arch == {"final": "cifar_mirror", "digits": "cifar_sprint"}.get(name, f"cifar_{name}")
    again = load_recipe(name)
    assert recipe == again and hash(recipe) == hash(again) and recipe is not again
    assert recipe != replace(recipe, seed=recipe.seed + 1)
    assert recipe != replace(recipe, augment=recipe.augment[1:])
    for copied in (pickle.loads(pickle.dumps(recipe)), copy.deepcopy(recipe), replace(recipe)):
        assert copied == recipe and type(copied.waive) is type(recipe.waive)
    told = json.loads(json.dumps(describe(recipe)))
    assert list(told) == [f.name for f in fields(Recipe)]
    assert len(told["augment"]) == len(recipe.augment)
    assert told["opt"]["call"].startswith("cifar_fast.training.optimizers.")
    assert "<" not in json.dumps(told)  # neither lambdas, closures nor objects without a representation
    with pytest.raises(AttributeError):
        recipe.lr = 1.0
    with pytest.raises(TypeError):
        recipe.waive["parameters"] = "no"


@pytest.mark.parametrize("name", NAMES)
def test_every_docstring_says_source_and_command(name):
    doc = ast.get_docstring(ast.parse(recipe_path(name).read_text("utf-8")))
    assert list_recipes()[name] == doc.splitlines()[0] and len(doc.splitlines()[0]) > 30
    assert "Source" in doc and f"python -m cifar_fast recipe {name}" in doc


def test_the_listing_shows_those_lines(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)  # a terminal is as wide as it is
    from cifar_fast.cli.main import main

    assert main(["recipes"]) == 0
    shown = capsys.readouterr().out
    for name, line in list_recipes().items():
        assert f"{name} " in shown and line in shown


@pytest.mark.parametrize("name", NAMES)
def test_reproductions_alone_select_on_test(name):
    # What the five published and we do not: everything of ours is trained without a look at the test set.
    recipe = load_recipe(name)
    assert (recipe.validate_on == "test") is (name not in ("digits", "final", "micro", "sprint", "teacher"))
    assert recipe.valid == 0 and (recipe.validate_on == "test" or recipe.keep == "last")


# ---------------------------------------------------------------- names and files


def test_runs_on_other_data_have_names_of_their_own(tmp_path, monkeypatch):
    assert load_recipe("sprint").name == "sprint" == sprint("data=cifar10").name
    assert sprint("data=digits").name == "sprint-digits"
    assert sprint(f"data={tmp_path}/pets/").name == "sprint-pets"
    monkeypatch.chdir(tmp_path)
    assert sprint("data=pets").name == "sprint-pets"
    assert sprint("data=.").name == f"sprint-{tmp_path.name}"
    assert sprint("name=mine", "data=digits").name == sprint("data=digits", "name=mine").name == "mine"
    assert override(replace(sprint(), data="digits"), ["data=digits"]).name == "sprint"  # its own dataset is digits


def test_statistics_of_ones_own_dataset_are_not_taken_elsewhere():
    netv2 = load_recipe("netv2")
    assert netv2.stats and override(netv2, ["data=digits"]).stats is None


@pytest.mark.parametrize("stats", [
    (0.5, 0.25), ((0.5,) * 3,), ((0.5,) * 2, (0.25,) * 2), ((0.5,) * 3, (0.25, 0.25, 0.0)), ((0.5,) * 3, ("a",) * 3),
    ((float("nan"),) * 3, (0.25,) * 3), (np.full(3, 0.5), np.full(3, 0.25))])
def test_statistics_that_cannot_normalise(stats):
    with pytest.raises(RecipeError, match="stats=.*expected.*std above 0"):
        check(replace(sprint(), stats=stats))


@pytest.mark.parametrize("name", ["a/b", "..", "", ".final", "results.csv", "runs.csv", "sweeps", "lr_find"])
def test_names_that_would_land_elsewhere(name):
    with pytest.raises(RecipeError, match=re.escape(f"name={name}: ")):
        check(sprint(f"name={name}"))


@pytest.mark.parametrize("name, sched", [("net", "cyclic"), ("strided", "one_cycle_torch")])
def test_a_rate_that_the_schedule_would_overwrite(name, sched):
    with pytest.raises(RecipeError, match=f"no effect with sched={sched}.*sched.max_lr"):
        override(load_recipe(name), ["lr=0.1"])
    assert override(load_recipe(name), ["lr=0.1", "sched=step"]).lr == 0.1


def test_transforms_that_hold_others_are_described():
    import albumentations as A

    augment = (A.OneOf([A.HorizontalFlip(p=1), A.VerticalFlip(p=1)], p=0.5), A.Sequential([A.Transpose(p=0.2)]))
    shown = json.loads(json.dumps(describe(replace(sprint(), augment=augment))))["augment"]
    assert shown[0]["OneOf"]["transforms"][1] == {"VerticalFlip": {"p": 1}}
    assert shown[1]["Sequential"]["transforms"][0]["Transpose"]["p"] == 0.2
    one, three = (describe(A.SomeOf([A.HorizontalFlip(), A.VerticalFlip(), A.Transpose()], n=n)) for n in (1, 3))
    assert one != three and one["SomeOf"]["n"] == 1 and "replace" in one["SomeOf"]


def test_a_recipe_may_register_a_net_of_its_own(tmp_path):
    import timm

    (tmp_path / "own.py").write_text(
        "from timm.models import register_model\nfrom cifar_fast.all import *\n\n\n@register_model\n"
        "def cifar_test_of_recipes(pretrained=False, **kw):\n    return timm.create_model('cifar_sprint', **kw)\n\n\n"
        "recipe = Recipe(arch='cifar_test_of_recipes', epochs=1, opt=sgd, fit=constant, loss=cross_entropy)\n")
    try:
        assert load_recipe(str(tmp_path / "own.py")).arch == "cifar_test_of_recipes"
        assert timm.create_model("cifar_test_of_recipes", num_classes=3).num_classes == 3
    finally:  # others walk the registry
        from timm.models import _registry

        for table in vars(_registry).values():
            if isinstance(table, dict):
                table.pop("cifar_test_of_recipes", None)
            for names in table.values() if isinstance(table, dict) else ():
                if isinstance(names, set):
                    names.discard("cifar_test_of_recipes")


@pytest.mark.parametrize("wrong, said", [
    ({"loss": CrossEntropyLoss()}, r"loss=CrossEntropyLoss\(\): expected a function or a class, not called"),
    ({"loss": "cross_entropy"}, r"loss='cross_entropy': .*partial\(cross_entropy"), ({"fit": "one_cycle"}, "fit='one"),
    ({"loss": partial(CrossEntropyLoss, None, True)}, r"its arguments None, True need names"),
    ({"sched": "cosine"}, "sched='cosine'"), ({"sched": cosine()}, "sched=.*not called"), ({"opt": "sgd"}, "opt='sgd'"),
    ({"mix": "mixing"}, "mix='mixing'"), ({"ema": 0.999}, "ema=0.999"), ({"resize": 24}, "resize=24.*progressive"),
    ({"budget": 50_000}, r"budget=50000: .*Budget\(max_params"), ({"budget": {"max_params": 1}}, "expected a Budget"),
    ({"arch": None}, "arch=None: expected a name in quotes"), ({"arch": ""}, "arch=''"), ({"name": 7}, "name=7"),
])
def test_a_value_of_another_kind_is_named(wrong, said):
    with pytest.raises(RecipeError, match=said):
        check(replace(load_recipe("final"), **wrong))


def test_a_limit_of_what_is_no_budget_is_named():
    with pytest.raises(RecipeError, match=r"budget=50000: expected a Budget"):
        override(replace(load_recipe("final"), budget=50_000), ["budget.max_params=5000"])


def test_the_examples_of_the_messages_can_be_used():
    from cifar_fast import all as names

    for key, text in EXAMPLES.items():
        value = text if key in ("arch", "name") else eval(text, vars(names))
        more = {"fit": names.constant} if key == "sched" else {}
        check(replace(load_recipe("final"), **{key: value}, **more))


def test_a_recipe_that_there_is_not(tmp_path):
    with pytest.raises(RecipeError, match=r"no recipe is called 'sprnt' \(did you mean sprint\?\); there are digits"):
        load_recipe("sprnt")
    with pytest.raises(RecipeError, match="no recipe file .*nowhere.py; python -m cifar_fast copy final .*nowhere.py"):
        load_recipe(str(tmp_path / "nowhere.py"))
    (tmp_path / "folder.py").mkdir()
    for name in (str(tmp_path / "folder.py"), "", ".", "../sprint", "sprint/"):
        with pytest.raises(RecipeError):
            load_recipe(name)


@pytest.mark.parametrize("text, said", [
    ("recipe = Recipe(", "SyntaxError"),
    ("from cifar_fast.all import *\nrecipe = Recipe(arch='cifar_sprint')", "TypeError.*epochs"),
    ("from cifar_fast.all import *\nrecipe = Recipe(arch='cifar_sprint', epoch=3)", "TypeError.*epoch"),
    ("1 / 0", "ZeroDivisionError"),
    ("import no_such_module", "no_such_module"),
    ("\0", "null bytes"),
    ("x = 1", "must define `recipe = Recipe"),
    ("recipe = {'arch': 'cifar_sprint'}", "must define `recipe = Recipe.*its `recipe` is {'arch'"),
    ("", "it defines no `recipe`"),
    ("from cifar_fast.all import *\n\nrecipe = Recipe(arch='x',\n    epoch=3)", ", line 3: .*'epoch'"),
    ("x = 1\ny = = 2", ", line 2: SyntaxError"),
])
def test_a_broken_recipe_file_is_named(tmp_path, text, said):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(RecipeError, match=f"(?s)mine.py.*{said}"):
        load_recipe(str(path))


def test_an_own_recipe_file(tmp_path, monkeypatch):
    path = tmp_path / "mine.py"
    path.write_text(recipe_path("sprint").read_text("utf-8").replace("epochs=8", "epochs=3"))
    recipe = load_recipe(str(path))
    assert recipe.name == "mine" and recipe.epochs == 3 and recipe == replace(sprint("epochs=3"), name="mine")
    monkeypatch.chdir(tmp_path)
    assert load_recipe("mine.py") == recipe
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_recipe("~/mine.py") == recipe
    path.write_text(path.read_text().replace("recipe = Recipe(", "recipe = Recipe(name='other', "))
    assert load_recipe(str(path)).name == "other"


def test_descriptions_are_plain():
    from cifar_fast.all import A, sgd

    sgd_path = "cifar_fast.training.optimizers.sgd"
    assert describe(partial(sgd, momentum=0.5)) == {"call": sgd_path, "args": {"momentum": 0.5}}
    flip = describe(A.HorizontalFlip(p=0.3))
    assert list(flip) == ["HorizontalFlip"] and flip["HorizontalFlip"]["p"] == 0.3
    assert describe(((1, 2.5), None, True, {"a": "b"})) == [[1, 2.5], None, True, {"a": "b"}]


# ---------------------------------------------------------------- what a setting affects


def test_which_settings_affect_no_weight_and_which_the_machine_decides():
    assert settings_that(affects_weights=False) == {"name", "exports", "report", "workers", "checkpoint_epochs",
                                                    "checkpoint_minutes", "init", "distill",
                                                    "distill_cache", "track"}
    assert settings_that(by_machine=True) == {"device", "precision", "compile", "procs"}
    assert settings_that(affects_weights=True, by_machine=False) >= {"arch", "lr", "seed", "mix", "augment"}
    with pytest.raises(KeyError):
        settings_that(affects_wieghts=True)
