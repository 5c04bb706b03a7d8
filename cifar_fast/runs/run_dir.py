"""The folder of a run at work: one process at a time, its checkpoint, and whether a run may resume from it."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from filelock import FileLock, Timeout

from cifar_fast.export.card_format import NAME as CARD
from cifar_fast.recipe import Recipe, describe, flatten, settings_that
from cifar_fast.training.callbacks.checkpoint import load
from cifar_fast.training.prepare import Run
from cifar_fast.utils.device import device_name
from cifar_fast.utils.environment import cpu_name, versions
from cifar_fast.utils.errors import CifarFastError
from cifar_fast.utils.files import remove_temporaries, replace_folder
from cifar_fast.utils.ranks import here

NOT_COMPARED = settings_that(affects_weights=False) | settings_that(by_machine=True)
"Settings that are not compared: they do not affect the weights, or their resolved value is compared instead."

COMPARED = ("recipe", "code", "data", "machine", "versions", "commit")
"What must be the same for a resumed run to end with the same weights."


class RunError(CifarFastError):
    "A run that cannot start or resume here; the message says what is kept and how to continue."


class Interrupted(RunError):
    "There is a stopped run, and neither --resume nor --restart was given."


class Busy(RunError):
    "Another process is training this run."


class RunFolder:
    """The working folder of a run, locked by one process: exports/.NAME.running; its `staged` becomes exports/NAME.

    One rename finishes a run. After a kill the files show how far it was: without `staged` it has finished, with a card
    in it only the rename is missing, with a checkpoint it can resume.
    """

    def __init__(self, path: Path):
        self.path, self.working = path, path.with_name(f".{path.name}.running")
        self.staged, self.former = self.working / "run", self.working / "former"
        self.checkpoint = self.working / "checkpoint.pt"
        self.lock = FileLock(path.with_name(f".{path.name}.lock"))

    def __enter__(self):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.lock.acquire(timeout=0)
        except Timeout:
            raise Busy(f"another process is training {self.path} and was left alone; wait for it, or give this run a "
                       f"name of its own: name={self.path.name}-b") from None
        self.repair()  # we hold the lock: the process that left it so has died
        return self

    def __exit__(self, *exc):
        self.lock.release()

    @property
    def complete(self) -> bool:
        "Whether only the rename is missing."
        return (self.staged / CARD).is_file()

    @property
    def ended(self) -> bool:
        "Whether the run has finished and only its working folder remains."
        return self.working.is_dir() and not self.staged.is_dir()

    @property
    def free(self) -> bool:
        "Whether no run has this name: none finished, stopped or at work."
        if self.path.exists() or self.working.exists():
            return False
        if not Path(self.lock.lock_file).exists():
            return True
        try:
            with self:
                return True
        except Busy:
            return False

    def repair(self) -> None:
        "Clean up after a killed process: restore a replaced run without its successor, remove half-written files."
        if self.former.is_dir() and not self.path.exists():
            os.replace(self.former, self.path)
        shutil.rmtree(self.former, ignore_errors=True)
        shutil.rmtree(self.discarded, ignore_errors=True)
        for folder in (self.working, self.staged):
            remove_temporaries(folder)
        if self.ended:
            self.discard()

    def start_run(self, keep: bool) -> None:
        "Create the folders; an earlier run's files are removed unless `keep`."
        if not keep:
            self.discard()
        self.staged.mkdir(parents=True, exist_ok=True)

    @property
    def discarded(self) -> Path:
        return self.path.with_name(f".{self.path.name}.discarded")

    def discard(self) -> None:
        "Remove the unfinished run, by a rename first: a half-removed one must not look like a run."
        if self.working.exists():
            self.working.rename(self.discarded)
        shutil.rmtree(self.discarded, ignore_errors=True)

    def publish(self, overwrite: bool) -> None:
        "Move the finished run to its folder. Raises RunError where that has been created in the meantime."
        if self.path.exists() and not overwrite:
            raise RunError(f"{self.path} was created by another process during this run: move it away, and --resume "
                           f"finishes this one")
        replace_folder(self.staged, self.path, self.former)

    def interrupted(self) -> dict | None:
        "The checkpoint of a run that stopped; None where there is none. Raises CheckpointError."
        return load(self.checkpoint) if self.staged.is_dir() and self.checkpoint.exists() else None


def command(about: dict) -> str:
    "The command that resumes a run."
    given = shlex.join(about["given"] or ["NAME"])
    return f"{here().program} recipe {given} --resume"


def where(checkpoint: dict) -> str:
    "How far a run had come, as text."
    (epoch, batch), epochs = checkpoint["position"], checkpoint["about"]["recipe"]["epochs"]
    if (epoch, batch) == (epochs, 0):
        return "after its last epoch"  # which is an earlier one where it had reached its target
    return f"in epoch {epoch + 1} of {epochs}, after {batch} batches" if batch else f"after epoch {epoch} of {epochs}"


def machine(run: Run) -> dict:
    """What the weights depend on besides the recipe: another number of threads sums in another order, and another
    number of processes draws other augmentation.
    """
    return {"device": device_name(run.device), "cpu": cpu_name(), "precision": run.precision, "compiled": run.compiled,
            "threads": torch.get_num_threads(), "procs": run.recipe.procs or 1}


def identity(recipe: Recipe, data: str, machine: dict, commit: str | None) -> dict[str, Any]:
    "What determines a run's weights; compared when it resumes."
    described = {k: v for k, v in describe(recipe).items() if k not in NOT_COMPARED}
    return {"recipe": described, "code": own_code(recipe), "data": data, "machine": machine, "versions": versions(),
            "commit": commit}


def own_code(recipe: Recipe) -> dict[str, str]:
    "Names and SHA-256 of the files with a recipe's own functions and model: `describe` does not include code."
    modules = {timm.model_entrypoint(recipe.arch).__module__, *modules_of(*(getattr(recipe, f.name)
                                                                           for f in fields(recipe)))}
    files = {getattr(sys.modules.get(m), "__file__", None) for m in modules if m}
    # Our files are identified by the commit, libraries by their version.
    ours, libraries = Path(__file__).parent.parent, Path(torch.__file__).parent.parent
    return {Path(f).name: hashlib.sha256(Path(f).read_bytes()).hexdigest()[:16] for f in sorted(filter(None, files))
            if not Path(f).is_relative_to(ours) and not Path(f).is_relative_to(libraries)}


def modules_of(*values: Any) -> Iterator[str]:
    "Names of the modules that define the functions and objects in a recipe's values, however deep."
    for value in values:
        if isinstance(value, partial):
            yield from modules_of(value.func, *value.args, *value.keywords.values())
        elif isinstance(value, Mapping):
            yield from modules_of(*value.values())
        elif isinstance(value, list | tuple):
            yield from modules_of(*value)
        else:
            yield (value if hasattr(value, "__qualname__") else type(value)).__module__
            yield from modules_of(*getattr(value, "transforms", ()))  # of Albumentations: OneOf, Sequential …


def differences(then: dict, now: dict) -> list[str]:
    "A line for each value of two identities that differs."
    old, new = (flatten({k: about.get(k, {}) for k in COMPARED}) for about in (then, now))
    return [f"{key}: {old.get(key, 'not there')} then, {new.get(key, 'not there')} now"
            for key in dict.fromkeys([*old, *new]) if old.get(key, old) != new.get(key, old)]


def called(described: Any) -> str:
    "The name of a described callable."
    return (described["call"] if isinstance(described, dict) else described).rpartition(".")[2]


def require_same(then: dict, now: dict, allow: bool) -> list[str]:
    "The differences, if `allow`. Raises RunError, which lists them, where they are not allowed."
    differing = differences(then, now)
    if then["recipe"]["arch"] != now["recipe"]["arch"]:
        raise RunError(f"the stopped run trains {then['recipe']['arch']}, this recipe {now['recipe']['arch']}: "
                       f"--restart starts from scratch")
    before, after = (about["recipe"].get("init_sha256", "") for about in (then, now))
    if before != after:
        raise RunError(f"the stopped run started from weights with sha256 {before or '– (random ones)'}, this recipe "
                       f"from {after or 'random ones'}: restore init=, or --restart starts from scratch")
    before, after = (about["recipe"].get("distill_sha256", "") for about in (then, now))
    if before != after:
        raise RunError(f"the stopped run learns from a teacher with sha256 {before or '– (none)'}, this recipe from "
                       f"{after or 'none'}: restore distill=, or --restart starts from scratch")
    before, after = (called(about["recipe"]["opt"]) for about in (then, now))
    if before != after:
        raise RunError(f"the stopped run optimises with {before}, whose state {after} cannot use: --restart "
                       f"starts from scratch")
    if differing and not allow:
        lines = "\n  ".join(differing)
        raise RunError(f"the stopped run was started with other values, so it would not end with the same weights:\n"
                       f"  {lines}\nmake them the same, resume anyway with --allow-changes, or --restart")
    return differing
