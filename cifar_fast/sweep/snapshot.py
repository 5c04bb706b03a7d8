"""A sweep as one JSON file beside its trials, from which pages are made: no Optuna and no storage is needed to look."""

from __future__ import annotations

import json
import re
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cifar_fast.utils.errors import CifarFastError
from cifar_fast.utils.files import read_regular, write_text

NAME = "sweep.json"
MOST_BYTES = 2**26
EPOCH, MOST = re.compile(r"[0-9]{1,9}"), 1e15  # what an epoch is written as; the greatest of any number
FRESH = 60  # seconds; a sweep that says it runs, and has said nothing for longer, was killed


class SnapshotError(CifarFastError):
    "A snapshot that cannot be read; the message names the file."


@dataclass(frozen=True)
class Trial:
    "One trial, as far as it is."

    number: int
    state: str  # waiting, running, complete, pruned, diverged or failed
    params: dict[str, Any]
    curve: dict[str, float]  # epoch → held-out accuracy, a fraction
    accuracy: float | None = None  # held-out, of a complete one
    seconds: float | None = None
    resumed: int = 0
    deaths: int = 0  # workers that died of it
    error: str = ""

    @property
    def best(self) -> float | None:
        "What it reached: its accuracy, or the best of its epochs."
        return self.accuracy if self.accuracy is not None else max(self.curve.values(), default=None)

    @property
    def done(self) -> bool:
        return self.state not in ("waiting", "running")

    @property
    def early(self) -> bool:
        "Whether it was stopped before its last epoch because of its accuracy or loss."
        return self.state in ("pruned", "diverged")


@dataclass(frozen=True)
class Snapshot:
    "All of a sweep."

    name: str
    recipe: str
    fixed: list[str]
    space: dict[str, str]
    sampler: str
    pruner: str
    state: str  # running, stopped or finished
    trials: list[Trial]
    importance: dict[str, float] = field(default_factory=dict)
    updated: float = 0.0  # seconds since 1970

    @property
    def best(self) -> Trial | None:
        complete = [t for t in self.trials if t.accuracy is not None]
        return max(complete, key=lambda t: t.accuracy, default=None)

    @property
    def done(self) -> int:
        return sum(t.done for t in self.trials)

    def count(self, state: str) -> int:
        return sum(t.state == state for t in self.trials)

    @property
    def runs(self) -> bool:
        "Whether somebody works on it, as far as the file says."
        return self.state == "running" and time.time() - self.updated < FRESH

    def write(self, folder: Path) -> None:
        write_text(folder / NAME, json.dumps(asdict(self), indent=1) + "\n")


def read_snapshot(folder: Path) -> Snapshot:
    "Raises SnapshotError."
    path = folder / NAME
    try:
        saved = json.loads(read_regular(path, MOST_BYTES))
        snapshot = Snapshot(**{**saved, "trials": [Trial(**t) for t in saved["trials"]]})
        require_types(snapshot)
        return snapshot
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as e:
        raise SnapshotError(f"{path} cannot be read ({e}); `sweep … --resume` writes it anew") from None


def require_types(snapshot: Snapshot) -> None:
    "Raises ValueError for what would break a page: the file may be a stranger's."
    texts = [snapshot.name, snapshot.recipe, snapshot.state, snapshot.sampler, snapshot.pruner, *snapshot.fixed,
             *snapshot.space.values()]
    numbers = [snapshot.updated]
    for t in snapshot.trials:
        texts += [t.state, t.error, *t.curve]
        numbers += [t.number, t.resumed, t.deaths, *t.curve.values(),
                    *(v for v in (t.accuracy, t.seconds) if v is not None)]
        if not isinstance(t.params, dict) or not all(EPOCH.fullmatch(epoch) for epoch in t.curve):
            raise ValueError(f"trial {str(t.number)[:20]} has no settings, or an epoch that is no number")
    if not all(isinstance(t, str) for t in texts) or not all(isinstance(n, int | float) for n in numbers):
        raise ValueError("a text or number is none")
    if any(abs(n) > MOST for n in numbers):
        raise ValueError(f"a number is beyond {MOST:g}")


def take(sweep: Any, state: str, importance: dict[str, float] | None = None) -> Snapshot:
    "Of a `study.Sweep`, as it is now."
    definition = sweep.definition
    trials = []
    for t in sweep.trials():
        attrs = t.user_attrs
        what = {"COMPLETE": "complete", "PRUNED": "diverged" if "diverged" in attrs else "pruned", "FAIL": "failed",
                "RUNNING": "running", "WAITING": "waiting"}[t.state.name]
        trials.append(Trial(t.number, what, dict(t.params), {str(k): v for k, v in t.intermediate_values.items()},
                            t.value if t.state.name == "COMPLETE" else None, attrs.get("seconds"),
                            attrs.get("resumed", 0), attrs.get("deaths", 0),
                            attrs.get("error") or attrs.get("diverged", "")))
    return Snapshot(sweep.name, definition.recipe, list(definition.fixed), definition.space, definition.sampler,
                    definition.pruner, state, trials, importance or {}, time.time())


def importances(sweep: Any) -> dict[str, float]:
    "How much of the variance of accuracy each setting explains (fANOVA); empty where there are too few trials."
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    complete = [t for t in sweep.trials() if t.state.name == "COMPLETE"]
    if len(complete) < 4 or len({t.value for t in complete}) < 2:
        return {}
    try:
        found = get_param_importances(sweep.study, evaluator=FanovaImportanceEvaluator(seed=0))
    except (ValueError, RuntimeError):  # e.g. a setting that had one value in all of them
        return {}
    return {k: float(v) for k, v in found.items()}
