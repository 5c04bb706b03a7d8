"""The images that a run predicted wrongly: the table of its report, and a folder with copies of them."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd
from fastcore.xml import FT, H1, A, Figcaption, Figure, Header, Img, Main, P, Span, Strong
from PIL import Image

from cifar_fast.data.errors import ImageError
from cifar_fast.data.originals import as_png, media_type, png
from cifar_fast.export.card import Card
from cifar_fast.export.predictions import Predictions
from cifar_fast.reporting.report.document import html
from cifar_fast.reporting.report.figures import MOST_ERRORS
from cifar_fast.utils.csv import csv_text
from cifar_fast.utils.errors import CifarFastError
from cifar_fast.utils.files import new_folder
from cifar_fast.utils.text import encodable, shorten

INDEX, TABLE, COPIES = "index.html", "errors.csv", "images"
COLUMNS = ("number", "image", "label", "prediction", "confidence", "file", "copy")
MOST_COPIES = 500
"Errors that are copied and shown; the table has all. They may be large photographs."

STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --dim: #586274; --paper: #fbfbf9; --card: #fff; --line: #dfe3e8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --dim: #a7b0bd; --paper: #14181e; --card: #1c222a;
  --line: #323b47; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
header, main { max-width: 75rem; margin: 0 auto; padding: 1.5rem 1.25rem 0; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; overflow-wrap: anywhere; } p { margin: 0 0 .5rem; }
.dim { color: var(--dim); } a { color: inherit; }
main { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 15rem), 1fr));
  padding-bottom: 3rem; }
figure { margin: 0; padding: .8rem; background: var(--card); border: 1px solid var(--line); border-radius: .6rem;
  min-width: 0; }
img { display: block; width: 100%; height: 14rem; object-fit: contain; }
.small { image-rendering: pixelated; }
figcaption { margin-top: .6rem; overflow-wrap: anywhere; } figcaption span { display: block; font-size: .85rem; }
"""


class ErrorsFolderError(CifarFastError):
    "A folder that errors cannot be laid out in; the message names it and the next step."


def error_rows(predicted: Predictions) -> list[list[str]]:
    "The table of a report, its heading first: the errors of mistakes.png in the same order."
    rows = [[str(n), predicted.vocab[predicted.labels[i]], predicted.vocab[predicted.predicted[i]],
             f"{predicted.confidence[i]:.1%}", predicted.image_name(i)]
            for n, i in enumerate(predicted.errors[:MOST_ERRORS], 1)]
    return [["no.", "label", "prediction", "confidence", "image"], *rows]


# ---------------------------------------------------------------- a folder


@dataclass(frozen=True)
class ErrorsFolder:
    errors: int
    copied: int
    images: int  # that were predicted


def lay_out(
    target: Path,
    card: Card,
    predicted: Predictions,
    images: np.ndarray,  # (N, H, W, 3) uint8, those of `predicted`
    paths: tuple[str, ...] | None,  # (N,) their files; None where they were no files
) -> ErrorsFolder:
    """Write index.html, errors.csv and copies of the images into `target`, the most confident errors first.

    Replaces what an earlier call wrote there, and nothing else; writes nothing where all are right. Raises
    ErrorsFolderError.
    """
    require_own(target)
    if not len(predicted.errors):
        return ErrorsFolder(0, 0, len(predicted.labels))
    with new_folder(target) as folder:
        (folder / COPIES).mkdir()
        rows, figures = [], []
        for n, i in enumerate(predicted.errors, 1):
            path = paths and paths[i]
            copy, shown = copy_image(folder, n, predicted, i, images[i], path) if n <= MOST_COPIES else ("", "")
            row = (n, predicted.image_name(i), predicted.vocab[predicted.labels[i]],
                   predicted.vocab[predicted.predicted[i]], round(float(predicted.confidence[i]), 3),
                   encodable(path or ""), copy)
            rows.append(row)
            if copy:
                figures.append(figure(row, shown, small=path is None))
        (folder / TABLE).write_text(csv_text(pd.DataFrame(rows, columns=COLUMNS)), "utf-8")
        (folder / INDEX).write_text(page(card, predicted, figures), "utf-8")
    return ErrorsFolder(len(rows), len(figures), len(predicted.labels))


def require_own(target: Path) -> None:
    "Raises ErrorsFolderError for a file, or a folder with anything but what `lay_out` writes."
    if not os.path.lexists(target):
        return
    if not target.is_dir() or target.is_symlink():
        raise ErrorsFolderError(f"--errors {target}: it is no folder; name a new or an empty one")
    other = {p.name for p in target.iterdir()} - {INDEX, TABLE, COPIES}
    if not other and any(target.iterdir()):
        try:
            table = pd.read_csv(target / TABLE, dtype=str, keep_default_na=False)
            ours = {Path(name).name for cell in table["copy"] for name in (cell, preview(cell))}
            other = {p.name for p in (target / COPIES).iterdir()} - ours
        except (OSError, ValueError, KeyError):
            other = {TABLE}
    if other:
        raise ErrorsFolderError(f"--errors {target}: it holds {sorted(other)[0]}, which this command did not write, "
                                f"and nothing of it was changed; name a new or an empty folder")


def copy_image(folder: Path, n: int, predicted: Predictions, i: int, pixels: np.ndarray,
               path: str | None) -> tuple[str, str]:
    "Copies an image as `images/0001 cat → dog.jpg`; the copy, and what browsers show: for TIFF a PNG beside it."
    label, prediction = (file_part(predicted.vocab[c]) for c in (predicted.labels[i], predicted.predicted[i]))
    suffix = ".png" if path is None else file_part(os.path.splitext(path)[1])
    copy = f"{COPIES}/{n:04} {label} → {prediction}{suffix}"
    if path is None:
        (folder / copy).write_bytes(png(Image.fromarray(pixels)))
        return copy, copy
    shutil.copyfile(path, folder / copy)
    try:
        if media_type(path):
            return copy, copy
        shown = as_png(path)
    except ImageError:  # it could be read when the cache was made; the image as the model saw it is left
        shown = png(Image.fromarray(pixels))
    (folder / preview(copy)).write_bytes(shown)
    return copy, preview(copy)


def preview(copy: str) -> str:
    return f"{copy}.preview.png"


def file_part(name: str) -> str:
    "A class name as a part of a file name on any system."
    return re.sub(r'[\\/:*?"<>|\x00-\x1f]', "_", shorten(encodable(name), 40))


def page(card: Card, predicted: Predictions, figures: list[FT]) -> str:
    errors, n = len(predicted.errors), len(predicted.labels)
    title = f"{card.name}: {errors:,} errors in {n:,} {predicted.on} images"
    first = f" The first {len(figures):,} are shown." if len(figures) < errors else ""
    says = P(f"Label → predicted class with its confidence, the most confident first.{first} All of them: ",
             A(TABLE, href=TABLE), cls="dim")
    return html(title, STYLE, Header(H1(title), says), Main(*figures))


def figure(row: tuple, shown: str, small: bool) -> FT:
    number, name, label, prediction, confidence, _, copy = row
    image = Img(src=quote(shown), alt=f"{name}: {label}, predicted {prediction}", loading="lazy",
                cls="small" if small else None)
    return Figure(A(image, href=quote(copy)), Figcaption(
        Strong(f"{label} → {prediction}"), f" {confidence:.1%}", Span(f"{number}. {name}", cls="dim")))
