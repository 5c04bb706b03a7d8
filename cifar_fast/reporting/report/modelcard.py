"""A model card in the Hugging Face convention: YAML for machines, then words for people."""

from __future__ import annotations

import json

from cifar_fast.reporting.report.page import told

SHOWN = ("epochs", "bs", "lr", "opt", "fit", "sched", "loss", "augment", "mix", "ema", "resize", "clip")
DATASETS = {"cifar10": ("uoft-cs/cifar10", "CIFAR-10"), "digits": ("", "scikit-learn's digits")}


def model_card(card: dict) -> str:
    "README.md of a run."
    name, data = str(card.get("name", card["arch"])), card.get("data", {}).get("name", "its own images")
    identity, called = DATASETS.get(data, ("", data))
    found, split = card.get("test") or card.get("held_out"), "test" if card.get("test") else "validation"
    return "\n".join([*front(name, card, identity, called, found, split), "", f"# {plain(name)}", "",
                      *body(name, card, called, found, split), ""])


def front(name, card, identity, called, found, split) -> list[str]:
    "The YAML. Every value is written as JSON, which YAML reads alike: no name can break out of its line."
    lines = ["---", "library_name: fastai", "pipeline_tag: image-classification",
             "tags: [cifar_fast, image-classification, tiny-model]", "metrics: [accuracy]"]
    if identity:
        lines.append(f"datasets: [{json.dumps(identity)}]")
    if found:
        lines += ["model-index:", f"- name: {json.dumps(name)}", "  results:", "  - task:",
                  "      type: image-classification", "    dataset:", f"      name: {json.dumps(called)}",
                  f"      type: {json.dumps(identity or called)}", f"      split: {split}", "    metrics:",
                  "    - type: accuracy", "      name: accuracy, plain", f"      value: {found['accuracy']:.4f}"]
        if "accuracy_tta" in found:
            lines += ["    - type: accuracy", "      name: accuracy, mean of image and mirror",
                      f"      value: {found['accuracy_tta']:.4f}"]
    return [*lines, "---"]


def body(name, card, called, found, split) -> list[str]:
    audit, classes = card.get("audit", {}), [str(v) for v in card["vocab"]]
    named = ", ".join(classes[:20]) + (f" and {len(classes) - 20} more" if len(classes) > 20 else "")
    return [
        f"`{card['arch']}`, a convolutional net of {audit.get('params', 0):,} parameters with a receptive field of "
        f"{audit.get('receptive_field', '–')} pixels. It sorts images of 32×32 into {len(classes)} classes: "
        f"{plain(named)}.",
        "", "## Results", "", results(card, called, found, split),
        "", "## Training", "", training(card), "", "| setting | value |", "| --- | --- |", *settings(card),
        "", "## Use", "", "```python", "from cifar_fast.all import load_export, read_image",
        f"net = load_export({json.dumps(name)})  # its .safetensors and .json; no code of theirs is run",
        'net.predict(read_image("image.png")[None])  # (1, classes) probabilities', "```", "",
        "The `.pkl` is a fastai Learner for `load_learner`: a pickle, which runs the code inside it. Open it only from",
        "somebody you trust.", "", "## Limits", "",
        "Images are cropped to their centre square and brought to 32×32: small things are lost. Whatever it is",
        f"shown, it answers with one of its {len(classes)} classes. report.html says how sure it is when it errs.", "",
        "License: to be chosen by whoever publishes it."]


def results(card, called, found, split) -> str:
    if not found:
        return "No accuracy was measured: there were no test images."
    tta = f", {found['accuracy_tta']:.2%} as the mean of image and mirror" if "accuracy_tta" in found else ""
    return (f"{found['accuracy']:.2%} of {found['n']:,} {split} images of {plain(called)}{tta}. "
            f"How it was measured: {card.get('protocol', 'not said')}.")


def training(card) -> str:
    machine, seconds = card.get("machine", {}), card.get("seconds", {}).get("training", 0)
    return (f"{card.get('epochs', '–')} epochs, seed {card.get('recipe', {}).get('seed', '–')}, "
            f"{machine.get('device', '–')} in {machine.get('precision', '–')}, {seconds:,.0f} s of training, "
            f"{card.get('date', '–')}, commit {card.get('commit') or 'unknown'}.")


def settings(card) -> list[str]:
    "Rows of what decides the training; code marks and bars would end a cell."
    recipe = card.get("recipe", {})
    return [f"| {k} | `{plain(told(recipe[k])).replace('|', '/').replace('`', '')}` |" for k in SHOWN
            if recipe.get(k) not in (None, [], 0)]


def plain(text: str) -> str:
    "On one line, without marks that Markdown or HTML would read."
    return "".join(c for c in " ".join(str(text).split()) if c not in "<>[]\\")
