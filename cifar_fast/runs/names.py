"""Which folder a run gets: its name, a numbered one where that is taken, or that of the stopped run it continues."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import fields
from itertools import count, takewhile
from pathlib import Path
from typing import Any

from cifar_fast.data.sources import same_data
from cifar_fast.export.card import Card
from cifar_fast.export.card_file import read_card
from cifar_fast.export.card_format import NAME as CARD
from cifar_fast.export.card_format import ExportError
from cifar_fast.export.files import RECIPE
from cifar_fast.recipe import Recipe, describe, flatten
from cifar_fast.runs.run_dir import NOT_COMPARED, Busy, Interrupted, RunError, RunFolder
from cifar_fast.training.callbacks.checkpoint import load


def export_path(recipe: Recipe) -> Path:
    "exports/NAME"
    return Path(recipe.exports).expanduser() / recipe.name


def stopped_folders(path: Path) -> list[RunFolder]:
    "The folders of unfinished runs called NAME, NAME-2, NAME-3 …; also removes remains of finished ones."
    pattern = re.compile(rf"\.({re.escape(path.name)}(?:-\d+)?)\.running")
    names = [m[1] for p in path.parent.glob(".*.running") if (m := pattern.fullmatch(p.name))]
    folders = [RunFolder(path.with_name(name)) for name in names]
    for folder in folders:
        if folder.ended or folder.former.is_dir():
            try:
                with folder:
                    pass
            except Busy:
                pass
    return sorted((f for f in folders if f.working.is_dir()), key=lambda f: (len(f.path.name), f.path.name))


def typed_for(recipe: Recipe, changes: Sequence[str]) -> list[str] | None:
    "The arguments of the stopped run of this recipe: its name and the changes; None where there is no such run."
    folders = [f for f in stopped_folders(export_path(recipe)) if not of_another_command(f, recipe)]
    same = [f for f in folders if of_same_settings(f, recipe, set_by_data(changes))]
    folder = (same or folders)[0] if len(folders) == 1 or same else None
    return load(folder.checkpoint)["about"]["given"] if folder and folder.checkpoint.exists() else None


def set_by_data(typed: Sequence[str]) -> frozenset[str]:
    "What a run may adapt to its images, of what was not typed, as keys of `settings_of`: bs, ema.args.decay."
    given = {change.partition("=")[0] for change in typed}
    known = {"augment", "resize.args.size"} if "size" in given else set()
    adapted = {f.name: f.metadata.get("by_data", False) for f in fields(Recipe)}
    keys = {f"{name}.args.{arg}" if isinstance(arg, str) else name for name, arg in adapted.items() if arg}
    return frozenset(key for key in keys - known if key.replace(".args", "") not in given)


def settings_of(described: dict, unknown: frozenset[str] = frozenset()) -> dict[str, Any]:
    "The settings to compare two runs by, flat, without those that are `unknown` yet."
    compared = flatten({k: v for k, v in described.items() if k not in NOT_COMPARED})
    return {k: v for k, v in compared.items() if k not in unknown and v != {}}


def of_same_settings(folder: RunFolder, recipe: Recipe, unknown: frozenset[str] = frozenset()) -> bool:
    "Whether an unfinished run was started with the settings of this recipe, including seed and data."
    try:
        saved = json.loads((folder.staged / RECIPE).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(saved, dict) and settings_of(saved, unknown) == settings_of(describe(recipe), unknown)


def of_another_command(folder: RunFolder, recipe: Recipe) -> bool:
    "Whether an unfinished NAME-N is no numbered run of this recipe: it is of data called N, or one of `seeds=`."
    try:
        saved = json.loads((folder.staged / RECIPE).read_text("utf-8"))
        seed, data = saved["seed"], str(saved["data"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return folder.path != export_path(recipe) and (
        not same_data(data, recipe.data) or folder.path.name == f"{recipe.name}-{seed}")


def choose_folder(
    recipe: Recipe,
    named: bool,  # whether name= was given: then no other name is taken
    resume: bool | None,  # True resumes a stopped run, False discards it, None raises Interrupted
    overwrite: bool,  # replace a finished run
    unknown: frozenset[str] = frozenset(),  # settings not to compare yet, see `set_by_data`
) -> tuple[RunFolder, str]:
    "The folder of this run, not locked yet; and a line that says why it is numbered, if it is."
    path = export_path(recipe)
    require_free_name(path)
    stopped = [f for f in stopped_folders(path) if not named or f.path == path]
    own = [f for f in stopped if not of_another_command(f, recipe)]
    # To go on with a run of `seeds=` that is the same does no harm; to discard it would.
    if same := [f for f in (own if resume is False else stopped) if of_same_settings(f, recipe, unknown)]:
        return same[0], ""
    if resume and (done := [p for p in taken(path) if same_as_finished(p, recipe, unknown)]):
        return RunFolder(done[-1]), ""
    if resume is not None and (stopped := own):
        if len(stopped) > 1:
            raise RunError(f"several runs have stopped: {', '.join(str(f.path) for f in stopped)}. Give the settings "
                           f"of one of them, or name=")
        return stopped[0], ""
    if resume:
        raise RunError(f"no run of {recipe.name} has stopped in {path.parent}: leave out --resume to start one")
    if named or overwrite:
        return own_folder(path, stopped, overwrite), ""
    folder = next(f for f in map(RunFolder, numbered(path)) if f.free)
    return folder, "" if folder.path == path else f"{taken_by(path, recipe)}: this run goes to {folder.path}"


def require_free_name(path: Path) -> None:
    "Raises RunError where a file has the name, or the place of the folder of all runs."
    there = next(folder for folder in path.absolute().parents if folder.exists())
    if not there.is_dir():
        raise RunError(f"exports={path.parent}: {there} is a file, and runs are saved in a folder; choose another "
                       f"exports=DIR")
    if path.exists() and not path.is_dir():
        raise RunError(f"name={path.name}: {path} is a file; choose another name")


def own_folder(path: Path, stopped: list[RunFolder], overwrite: bool) -> RunFolder:
    "The folder of exactly this name. Raises RunError where it is taken, Busy where a run is at work there."
    if any(f.path == path for f in stopped):
        with RunFolder(path):  # one that has only just begun has not written its settings yet
            pass
        raise Interrupted(f"a run with other settings has stopped in {path}: --resume with its settings continues it, "
                          f"--restart discards it, name= chooses another name")
    if path.exists() and not overwrite:
        raise RunError(f"{path} exists already: --overwrite replaces a finished run, name= chooses another name")
    if path.exists() and not (path / CARD).is_file():
        raise RunError(f"{path} holds no finished run ({CARD}), so it is not overwritten: name= chooses another name")
    return RunFolder(path)


def numbered(path: Path):
    yield path
    yield from (path.with_name(f"{path.name}-{i}") for i in count(2))


def taken(path: Path):
    return takewhile(Path.exists, numbered(path))


def same_as_finished(path: Path, recipe: Recipe, unknown: frozenset[str]) -> bool:
    try:
        return settings_of(read_card(path).recipe, unknown) == settings_of(describe(recipe), unknown)
    except ExportError:
        return False


def taken_by(path: Path, recipe: Recipe) -> str:
    "What occupies the folder of this name, as text."
    if not path.exists():
        return (f"a run with other settings is training in {path}, or was interrupted there and is kept (the same "
                f"command with name={path.name} --restart discards it)")
    try:
        card = read_card(path)
    except ExportError:
        return f"{path} exists already"
    return f"{path} holds a finished run {compared(card, recipe)}and is kept (--overwrite replaces it)"


def compared(card: Card, recipe: Recipe) -> str:
    if settings_of(card.recipe) == settings_of(describe(recipe)):
        return "with the same settings "
    return f"with other settings ({card.settings or 'the recipe as it was'}, seed {card.recipe.get('seed')}) "
