"""A recipe that trains on digits in seconds, and what training it gives."""

from types import SimpleNamespace

from toys import state

from cifar_fast.recipe import load_recipe, override
from cifar_fast.training.fit import fit
from cifar_fast.training.prepare import prepare

TINY = ("data=digits", "epochs=2", "bs=64", "valid=900", "lr=0.05", "device=cpu")  # 8 batches an epoch
AVERAGED = ("ema=ema", "ema.decay=0.99", "ema.warmup=true")


def tiny(*changes):
    average = () if any(c.startswith("ema") for c in changes) else AVERAGED
    exact = () if any(c.startswith("precision") for c in changes) else ("precision=fp32",)  # on every processor
    return override(load_recipe("sprint"), [*TINY, *exact, *average, *changes])


def trained(recipe, *more, folder=None):
    "A fitted run, what the fit gave, and its weights; `more` callbacks watch it."
    run = prepare(recipe)
    run.learn.add_cbs(more)
    fitted = fit(run, folder=folder)
    run.learn.remove_cbs(more)
    return SimpleNamespace(run=run, fitted=fitted, state=fitted.state, ema=fitted.ema, weights=state(run.learn.model),
                           frame=fitted.state.frame())


MIXED = ("mix=mixing", "mix.mixup=0.3", "mix.cutmix=0.3", "mix.ricap=0.2")
