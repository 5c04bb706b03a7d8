"""The cards of saved runs: where they are, and how one is read."""

from __future__ import annotations

from pathlib import Path

from cifar_fast.export.card import Card
from cifar_fast.export.card_format import NAME, ExportError
from cifar_fast.utils.files import expand_path, read_regular
from cifar_fast.utils.text import nearest

MAX_BYTES = 2**28  # a card takes some ten kilobytes; the confusion matrix of 10,000 classes has 10^8 numbers
MOST = 10  # runs that a message lists


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
    if folder.is_file():
        return f"{folder} cannot be opened here: name the run's folder, or a .onnx, .tflite or .pkl file"
    there = [run.name for run in list_runs(folder.parent)]
    shown = [str(folder.parent / name) for name in there[:MOST]]
    return (f"no run {folder}{nearest(folder.name, there)}: there is no {folder / NAME}; "
            + (f"there are {', '.join(shown)}{f' and {len(there) - MOST} more' * (len(there) > MOST)}" if there else
               "python -m cifar_fast recipe NAME trains one, recipes lists the names"))


def list_runs(exports: Path) -> list[Path]:
    "The folders of finished runs."
    return sorted(path.parent for path in exports.glob(f"*/{NAME}") if not path.parent.name.startswith("."))
