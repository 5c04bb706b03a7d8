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

from cifar_fast.export.card import NAME as CARD
from cifar_fast.recipe import Recipe, describe, flatten, settings_that
from cifar_fast.training.callbacks.checkpoint import load
from cifar_fast.utils.environment import versions
from cifar_fast.utils.errors import CifarFastError
from cifar_fast.utils.files import remove_temporaries, replace_folder

ASIDE = settings_that(affects_weights=False) | settings_that(by_machine=True)
"Settings that are not compared: they affect no weight, or what became of them on the machine is compared."

COMPARED = ("recipe", "code", "data", "machine", "versions", "commit")
"What must be the same for a run to go on to the very same weights."


class RunError(CifarFastError):
    "A run that cannot begin or go on here; the message says what is kept and how to go on."


class Interrupted(RunError):
    "There is a run that stopped, and nobody said whether to resume it."


class Busy(RunError):
    "Another process trains this very run."


class RunFolder:
    """Where a run works, held by one process: exports/.NAME.running, whose folder `staged` becomes exports/NAME.

    One rename finishes a run. Killed anywhere, what is there says how far it was: without `staged` it has ended, with a
    card in it only the rename is missing, with a checkpoint it can go on.
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
        self.repair()  # whoever left it like that is dead: the lock is ours
        return self

    def __exit__(self, *exc):
        self.lock.release()

    @property
    def complete(self) -> bool:
        "Whether the run has ended but for its rename."
        return (self.staged / CARD).is_file()

    @property
    def ended(self) -> bool:
        "Whether the run was finished and only what it worked in is left."
        return self.working.is_dir() and not self.staged.is_dir()

    @property
    def free(self) -> bool:
        "Whether no run has this name: none finished, stopped or at work."
        if self.path.exists() or self.working.exists():
            return False
        try:
            with self:
                return True
        except Busy:
            return False

    def repair(self) -> None:
        "Put right what a killed process left: a replaced run without its successor, half-written files, the rest."
        if self.former.is_dir() and not self.path.exists():
            os.replace(self.former, self.path)
        shutil.rmtree(self.former, ignore_errors=True)
        shutil.rmtree(self.discarded, ignore_errors=True)
        for folder in (self.working, self.staged):
            remove_temporaries(folder)
        if self.ended:
            self.discard()

    def begin(self, keep: bool) -> None:
        "Make the folders; what a former run left there goes, unless it is continued."
        if not keep:
            self.discard()
        self.staged.mkdir(parents=True, exist_ok=True)

    @property
    def discarded(self) -> Path:
        return self.path.with_name(f".{self.path.name}.discarded")

    def discard(self) -> None:
        "Remove all that is unfinished, in one move: half of it must not pass for a run."
        if self.working.exists():
            self.working.rename(self.discarded)
        shutil.rmtree(self.discarded, ignore_errors=True)

    def publish(self, overwrite: bool) -> None:
        "The finished run takes its place. Raises RunError where another one has taken it in the meantime."
        if self.path.exists() and not overwrite:
            raise RunError(f"{self.path} was made by somebody else while this run trained: move it away, and --resume "
                           f"finishes this one")
        replace_folder(self.staged, self.path, self.former)

    def interrupted(self) -> dict | None:
        "The checkpoint of a run that stopped; None where there is none. Raises CheckpointError."
        return load(self.checkpoint) if self.staged.is_dir() and self.checkpoint.exists() else None


def command(about: dict) -> str:
    "What continues a run."
    given = shlex.join(about["given"] or ["NAME"])
    return f"python -m cifar_fast recipe {given} --resume"


def where(checkpoint: dict) -> str:
    "How far a run had come, in words."
    (epoch, batch), epochs = checkpoint["position"], checkpoint["about"]["recipe"]["epochs"]
    if (epoch, batch) == (epochs, 0):
        return "after its last epoch"  # which is an earlier one where it had reached its target
    return f"{f'in epoch {epoch + 1}, after {batch} batches' if batch else f'after epoch {epoch}'} of {epochs}"


def identity(recipe: Recipe, data: str, machine: dict, commit: str | None) -> dict[str, Any]:
    "What a run's weights follow from: compared when it goes on."
    described = {k: v for k, v in describe(recipe).items() if k not in ASIDE}
    return {"recipe": described, "code": own_code(recipe), "data": data, "machine": machine, "versions": versions(),
            "commit": commit}


def own_code(recipe: Recipe) -> dict[str, str]:
    "Names and SHA-256 of the files that hold a recipe's own functions and net: what `describe` cannot see inside."
    modules = {timm.model_entrypoint(recipe.arch).__module__, *modules_of(*(getattr(recipe, f.name)
                                                                           for f in fields(recipe)))}
    files = {getattr(sys.modules.get(m), "__file__", None) for m in modules if m}
    # Ours have a commit, libraries a version.
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
    "The differences that are allowed, none otherwise. Raises RunError, which lists them."
    found = differences(then, now)
    if then["recipe"]["arch"] != now["recipe"]["arch"]:
        raise RunError(f"the stopped run trains {then['recipe']['arch']}, this recipe {now['recipe']['arch']}: "
                       f"--restart begins it anew")
    before, after = (called(about["recipe"]["opt"]) for about in (then, now))
    if before != after:
        raise RunError(f"the stopped run optimises with {before}, whose state {after} cannot take over: --restart "
                       f"begins it anew")
    if found and not allow:
        lines = "\n  ".join(found)
        raise RunError(f"the stopped run was begun with other values, so it would not end with the same weights:\n"
                       f"  {lines}\nmake them the same, or go on all the same with --allow-changes, or --restart")
    return found
