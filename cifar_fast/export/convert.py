"""`export --to`: files for where Python, or this package, is not. Made beside the run's own, checked, then kept."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from cifar_fast.data.sources import Source
from cifar_fast.export.card import Card, Exported, ExportError
from cifar_fast.export.check import Measured, check, measured, training_images
from cifar_fast.export.files import LEARNER
from cifar_fast.export.predictor import Predictor, load_export
from cifar_fast.export.targets import Target, find_targets, require
from cifar_fast.export.trust import trust
from cifar_fast.utils.files import TEMPORARY

CALIBRATED_ON = 2_500  # images of train, of which some calibrate and the others decide between the ways


def convert(folder: Path, names: Sequence[str], source: Source | None) -> Iterator[tuple[Path, Exported]]:
    """Export a run to the named targets; yields each file with what was measured of it.

    Rows go into the card. `source` is what the run was trained on, None where it is not at hand.
    Raises ExportError before the first is made where a library is missing; a file that fails its check is not kept.
    """
    targets = find_targets(names)
    for target in targets:
        require(target)
        if target.images and source is None:
            raise ExportError(f"--to {target.name} is calibrated on the images that the run was trained on, which are "
                              f"not at hand")
    model = load_export(folder)
    on = measured(model, source, max(target.most for target in targets))
    for target in targets:
        rows = make(folder, target, model, on, source)
        model = replace(model, card=with_rows(model.card, rows))
        model.card.write(folder)
        yield from ((folder / name, row) for name, row in rows.items())


def with_rows(card: Card, rows: dict[str, Exported]) -> Card:
    return replace(card, exported={**card.exported, **rows})


def make(folder: Path, target: Target, model: Predictor, on: Measured, source: Source | None,
         speed: bool = True) -> dict[str, Exported]:
    "Make the files of a target in the run's folder, once they are right; returns their rows. Raises ExportError."
    on = Measured(on.images[:target.most], on.labels if on.labels is None else on.labels[:target.most], on.what,
                  on.expected[:target.most])
    more = {"images": training_images(model.card, source, CALIBRATED_ON)} if target.images else {}
    staged = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=TEMPORARY, dir=folder))
    try:
        paths = target.make(staged, model.card, model.model, **more)
        rows = {path.name: check(target, path, model, on, speed) for path in paths}
        for path in paths:
            os.replace(path, folder / path.name)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    if LEARNER in rows:
        trust(folder / LEARNER)
    return rows
