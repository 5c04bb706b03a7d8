"""One recipe with several seeds: `recipe final seeds=5`, or `seeds=0,1,2`; each is a run of its own, NAME-SEED."""

from __future__ import annotations

import shlex
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cifar_fast.data.sources import image_settings, load_source
from cifar_fast.export.card import Card
from cifar_fast.export.card_file import read_card
from cifar_fast.recipe import Recipe, RecipeError, check, load_recipe, override
from cifar_fast.runs.names import export_path, same_as_finished, set_by_data
from cifar_fast.runs.run import train
from cifar_fast.runs.run_dir import Busy, Interrupted, RunError, RunFolder
from cifar_fast.sweep.pool import output_to, run_pool, threads_of
from cifar_fast.sweep.space import parse_seeds
from cifar_fast.training.callbacks.history import DivergedError
from cifar_fast.training.checksums import with_checksums
from cifar_fast.utils.files import write_text
from cifar_fast.utils.log import log_progress
from cifar_fast.utils.signals import StopRequested
from cifar_fast.utils.statistics import mean_interval

LOGS = "logs"  # in exports/sweeps/NAME-seeds
IDLE = 1.0


def run_seeds(name: str, changes: Sequence[str], text: str, jobs: int, resume: bool | None,
              allow_changes: bool = False) -> list[Card]:
    "Train all seeds, `jobs` at a time, and print their mean; those that have been trained are not trained again."
    if any(c.startswith("seed=") for c in changes):
        raise RecipeError(f"seed= and seeds={text} together: leave out seed=")
    if "lr=find" in changes:
        raise RecipeError("lr=find would find another rate for each seed: python -m cifar_fast lr_find suggests one")
    recipe = with_checksums(override(load_recipe(name), list(changes)))
    check(recipe)
    if recipe.procs != 1:
        raise RecipeError(f"procs={recipe.procs or 'auto'} with seeds={text}: each seed trains in one process, and "
                          f"--jobs N trains N seeds at a time; give procs=1")
    seeds = parse_seeds(text, recipe.seed)
    paths = [path_of(recipe, seed) for seed in seeds]
    finished = {path: read_card(path) for seed, path in zip(seeds, paths, strict=True)
                if has_finished(recipe, seed, changes)}
    if len(finished) < len(seeds):  # else nothing is trained, and no image is needed
        require_same_images(finished, recipe.name)
    for seed, path in zip(seeds, paths, strict=True):
        require_ours(recipe, seed, path, changes, resume)
    logs = export_path(recipe).parent.absolute() / "sweeps" / f"{recipe.name}-seeds" / LOGS
    left = [s for s in seeds if not is_done(recipe, s, changes)]
    if left:
        log_progress(f"{recipe.name}: seeds {' '.join(map(str, seeds))}, {len(seeds) - len(left)} trained already; "
                     f"{jobs} at a time with {threads_of(jobs)} threads each; logs in {logs}")
        watch = Watch(recipe, seeds, changes)
        for seed in left:
            mark_of(logs, seed).unlink(missing_ok=True)
        try:
            run_pool(work, (name, tuple(changes), tuple(left), logs, allow_changes), min(jobs, len(left)), watch)
        except StopRequested:
            words = shlex.join([name, *changes, f"seeds={text}"])
            print(f"stopped at checkpoints, {watch.done} of {len(seeds)} seeds trained\nresume with: python -m "
                  f"cifar_fast recipe {words} --jobs {jobs} --resume", file=sys.stderr)
            raise
        if watch.left:
            raise RunError(f"{'seed' if len(watch.left) == 1 else 'seeds'} {', '.join(map(str, watch.left))} diverged, "
                           f"see above and {logs}; {watch.done} of {len(seeds)} are trained. Train all of them again "
                           f"with a lower lr= or with clip=1, under another name: name={recipe.name}-b")
    cards = [read_card(path) for path in paths]
    print(row_text(recipe.name, cards, export_path(recipe).parent))
    return cards


def mark_of(logs: Path, seed: int) -> Path:
    "A file that says to all workers that a seed has diverged."
    return logs / f"seed-{seed}.diverged"


def path_of(recipe: Recipe, seed: int) -> Path:
    return export_path(with_seed(recipe, seed))


def with_seed(recipe: Recipe, seed: int) -> Recipe:
    return replace(recipe, seed=seed, name=f"{recipe.name}-{seed}")


def has_finished(recipe: Recipe, seed: int, changes: Sequence[str]) -> bool:
    own = with_seed(recipe, seed)
    return same_as_finished(export_path(own), own, set_by_data(changes))


def is_done(recipe: Recipe, seed: int, changes: Sequence[str]) -> bool:
    return has_finished(recipe, seed, changes) and not RunFolder(path_of(recipe, seed)).working.exists()


def require_same_images(cards: Mapping[Path, Card], name: str) -> None:
    """Raises RunError where finished runs saw other images than their data= holds now.

    These are opened twice at most, but for a folder that the seed splits: there each seed has its own.
    """
    now, changed = [], []
    for path, card in cards.items():
        if len(now) < 2 or now[0] != now[1]:
            source = load_source(card.recipe["data"], seed=card.recipe.get("seed", 42), **image_settings(card.recipe))
            now.append(source.fingerprint)
        if card.data.fingerprint not in ("", now[-1]):  # older cards have none
            changed.append(str(path))
    if changed:
        raise RunError(f"{', '.join(changed)}: trained on other images than data={card.recipe['data']} holds now, so "
                       f"that they do not count as these seeds: restore the images, or give runs on the new ones a "
                       f"name of their own: name={name}-b")


def require_ours(recipe: Recipe, seed: int, path: Path, changes: Sequence[str], resume: bool | None) -> None:
    "Raises RunError where another run has the name of this seed, or a stopped one is neither resumed nor discarded."
    if path.exists() and not is_done(recipe, seed, changes) and not RunFolder(path).working.exists():
        raise RunError(f"{path} exists already and is another run: give these another name, name={recipe.name}-b")
    folder = RunFolder(path)
    if folder.working.exists():
        if resume is None:
            raise Interrupted(f"the run of seed {seed} has stopped and is kept in {folder.working}: --resume continues "
                              f"it and the others, --restart discards it")
        if resume is False:
            with folder:
                folder.discard()


def work(name: str, changes: tuple[str, ...], seeds: tuple[int, ...], logs: Path, allow_changes: bool) -> int:
    "A worker: trains whatever seed nobody else trains, until all are trained; a run's own lock says who does."
    recipe = with_checksums(override(load_recipe(name), list(changes)))
    while left := [s for s in seeds if not mark_of(logs, s).exists() and not is_done(recipe, s, changes)]:
        for seed in left:
            own = with_seed(recipe, seed)
            folder = RunFolder(export_path(own))
            given = [name, *(c for c in changes if not c.startswith("name=")), f"seed={seed}", f"name={own.name}"]
            try:
                if mark_of(logs, seed).exists() or is_done(recipe, seed, changes):
                    continue
                with output_to(logs / f"seed-{seed}.log"):
                    # Another worker may have died of it: then it resumes.
                    train(own, resume=True if folder.working.exists() else None, allow_changes=allow_changes,
                          given=given, log="lines")
            except (Busy, Interrupted):  # another worker has begun it since, and may have died: then it is resumed
                continue
            except DivergedError as e:  # the others may not
                write_text(mark_of(logs, seed), f"{e}\n")
                print(f"cifar_fast: seed {seed}: {e}", file=sys.stderr, flush=True)
        time.sleep(IDLE if left else 0)
    return 0


class Watch:
    "Prints seeds that have finished; called now and then."

    def __init__(self, recipe: Recipe, seeds: Sequence[int], changes: Sequence[str]):
        self.recipe, self.left, self.changes, self.all = recipe, list(seeds), changes, len(seeds)

    @property
    def done(self) -> int:
        return self.all - len(self.left)

    def __call__(self) -> int:
        for seed in [s for s in self.left if is_done(self.recipe, s, self.changes)]:
            self.left.remove(seed)
            card = read_card(path_of(self.recipe, seed))
            accuracy = f"{card.split} accuracy {card.metrics.accuracy:.2%}" if card.metrics else "not measured"
            if card.metrics and card.metrics.balanced_accuracy is not None:
                accuracy += f", balanced {card.metrics.balanced_accuracy:.2%}"
            log_progress(f"seed {seed}: {accuracy}  [{self.done} of {self.all} done]")
        return self.done


def row_text(name: str, cards: Sequence[Card], exports: Path) -> str:
    "Mean, standard deviation (n−1), the 95 % interval of the mean, and n."
    measured = [c.metrics.accuracy for c in cards if c.metrics]
    if len(measured) < 2:
        return f"{name}: nothing was measured: no test images, and nothing held out"
    parts = [mean_text(f"{cards[0].split} accuracy", measured)]
    for what, key in (("balanced accuracy", "balanced_accuracy"), ("TTA", "accuracy_tta")):
        values = [getattr(c.metrics, key) for c in cards if c.metrics]
        if None not in values:
            parts.append(mean_text(what, values))
    return (f"{name}: {'; '.join(parts)}; n = {len(measured)} seeds; see python -m "
            f"cifar_fast results{'' if str(exports) == 'exports' else f' {shlex.quote(str(exports))}'}")


def mean_text(what: str, values: Sequence[float]) -> str:
    low, high = mean_interval(values)
    return (f"{what} {statistics.mean(values):.2%} ± {100 * statistics.stdev(values):.2f} (95 % interval of the mean "
            f"{100 * low:.2f} to {100 * high:.2f} %)")
