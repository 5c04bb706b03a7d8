"""A recipe that trains on digits in seconds, and what training it gives."""

from types import SimpleNamespace

from toys import state

from cifar_fast.recipe import load_recipe, override
from cifar_fast.training.callbacks.history import History
from cifar_fast.training.prepare import fit, prepare

TINY = ("data=digits", "epochs=2", "bs=64", "valid=900", "lr=0.05", "device=cpu")  # 8 batches an epoch
AVERAGED = ("ema=ema", "ema.decay=0.99", "ema.warmup=true")


def tiny(*changes):
    average = () if any(c.startswith("ema") for c in changes) else AVERAGED
    return override(load_recipe("sprint"), [*TINY, *average, *changes])


def trained(recipe, *more, folder=None):
    "A fitted run, its callbacks by type, and its weights; `more` callbacks watch it."
    run = prepare(recipe)
    run.learn.add_cbs(more)
    cbs = {type(cb): cb for cb in fit(run, folder=folder)}
    return SimpleNamespace(run=run, cbs=cbs, weights=state(run.learn.model), frame=cbs[History].frame())


MIXED = ("mix=mixing", "mix.mixup=0.3", "mix.cutmix=0.3", "mix.ricap=0.2")
