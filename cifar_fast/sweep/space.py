"""What a sweep searches: `lr=0.01..0.1:log`, `epochs=10..30`, `bs=64..256:step=64`, `opt=sgd,adamw`."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cifar_fast.recipe import Recipe, RecipeError, check, load_recipe, override, settings, settings_that
from cifar_fast.recipe.overrides import split
from cifar_fast.recipe.spec import UNTYPED
from cifar_fast.utils.errors import CifarFastError

NUMBER = r"[+-]?(?:\d+(?:_\d+)*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
RANGE = re.compile(rf"({NUMBER})\.\.({NUMBER})((?::[^:]*)*)")

FIXED = (settings_that(affects_weights=False) - {"init"}) | {
    "data", "columns", "valid", "validate_on", "init_sha256", "distill_sha256"}
"Settings that are no part of a search: they do not change the weights, or make trials incomparable."

MOST_SEEDS = 1000

PATHS = ("data", "init=", "distill=", "distill_sha256=", "name=", "exports=")
"Changes whose value is a name or path, which may hold commas and dots."


class SpaceError(CifarFastError):
    "A range or list that cannot be searched; the message shows one that can."


@dataclass(frozen=True)
class Dimension:
    "One searched setting: a range of numbers, or choices as the command line reads them."

    key: str
    text: str  # as typed
    kind: str  # "float", "int" or "choice"
    low: float = 0
    high: float = 0
    log: bool = False
    step: float | None = None
    choices: tuple[str, ...] = ()

    def suggest(self, trial: Any) -> str:
        "`key=value` of an Optuna trial."
        if self.kind == "choice":
            return f"{self.key}={trial.suggest_categorical(self.key, list(self.choices))}"
        if self.kind == "int":
            whole = trial.suggest_int(self.key, int(self.low), int(self.high), step=int(self.step or 1), log=self.log)
            return f"{self.key}={whole}"
        return f"{self.key}={trial.suggest_float(self.key, self.low, self.high, step=self.step, log=self.log)!r}"

    @property
    def values(self) -> list:
        "All of them, for a grid. Raises SpaceError where they are endless."
        if self.kind == "choice":
            return list(self.choices)
        if self.log or (self.kind == "float" and not self.step):
            raise SpaceError(f"{self.key}={self.text}: a grid needs a list ({self.key}={self.low:g},{self.high:g}) or "
                             f"steps ({self.key}={self.low:g}..{self.high:g}:step={(self.high - self.low) / 4:g})")
        step, count = self.step or 1, int((self.high - self.low) / (self.step or 1) + 1e-9) + 1
        grid = [min(float(f"{self.low + i * step:.12g}"), self.high) for i in range(count)]
        return [int(v) for v in grid] if self.kind == "int" else grid


@dataclass(frozen=True)
class Space:
    "The searched settings, and the `key=value` changes that hold for all trials."

    dimensions: tuple[Dimension, ...]
    fixed: tuple[str, ...]

    @property
    def texts(self) -> dict[str, str]:
        return {d.key: d.text for d in self.dimensions}

    @property
    def only_lists(self) -> bool:
        return all(d.kind == "choice" for d in self.dimensions)

    @property
    def fewest_epochs(self) -> int | None:
        "Of the searched ones; None where they are not searched."
        found = next((d for d in self.dimensions if d.key == "epochs"), None)
        return found and min(int(float(n)) for n in found.choices or [found.low])

    def suggest(self, trial: Any) -> list[str]:
        "All changes of a trial."
        return [*self.fixed, *(d.suggest(trial) for d in self.dimensions)]

    def grid(self) -> Iterator[dict[str, Any]]:
        "Every combination, as Optuna's parameters."
        keys = [d.key for d in self.dimensions]
        for values in itertools.product(*(d.values for d in self.dimensions)):
            yield dict(zip(keys, values, strict=True))


def split_list(text: str) -> list[str]:
    "The parts of a comma list; a comma inside brackets or quotes is no separator."
    parts, depth, quote = [""], 0, ""
    for c in text:
        if quote:
            quote = "" if c == quote else quote
        elif c in "'\"":
            quote = c
        depth += (c in "([{") - (c in ")]}") if not quote else 0
        if c == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += c
    return parts


def is_searched(change: str) -> bool:
    "Whether `key=value` is a range or a list rather than a value. A path may hold commas, so paths are values."
    key, _, text = change.partition("=")
    if change.startswith(PATHS):
        return key == "init" and len(split_list(text)) > 1
    return bool(RANGE.fullmatch(text)) or len(split_list(text)) > 1


def parse_space(name: str, changes: Sequence[str]) -> Space:
    "The space of `sweep NAME changes…`, every end and choice tried on the recipe. Raises SpaceError, RecipeError."
    searched, fixed = [c for c in changes if is_searched(c)], tuple(c for c in changes if not is_searched(c))
    if odd := next((c for c in fixed if ".." in c and not c.startswith(PATHS)), None):
        raise SpaceError(f"{odd}: a range has a number at both ends, as in lr=0.01..0.1:log or epochs=10..30")
    if not searched:
        raise SpaceError("nothing to search: give a range (lr=0.01..0.1:log) or a list (opt=sgd,adamw); "
                         "`recipe` trains one")
    keys = [c.partition("=")[0] for c in changes]
    if twice := next((k for k in keys if keys.count(k) > 1), None):
        raise SpaceError(f"{twice}= is given twice; once is enough: {twice}=0.01..0.1 or {twice}=0.01,0.05")
    if "lr=find" in fixed:
        raise SpaceError("lr=find is for one run; a sweep takes a range: lr=0.01..0.1:log")
    base = load_recipe(name)
    for change in searched:
        require_searchable(name, change)
    # A range may need a list's choice first (sched=step,cosine before sched.gamma): the first of each goes with it.
    firsts = [f"{k}={RANGE.fullmatch(t)[1] if RANGE.fullmatch(t) else split_list(t)[0]}"
              for k, _, t in (c.partition("=") for c in searched)]
    dimensions = []
    for i, change in enumerate(searched):
        key, _, text = change.partition("=")
        rest = [*fixed, *firsts[:i], *firsts[i + 1:]]
        make = ranged if RANGE.fullmatch(text) else listed
        dimensions.append(make(base, rest, key, text))
    return Space(tuple(dimensions), fixed)


def require_searchable(name: str, change: str) -> None:
    key = change.partition("=")[0]
    if key == "seed":
        raise SpaceError(f"{change}: the best of several seeds is luck; python -m cifar_fast recipe {name} seeds=5 "
                         f"gives their mean and interval")
    if split(change)[0].name in FIXED:
        raise SpaceError(f"{change}: trials that differ in {key} cannot be compared by accuracy; give one value")
    if key in UNTYPED:
        raise SpaceError(f"{change}: {key} is more than one value and is set in a recipe file; python -m cifar_fast "
                         f"copy {name} mine.py makes one to edit")


def listed(base: Recipe, rest: list[str], key: str, text: str) -> Dimension:
    choices = [part.strip() for part in split_list(text)]
    if "" in choices or len(set(choices)) < len(choices):
        raise SpaceError(f"{key}={text}: a choice is empty or stands twice; give each once, as in {key}=a,b")
    for choice in choices:
        require_works(base, rest, key, text, choice)
    return Dimension(key, text, "choice", choices=tuple(choices))


def ranged(base: Recipe, rest: list[str], key: str, text: str) -> Dimension:
    first, last, modifiers = RANGE.fullmatch(text).groups()
    low, high = float(first), float(last)
    log, step = modified(key, text, modifiers)
    if low > high:
        raise SpaceError(f"{key}={text}: the smaller end comes first: {key}={last}..{first}{modifiers}")
    if low == high:
        raise SpaceError(f"{key}={text}: both ends are the same; write {key}={first}")
    if log and low <= 0:
        raise SpaceError(f"{key}={text}: a logarithmic range begins above 0: {key}={high / 100:g}..{last}:log")
    if step is not None and not 0 < step <= high - low:
        raise SpaceError(f"{key}={text}: the step must be above 0 and at most {high - low:g}, the width of the range")
    require_number(base, rest, key, text, first)
    require_works(base, rest, key, text, last)
    whole = takes_whole_numbers(base, rest, key, low)
    if whole and step is not None and step != int(step):
        raise SpaceError(f"{key}={text}: {key} takes whole numbers, so the step is one too")
    return Dimension(key, text, "int" if whole else "float", low, high, log, step)


def modified(key: str, text: str, modifiers: str) -> tuple[bool, float | None]:
    "(log, step) of `:log` and `:step=0.1`."
    log, step = False, None
    for modifier in filter(None, modifiers.split(":")):
        if modifier == "log":
            log = True
        elif found := re.fullmatch(rf"step=({NUMBER})", modifier):
            step = float(found[1])
        else:
            raise SpaceError(f"{key}={text}: a range ends with :log or :step=0.1, not with :{modifier}")
    if log and step is not None:
        raise SpaceError(f"{key}={text}: a logarithmic range has no steps; take :log or :step=")
    return log, step


def require_works(base: Recipe, rest: list[str], key: str, text: str, value: str) -> Recipe:
    "The recipe with this value. Raises RecipeError that names the searched setting, where it cannot have it."
    try:
        check(recipe := override(base, [*rest, f"{key}={value}"]))
    except RecipeError as e:
        check(override(base, rest))  # if the others do not work either, it is not this setting's fault
        raise RecipeError(f"{key}={text} cannot be searched, since {key}={value} does not work: {e}") from None
    return recipe


def require_number(base: Recipe, rest: list[str], key: str, text: str, first: str) -> None:
    "Raises SpaceError where the setting is no number."
    f, arg, _ = split(f"{key}={first}")
    wrong = SpaceError(f"{key}={text}: {key} is no number; list its values instead: {key}=a,b")
    if not arg and ("from" in f.metadata or "choices" in f.metadata or f.type.startswith(("str", "bool"))):
        raise wrong
    value = getattr(require_works(base, rest, key, text, first), f.name)
    value = (getattr(value, arg) if f.name == "budget" else settings(value)[arg]) if arg else value
    if type(value) not in (int, float):
        raise wrong


def takes_whole_numbers(base: Recipe, rest: list[str], key: str, low: float) -> bool:
    "Whether a fraction is refused."
    try:
        override(base, [*rest, f"{key}={int(low) + 0.5}"])
    except RecipeError:
        return True
    return False


def parse_seeds(text: str, first: int) -> list[int]:
    "`5` → five from `first` on; `0,1,2` → these. Raises RecipeError."
    parts = text.split(",")
    if not all(p.strip().isdigit() for p in parts):
        raise RecipeError(f"seeds={text}: expected how many (seeds=5), or which ones (seeds=0,1,2)")
    numbers = [int(p) for p in parts]
    seeds = list(range(first, first + numbers[0])) if len(numbers) == 1 and numbers[0] <= MOST_SEEDS else numbers
    if len(seeds) < 2 or len(seeds) > MOST_SEEDS or len(set(seeds)) < len(seeds):
        raise RecipeError(f"seeds={text}: expected 2 to {MOST_SEEDS:,} different seeds; for a single run use seed=42")
    return seeds
