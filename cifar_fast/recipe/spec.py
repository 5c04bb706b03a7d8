"""A `Recipe` is to a `Learner` what a `DataBlock` is to `DataLoaders`: a spec, realised later."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from functools import partial
from types import MappingProxyType
from typing import Any

from cifar_fast.recipe.describe import describe
from cifar_fast.utils.errors import CifarFastError
from cifar_fast.utils.text import nearest

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
by_data: whether a run adapts it to its images, unless it was typed; the run's recipe holds the result. Of a callable
it is the name of the argument that is adapted.
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


def _number(fits: Callable[[float], bool], expected: str, default: Any = MISSING, **metadata: Any) -> Any:
    "A field that takes the numbers for which `fits`; `expected` says which these are."
    return field(default=default, metadata={"fits": fits, "expected": expected, **metadata})


def _least(least: int, default: Any = MISSING, what: str = "a number", **metadata: Any) -> Any:
    return _number(lambda x: least <= x < float("inf"), f"{what} of at least {least}", default, **metadata)


def _argument_of(name: str) -> dict[str, Any]:
    "Metadata of a field NAME_ARG that the command line also knows as NAME.ARG."
    return {"argument_of": name}


@dataclass(frozen=True, kw_only=True, eq=False)
class Recipe:
    "Everything that decides a run. Values, importable callables and partials only: it prints, compares, pickles."

    arch: str  # a name in timm's registry, e.g. "cifar_final"
    epochs: int = _least(1, what="a whole number")
    name: str = _neutral("")  # folder of the run in `exports`; "" is the recipe's own name (NAME-DATA on other data)
    data: str = "cifar10"  # a dataset's name, hf:owner/name, a folder of images or a label table
    columns: Mapping[str, str] = field(default_factory=dict)  # of a label table: data.file=, data.label=, data.split=
    # Side of every image, pixels; None (auto): the dataset's own, chosen for a folder.
    size: int | None = _number(lambda x: 8 <= x <= 1024, "8 to 1024 pixels, or auto", None, by_data=True)
    resize_mode: str = _choice("crop", "pad", "squash", default="crop")  # how an image is brought to that square
    init: str | None = _neutral(None)  # trained weights to start from: an export, or timm's hf-hub: or local-dir: name
    init_sha256: str = ""  # of these weights; a run fills it in, and refuses others where it is given
    # Fraction of the channels of `init` that are removed before training, the least important ones.
    prune: float = _number(lambda x: 0 <= x < 1, "a fraction of the channels, 0 or more and less than 1", 0)
    distill: str | None = _neutral(None)  # a teacher: an export whose logits are learned beside the labels
    # Several teachers are separated by commas: their mean logits are learned.
    distill_sha256: str = ""  # of its weights; a run fills it in, and refuses others where it is given
    # `distill.alpha`: the loss is (1 - alpha) times that of the labels plus alpha times the distillation loss.
    distill_alpha: float = _number(lambda x: 0 < x <= 1, "a number above 0 and at most 1", 0.9,
                                   **_argument_of("distill"))
    # Of both softmaxes that are compared.
    distill_temperature: float = _number(lambda x: 0 < x < float("inf"), "a number above 0", 4.0,
                                         **_argument_of("distill"))
    # Cache the teacher's logits on disk, for other students that see the same images.
    distill_cache: bool = field(default=False, metadata={**_argument_of("distill"), "affects_weights": False})
    # Epochs after which order, augmentation and mixing come again, so that cached logits serve again; 0: never.
    distill_repeat: int = _least(0, 0, "a whole number", **_argument_of("distill"))
    on_error: str = _choice("skip", "refuse", default="skip")  # what to do about images that cannot be read
    stats: tuple | None = None  # (mean, std) per channel of values in [0, 1]; None: computed from the training images
    # Albumentations for training, in this order, on uint8 HWC images; their numbers of pixels are for `size`.
    augment: tuple = field(default=(), metadata={"by_data": True})
    validate_on: str = _choice("held_out", "test", default="held_out")  # "test": what the published systems did
    # Held out of train: a fraction below 1, or a number of images from 1 up; 0: train on all.
    valid: float = _number(lambda x: 0 <= x < 1 or x < float("inf") and x == int(x) >= 1,
                           "a fraction of the training images below 1 (valid=0.1), or a whole number of them "
                           "(valid=500)", 0)
    # Which epoch's weights are exported. The best one, patience and target go by validation accuracy, by the balanced
    # one where classes are unequal.
    keep: str = _choice("last", "best", default="last")
    bs: int = _least(1, 128, "a whole number", by_data=True)  # batch size; less on few images
    drop_last: bool = True  # drop the last, smaller batch of an epoch (fastai's default)
    # Processes that augment; None (auto): chosen here; the images are the same.
    workers: int | None = _least(0, None, "a whole number", affects_weights=False)
    # Peak learning rate; `lr=find` on the command line takes lr_find's valley.
    lr: float = _number(lambda x: 0 < x < float("inf"), "a number above 0", 1e-3)
    opt: Callable = _from("cifar_fast.training.optimizers")
    fit: Callable = _from("cifar_fast.training.fits")
    sched: Callable | None = _from("cifar_fast.training.schedules", default=None)
    loss: Callable = _from("cifar_fast.training.losses")
    # Times that each image is in its batch, augmented anew each time; `views.weight` times the Jensen-Shannon
    # divergence of its predictions is added to the loss.
    views: int = _least(1, 1, "a whole number")
    views_weight: float = _least(0, 12.0, **_argument_of("views"))
    balance: str = _choice("none", "loss", "sample", default="none")  # classes count alike: by weights or by sampling
    mix: Callable | None = _from("cifar_fast.training.mix", default=None)
    # Smaller images early on.
    resize: Callable | None = _from("cifar_fast.training.resize", default=None, by_data="size")
    ema: Callable | None = _from("cifar_fast.training.callbacks.ema", default=None, by_data="decay")
    clip: float = _least(0, 0)  # maximum norm of the gradient, 0 for no clipping
    # Stop after this many epochs without a better validation accuracy, 0: never.
    patience: int = _least(0, 0, "a whole number")
    # Stop once validation accuracy reaches this fraction (0.85), 0: never.
    target: float = _number(lambda x: 0 <= x < 1, "a fraction below 1, e.g. target=0.85", 0)
    seed: int = _number(lambda x: 0 <= x < 2**32, f"0 to {2**32 - 1}", 42)
    device: str = field(default="auto", metadata={"by_machine": True})  # "auto" (cuda, mps, cpu) or torch's name
    # On CUDA fp32 means what it means to torch: TF32 in convolutions, where the GPU has it.
    precision: str = _choice("auto", "fp32", "bf16", "fp16", default="fp32", by_machine=True)
    channels_last: bool | str = False  # memory format of images and weights; "auto": the faster one here, timed
    compile: str = _choice("off", "on", "auto", default="off", by_machine=True)  # torch.compile; "auto": if faster
    # Processes that train together, each on its slice of every batch; None (auto): one a GPU, two on a CPU.
    procs: int | None = _number(lambda x: 1 <= x, "the number of processes that train together, 1 or more, or auto", 1,
                                by_machine=True)
    sync_bn: bool = False  # of several processes: batch norm over the whole batch, not over each slice
    tta: bool = True  # also report TTA accuracy: mean probability of the image and its mirror image
    budget: Any = None  # an audit.Budget; None: the default one
    waive: Mapping[str, str] = field(default_factory=dict)  # rule of the budget that this recipe breaks → the reason
    exports: str = _neutral("exports")  # folder of all runs
    report: bool = _neutral(True)  # save report.html, its figures and a model card
    track: str = _choice("none", "tensorboard", "wandb", default="none", affects_weights=False)  # gets the curves too
    # Save a checkpoint every so many epochs, 0: never; and within an epoch every so many minutes, 0: never.
    checkpoint_epochs: int = _least(0, 1, "a whole number", affects_weights=False)
    checkpoint_minutes: float = _least(0, 5, affects_weights=False)

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


def require_value(f: Field, value: Any) -> None:
    "Raise RecipeError where a setting does not take this value: none of its choices, or a number outside its limits."
    name = typed_name(f)
    if (choices := f.metadata.get("choices")) and value not in choices:
        raise RecipeError(f"{name}={value}: choose one of {', '.join(choices)}{nearest(str(value), choices)}")
    if (fits := f.metadata.get("fits")) is None or value is None and "None" in f.type:
        return
    whole = f.type.startswith("int")
    number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not number or not fits(value):
        raise RecipeError(f"{name}={value}: expected {f.metadata['expected']}")


def require_budget(budget: Any) -> None:
    "Raise RecipeError unless it is a Budget or None."
    from cifar_fast.audit import Budget

    if not isinstance(budget, Budget | None):
        raise RecipeError(f"budget={budget!r}: expected a Budget, e.g. budget=Budget(max_params=50_000)")


def typed_name(f: Field) -> str:
    "As the command line calls it: `distill.alpha` for the field distill_alpha."
    before = f.metadata.get("argument_of")
    return f"{before}.{f.name.removeprefix(before + '_')}" if before else f.name


def settings_that(**metadata: bool) -> frozenset[str]:
    "Names of the settings with these values of `METADATA`: settings_that(affects_weights=False)."
    return frozenset(f.name for f in fields(Recipe)
                     if all({**METADATA, **f.metadata}[key] == value for key, value in metadata.items()))
