"""What a card consists of, and the types that are checked where it is read."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from cifar_fast.data.balance import balanced_accuracy, unequal
from cifar_fast.export.card_format import shown
from cifar_fast.utils.statistics import interval_text
from cifar_fast.utils.text import is_printable, printable

MAX_CLASSES = 10_000
MAX_SIDE = 1024  # pixels of an image, so that a card from elsewhere cannot ask for all memory
MAX_WIDTH = 4096  # channels
MAX_NAME = 6 * 255  # of a class: a folder's name has up to 255 bytes, shown as up to six characters each

TEMPERATURES = (0.05, 20.0)
"What a temperature may be: beyond, all probabilities are 0 and 1, or all the same."


def refuse(text: str) -> PydanticCustomError:
    return PydanticCustomError("card", text.replace("{", "{{").replace("}", "}}"))


def class_names(vocab: list[str]) -> list[str]:
    for name in vocab:  # a line break or an escape sequence could write anything to a terminal
        if not 0 < len(name) <= MAX_NAME or not is_printable(name):
            raise refuse(f"{shown(name)} is no class name of up to {MAX_NAME:,} printable characters")
    if len(set(vocab)) < len(vocab):
        raise refuse("a class is named twice")
    return vocab


def described_recipe(recipe: dict) -> dict:
    data, seed = recipe.get("data", ""), recipe.get("seed", 0)
    if not is_path(data):
        raise refuse("its data must be a name or a path")
    if type(seed) is not int or not 0 <= seed < 2**32:
        raise refuse("its seed must be a whole number from 0 to 2**32 - 1")
    return recipe


def is_path(value: Any) -> bool:
    "Whether this text can be a path."
    try:
        return isinstance(value, str) and b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        return False


Text = Annotated[str, AfterValidator(printable)]  # escape sequences have no effect where it is printed
Count = Annotated[int, Field(ge=0)]
Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]  # pixels
Width = Annotated[int, Field(ge=1, le=MAX_WIDTH)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Duration = Annotated[float, Field(ge=0, allow_inf_nan=False)]  # seconds


@dataclass(frozen=True, kw_only=True)
class Normalization:
    "Of pixels in [0, 1], by channel."

    mean: Annotated[list[Annotated[float, Field(ge=-100, le=100)]], Field(min_length=3, max_length=3)]
    std: Annotated[list[Annotated[float, Field(ge=1e-6, le=100)]], Field(min_length=3, max_length=3)]


@dataclass(frozen=True, kw_only=True)
class Metrics:
    "What a model scores on one set of images."

    n: Count  # images
    accuracy: Fraction
    per_class: dict[str, Fraction | None] = field(default_factory=dict)  # None for a class without images
    confusion: list[list[Count]] = field(default_factory=list)  # rows are true classes
    accuracy_tta: Fraction | None = None  # of the mean of image and mirror
    accuracy_without_ema: Fraction | None = None

    @property
    def balanced_accuracy(self) -> float | None:
        "The mean of the accuracies of the classes; None where they have about as many images each."
        return balanced_accuracy(self.per_class) if unequal(map(sum, self.confusion)) else None

    @property
    def interval(self) -> str:
        "n and the 95 % interval of the accuracy, empty for many images."
        return interval_text(self.accuracy, self.n)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    "A temperature by which logits are divided, and what it was fitted on."

    temperature: Annotated[float, Field(ge=TEMPERATURES[0], le=TEMPERATURES[1])]
    images: Text  # "held-out", or the name of other images
    n: Count
    error_before: Fraction  # expected calibration error on these images
    error_after: Fraction  # likewise, of each fifth with the temperature of the others
    log_loss_before: Duration | None = None  # negative log-likelihood, likewise; None in older cards
    log_loss_after: Duration | None = None
    date: Text = ""

    def __str__(self) -> str:
        losses = "" if self.log_loss_after is None else \
            f", log loss (NLL) {self.log_loss_before:.3f} before, {self.log_loss_after:.3f} after"
        return (f"temperature {self.temperature:.3f}, fitted on {self.n:,} images ({self.images}): expected "
                f"calibration error {self.error_before:.1%} before, {self.error_after:.1%} after{losses}")


@dataclass(frozen=True, kw_only=True)
class BestEpoch:
    "The epoch with the best validation accuracy."

    epoch: Count
    accuracy: Fraction


@dataclass(frozen=True, kw_only=True)
class Seconds:
    training: Duration
    epoch: Duration  # median
    total: Duration | None = None  # with validation, saving and export
    to_85: Duration | None = None  # of training until validation accuracy first reached 85 %


@dataclass(frozen=True, kw_only=True)
class Rule:
    "A rule of the budget, what it requires and what the model has."

    rule: Text
    required: bool | int
    found: bool | int
    ok: bool


@dataclass(frozen=True, kw_only=True)
class Audited:
    params: Count
    macs: Count  # multiply-adds of one image
    receptive_field: Count  # pixels
    flash: Count | None = None  # bytes of the weights in int8; None in cards from before it was counted
    ram: Count | None = None  # bytes of the activations of one image in int8 that are needed at once
    verdicts: list[Rule] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Data:
    name: Text = ""
    fingerprint: Text = ""
    train: Count = 0  # images trained on
    test: Count = 0
    skipped: Count = 0  # images that could not be read
    ranges: dict[str, tuple[Finite, Finite]] = field(default_factory=dict)  # of images of more than 8 bits, by type


@dataclass(frozen=True, kw_only=True)
class Machine:
    device: Text = ""
    precision: Text = ""
    compiled: bool | None = None
    threads: Count | None = None
    platform: Text = ""
    memory_format: Text = ""  # "contiguous" or "channels_last"
    format_speeds: dict[str, float] = field(default_factory=dict)  # images/s of each, where they were timed
    procs: Count = 1  # that trained together
    batch_norm: Text = ""  # what its statistics were of, where there were several processes


@dataclass(frozen=True, kw_only=True)
class Trained:
    "Trained weights that a run used."

    name: Text  # as the recipe names them
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size: Count  # pixels of a side of the images that they were trained on
    data: Text = ""  # that they were trained on, where that is known
    split: Literal["test", "held-out"] | None = None  # that their accuracy was measured on
    accuracy: Fraction | None = None
    saw_held_out: bool = False  # they were trained on images that this run is measured on

    @property
    def what(self) -> str:
        "`exports/final (93.80 % test accuracy on cifar10, sha256 0123456789ab)`."
        known = [f"{self.accuracy:.2%} {self.split} accuracy"] if self.accuracy is not None and self.split else []
        known += [f"on {self.data}"] if self.data else []
        known = [" ".join(known)] if known else []
        warning = ["trained on images that this run is measured on: accuracy is too high"] if self.saw_held_out else []
        return f"{self.name} ({', '.join([*known, f'sha256 {self.sha256[:12]}', *warning])})"


@dataclass(frozen=True, kw_only=True)
class Teacher(Trained):
    "The export that a run was distilled from, and how."

    arch: Text
    params: Count
    seconds: Duration | None = None  # of its own training
    alpha: Fraction  # of the loss; the labels have the rest
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)]

    def __str__(self) -> str:
        "`exports/teacher (…): cifar_teacher, 4,966,730 parameters, trained in 1,700 s`."
        seconds = "" if self.seconds is None else f", trained in {self.seconds:,.0f} s"
        return f"{self.what}: {self.arch}, {self.params:,} parameters{seconds}"


def teachers_text(teachers: list[Teacher]) -> str:
    "`exports/teacher (…): …, alpha 0.9, temperature 4`, or of several `the mean logits of exports/a (…): …, and of …`."
    if not teachers:
        return ""
    which = "the mean logits of " if len(teachers) > 1 else ""
    first = teachers[0]
    return (f"{which}{', and of '.join(map(str, teachers))}, alpha {first.alpha:g}, temperature "
            f"{first.temperature:g}")


@dataclass(frozen=True, kw_only=True)
class Start(Trained):
    "The trained weights that a run started from, and what it took of them."

    tensors: Count  # of the model
    taken: Count
    new: list[Text] = field(default_factory=list)  # tensors of the head
    unfit: list[Text] = field(default_factory=list)  # other tensors of the model without one of their name and shape
    unused: list[Text] = field(default_factory=list)  # tensors that the model has no place for
    pruned: Fraction = 0.0  # of their channels
    widths: list[Width] = field(default_factory=list)  # before that; the card's own are those after it

    @property
    def amount(self) -> str:
        "`62 of 64 tensors, new head (head.fc.weight, head.fc.bias)`."
        widths = ", ".join(map(str, self.widths))
        parts = [f"{self.pruned:.0%} of their channels pruned (widths were {widths})"] if self.pruned else []
        parts += [f"{self.taken} of {self.tensors} tensors"]
        parts += [f"new head ({few(self.new)})"] if self.new else []
        parts += [f"also new, as their shapes or names differ: {few(self.unfit)}"] if self.unfit else []
        return ", ".join(parts + ([f"not used: {few(self.unused)}"] if self.unused else []))


@dataclass(frozen=True, kw_only=True)
class Exported:
    "A file that the run was exported to, and what was measured of it beside the model in torch."

    target: Text
    bytes: Count
    n: Count = 0  # images that both predicted; 0 where nothing here runs the file
    images: Text = ""  # which: "test", "held-out" or "noise"
    accuracy: Fraction | None = None  # on them, None for noise
    accuracy_torch: Fraction | None = None
    differ: Count = 0  # images whose predicted class is not torch's
    difference: Duration = 0.0  # the largest of a probability
    speed: dict[str, Duration] = field(default_factory=dict)  # batch size → images/s as a multiple of those of torch
    threads: Count | None = None  # of both
    flash: Count | None = None  # bytes on a microcontroller
    arena: Count | None = None  # bytes of its memory, as measured
    note: Text = ""


def few(names: list[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
