"""Settings on the command line: what they do, and which are refused alone and together."""

from dataclasses import fields, replace

import pytest

from cifar_fast.recipe import (
    Recipe,
    RecipeError,
    check,
    choices,
    describe,
    load_recipe,
    override,
    settings,
)


def sprint(*changes):
    return override(load_recipe("sprint"), list(changes))


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
    ("fit.pct_start=1e999", "fit.pct_start=1e999: expected a finite number"),
    ("fit.pct_start=soon", "fit.pct_start=soon: expected a value like 0.2"),
    ("fit.moms=0.9", r"fit.moms=0.9: expected a value like \(0.8, 0.8, 0.8\)"),
    ("opt.momentum=none", "opt.momentum=none: expected a value like 0.8"),
    ("opt.momentum=true", "opt.momentum=true: expected a value like 0.8"),
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
    (["data=cifar100", "keep=best"], "keep=best needs validation accuracy"),  # before it is downloaded
    (["balance=loss", "loss=focal"], "balance=loss needs a loss.*focal does not; use .*or balance=sample"),
    (["mix=mixing", "loss=focal"], "mix=mixing needs a loss.*focal does not; use loss=cross_entropy, or mix=none"),
    (["precision=fp16", "device=cpu"], "fp16 is for GPUs.*use bf16 or fp32"),
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
def test_what_cannot_work_is_refused_with_a_reason(monkeypatch, changes, said):
    monkeypatch.delenv("CIFAR_FAST_DATA", raising=False)  # a tree that it names may have a validation split
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
