"""Parts of a card beside its accuracy: copies of training images among those measured, and corrupted images."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from cifar_fast.export.card_parts import Count, Fraction, Text


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
