"""A `Recipe` is to a `Learner` what a `DataBlock` is to `DataLoaders`: a spec, realised later."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from types import MappingProxyType
from typing import Any

from cifar_fast.recipe.describe import describe
from cifar_fast.utils.errors import CifarFastError

PUBLISHED_STATS = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
"Mean and std that all five published systems normalise with (their std is not the pixels' 0.247, 0.243, 0.262)."

UNTYPED = ("stats", "augment", "budget", "waive")
"Settings that are no single value: they are written in a recipe file, never on the command line."


class RecipeError(CifarFastError):
    "A recipe, or a change to one, that cannot work; the message names the value and the next step."


def _from(module: str, **kw) -> Any:
    "A field whose value is a callable; on the command line any public name of `module` may stand for it."
    return field(metadata={"from": module}, **kw)


def _choice(*choices: str, default: str) -> Any:
    return field(default=default, metadata={"choices": choices})


@dataclass(frozen=True, kw_only=True, eq=False)
class Recipe:
    "Everything that decides a run. Values, importable callables and partials only: it prints, compares, pickles."

    arch: str  # a name in timm's registry, e.g. "cifar_final"
    epochs: int
    name: str = ""  # where the run is kept under `exports`; "" is the recipe's own name (and -<data> elsewhere)
    data: str = "cifar10"  # "cifar10", "digits" or a folder
    on_error: str = _choice("skip", "refuse", default="skip")  # what to do about images that cannot be read
    stats: tuple | None = None  # (mean, std) per channel in 0..1; None: those of the training images
    augment: tuple = ()  # Albumentations for training, applied in this order to uint8 HWC images
    validate_on: str = _choice("held_out", "test", default="held_out")  # "test": as the published systems did
    valid: float = 0  # held out of train: a share below 1, a count from 1 up, 0 for nothing (train on all)
    keep: str = _choice("last", "best", default="last")  # which epoch's weights are kept
    bs: int = 128
    drop_last: bool = True  # leave out the last, smaller batch of an epoch (fastai's default)
    workers: int | None = None  # processes that augment, `auto` (None): what helps here; the images are always the same
    lr: float = 1e-3  # peak learning rate; `lr=find` on the command line takes lr_find's valley
    opt: Callable = _from("cifar_fast.training.optimizers")
    fit: Callable = _from("cifar_fast.training.fits")
    sched: Callable | None = _from("cifar_fast.training.schedules", default=None)
    loss: Callable = _from("cifar_fast.training.losses")
    mix: Callable | None = _from("cifar_fast.training.mix", default=None)
    resize: Callable | None = _from("cifar_fast.training.resize", default=None)  # smaller images early on
    ema: Callable | None = _from("cifar_fast.training.callbacks.ema", default=None)
    clip: float = 0  # maximal norm of the gradient, 0 for none
    patience: int = 0  # stop after so many epochs without a better validation accuracy, 0 for never
    target: float = 0  # stop once validation accuracy reaches this share (0.85), 0 for never
    seed: int = 42
    device: str = "auto"  # "auto" (cuda, then mps, then cpu) or a torch device
    precision: str = _choice("auto", "fp32", "bf16", "fp16", default="fp32")
    channels_last: bool | str = False  # memory format of images and weights; "auto": the faster one here, timed
    compile: str = _choice("off", "on", "auto", default="off")  # torch.compile; "auto": where it can and pays
    tta: bool = True  # also report the mean probability of the image and its mirror
    budget: Any = None  # a constraints.Budget; None: the default one
    waive: Mapping[str, str] = field(default_factory=dict)  # broken rule → why this recipe may break it
    exports: str = "exports"  # folder that runs are left in
    report: bool = True  # leave report.html, its figures and a model card
    checkpoint_epochs: int = 1  # save the run after so many epochs, 0 for never
    checkpoint_minutes: float = 5  # and within an epoch after so many minutes, 0 for never

    def __post_init__(self):
        object.__setattr__(self, "waive", MappingProxyType(dict(self.waive)))

    def __reduce__(self):
        kw = {f.name: getattr(self, f.name) for f in fields(self)}
        return partial(type(self), **{**kw, "waive": dict(self.waive)}), ()

    def __eq__(self, other):
        return isinstance(other, Recipe) and describe(self) == describe(other)

    def __hash__(self):
        return hash(repr(describe(self)))
