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

SIDE = 32  # pixels of CIFAR-10's images, which a recipe is for where it names no size

MAPPINGS = ("columns", "waive")
COLUMNS = ("file", "label", "split")
"What the columns of a label table may hold."

UNTYPED = ("stats", "augment", "budget", "waive", "columns")
"Settings with structured values: set in a recipe file, never on the command line."

METADATA = {"affects_weights": True, "by_machine": False, "by_data": False}
"""Metadata of each setting, with defaults.

affects_weights: whether the value changes the trained weights, or what is measured of them.
by_machine: whether `auto` is resolved by the machine; a run records the result, which does affect the weights.
by_data: whether a run adapts it to its images, unless it was typed; the run's recipe holds the result.
"""


class RecipeError(CifarFastError):
    "A recipe, or a change to one, that cannot work."


def _from(module: str, **kw) -> Any:
    "A field whose value is a callable; on the command line it is any public name of `module`."
    return field(metadata={"from": module, "by_data": kw.pop("by_data", False)}, **kw)


def _choice(*choices: str, default: str, **metadata: bool) -> Any:
    return field(default=default, metadata={"choices": choices, **metadata})


def _neutral(default: Any) -> Any:
    "A field that does not affect the weights: where a run is saved, how fast it runs, what it shows."
    return field(default=default, metadata={"affects_weights": False})


def _argument_of(name: str, default: Any, **metadata: bool) -> Any:
    "A field NAME_ARG that the command line also knows as NAME.ARG."
    return field(default=default, metadata={"argument_of": name, **metadata})


@dataclass(frozen=True, kw_only=True, eq=False)
class Recipe:
    "Everything that decides a run. Values, importable callables and partials only: it prints, compares, pickles."

    arch: str  # a name in timm's registry, e.g. "cifar_final"
    epochs: int
    name: str = _neutral("")  # folder of the run in `exports`; "" is the recipe's own name (NAME-DATA on other data)
    data: str = "cifar10"  # a dataset's name, hf:owner/name, a folder of images or a label table
    columns: Mapping[str, str] = field(default_factory=dict)  # of a label table: data.file=, data.label=, data.split=
    # Side of every image, pixels; None (auto): the dataset's own, chosen for a folder.
    size: int | None = field(default=None, metadata={"by_data": True})
    resize_mode: str = _choice("crop", "pad", "squash", default="crop")  # how an image is brought to that square
    init: str | None = _neutral(None)  # trained weights to start from: an export, or timm's hf-hub: or local-dir: name
    init_sha256: str = ""  # of these weights; a run fills it in, and refuses others where it is given
    prune: float = 0  # fraction of the channels of `init` that are removed before training, the least important ones
    distill: str | None = _neutral(None)  # a teacher: an export whose answers are learned beside the labels
    distill_sha256: str = ""  # of its weights; a run fills it in, and refuses others where it is given
    # `distill.alpha`: the loss is (1 - alpha) times that of the labels plus alpha times that of the teacher's answers.
    distill_alpha: float = _argument_of("distill", 0.9)
    distill_temperature: float = _argument_of("distill", 4.0)  # of both softmaxes that are compared
    # Keep the teacher's answers on disk, for other students that see the same images.
    distill_cache: bool = _argument_of("distill", False, affects_weights=False)
    on_error: str = _choice("skip", "refuse", default="skip")  # what to do about images that cannot be read
    stats: tuple | None = None  # (mean, std) per channel of values in [0, 1]; None: computed from the training images
    # Albumentations for training, in this order, on uint8 HWC images; their numbers of pixels are for `size`.
    augment: tuple = field(default=(), metadata={"by_data": True})
    validate_on: str = _choice("held_out", "test", default="held_out")  # "test": what the published systems did
    valid: float = 0  # held out of train: a fraction below 1, or a number of images from 1 up; 0: train on all
    # Which epoch's weights are exported. The best one, patience and target go by validation accuracy, by the balanced
    # one where classes are unequal.
    keep: str = _choice("last", "best", default="last")
    bs: int = field(default=128, metadata={"by_data": True})  # batch size; less on few images
    drop_last: bool = True  # drop the last, smaller batch of an epoch (fastai's default)
    workers: int | None = _neutral(None)  # processes that augment; None (auto): chosen here; the images are the same
    lr: float = 1e-3  # peak learning rate; `lr=find` on the command line takes lr_find's valley
    opt: Callable = _from("cifar_fast.training.optimizers")
    fit: Callable = _from("cifar_fast.training.fits")
    sched: Callable | None = _from("cifar_fast.training.schedules", default=None)
    loss: Callable = _from("cifar_fast.training.losses")
    balance: str = _choice("none", "loss", "sample", default="none")  # classes count alike: by weights or by sampling
    mix: Callable | None = _from("cifar_fast.training.mix", default=None)
    resize: Callable | None = _from("cifar_fast.training.resize", default=None, by_data=True)  # smaller images early on
    ema: Callable | None = _from("cifar_fast.training.callbacks.ema", default=None, by_data=True)
    clip: float = 0  # maximum norm of the gradient, 0 for no clipping
    patience: int = 0  # stop after this many epochs without a better validation accuracy, 0: never
    target: float = 0  # stop once validation accuracy reaches this fraction (0.85), 0: never
    seed: int = 42
    device: str = field(default="auto", metadata={"by_machine": True})  # "auto" (cuda, mps, cpu) or torch's name
    precision: str = _choice("auto", "fp32", "bf16", "fp16", default="fp32", by_machine=True)
    channels_last: bool | str = False  # memory format of images and weights; "auto": the faster one here, timed
    compile: str = _choice("off", "on", "auto", default="off", by_machine=True)  # torch.compile; "auto": if faster
    # Processes that train together, each on its slice of every batch; None (auto): one a GPU, or as many as pay.
    procs: int | None = field(default=1, metadata={"by_machine": True})
    sync_bn: bool = False  # of several processes: batch norm over the whole batch, not over each slice
    tta: bool = True  # also report TTA accuracy: mean probability of the image and its mirror image
    budget: Any = None  # an audit.Budget; None: the default one
    waive: Mapping[str, str] = field(default_factory=dict)  # rule of the budget that this recipe breaks → the reason
    exports: str = _neutral("exports")  # folder of all runs
    report: bool = _neutral(True)  # save report.html, its figures and a model card
    track: str = _choice("none", "tensorboard", "wandb", default="none", affects_weights=False)  # gets the curves too
    checkpoint_epochs: int = _neutral(1)  # save a checkpoint every so many epochs, 0: never
    checkpoint_minutes: float = _neutral(5)  # and within an epoch every so many minutes, 0: never

    def __post_init__(self):
        for name in MAPPINGS:
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    def __reduce__(self):
        kw = {f.name: getattr(self, f.name) for f in fields(self)}
        return partial(type(self), **{**kw, **{name: dict(kw[name]) for name in MAPPINGS}}), ()

    def __eq__(self, other):
        return isinstance(other, Recipe) and describe(self) == describe(other)

    def __hash__(self):
        return hash(repr(describe(self)))


def settings_that(**metadata: bool) -> frozenset[str]:
    "Names of the settings with these values of `METADATA`: settings_that(affects_weights=False)."
    return frozenset(f.name for f in fields(Recipe)
                     if all({**METADATA, **f.metadata}[key] == value for key, value in metadata.items()))
