"""`export --to`: files for where Python, or this package, is not. Made beside the run's own, checked, then kept."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cifar_fast.data.sources import Source
from cifar_fast.export.card import Card
from cifar_fast.export.card_file import read_card
from cifar_fast.export.card_format import NAME, ExportError
from cifar_fast.export.card_parts import Exported
from cifar_fast.export.check import Measured, check, measured, some_of, training_images
from cifar_fast.export.files import INT8, LEARNER, ONNX, stale_name
from cifar_fast.export.predictor import Predictor, load_export, open_weights
from cifar_fast.export.targets import Target, all_targets, find_targets, require
from cifar_fast.export.targets.onnx import retemper
from cifar_fast.export.trust import trust
from cifar_fast.utils.files import TEMPORARY

CALIBRATED_ON = 2_500  # images of train, of which some calibrate and the others decide between the ways
AFTER_TRAINING = 1_000  # images that model.onnx is checked on at the end of a run


@dataclass
class Conversion:
    """A run that is exported, target after target.

    `source` is what it was trained on, None where that is not at hand: files are then compared on noise.
    """

    folder: Path
    model: Predictor
    source: Source | None
    on: Measured

    @classmethod
    def of(cls, folder: Path, source: Source | None, targets: Sequence[Target]) -> Conversion:
        "Raises ExportError where a library or the images that a target needs are missing."
        for target in targets:
            require(target, str(folder))
            if target.images and source is None:
                raise ExportError(f"--to {target.name} is calibrated on the images that the run was trained on, which "
                                  f"are not at hand")
        model = load_export(folder)
        return cls(folder, model, source, measured(model, source, max(target.most for target in targets)))

    def make(self, target: Target, speed: bool = True) -> dict[str, Exported]:
        """Make the files of a target, and put their rows into the card; returns the rows by file.

        Raises ExportError where one does not hold what it must, and keeps none of them.
        """
        rows = make(self.folder, target, self.model, self.on, self.source, speed)
        card = read_card(self.folder)  # again: other commands may have written it in the minutes that this took
        self.model = replace(self.model, card=with_rows(card, rows))
        self.model.card.write(self.folder)
        return rows


def chosen(names: Sequence[str], folder: Path, source: Source | None) -> tuple[list[Target], list[str]]:
    "The targets of these names, and for `all` what is left out and why. Raises ExportError."
    targets, left_out = find_targets([name for name in names if name != "all"]), []
    if "all" not in names:
        return targets, []
    for target in all_targets().values():
        if target in targets:
            continue
        try:
            require(target, str(folder))
        except ExportError as e:
            what, _, commands = str(e).partition("\n")
            left_out.append(f"{what} as above" if commands and any(commands in said for said in left_out) else str(e))
            continue
        if target.images and source is None:
            left_out.append(f"--to {target.name} needs the images that the run was trained on")
        else:
            targets.append(target)
    return targets, left_out


def onnx_after_training(folder: Path, card: Card, source: Source) -> Card:
    "Make model.onnx for a run whose card is not written yet; returns the card with its row. Raises ExportError."
    model = open_weights(folder, card)
    on = measured(model, source, AFTER_TRAINING)
    return with_rows(card, make(folder, all_targets()["onnx"], model, on, None, speed=False))


def with_temperature(folder: Path, card: Card) -> tuple[Card, list[str]]:
    """Give the .onnx files of a run the temperature of `card`, which is to be written.

    Returns the card without the rows of files that have another temperature inside, and these files.
    """
    rows = dict(card.exported)
    for name in (ONNX, INT8):
        if (folder / name).exists():
            retemper(folder / name, card.temperature)
            if name in rows:
                rows[name] = replace(rows[name], bytes=(folder / name).stat().st_size)
    stale = [name for name in rows if name not in (ONNX, INT8, LEARNER)]
    return replace(card, exported={name: row for name, row in rows.items() if name not in stale}), stale


def require_same_temperature(folder: Path, card: Card, names: Sequence[str]) -> None:
    "Raises ExportError where the run was calibrated since `card` was read: files made with that are not as it is now."
    if (folder / NAME).is_file() and read_card(folder).calibration != card.calibration:
        raise ExportError(f"{folder} was calibrated while its files were made, so {', '.join(names)} was not kept; "
                          f"export it again")


def with_rows(card: Card, rows: dict[str, Exported]) -> Card:
    return replace(card, exported={**card.exported, **rows})


def make(folder: Path, target: Target, model: Predictor, on: Measured, source: Source | None,
         speed: bool = True) -> dict[str, Exported]:
    "Make the files of a target in the run's folder, once they are right; returns their rows. Raises ExportError."
    on = some_of(on, target.most)
    more = {"images": training_images(model.card, source, CALIBRATED_ON)} if target.images else {}
    staged = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=TEMPORARY, dir=folder))
    try:
        paths = target.make(staged, model.card, model.model, **more)
        rows = {path.name: check(target, path, model, on, speed) for path in paths}
        require_same_temperature(folder, model.card, rows)
        for path in paths:
            os.replace(path, folder / path.name)
            (folder / stale_name(path.name)).unlink(missing_ok=True)
    except OSError as e:
        if e.filename and Path(e.filename).parent == staged:  # a user knows the file by where it would have been
            e.filename = str(folder / Path(e.filename).name)
        raise
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    if LEARNER in rows:
        trust(folder / LEARNER)
    return rows
