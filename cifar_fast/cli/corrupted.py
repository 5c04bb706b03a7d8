"""`evaluate --corruptions`."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace

from cifar_fast.cli.command import UsageError


def evaluate_corruptions(args, model, data: str | None, columns: dict[str, str]) -> None:
    "Measure and print; the run's own test set is also kept in its card, with figures. Raises UsageError, DataError."
    from cifar_fast.export.card_file import read_card
    from cifar_fast.export.card_format import NAME
    from cifar_fast.export.corruptions.measure import labelled_images, measure
    from cifar_fast.export.files import EXPORTED, run_folder
    from cifar_fast.reporting.report.corrupted import corruptions_text
    from cifar_fast.utils.files import expand_path

    if args.csv:
        raise UsageError("--csv saves predictions for the uncorrupted images; with --corruptions, use --json")
    if args.images is not None and args.images < 1:
        raise UsageError(f"--images {args.images}: at least 1")
    if args.seed < 0:
        raise UsageError(f"--seed {args.seed}: a whole number from 0 up")
    images, labels, rows = labelled_images(model, data, columns, args.images, args.seed)
    found = measure(model, images, labels, rows, args.seed)
    if args.json:
        print(json.dumps({"mean": found.mean, "means": found.means, **vars(found)}, indent=1, ensure_ascii=False))
    else:
        print(corruptions_text(found))
    folder = run_folder(args.export)
    if data is not None or not model.card or not (folder / NAME).is_file():
        return
    if expand_path(args.export).suffix in EXPORTED:
        if not args.json:
            print(f"not kept: the card of {folder} has the figures of the run itself, not of {args.export}")
    else:
        # Read again: other commands may have written it since, in the minutes that this took.
        paths = keep(folder, replace(read_card(folder), corruptions=found), images[len(labels) // 2],
                     int(rows[len(labels) // 2]))
        if not args.json:
            print(f"kept in {folder} ({', '.join(paths)}); python -m cifar_fast report {shlex.quote(args.export)} "
                  f"shows it")


def keep(folder, card, image, row: int) -> list[str]:
    "Into the card, the model card and two figures; their names."
    from cifar_fast.reporting import plots
    from cifar_fast.reporting.report import renew_model_card
    from cifar_fast.reporting.report.corrupted import figure_of_corruptions, figure_of_examples

    card.write(folder)
    renew_model_card(folder)
    found, title = card.corruptions, card.name or folder.name
    plots.save(figure_of_corruptions(found, title), folder / "corruptions.png")
    plots.save(figure_of_examples(image, found.seed, row), folder / "corrupted.png")
    return ["card.json", "corruptions.png", "corrupted.png"]
