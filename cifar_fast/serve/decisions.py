"""The decisions of a review: NAME.labels.csv, a label table that `data=` takes, and NAME.labels.json, to resume it."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from cifar_fast.data.sources import same_data
from cifar_fast.utils.csv import FORMULA, safe_cell
from cifar_fast.utils.errors import CifarFastError
from cifar_fast.utils.files import atomic_write, read_regular, write_text
from cifar_fast.utils.text import printable

HEAD = "file,label,split\n"
LEFT_OUT = -1  # instead of a class
MOST_BYTES = 2**28  # of NAME.labels.json


class ReviewError(CifarFastError):
    "A review that cannot be opened or saved; the message names the file and the next step."


@dataclass(frozen=True)
class Reviewed:
    "The dataset of a review, by row number."

    fingerprint: str
    vocab: tuple[str, ...]
    files: tuple[str, ...]  # (N,) absolute paths
    labels: tuple[int, ...]  # (N,) indices into `vocab`
    splits: tuple[str, ...]  # (N,) "train", "test" or "valid"


class Decisions:
    "The decision on each image that was reviewed: a class, which may be its own, or LEFT_OUT. Not thread-safe."

    def __init__(self, data: Reviewed, table: Path):
        if odd := next((f for f in (*data.files, *data.vocab) if not encodes(f)), None):
            raise ReviewError(f"{printable(odd)}: a label table cannot hold a name that is not UTF-8; rename it, and "
                              f"train again")
        self.data, self.table, self.log = data, table, log_of(table)
        self.given: dict[int, int] = {}  # row → decision, the latest last
        self.lines = [self.line(row, label) for row, label in enumerate(data.labels)]
        self.sha256 = ""  # of the table as last written
        self.logged: bytes | None = None  # NAME.labels.json as last written
        if os.path.lexists(self.log):
            self.load()

    def add(self, row: int, decision: int) -> None:
        "Save one more decision. Raises OSError or ReviewError, and then nothing has changed."
        given = {k: v for k, v in self.given.items() if k != row}  # a second decision replaces the first, as the latest
        self.save({**given, row: decision})

    def undo(self) -> int | None:
        "Undo the latest decision; returns its row, None where there is none. Raises OSError."
        if not self.given:
            return None
        *kept, (row, _) = self.given.items()
        self.save(dict(kept))
        return row

    def relabelled(self) -> int:
        return sum(decision not in (LEFT_OUT, self.data.labels[row]) for row, decision in self.given.items())

    def left_out(self) -> int:
        return sum(decision == LEFT_OUT for decision in self.given.values())

    # ------------------------------------------------------------ files

    def save(self, given: dict[int, int]) -> None:
        "The decisions first, then the table: after a crash between the two the decisions tell which table is ours."
        content = self.content(given)
        sha256 = hashlib.sha256(content).hexdigest()
        before = self.log.read_bytes() if self.log.exists() else None
        if before != self.logged or sha256_of(self.table) != self.sha256:
            raise ReviewError(f"Not saved: {self.table} or {self.log.name} was changed by another program, or by a "
                              f"second review of this run. Close that one, then stop serve and start it again")
        text = self.log_text(given, sha256)
        try:
            write_text(self.log, text)
            with atomic_write(self.table) as tmp:
                tmp.write_bytes(content)
        except OSError:
            with suppress(OSError):
                if before is not None:
                    write_text(self.log, before.decode())
                else:
                    self.log.unlink(missing_ok=True)
            raise
        self.given, self.sha256, self.logged = given, sha256, text.encode()

    def content(self, given: dict[int, int]) -> bytes:
        "The table."
        changed = {row: self.line(row, label) for row, label in given.items() if label != self.data.labels[row]}
        lines = self.lines if not changed else (changed.get(row, line) for row, line in enumerate(self.lines))
        return (HEAD + "".join(lines)).encode()

    def log_text(self, given: dict[int, int], sha256: str) -> str:
        vocab, files = self.data.vocab, self.data.files
        entries = [{"row": row, "file": files[row], "label": None if label == LEFT_OUT else vocab[label]}
                   for row, label in given.items()]
        return json.dumps({"fingerprint": self.data.fingerprint, "tables": [sha256, self.sha256], "answers": entries},
                          indent=0, ensure_ascii=False)

    def load(self) -> None:
        "Raises ReviewError where a file is damaged, or the table is no longer what the review wrote."
        try:
            self.logged = read_regular(self.log, MOST_BYTES)
            saved = json.loads(self.logged)
            entries = saved["answers"]
            rows = [int(entry["row"]) for entry in entries]
            labels = [LEFT_OUT if e["label"] is None else self.data.vocab.index(e["label"]) for e in entries]
            if rows and not 0 <= min(rows) <= max(rows) < len(self.lines):
                raise ValueError("it names an image that is not in the dataset")
            known = set(saved["tables"])
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise ReviewError(f"{self.log} cannot be read ({printable(e)}); move it and {self.table.name} elsewhere to "
                              f"review from the start") from None
        if self.table.exists():
            self.sha256 = sha256_of(self.table)
            if self.sha256 not in known:
                raise ReviewError(f"{self.table} was changed since the review wrote it, and is not overwritten; move "
                                  f"it and {self.log.name} elsewhere to review from the start")
        self.given = dict(zip(rows, labels, strict=True))
        if hashlib.sha256(self.content(self.given)).hexdigest() != self.sha256:  # after a crash, or it was removed
            self.save(self.given)

    def line(self, row: int, label: int) -> str:
        "The line of an image in the table; empty where it is left out."
        if label == LEFT_OUT:
            return ""
        return f"{cell(self.path(row))},{cell(safe_cell(self.data.vocab[label]))},{self.data.splits[row]}\n"

    def path(self, row: int) -> str:
        "Relative to the table where the image lies in the same project, so that both can move together."
        file, folder = self.data.files[row], os.path.realpath(self.table.parent)
        if not file.startswith(os.path.dirname(folder).rstrip(os.sep) + os.sep):
            return file
        path = os.path.relpath(file, folder)
        return f"./{path}" if path.startswith((*FORMULA, "~")) else path  # a formula for spreadsheets, or a home


def sha256_of(table: Path) -> str:
    "Empty where there is no such file."
    if not table.exists():
        return ""
    with open(table, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def encodes(text: str) -> bool:
    try:
        return bool(text.encode())
    except UnicodeEncodeError:
        return False


def cell(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\r\n') else text


def log_of(table: Path) -> Path:
    return table.with_suffix(".json")


def table_of(run: Path, fingerprint: str, data: str) -> Path:
    """Where the table of a run belongs: beside its folder, as --overwrite replaces the folder.

    exports/NAME.labels.csv; a numbered one where that belongs to another dataset, or is `data` that the run was
    trained on.
    """
    for n in count(1):
        table = run.with_name(f"{run.name}.labels{'' if n == 1 else f'-{n}'}.csv")
        if same_data(str(table), data):
            continue
        if belongs(log_of(table), fingerprint) or not (os.path.lexists(table) or os.path.lexists(log_of(table))):
            return table


def belongs(log: Path, fingerprint: str) -> bool:
    try:
        return json.loads(read_regular(log, MOST_BYTES))["fingerprint"] == fingerprint
    except (OSError, ValueError, KeyError, TypeError):
        return False
