"""What a run says of the trained weights that it starts from, and of its teachers."""

from __future__ import annotations

from cifar_fast.export.card_parts import teachers_text
from cifar_fast.recipe import settings
from cifar_fast.training.logits_cache import logits_cache_of
from cifar_fast.training.prepare import Run
from cifar_fast.utils.ranks import here


def starts(run: Run) -> list[str]:
    "A line for each of both."
    return [say(run) for say, used in ((started, run.start), (taught, run.teachers)) if used]


def taught(run: Run) -> str:
    "One line: the teachers, how their loss is weighted, and which images they are given."
    teachers, size = run.teachers.entries(), run.source.size
    mixed = " and mixed" if run.recipe.mix else ""
    parts = [f"learns from {teachers_text(teachers)}", f"on the student's own images, augmented{mixed}"]
    if run.recipe.resize or any(teacher.size != size for teacher in teachers):
        sizes = " and ".join(f"{side}×{side}" for side in sorted({teacher.size for teacher in teachers}))
        parts.append(f"brought to {sizes} for the {'teachers' if len(teachers) > 1 else 'teacher'}")
    if run.recipe.distill_cache:
        cache, epochs = logits_cache_of(run), run.recipe.epochs
        epochs = min(epochs, run.recipe.distill_repeat or epochs)
        each = ", and as much for each other process" if here().several else ""
        parts.append(f"the logits are cached in {cache.path} ({cache.size(epochs) / 2**20:,.1f} MB{each})")
    return ", ".join(parts)


def started(run: Run) -> str:
    "One line: the weights, what was taken of them, the input that the run uses, and what is trained first."
    start, size = run.start, run.source.size
    parts = [f"starts from {start.what}: {start.amount}",
             "mean and std are the recipe's" if run.recipe.stats else "mean and std are theirs",
             f"images of {size}×{size}{'' if size == start.size else f', theirs were {start.size}×{start.size}'}"]
    if size < run.source.own_size and size == start.size:
        parts[-1] += f" as theirs were, where these alone would get {run.source.own_size}: size={run.source.own_size}"
    if epochs := settings(run.recipe.fit).get("freeze_epochs", 0):
        first = "epoch 1 trains" if epochs == 1 else f"epochs 1 to {epochs} train"
        parts.append(f"{first} {'what is new' if start.unfit else 'the head'} and batch norm alone")
    return "; ".join(parts)
