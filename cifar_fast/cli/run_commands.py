"""Commands about finished runs: results, report, figures, compare."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace

from cifar_fast.cli.command import Command, UsageError, add_model_file, run_path
from cifar_fast.utils.files import expand_path


class Results(Command):
    name = "results"
    help = "show the results of all recipes, published ones and yours"
    examples = ("results", "results --readme", "results --curves")

    @staticmethod
    def add_arguments(parser):
        parser.add_argument("file", nargs="?", default="exports", metavar="FILE",
                            help="one table, or a folder whose results.csv (published) and runs.csv (yours) are read "
                                 "together (default: %(default)s)")
        shape = parser.add_mutually_exclusive_group()
        shape.add_argument("--csv", action="store_true", help="print CSV instead of a table")
        shape.add_argument("--json", action="store_true", help="print JSON instead of a table")
        shape.add_argument("--readme", nargs="?", const="exports/README.md", metavar="README.md",
                           help="write the published table between the two results markers of this file instead "
                                "(default: %(const)s)")
        shape.add_argument("--curves", action="store_true",
                           help="redraw published against measured curves, from the histories of the runs in FILE")

    @staticmethod
    def run(args):
        from cifar_fast.reporting import results
        from cifar_fast.utils.csv import csv_text
        from cifar_fast.utils.files import write_text

        path = expand_path(args.file)
        if args.curves:
            for figure in results.redraw(path):
                print(f"saved: {figure}")
            return
        if args.readme and path.is_dir():
            path = path / results.PUBLISHED  # a README shows the published results only
        rows, facts = results.read_all(path) if path.is_dir() else results.read(path), results.facts()
        lines = results.summarize(rows, {name: fact["recipe_id"] for name, fact in facts.items()})
        if args.readme:
            readme = expand_path(args.readme)
            text = readme.read_text("utf-8")
            write_text(readme, results.replace_block(text, results.block(rows, facts), str(readme)))
            print(f"{readme}: wrote the table of {len(facts)} recipes between the markers")
        elif args.json:
            print(lines.to_json(orient="records", indent=1, force_ascii=False))
        else:
            print(csv_text(lines).rstrip("\n") if args.csv else results.terminal(lines))


class Report(Command):
    name = "report"
    help = "rebuild report.html, its figures and the model card of a run"
    examples = ("report final", "report final --errors wrong/")

    @staticmethod
    def add_arguments(parser):
        parser.add_argument("name", metavar="RUN", help="exports/NAME, or NAME alone")
        parser.add_argument("--errors", metavar="DIR",
                            help="instead: copy up to 500 images that were predicted wrongly, the most confident "
                                 "first, into a folder, with a page of them and a table of all (errors.csv)")
        add_model_file(parser)

    @staticmethod
    def run(args):
        from cifar_fast.export.card_file import read_card
        from cifar_fast.reporting.report import rebuild
        from cifar_fast.runs.train_batch import draw_train_batch
        from cifar_fast.utils.errors import CifarFastError

        folder = expand_path(run_path(args.name))
        if args.errors is not None:
            lay_out_errors(folder, expand_path(args.errors))
            return
        recipe = unchanged(read_card(folder))
        if recipe and not (folder / "augmented.png").is_file():
            try:
                draw_train_batch(recipe, folder / "augmented.png")
            except (CifarFastError, OSError) as e:  # e.g. its images are gone: the report goes without them
                print(f"cifar_fast: left out: a training batch ({e})", file=sys.stderr)
        paths, missing = rebuild(folder)
        for reason in missing:
            print(f"cifar_fast: left out: {reason}", file=sys.stderr)
        print(f"saved in {folder}/: {', '.join(path.name for path in paths)}\nopen {folder / 'report.html'}")


def lay_out_errors(folder, target) -> None:
    from cifar_fast.reporting.report import errors_folder

    result = errors_folder(folder, target)
    if not result.errors:
        print(f"no errors: all {result.images:,} images of {folder} were predicted rightly; nothing was written")
        return
    first = f", the first {result.copied:,} copied" if result.copied < result.errors else ""
    print(f"{result.errors:,} of {result.images:,} images were predicted wrongly{first}\nopen {target / 'index.html'}")


def unchanged(card):
    "The project's recipe that the card names, if it is still the same; else None."
    from cifar_fast.recipe import describe, list_recipes, load_recipe
    from cifar_fast.reporting.results import recipe_id

    if card.recipe_name not in list_recipes():
        return None
    now = load_recipe(card.recipe_name)
    if recipe_id(describe(now)) != recipe_id(card.recipe):
        return None
    return replace(now, seed=card.recipe.get("seed", now.seed))  # it decides which images come first, and how


class Figures(Command):
    name = "figures"
    help = "redraw the figures of all runs, from the small files saved with them"
    examples = ("figures", "figures elsewhere/exports")

    @staticmethod
    def add_arguments(parser):
        parser.add_argument("exports", nargs="?", default="exports", metavar="DIR", help="default: %(default)s")
        add_model_file(parser)

    @staticmethod
    def run(args):
        from cifar_fast.export.card_file import list_runs
        from cifar_fast.reporting import compare, results
        from cifar_fast.reporting.report import redraw
        from cifar_fast.utils.errors import CifarFastError

        exports, count, failed = expand_path(args.exports), 0, 0
        for folder in list_runs(exports):
            try:
                paths, skipped = redraw(folder)
            except CifarFastError as e:
                failed += 1
                print(f"cifar_fast: left out: {e}", file=sys.stderr)
                continue
            count += len(paths)
            print(f"{folder}: drew {', '.join(path.name for path in paths)}"
                  + (f"\n  not redrawn: {'; '.join(skipped)}" if skipped else ""), flush=True)
        if (exports / results.PUBLISHED).is_file():
            rows = compare.table(compare.lines_of_recipes(exports / results.PUBLISHED))
            compare.draw(compare.ordered(rows, "accuracy"), exports / "compare.png", compare.FLOOR)
            print(f"{exports}: drew compare.png")
            count += 1
            sizes = results.by_budget(results.read(exports / results.PUBLISHED), "final")
            sizes = sizes[sizes["epochs"] == sizes["epochs"].max()]  # one curve: as many epochs each
            if len(sizes) > 1:
                compare.draw_sizes(compare.table(sizes), "final", exports / "sizes.png")
                print(f"{exports}: drew sizes.png")
        if not count:
            raise UsageError(f"{exports} holds no run to draw; train one first: python -m cifar_fast recipe final")
        return 1 if failed else 0


class Compare(Command):
    name = "compare"
    help = "compare runs in a table, and two of them image by image; or two recipes"
    examples = ("compare", "compare --sort seconds --csv", "compare final sprint",
                "compare --recipes final sprint")

    @staticmethod
    def add_arguments(parser):
        parser.add_argument("runs", nargs="*", metavar="RUN",
                            help="exports/NAME, or NAME alone; default a line for each recipe in exports/")
        parser.add_argument("--recipes", nargs=2, metavar=("A", "B"),
                            help="the values in which two recipes differ (names, or files ending in .py)")
        parser.add_argument("--sort", metavar="COLUMN", help="a column of --csv; accuracies come greatest first")
        parser.add_argument("--reverse", action="store_true", help="reverse the order")
        parser.add_argument("--plot", metavar="FILE", help="where the figure is saved, a .png (default: runs.png; of "
                                                           "named runs compare-RUN-RUN.png in their folder)")
        parser.add_argument("--exports", default="exports", metavar="DIR",
                            help="the folder of the runs (default: %(default)s)")
        shape = parser.add_mutually_exclusive_group()
        shape.add_argument("--csv", action="store_true", help="print the table as CSV; a figure only with --plot")
        shape.add_argument("--json", action="store_true", help="print JSON; a figure only with --plot")

    @staticmethod
    def run(args):
        if args.recipes:
            compare_recipes(args)
        else:
            compare_runs(args)


def compare_runs(args) -> None:
    from cifar_fast.reporting import compare

    if args.plot and expand_path(args.plot).suffix != ".png":
        raise UsageError(f"--plot {args.plot}: the figure is a PNG; give it a name ending in .png")
    exports = expand_path(args.exports)
    runs = compare.find_runs(args.runs, exports)
    lines = compare.lines_of_runs(runs) if runs else compare.lines_of_recipes(exports)
    rows = compare.ordered(compare.table(lines), args.sort or (None if runs else "accuracy"), args.reverse)
    # compare.png is the figure of what is published: `figures` draws it.
    name = "-".join(["compare", *(run.folder.name for run in runs)]) if runs else "runs"
    name = os.fsencode(name)[:200].decode(errors="ignore")  # a name of a file has at most 255 bytes
    path = expand_path(args.plot) if args.plot else (runs[0].folder.parent if runs else exports) / f"{name}.png"
    floor = None if runs else compare.FLOOR
    if args.csv:
        print(compare.table_csv(rows))
    elif args.json:
        two = {"pair": compare.pair(*runs).as_dict(), "differences": compare.run_differences(*runs)} \
            if len(runs) == 2 else {"pair": None}
        print(json.dumps({"runs": compare.records(rows), **two}, indent=1, ensure_ascii=False))
    else:
        print(f"{compare.table_text(rows)}\n")
        print(compare.draw(rows, path, floor))
        if len(runs) == 2:
            names = [run.name for run in runs]
            print(f"\nsettings that differ:\n{compare.differences_text(compare.run_differences(*runs), *names)}")
            # Last, since it alone needs the predictions of both.
            print(f"\n{compare.pair_text(compare.pair(*runs), *runs)}")
        return
    if args.plot:
        print(compare.draw(rows, path, floor), file=sys.stderr)


def compare_recipes(args) -> None:
    from cifar_fast.reporting.compare import differences_text, recipe_differences

    if args.runs or args.sort or args.reverse or args.plot or args.csv:
        raise UsageError("--recipes compares the values of two recipes; it takes only --json beside it")
    differences = recipe_differences(*args.recipes)
    print(json.dumps(differences, indent=1, ensure_ascii=False) if args.json
          else differences_text(differences, *args.recipes))
