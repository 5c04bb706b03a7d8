"""Recipes as values: every one loads, prints, compares and pickles; every mistake is answered with what would work."""

import ast
import copy
import json
import pickle
import re
from dataclasses import fields, replace
from functools import partial

import pytest

from cifar_fast.recipe import (
    Recipe,
    RecipeError,
    check,
    choices,
    describe,
    list_recipes,
    load_recipe,
    override,
    recipe_path,
    settings,
    settings_that,
)

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


# ---------------------------------------------------------------- overrides


@pytest.mark.parametrize("change, key, value", [
    ("epochs=3", "epochs", 3), ("epochs=1e3", "epochs", 1000), ("bs=32.0", "bs", 32), ("seed=0", "seed", 0),
    ("lr=0.02", "lr", 0.02), ("lr=1e-3", "lr", 0.001), ("valid=0.1", "valid", 0.1), ("valid=500", "valid", 500),
    ("name=mine", "name", "mine"), ("data=/tmp/a=b", "data", "/tmp/a=b"), ("exports=x y", "exports", "x y"),
    ("drop_last=false", "drop_last", False), ("drop_last=Off", "drop_last", False), ("tta=no", "tta", False),
    ("channels_last=AUTO", "channels_last", "auto"), ("channels_last=0", "channels_last", False),
    ("channels_last=YES", "channels_last", True),
    ("precision=bf16", "precision", "bf16"), ("keep=best", "keep", "best"), ("compile=auto", "compile", "auto"),
    ("on_error=refuse", "on_error", "refuse"), ("validate_on=test", "validate_on", "test"), ("mix=none", "mix", None),
    ("workers=2", "workers", 2), ("workers=auto", "workers", None), ("ema=None", "ema", None),
    ("resize=none", "resize", None), ("device=cuda:1", "device", "cuda:1"),
    ("init=exports/final", "init", "exports/final"), ("init=none", "init", None),
    ("distill=exports/teacher", "distill", "exports/teacher"), ("distill.alpha=0.5", "distill_alpha", 0.5),
    ("distill_temperature=2", "distill_temperature", 2), ("prune=0.5", "prune", 0.5),
])
def test_scalars(change, key, value):
    recipe = sprint(change)
    assert getattr(recipe, key) == value and isinstance(getattr(recipe, key), bool) is isinstance(value, bool)
    may_differ = {key, "opt", "fit", "loss", "ema", "augment", "mix", "resize"} | ({"name"} if key == "data" else set())
    assert all(getattr(recipe, f.name) == getattr(load_recipe("sprint"), f.name)
               for f in fields(Recipe) if f.name not in may_differ)


def test_nothing_changes_the_original():
    recipe = load_recipe("sprint")
    before = describe(recipe)
    override(recipe, ["fit.pct_start=0.5", "opt.momentum=0.5", "epochs=1"])
    assert describe(recipe) == before and override(recipe, []) == recipe


def test_arguments_of_callables():
    recipe = sprint("fit.pct_start=0.3", "opt.momentum=0.8", "fit.moms=(0.9, 0.8, 0.9)", "resize.size=16",
                    "loss.label_smoothing=0")
    assert recipe.fit.keywords["pct_start"] == 0.3 and recipe.fit.keywords["moms"] == (0.9, 0.8, 0.9)
    assert recipe.fit.keywords["div"] == 10.0  # the others stay
    assert recipe.opt.keywords["momentum"] == 0.8 and recipe.opt.keywords["weight_decay"] == 0.01
    assert recipe.resize.keywords == {"size": 16, "until": 0.6} and recipe.loss.keywords == {"label_smoothing": 0}


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
def test_the_published_command_line_in_any_order(order):
    changes = ["sched=step", "sched.gamma=0.5", "sched.step_size=4", "fit=constant"]
    recipe = sprint(*[changes[i] for i in order])
    assert recipe.sched.func.__name__ == "step" and recipe.sched.keywords == {"gamma": 0.5, "step_size": 4}
    check(recipe)


def test_another_callable_starts_from_its_own_defaults():
    recipe = sprint("opt=adamw")
    assert recipe.opt.keywords == {} and settings(recipe.opt)["weight_decay"] == 0.01
    assert sprint("opt=adamw", "opt.weight_decay=0.1").opt.keywords == {"weight_decay": 0.1}


def test_every_choice_of_every_callable_can_be_given():
    for f in fields(Recipe):
        for name in choices(f.metadata["from"]) if "from" in f.metadata else ():
            recipe = sprint(f"{f.name}={name}")
            assert getattr(recipe, f.name).func.__name__ == name
            for arg, default in settings(getattr(recipe, f.name)).items():
                assert sprint(f"{f.name}={name}", f"{f.name}.{arg}={default!r}") != load_recipe("sprint")
                assert getattr(sprint(f"{f.name}={name}", f"{f.name}.{arg}={default!r}"),
                               f.name).keywords == {arg: default}


@pytest.mark.parametrize("change, said", [
    ("epochs", "'epochs' is not key=value; for example epochs=30"),
    ("epoch=3", r"no setting is called 'epoch' \(did you mean epochs\?\); the settings are arch, epochs, name"),
    ("=3", "no setting is called ''; the settings are arch"),
    ("nothing.like=it", "no setting is called 'nothing'; the settings are arch"),
    ("__class__=x", "no setting is called '__class__'"),
    ("epochs=three", "epochs=three: expected a whole number"),
    ("workers=many", "workers=many: expected a whole number or auto"),
    ("epochs=2.5", "epochs=2.5: expected a whole number"),
    ("epochs=nan", "epochs=nan: expected a whole number"),
    ("epochs=inf", "epochs=inf: expected a whole number"),
    ("epochs=", "epochs=: expected a whole number"),
    ("lr=fast", "lr=fast: expected a number"),
    ("tta=maybe", "tta=maybe: expected true or false"),
    ("precision=fp8", "precision=fp8: choose one of auto, fp32, bf16, fp16"),
    ("keep=first", "keep=first: choose one of last, best"),
    ("on_error=good", "on_error=good: choose one of skip, refuse"),
    ("validate_on=x", "validate_on=x: choose one of held_out, test"),
    ("compile=yes", "compile=yes: choose one of off, on, auto"),
    ("opt=adamm", r"opt=adamm: choose one of adam, adamw, muon, sgd \(did you mean adam"),
    ("opt=none", "opt=none: choose one of adam, adamw, muon, sgd"),
    ("opt=OptimWrapper", "opt=OptimWrapper: choose one of"),
    ("fit=fast", r"fit=fast: choose one of constant, fine_tune, flat_cos, one_cycle"),
    ("sched=linear", "sched=linear: choose one of cosine, cyclic, one_cycle_torch, plateau, step, warmup_cosine, none"),
    ("loss=mse", "loss=mse: choose one of cross_entropy, focal"),
    ("mix=cutmix", "mix=cutmix: choose one of mixing, none"),
    ("resize=24", "resize=24: choose one of progressive, none"),
    ("ema=0.99", "ema=0.99: choose one of ema, none"),
    ("fit.pct=0.2", r"fit takes no 'pct'.*it takes pct_start, div, div_final, moms"),
    ("fit.epochs=2", "fit takes no 'epochs'"),
    ("opt.params=1", "opt takes no 'params'"),
    ("fit.pct_start=soon", "fit.pct_start=soon: expected a value like 0.2"),
    ("fit.moms=0.9", r"fit.moms=0.9: expected a value like \(0.9, 0.9, 0.9\)"),
    ("opt.momentum=none", "opt.momentum=none: expected a value like 0.9"),
    ("opt.momentum=true", "opt.momentum=true: expected a value like 0.9"),
    ("sched.gamma=0.1", r"sched is None in this recipe and takes no arguments; .* as in sched=step"),
    ("mix.until=0.5", "mix.until=0.5: mix is None in this recipe"),
    ("epochs.x=1", "epochs.x=1: epochs is 8 in this recipe and takes no arguments"),
    ("augment=flip", "augment cannot be set here.*copy the recipe and edit it: python -m cifar_fast copy sprint mine"),
    ("stats=1", "stats cannot be set here"),
    ("budget=1", "budget cannot be set here"),
    ("waive=dilation", "waive cannot be set here"),
])
def test_a_bad_change_names_what_would_do(change, said):
    with pytest.raises(RecipeError, match=said):
        sprint(change)


def test_a_switch_takes_no_number():
    with pytest.raises(RecipeError, match="ema.warmup=1: expected a value like True"):
        override(load_recipe("final"), ["ema.warmup=1"])


# ---------------------------------------------------------------- combinations


@pytest.mark.parametrize("changes, said", [
    (["sched=plateau", "valid=0.1"],
     "sched=plateau and fit=one_cycle would both set the learning rate; add fit=constant"),
    (["sched=cosine", "fit=flat_cos"], "sched=cosine and fit=flat_cos would both"),
    (["sched=plateau", "fit=constant"], "sched=plateau needs validation accuracy.*add valid=0.1"),
    (["patience=3"], "patience=3 needs validation accuracy"),
    (["target=0.85"], "target=0.85 needs validation accuracy"),
    (["keep=best"], "keep=best needs validation accuracy"),
    (["balance=loss", "loss=focal"], "balance=loss needs a loss.*focal does not; use .*or balance=sample"),
    (["mix=mixing", "loss=focal"], "mix=mixing needs a loss.*focal does not; use loss=cross_entropy, or mix=none"),
    (["precision=fp16", "device=cpu"], "fp16 does not train on a CPU.*use bf16 or fp32"),
    (["validate_on=test", "valid=0.1"], "validate_on=test validates on the test set.*leave out valid=0.1"),
    (["epochs=0"], "epochs=0"), (["epochs=-1"], "epochs=-1"), (["bs=0"], "bs=0"), (["workers=-1"], "workers=-1"),
    (["opt.weight_decay=-1.0"], "opt: weight_decay=-1.0: expected"), (["opt.momentum=1.0"], "opt: momentum=1.0: exp"),
    (["opt.steps=0"], "opt: steps=0: expected at least 1"), (["opt.sgd_scale=-1.0"], "opt: sgd_scale=-1.0"),
    (["opt=adam", "opt.betas=(2,0.9)"], "opt: Invalid beta"),
    (["clip=-1"], "clip=-1"), (["clip=nan"], "clip=nan"), (["patience=-1"], "patience=-1"), (["valid=-0.1"], "valid=-"),
    (["valid=1.5"], "valid=1.5: .*whole number"),
    (["valid=nan"], "valid=nan"), (["valid=inf"], "valid=inf"), (["lr=0"], "lr=0"), (["lr=-1"], "lr=-1"),
    (["lr=nan"], "lr=nan"), (["lr=inf"], "lr=inf"), (["target=1"], "target=1"), (["target=85"], "e.g. target=0.85"),
    (["target=nan"], "target=nan"), (["target=-0.1"], "target=-0.1"),
    (["exports=/x/\udcff"], r"exports=/x/\\udcff: the name is not UTF-8"), (["name=\udcff"], r"name=\\udcff: the name"),
    (["data=/x/\udcff"], r"data=/x/\\udcff: the name"),
    (["exports=~nobody_of_this_name/x"], "no home folder ~nobody_of_this_name"),
    (["data=~nobody_of_this_name/x"], "no home folder ~nobody_of_this_name"),
])
def test_what_cannot_work_is_refused_with_a_reason(changes, said):
    with pytest.raises(RecipeError, match=said):
        check(sprint(*changes))


@pytest.mark.parametrize("changes", [
    ["sched=plateau", "fit=constant", "valid=0.1"],
    ["patience=3", "target=0.85", "keep=best", "valid=0.1"],
    ["patience=3", "target=0.85", "keep=best", "validate_on=test"],
    ["mix=mixing"],
    ["mix=none", "loss=focal"],
    ["balance=sample", "loss=focal"],
    ["balance=loss", "loss.label_smoothing=0.1", "mix=mixing"],
    ["precision=fp16", "device=cuda"],
    ["sched=cosine", "fit=constant"],
    ["sched=none", "fit=flat_cos"],
])
def test_what_the_messages_recommend_works(changes):
    check(sprint(*changes))


def test_callables_without_partial_are_checked_too():
    from cifar_fast.training.fits import one_cycle
    from cifar_fast.training.losses import focal
    from cifar_fast.training.mix import mixing
    from cifar_fast.training.schedules import plateau

    base = sprint("valid=0.1")
    with pytest.raises(RecipeError, match="sched=plateau and fit=one_cycle"):
        check(replace(base, sched=plateau, fit=one_cycle))
    with pytest.raises(RecipeError, match="mix=mixing needs a loss"):
        check(replace(base, mix=mixing, loss=focal))
    assert override(replace(base, fit=one_cycle), ["fit.pct_start=0.5"]).fit.keywords == {"pct_start": 0.5}
    assert describe(replace(base, mix=mixing))["mix"] == "cifar_fast.training.mix.mixing"


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


@pytest.mark.parametrize("name", ["a/b", "..", "", ".final", "results.csv", "runs.csv"])
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
