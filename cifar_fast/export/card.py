"""The card of a run: its results and settings. It has one writer; every view of a run reads it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from cifar_fast.data.balance import balanced_accuracy, unequal
from cifar_fast.utils.errors import CifarFastError
from cifar_fast.utils.files import expand_path, read_regular, write_text
from cifar_fast.utils.statistics import interval_text
from cifar_fast.utils.text import nearest, printable

NAME = "card.json"
FORMAT = 2
"Of card.json; another number is refused."

MAX_BYTES = 16 * 2**20  # a card takes some ten kilobytes; its confusion matrix grows with the square of the classes
MAX_CLASSES = 10_000
MAX_SIDE = 1024  # pixels of an image, so that a card from elsewhere cannot ask for all memory
MAX_WIDTH = 4096  # channels
MAX_NAME = 6 * 255  # of a class: a folder's name has up to 255 bytes, shown as up to six characters each


TEMPERATURES = (0.05, 20.0)
"What a temperature may be: beyond, all probabilities are 0 and 1, or all the same."


class ExportError(CifarFastError):
    "A saved run that cannot be written or read; the message names the file and the next step."


# ---------------------------------------------------------------- types that are checked where a card is read


def refuse(text: str) -> PydanticCustomError:
    return PydanticCustomError("card", text.replace("{", "{{").replace("}", "}}"))


def class_names(vocab: list[str]) -> list[str]:
    for name in vocab:  # a line break or an escape sequence could write anything to a terminal
        if not 0 < len(name) <= MAX_NAME or not name.isprintable():
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


@dataclass(frozen=True, kw_only=True)
class Start:
    "The trained weights that a run started from, and what it took of them."

    name: Text  # as the recipe's `init`
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size: Count  # pixels of a side of the images that they were trained on
    tensors: Count  # of the model
    taken: Count
    new: list[Text] = field(default_factory=list)  # tensors of the head
    unfit: list[Text] = field(default_factory=list)  # other tensors of the model without one of their name and shape
    unused: list[Text] = field(default_factory=list)  # tensors that the model has no place for
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
        warning = ["trained on images that are held out here: accuracy is too high"] if self.saw_held_out else []
        return f"{self.name} ({', '.join([*known, f'sha256 {self.sha256[:12]}', *warning])})"

    @property
    def amount(self) -> str:
        "`62 of 64 tensors, new head (head.fc.weight, head.fc.bias)`."
        parts = [f"{self.taken} of {self.tensors} tensors", f"new head ({few(self.new)})"]
        parts += [f"also new, as their shapes or names differ: {few(self.unfit)}"] if self.unfit else []
        return ", ".join(parts + ([f"not used: {few(self.unused)}"] if self.unused else []))


@dataclass(frozen=True, kw_only=True)
class Exported:
    "A file that the run was exported to, and what was measured of it beside the model in torch."

    target: Text
    bytes: Count
    n: Count = 0  # images that both answered; 0 where nothing here runs the file
    images: Text = ""  # what they were: "test", "held-out" or "noise"
    accuracy: Fraction | None = None  # on them, None for noise
    accuracy_torch: Fraction | None = None
    differ: Count = 0  # answers that are not those of torch
    difference: Duration = 0.0  # the largest of a probability
    speed: dict[str, Duration] = field(default_factory=dict)  # batch size → images/s as a multiple of those of torch
    threads: Count | None = None  # of both
    note: Text = ""

    def __str__(self) -> str:
        "`93.80 % (torch 93.80 %), 0 of 10,000 answers differ, 1,593,122 bytes, 4.8× torch at batch 1, 1.4× at 125`."
        parts = [] if self.accuracy is None else [f"{self.accuracy:.2%} (torch {self.accuracy_torch:.2%})"]
        if self.n:
            of = f"{self.n:,} images of noise" if self.images == "noise" else f"{self.n:,}"
            parts.append(f"{self.differ:,} of {of} answered differently (largest difference {self.difference:.1g})")
        parts.append(f"{self.bytes:,} bytes")
        parts += [f"{ratio:.1f} times torch's images/s at batch {batch}" for batch, ratio in self.speed.items()]
        return ", ".join(parts + ([self.note] if self.note else []))


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    "Images that the run was measured on which are, or nearly are, among those that it was trained on."

    n: Count
    images: Count  # that it was measured on
    accuracy: Fraction | None = None  # on the n, None where there are none
    accuracy_without: Fraction | None = None  # on the others

    def __str__(self) -> str:
        on = "" if self.accuracy is None else f", {self.accuracy:.2%} accuracy on them"
        without = "" if self.accuracy_without is None else f", {self.accuracy_without:.2%} on the others"
        return f"{self.n:,} of {self.images:,} images are (nearly) in train too{on}{without}"


@dataclass(frozen=True, kw_only=True)
class Corruptions:
    "Accuracy on corrupted images, see `export.corruptions`."

    n: Count  # images
    seed: Count  # of the corruptions and of the choice of images
    clean: Fraction  # on the same images as they are
    severities: Annotated[dict[Text, Annotated[list[Fraction], Field(min_length=5, max_length=5)]],
                          Field(min_length=1)]  # corruption → at 1 to 5
    jpeg: dict[Text, Fraction] = field(default_factory=dict)  # quality → accuracy

    @property
    def means(self) -> dict[str, float]:
        "Of each corruption, over its severities."
        return {name: sum(values) / len(values) for name, values in self.severities.items()}

    @property
    def mean(self) -> float:
        "Over corruptions and severities."
        return sum(self.means.values()) / len(self.means)

    def __str__(self) -> str:
        return (f"{self.mean:.2%} mean accuracy over {len(self.severities)} corruptions at 5 severities, "
                f"{self.clean:.2%} without (n = {self.n:,})")


def few(names: list[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


# ---------------------------------------------------------------- the card


@dataclass(frozen=True, kw_only=True)
class Card:
    "A run: its first six fields are all that a prediction needs."

    arch: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,200}$")]  # a name in timm's registry, no place to load from
    vocab: Annotated[list[str], Field(min_length=1, max_length=MAX_CLASSES), AfterValidator(class_names)]
    normalize: Normalization
    size: Side = 32  # of the images, pixels; a card that names none is from when all were of 32
    resize_mode: Literal["crop", "pad", "squash"] = "crop"  # how images are brought to that square
    widths: Annotated[list[Width], Field(min_length=1, max_length=8)] | None = None  # of a model scaled to a budget
    name: Text = ""
    split: Literal["test", "held-out"] | None = None  # what `metrics` were measured on
    metrics: Metrics | None = None
    calibration: Calibration | None = None  # None: probabilities are the softmax of the logits
    epochs: Count = 0
    last_epoch: dict[str, Finite | None] = field(default_factory=dict)  # its row of the history
    best_epoch: BestEpoch | None = None  # None where nothing was validated on
    seconds: Seconds | None = None
    resumed: Count = 0  # times
    audit: Audited | None = None
    waived: dict[str, Text] = field(default_factory=dict)  # broken rule → why that is allowed
    mixed: dict[str, Count] | None = None  # kind of mixing → batches
    start: Start | None = None  # None where it started from random weights
    recipe: Annotated[dict[str, Any], AfterValidator(described_recipe)] = field(default_factory=dict)
    recipe_name: Text = ""  # of the recipe file that it was started from
    settings: Text = ""  # what was changed of that recipe, as key=value
    source_file: Text | None = None  # recipe file that defines the model, copied into the run's folder
    data: Data = field(default_factory=Data)
    machine: Machine = field(default_factory=Machine)
    versions: dict[str, Text] = field(default_factory=dict)
    commit: Text | None = None
    date: Text = ""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None  # of model.safetensors
    exported: dict[Text, Exported] = field(default_factory=dict)  # file → what was measured of it
    duplicates: Duplicates | None = None  # None: not looked for
    corruptions: Corruptions | None = None  # None: not measured

    # ------------------------------------------------------------ derived values

    @property
    def selected_on_test(self) -> bool:
        "Whether the epoch was chosen by the accuracy on the test images, as the published systems did."
        return self.split == "test" and self.recipe.get("validate_on") == "test"

    @property
    def validated_on(self) -> str:
        "What the validation columns of the history were measured on, as text."
        return "test (selected on test)" if self.recipe.get("validate_on") == "test" else "held-out"

    @property
    def measured_how(self) -> str:
        if self.selected_on_test:
            return "selected on test, as published"
        held_out = "measured on images held out of training" + ("; test was not used" if self.data.test else "")
        return {"test": "evaluated once on test", "held-out": held_out,
                None: "not measured: no test images, and nothing held out"}[self.split]

    @property
    def temperature(self) -> float:
        "By which logits are divided before the softmax; 1 for a run that was not calibrated."
        return self.calibration.temperature if self.calibration else 1.0

    @property
    def target_accuracy(self) -> float | None:
        "The recipe's target accuracy, if it has one."
        target = self.recipe.get("target")
        return target if type(target) in (int, float) and 0 < target <= 1 else None

    @property
    def last_accuracy(self) -> float | None:
        "Validation accuracy after the last epoch, of the averaged weights where there are such."
        return self.last_epoch.get("valid_ema_accuracy", self.last_epoch.get("valid_accuracy"))

    def accuracies(self) -> list[tuple[str, float]]:
        "(what it is, accuracy) in the order to show them; empty where nothing was measured."
        if self.selected_on_test and self.best_epoch and self.last_accuracy is not None:
            shown = [("last epoch, test accuracy", self.last_accuracy),
                     (f"best epoch ({self.best_epoch.epoch}), selected on test", self.best_epoch.accuracy)]
        elif self.metrics:
            shown = [(f"{self.split} accuracy", self.metrics.accuracy)]
        else:
            return []
        if self.metrics and self.metrics.balanced_accuracy is not None:
            shown.append(("balanced accuracy (mean of the classes)", self.metrics.balanced_accuracy))
        if self.metrics and self.metrics.accuracy_tta is not None:
            shown.append(("TTA accuracy (image and mirror)", self.metrics.accuracy_tta))
        return shown

    def facts(self) -> list[tuple[str, str]]:
        "(label, value) of what is to be known at a glance: accuracies first."
        facts = [(label, f"{accuracy:.2%}") for label, accuracy in self.accuracies()]
        if self.metrics and self.metrics.interval:
            facts.append(("uncertainty", self.metrics.interval))
        if self.duplicates and self.duplicates.n and self.duplicates.accuracy_without is not None:
            facts.append((f"without {self.duplicates.n:,} images nearly in train",
                          f"{self.duplicates.accuracy_without:.2%}"))
        if self.corruptions:
            facts.append(("corrupted images (mean accuracy)", f"{self.corruptions.mean:.2%}"))
        if self.calibration:
            facts.append(("temperature", f"{self.temperature:.2f}"))
        if self.audit:
            facts += [("image size", f"{self.size}×{self.size} px"), ("parameters", f"{self.audit.params:,}"),
                      ("receptive field", f"{self.audit.receptive_field} px"),
                      ("multiply-adds", f"{self.audit.macs / 1e6:,.1f} M")]
            facts += [(f"{name} in int8", f"{count / 1024:,.1f} KB")
                      for name, count in (("flash", self.audit.flash), ("RAM", self.audit.ram)) if count is not None]
        if self.epochs:
            facts.append(("epochs", f"{self.epochs:,}"))
        return facts

    # ------------------------------------------------------------ in and out

    def to_dict(self) -> dict:
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_dict(cls, values: dict, path: str | Path = NAME) -> Card:
        "Raises ExportError, which names `path` and the field that is wrong."
        return cls.from_json(json.dumps(values), path)

    @classmethod
    def from_json(cls, content: str | bytes, path: str | Path = NAME) -> Card:
        "Raises ExportError, which names `path` and the field that is wrong."
        try:
            form = form_of().validate_json(content).format
            if form != FORMAT:
                raise ExportError(f"{path} has format {shown(form)}, this version reads {FORMAT}; train again")
            return adapter().validate_json(content, strict=True)
        except (ValidationError, RecursionError, MemoryError) as e:
            raise ExportError(f"{path}: {reason(e)}; restore the file, or train again") from None

    def write(self, folder: Path) -> None:
        write_text(folder / NAME, json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n")


@dataclass(frozen=True)
class Form:
    format: Any = None


@cache
def form_of() -> TypeAdapter:
    return TypeAdapter(Form)


@cache
def adapter() -> TypeAdapter:
    return TypeAdapter(Card)


def reason(e: Exception) -> str:
    "`vocab[3]: Input should be a valid string, not 7`, of the first thing that is wrong."
    if not isinstance(e, ValidationError):
        return f"it cannot be read ({type(e).__name__})"
    first = e.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    text = f"{where}: {first['msg']}" if where else f"it cannot be read: {first['msg']}"
    if where and first["type"] not in ("missing", "card"):
        text += f", not {shown(first['input'])}"
    return printable(text)


def shown(value: Any) -> str:
    text = printable(repr(value))
    return text if len(text) <= 60 else f"{text[:57]}..."


def read_card(path: str | Path) -> Card:
    "The card of exports/NAME. Raises ExportError."
    folder = expand_path(path)
    try:
        return Card.from_json(read_regular(folder / NAME, MAX_BYTES), folder / NAME)
    except (FileNotFoundError, NotADirectoryError):
        raise ExportError(missing(folder)) from None
    except OSError as e:
        raise ExportError(f"{folder / NAME} cannot be read: {e.strerror or e}; restore the file, or train "
                          f"again") from None


def missing(folder: Path) -> str:
    there = [run.name for run in list_runs(folder.parent)]
    return (f"no run {folder}{nearest(folder.name, there)}: there is no {folder / NAME}; "
            + (f"there are {', '.join(str(folder.parent / name) for name in there)}" if there else
               "python -m cifar_fast recipe NAME trains one, recipes lists the names"))


def list_runs(exports: Path) -> list[Path]:
    "The folders of finished runs."
    return sorted(path.parent for path in exports.glob(f"*/{NAME}") if not path.parent.name.startswith("."))
