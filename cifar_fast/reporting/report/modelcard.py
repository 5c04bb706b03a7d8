"""A model card in the Hugging Face convention: YAML metadata, then text."""

from __future__ import annotations

import json
import shlex
from pathlib import PurePosixPath, PureWindowsPath

from cifar_fast.export.card import Card
from cifar_fast.export.summary import exported_cells
from cifar_fast.reporting.report.page import value_text
from cifar_fast.utils.tables import markdown_table

SHOWN = ("epochs", "bs", "lr", "opt", "fit", "sched", "loss", "augment", "mix", "ema", "resize", "clip")
RESIZED = {"crop": "cropped to their centre square and resized to", "pad": "resized and padded with black to",
           "squash": "resized, without keeping their proportions, to"}
NO_WEIGHTS = ["The trained weights are not in this folder. recipe.json holds all settings that they were trained with."]
DATASETS = {"cifar10": ("uoft-cs/cifar10", "CIFAR-10"), "digits": ("", "scikit-learn's digits")}


def model_card(
    card: Card,
    weights: bool = True,  # whether the folder holds the trained weights
) -> str:
    "README.md of a run."
    data = card.recipe.get("data") or card.data.name  # a folder may have the name of a dataset
    identity, dataset = DATASETS.get(data, ("", card.data.name or "its own images"))
    name = card.name or card.arch
    return "\n".join([*front(card, name, identity, dataset), "", f"# {plain(name)}", "",
                      *body(card, name, dataset, weights), ""])


def front(card: Card, name: str, identity: str, dataset: str) -> list[str]:
    "The YAML. Every value is written as JSON, which YAML reads alike: no name can break out of its line."
    lines = ["---", "library_name: timm", "pipeline_tag: image-classification",
             "tags: [cifar_fast, timm, fastai, image-classification, tiny-model]", "metrics: [accuracy]"]
    if identity:
        lines.append(f"datasets: [{json.dumps(identity)}]")
    if card.start and card.start.name.startswith("hf-hub:"):
        lines.append(f"base_model: {json.dumps(card.start.name.removeprefix('hf-hub:').split('@')[0])}")
    if card.metrics:
        split = "test" if card.split == "test" else "validation"
        lines += ["model-index:", f"- name: {json.dumps(name)}", "  results:", "  - task:",
                  "      type: image-classification", "    dataset:", f"      name: {json.dumps(dataset)}",
                  f"      type: {json.dumps(identity or dataset)}", f"      split: {split}", "    metrics:",
                  "    - type: accuracy", "      name: accuracy", f"      value: {card.metrics.accuracy:.4f}"]
        if card.metrics.accuracy_tta is not None:
            lines += ["    - type: accuracy", "      name: TTA accuracy (mean of image and mirror)",
                      f"      value: {card.metrics.accuracy_tta:.4f}"]
    return [*lines, "---"]


def body(card: Card, name: str, dataset: str, weights: bool) -> list[str]:
    shown = ", ".join(card.vocab[:20]) + (f" and {len(card.vocab) - 20} more" if len(card.vocab) > 20 else "")
    size = f" of {card.audit.params:,} parameters with a receptive field of {card.audit.receptive_field} pixels" \
        if card.audit else ""
    return [
        f"`{card.arch}`, a convolutional network{size}. It sorts images of {card.size}×{card.size} into "
        f"{len(card.vocab)} classes: {plain(shown)}.",
        "", "## Results", "", results(card, dataset),
        "", "## Training", "", training(card), "", "| setting | value |", "| --- | --- |", *settings(card),
        "", "## Use", "", *(use(place(card, name)) if weights else NO_WEIGHTS), "", *where_it_runs(card),
        "## Limits", "",
        f"Images are {RESIZED[card.resize_mode]} {card.size}×{card.size} pixels: small things are lost. Whatever the",
        f"image shows, the prediction is one of the {len(card.vocab)} classes; `predict --threshold 0.8` predicts",
        "unknown where none of them has that probability.", *temperature(card), *robustness(card), "",
        "License: yours to choose; the runs published with cifar_fast are under Apache-2.0."]


def place(card: Card, name: str) -> str:
    "The run's folder, as the recipe names it; a path of this machine alone is not for a card that is published."
    exports = card.recipe.get("exports") or "exports"
    return plain(f"{'exports' if is_absolute(exports) else exports}/{name}")


def is_absolute(path: str) -> bool:
    return path.startswith("~") or PurePosixPath(path).is_absolute() or PureWindowsPath(path).is_absolute()


def use(folder: str) -> list[str]:
    "How to open the model."
    return [
        "```python", "import timm", "import cifar_fast.models  # registers the architecture", "",
        f"model = timm.create_model({json.dumps(f'local-dir:{folder}')}, pretrained=True)", "```", "",
        "or with the preprocessing, from card.json and model.safetensors, which run no code:", "", "```python",
        "from cifar_fast.all import load_export", "",
        f"model = load_export({json.dumps(folder)})",
        'model.predict(model.read("image.png")[None])  # (1, classes) probabilities', "```", "",
        "learner.pkl is a fastai Learner for `load_learner`: a pickle, which runs the code inside it. Open it only if",
        "you trust its author."]


def results(card: Card, dataset: str) -> str:
    metrics = card.metrics
    if not metrics:
        return "No accuracy was measured: there were no test images."
    tta = "" if metrics.accuracy_tta is None else f", TTA (mean of image and mirror) {metrics.accuracy_tta:.2%}"
    interval = f" ({metrics.interval})" if metrics.interval else ""
    if metrics.balanced_accuracy is not None:
        interval += f", {metrics.balanced_accuracy:.2%} balanced accuracy (the mean of the classes)"
    return (f"{metrics.accuracy:.2%} accuracy{interval} on {metrics.n:,} {card.split} images of {plain(dataset)}{tta}. "
            f"How it was measured: {card.measured_how}.")


def temperature(card: Card) -> list[str]:
    "How probabilities are made, for those who take the weights without this package."
    if not card.calibration:
        return []
    return ["", plain(f"Probabilities are the softmax of the logits divided by a {card.calibration}. predict, serve, "
                      f"load_export and learner.pkl divide by it; timm's model gives the logits as they are.")]


def robustness(card: Card) -> list[str]:
    "What corrupted images and copies of training images do to the accuracy, where that was measured."
    lines = [plain(f"{value}.") for value in (card.corruptions, card.duplicates) if value]
    return [text for line in lines for text in ("", line)]


def where_it_runs(card: Card) -> list[str]:
    "A row for each file that the run was exported to."
    if not card.exported:
        return []
    table = exported_cells({f"`{plain(name)}`": row for name, row in card.exported.items()})
    return ["## Where it runs", "", *markdown_table(table).split("\n"), "",
            "Differ: images whose predicted class is not torch's. Batch 1 and 125: images/s as a multiple of those of",
            "torch, measured in turns with as many threads. A file that is not in this folder is made again by",
            f"`python -m cifar_fast export {shlex.quote(place(card, card.name))} --to TARGET`.", "",
            *on_microcontrollers(card)]


def on_microcontrollers(card: Card) -> list[str]:
    "What TFLite Micro needs, as measured."
    return [line for name, row in card.exported.items() if row.flash and row.arena for line in
            (f"`{plain(name)}` takes {row.flash:,} bytes of flash and {row.arena:,} bytes of memory (arena) in",
             "TensorFlow Lite Micro, measured on x86; `model.h` is the same as a C array.", "")]


def training(card: Card) -> str:
    seconds = card.seconds.training if card.seconds else 0
    start = f"Started from {card.start.what}: {card.start.amount}. " if card.start else ""
    start += f"Distilled from {card.taught_by}. " if card.taught_by else ""
    return plain(f"{start}{card.epochs} epochs, seed {card.recipe.get('seed', '–')}, {card.machine.device or '–'} in "
                 f"{card.machine.precision or '–'}, {seconds:,.0f} s of training, {card.date or '–'}, commit "
                 f"{card.commit or 'unknown'}.")


def settings(card: Card) -> list[str]:
    "Rows of what decides the training; code marks and bars would end a cell."
    return [f"| {k} | `{plain(value_text(card.recipe[k])).replace('|', '/').replace('`', '')}` |" for k in SHOWN
            if card.recipe.get(k) not in (None, [], 0)]


def plain(text: str) -> str:
    "On one line, without marks that Markdown or HTML would read."
    return "".join(c for c in " ".join(str(text).split()) if c not in "<>[]\\")
