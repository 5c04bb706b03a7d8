"""The review of a run's images: which comes next, and the decisions. The page and its routes: review_routes.py."""

from __future__ import annotations

import logging
import os
import shlex
import threading
from collections import Counter
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cifar_fast.export.card import Card
from cifar_fast.serve.classify import Classifier
from cifar_fast.serve.decisions import LEFT_OUT, Decisions, Reviewed, ReviewError, table_of
from cifar_fast.serve.ranking import Ranking, rank
from cifar_fast.utils.errors import CifarFastError, file_error

if TYPE_CHECKING:
    from cifar_fast.data.sources import Source

NO_FILES = ("The images of this run are no files of their own, which a label table could name. The review takes runs "
            "that were trained on a folder or a label table of yours.")
NO_CARD = "A .pkl does not say which images it was trained on. Serve the run instead: serve exports/NAME."


def require_at_hand(data: str, run: Path) -> None:
    "Raise ReviewError where the images of `data` would have to be downloaded first: opening a page downloads nothing."
    from cifar_fast.data.cache import cache_folder
    from cifar_fast.data.hub import PREFIX
    from cifar_fast.data.registry import in_cache, named_datasets

    known = None if data == "cifar10" and os.environ.get("CIFAR_FAST_DATA") else named_datasets().get(data)
    if data.startswith(PREFIX) or known and not known.files:
        raise ReviewError(NO_FILES)
    if known and not in_cache(known, cache_folder() / "data"):
        raise ReviewError(f"The images of {data} are not in the cache of this machine, and this page downloads "
                          f"nothing. This command downloads them: "
                          f"{shlex.join(['python', '-m', 'cifar_fast', 'evaluate', str(run)])}")


class Review:
    """The images of a run, those with the least probable label first; opened in a thread by the first `open`.

    Thread-safe.
    """

    def __init__(self, classifier: Classifier, card: Card | None, run: Path):
        self.classifier, self.card, self.run = classifier, card, run
        self.lock = threading.Lock()
        self.thread: threading.Thread | None = None
        self.problem: str | None = None  # why there is nothing to review
        self.done, self.total = 0, 0  # images predicted
        self.source: Source | None = None
        self.ranking: Ranking | None = None  # once all are predicted
        self.decisions: Decisions | None = None
        self.splits: np.ndarray | None = None  # (N,) the split of each row

    # ------------------------------------------------------------ opening

    def open(self) -> None:
        "Start opening, once: the dataset may have to be decoded, and all its images are predicted."
        with self.lock:
            if self.thread is None:
                self.thread = threading.Thread(target=self.prepare, daemon=True)
                self.thread.start()

    def prepare(self) -> None:
        try:
            self.source, decisions = self.opened()
            ranking = rank(self.classifier, self.source, self.progress)
            with self.lock:
                self.decisions, self.ranking = decisions, ranking
        except CifarFastError as e:
            self.problem = str(e)
        except OSError as e:
            self.problem = str(file_error(e) or e)
        except Exception as e:  # a fault of ours, but the page says so; the terminal has the traceback
            logging.getLogger(__name__).exception("the review cannot be opened")
            self.problem = f"unexpected {type(e).__name__}; see the server's terminal."

    def opened(self) -> tuple[Source, Decisions]:
        "Raises CifarFastError."
        from cifar_fast.reporting.report.build import same_source  # here: it imports torch and matplotlib

        if self.card is None:
            raise ReviewError(NO_CARD)
        require_at_hand(self.card.recipe.get("data", ""), self.run)
        source = same_source(self.card)
        parts = source.splits.values()
        files = [arrays.paths() for arrays in parts]
        if None in files:
            raise ReviewError(NO_FILES)
        self.splits = np.repeat(list(source.splits), list(map(len, parts)))
        data = Reviewed(source.fingerprint, tuple(self.classifier.predictor.vocab), tuple(chain.from_iterable(files)),
                        tuple(int(label) for a in parts for label in a.labels), tuple(map(str, self.splits)))
        return source, Decisions(data, table_of(self.run, source.fingerprint, self.card.recipe["data"]))

    def progress(self, done: int, total: int) -> None:
        self.done, self.total = done, total

    # ------------------------------------------------------------ what the page asks for

    def state(self, split: str = "all", first: int | None = None) -> dict:
        "What to show: a problem, how far it has come, or the next image of `split` (`first`, if given)."
        if self.problem:
            return {"state": "problem", "text": self.problem}
        if self.ranking is None:
            return {"state": "working", "done": self.done, "total": self.total}
        with self.lock:
            given = self.decisions.given
            waiting = (int(r) for r in self.ranking.order
                       if r not in given and r != first and split in ("all", self.splits[r]))
            shown = [*([] if first is None else [first]), *islice(waiting, 2)]
            done = Counter(str(self.splits[row]) for row in given)
            return {
                "state": "ready", "table": str(self.decisions.table) if given else None,
                "data": shlex.quote(str(self.decisions.table)) if given else None,
                "done": done.total() if split == "all" else done[split],
                "total": len(self.splits) if split == "all" else int((self.splits == split).sum()),
                "relabelled": self.decisions.relabelled(), "left_out": self.decisions.left_out(),
                "splits": list(self.source.splits), "can_undo": bool(given),
                "image": self.about(shown[0]) if shown else None,
                "next": shown[1] if len(shown) > 1 else None,
            }

    def about(self, row: int) -> dict:
        ranking, vocab = self.ranking, self.decisions.data.vocab
        return {
            "row": row, "file": self.name(row), "split": str(self.splits[row]), "label": int(ranking.labels[row]),
            "probability": float(1 - ranking.doubt[row]),
            "predictions": [[int(c), float(p)] for c, p in
                            zip(ranking.classes[row], ranking.probabilities[row], strict=True)],
            "answer": self.decisions.given.get(row), "classes": len(vocab),
        }

    def name(self, row: int) -> str:
        "The file as it is shown: the last parts of its path."
        return "/".join(Path(self.decisions.data.files[row]).parts[-3:])

    def decide(self, row: int, label: int) -> None:
        "Save a decision: a class or LEFT_OUT. Raises ReviewError where there is no such image or class, OSError."
        with self.lock:
            self.require(row)
            if not LEFT_OUT <= label < len(self.decisions.data.vocab):
                raise ReviewError(f"there is no class {label}")
            self.decisions.add(row, label)

    def undo(self) -> int | None:
        "Undo the latest decision; returns its row, None where there is none. Raises ReviewError, OSError."
        with self.lock:
            self.require(0)
            return self.decisions.undo()

    def original(self, row: int) -> str:
        "The file of an image. Raises ReviewError."
        self.require(row)
        return self.decisions.data.files[row]

    def pixels(self, row: int) -> np.ndarray:
        "An image as the model sees it, (H, W, 3) uint8. Raises ReviewError."
        self.require(row)
        for arrays in self.source.splits.values():
            if row < len(arrays):
                return np.asarray(arrays.images[row])
            row -= len(arrays)
        raise AssertionError(row)

    def require(self, row: int) -> None:
        if self.ranking is None:
            raise ReviewError("the images are not predicted yet")
        if not 0 <= row < len(self.splits):
            raise ReviewError(f"there is no image {row}")
