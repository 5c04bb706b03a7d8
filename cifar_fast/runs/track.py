"""`track=`: who also gets the curves of a run, for as long as it trains; its card and figures at the end."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from cifar_fast.export.card import Card
from cifar_fast.export.summary import where_tracked
from cifar_fast.recipe import Recipe, describe
from cifar_fast.reporting.results import row
from cifar_fast.training.callbacks.tracking import Tracker
from cifar_fast.utils.ranks import here


@contextmanager
def tracking(
    recipe: Recipe,
    folder: Path,  # of the run's files
    about: dict,  # of the run; the tracker's id is kept there
    saved: dict | None,  # the checkpoint that the run resumes from
) -> Iterator[Tracker | None]:
    "The tracker of a run, open in the block; None where the recipe has none, or this process is not the one to write."
    if recipe.track == "none" or not here().first:
        yield None
        return
    about["track_id"] = (saved and saved["about"].get("track_id")) or secrets.token_hex(4)
    tracker, finished = make(recipe, folder, about["track_id"], saved["train_iter"] if saved else 0), False
    tracker.open()
    if not tracker.failed and tracker.place:
        print(where_tracked({tracker.kind: tracker.place}, folder), flush=True)
    try:
        yield tracker
        finished = True
    finally:
        tracker.close(finished)


def make(recipe: Recipe, folder: Path, id: str, steps: int) -> Tracker:
    "Of the recipe's kind. The library is imported here only: `recipe.check` has looked whether it is installed."
    if recipe.track == "tensorboard":
        from cifar_fast.training.callbacks.track_tensorboard import TensorBoard

        return TensorBoard(folder, steps)
    from cifar_fast.training.callbacks.track_wandb import Wandb

    return Wandb(folder, recipe.name, id, describe(recipe))


def attached(tracker: Tracker | None, card: Card, folder: Path) -> Card:
    "The card, which says where the run is tracked, once the tracker has it and the figures of `folder`."
    if tracker is None or tracker.failed or not tracker.place:
        return card
    with_place = replace(card, tracked={tracker.kind: tracker.place})
    tracker.attach(with_place.to_dict(), card.facts(), row(card), sorted(folder.glob("*.png")))
    return card if tracker.failed else with_place
