"""Commands that show runs: table, report, figures, comparison."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

from cifar_fast.cli.shared import Refused, in_exports
from cifar_fast.utils.files import expand_path


def results(args) -> int:
    from cifar_fast.reporting import results
    from cifar_fast.utils.csv import csv_text
    from cifar_fast.utils.files import write_text

    path = expand_path(args.file)
    if args.curves:
        for made in results.redraw(path.parent):
            print(f"drew {made}")
        return 0
    rows, facts = results.read(path), results.facts()
    lines = results.summarize(rows, {name: fact["recipe_id"] for name, fact in facts.items()})
    if args.readme:
        readme = expand_path(args.readme)
        text = readme.read_text("utf-8")
        write_text(readme, results.replace_block(text, results.block(rows, facts), str(readme)))
        print(f"{readme}: the table of {len(facts)} recipes stands between the markers")
    elif args.json:
        print(lines.to_json(orient="records", indent=1, force_ascii=False))
    else:
        print(csv_text(lines).rstrip("\n") if args.csv else results.terminal(lines))
    return 0


def report(args) -> int:
    from cifar_fast.export.files import read_full_card
    from cifar_fast.reporting.report import rebuild
    from cifar_fast.runs.train_batch import draw_train_batch

    stem = expand_path(in_exports(args.name))
    begun = unchanged(read_full_card(stem))
    if begun and not (stem / "augmented.png").is_file():
        draw_train_batch(begun, stem / "augmented.png")
    made, missing = rebuild(stem)
    for reason in missing:
        print(f"cifar_fast: left out: {reason}", file=sys.stderr)
    print(f"made {', '.join(path.name for path in made)} in {stem}/\nopen {stem / 'report.html'}")
    return 0


def figures(args) -> int:
    from cifar_fast.export.files import ExportError
    from cifar_fast.export.predictions import PredictionsError
    from cifar_fast.reporting import compare
    from cifar_fast.reporting.report import redraw

    exports, drawn, failed = Path(args.exports).expanduser(), 0, 0
    for stem in sorted(path.with_suffix("") for path in exports.glob("*.json")):
        try:
            made, left = redraw(stem)
        except (ExportError, PredictionsError, ValueError) as e:  # ValueError: a net of a recipe file of one's own
            failed += 1
            print(f"cifar_fast: left out: {e}", file=sys.stderr)
            continue
        drawn += len(made)
        print(f"{stem}: drew {', '.join(path.name for path in made)}"
              + (f"\n  left as it was: {'; '.join(left)}" if left else ""), flush=True)
    if (table := exports / "results.csv").is_file():
        rows = compare.ordered(compare.table(compare.lines_of_recipes(table)), "accuracy", False)
        compare.draw(rows, exports / "compare.png", compare.FLOOR)
        print(f"{exports}: drew compare.png")
        drawn += 1
    if not drawn:
        raise Refused(f"{exports} holds no run to draw; python -m cifar_fast recipe final leaves one")
    return 1 if failed else 0


def unchanged(card: dict):
    "The project's recipe that a run's card describes, where it still is the same; else None."
    from cifar_fast.recipe import describe, list_recipes, load_recipe
    from cifar_fast.reporting.results import recipe_id

    if card.get("name") not in list_recipes() or not isinstance(card.get("recipe"), dict):
        return None
    now = load_recipe(card["name"])
    if recipe_id(describe(now)) != recipe_id(card["recipe"]):
        return None
    return replace(now, seed=card["recipe"].get("seed", now.seed))  # which images come first, and how


def compare(args) -> int:
    from cifar_fast.reporting import compare

    if args.recipes:
        return compare_recipes(args)
    if args.plot and expand_path(args.plot).suffix != ".png":
        raise Refused(f"--plot {args.plot}: the figure is a PNG; give it a name ending in .png")
    exports = expand_path(args.exports)
    runs = compare.find_runs(args.runs, exports)
    lines = compare.lines_of_runs(runs) if runs else compare.lines_of_recipes(exports / "results.csv")
    rows = compare.ordered(compare.table(lines), args.sort or (None if runs else "accuracy"), args.reverse)
    # The figure of all keeps its name to itself: README and the page show it.
    name = "-".join(["compare", *(run.stem.name for run in runs)])[:200]
    path = expand_path(args.plot) if args.plot else (runs[0].stem.parent if runs else exports) / f"{name}.png"
    floor = None if runs else compare.FLOOR
    if args.json or args.csv:
        if args.csv:
            print(compare.table_csv(rows))
        else:
            pair = compare.pair(*runs).as_dict() if len(runs) == 2 else None
            print(json.dumps({"runs": compare.records(rows), "pair": pair}, indent=1, ensure_ascii=False))
        if args.plot:
            print(compare.draw(rows, path, floor), file=sys.stderr)
        return 0
    print(f"{compare.table_text(rows)}\n\n{compare.draw(rows, path, floor)}")
    if len(runs) == 2:  # last, so that its sentence is the last word; without predictions the table stands all the same
        print(f"\n{compare.pair_text(compare.pair(*runs), *runs)}")
    return 0


def compare_recipes(args) -> int:
    from cifar_fast.reporting.compare import differences_text, recipe_differences

    if args.runs or args.sort or args.reverse or args.plot or args.csv:
        raise Refused("--recipes compares the values of two recipes and takes nothing else but --json")
    found = recipe_differences(*args.recipes)
    print(json.dumps(found, indent=1, ensure_ascii=False) if args.json else differences_text(found, *args.recipes))
    return 0
