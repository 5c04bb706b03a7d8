"""The card of a run: its results and settings. It has one writer; every view of a run reads it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from cifar_fast.export.card_checks import Corruptions, Duplicates
from cifar_fast.export.card_format import FORMAT, NAME, validated
from cifar_fast.export.card_parts import (
    MAX_CLASSES,
    Audited,
    BestEpoch,
    Calibration,
    Count,
    Data,
    Exported,
    Finite,
    Machine,
    Metrics,
    Normalization,
    Seconds,
    Side,
    Start,
    Teacher,
    Text,
    Width,
    class_names,
    described_recipe,
    teachers_text,
)
from cifar_fast.utils.files import write_text

MANY = 1_000
"Classes from which the numbers of a card are not written a line each: a confusion matrix has their square."


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
    teacher: Teacher | None = None  # whose predictions it learned beside the labels; written by earlier versions
    teachers: list[Teacher] = field(default_factory=list)  # the mean of whose logits it learned beside the labels
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
    tracked: dict[Text, Text] = field(default_factory=dict)  # tracker → its folder in the run's, or a web page

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
    def taught_by(self) -> str:
        "Its teachers and how their predictions were weighted; empty without one."
        return teachers_text(self.teachers or ([self.teacher] if self.teacher else []))

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
        facts += [("arena, measured by tflite-micro", f"{row.arena / 1024:,.1f} KB") for row in self.exported.values()
                  if row.arena]
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
        return validated(cls, content, path)

    def write(self, folder: Path) -> None:
        "Raises ExportError where it could not be read again; a card that is there is kept then."
        many = len(self.vocab) > MANY
        text = json.dumps(self.to_dict(), indent=None if many else 1, ensure_ascii=False) + "\n"
        self.from_json(text, folder / NAME)
        write_text(folder / NAME, text)
