"""Commands about recipes: recipes, recipe, copy, lr_find."""

from __future__ import annotations

import json
import math
import shutil
import sys
import textwrap

from cifar_fast.cli.command import Command, UsageError, add_changes
from cifar_fast.utils.files import expand_path
from cifar_fast.utils.log import quiet, verbose


class Recipes(Command):
    name = "recipes"
    help = "list the recipes and the datasets"
    examples = ("recipes",)

    @staticmethod
    def run(args):
        from cifar_fast.data.cache import cache_folder
        from cifar_fast.data.registry import in_cache, named_datasets
        from cifar_fast.recipe import list_recipes

        shelf, datasets = cache_folder() / "data", {}
        for name, dataset in named_datasets().items():
            stored = in_cache(dataset, shelf)
            datasets[name] = f"{dataset.classes} classes: {dataset.about}{f' ({stored})' if stored else ''}"
        print_names(list_recipes())
        print("\npython -m cifar_fast recipe NAME            trains one; --dry-run shows it first\n"
              "python -m cifar_fast copy NAME mine.py      copies one for you to edit\n\n"
              "recipe NAME data=DATASET trains on other images: a folder, a label table,\n"
              "hf:owner/name of the Hugging Face Hub, or one of these (train + valid + test):\n")
        print_names(datasets)


def print_names(lines: dict[str, str]) -> None:
    width = shutil.get_terminal_size((10_000, 24)).columns  # a pipe has none
    for name, line in lines.items():
        print(textwrap.fill(f"{name:<14} {line}", width, subsequent_indent=" " * 15))


class Recipe(Command):
    name = "recipe"
    help = "train a recipe: audit, train, evaluate, save"
    examples = ("recipe sprint", "recipe final data=digits epochs=20",
                "recipe final epochs=60 mix.cutmix=0.3 valid=5000", "recipe final epochs=60 name=final-long",
                "recipe final data=PHOTOS init=exports/final fit=fine_tune", "recipe final lr=find",
                "recipe final distill=exports/teacher", "recipe final init=exports/final prune=0.5 epochs=20",
                "recipe final --dry-run epochs=60", "recipe final --resume",
                "recipe mine.py --log json > epochs.jsonl")

    @staticmethod
    def add_arguments(parser):
        parser.add_argument("name", metavar="NAME", help="a recipe's name, or a path to a recipe file ending in .py")
        add_changes(parser, "a setting of the recipe, e.g. epochs=30 data=digits lr=find fit.pct_start=0.2 sched=step "
                            "sched.gamma=0.1 (--dry-run shows all of them); name=NAME is where the run is saved, "
                            "exports/NAME (default: the recipe's name, on other data NAME-DATA; with a number "
                            "added if a finished run already has that name)")
        parser.add_argument("--log", choices=("auto", "bars", "lines", "json", "quiet"), default="auto",
                            help="bars, plain lines every ten seconds, or JSON lines on stdout: one per epoch, then "
                                 "one for the result (default auto: bars on a terminal, lines elsewhere)")
        parser.add_argument("--dry-run", action="store_true",
                            help="train nothing: show recipe, audit, shapes and schedule; time three steps")
        stopped = parser.add_mutually_exclusive_group()
        stopped.add_argument("--resume", action="store_true", help="resume the interrupted run of this recipe")
        stopped.add_argument("--restart", action="store_true", help="discard the interrupted run; train from scratch")
        parser.add_argument("--overwrite", action="store_true",
                            help="replace the finished run of this name, once this one has finished")
        parser.add_argument("--allow-changes", action="store_true",
                            help="with --resume: resume although recipe, data, versions or machine differ")

    @staticmethod
    def run(args):
        from cifar_fast.recipe import describe, recipe_path

        recipe_path(args.name)  # an unknown name is refused before seconds of imports
        from cifar_fast.runs.dryrun import dry_run
        from cifar_fast.runs.names import typed_for
        from cifar_fast.runs.run import train
        from cifar_fast.runs.run_dir import Interrupted
        from cifar_fast.training.distill import with_teacher
        from cifar_fast.training.init import with_init

        given = [args.name, *args.changes]
        stopped = with_teacher(with_init(resolve(args.name, args.changes, whole=False)[0])) if args.resume else None
        if stopped and (earlier := typed_for(stopped, args.changes)):
            # The changes of the stopped run need not be repeated; those typed now are added and take precedence.
            given = [args.name, *reversed(dict.fromkeys(reversed([*earlier[1:], *args.changes])))]
        resolved, finds = resolve(given[0], given[1:])
        if args.allow_changes and not args.resume:
            raise UsageError("--allow-changes is for --resume only")
        if args.dry_run:
            if finds or args.resume or args.restart:
                raise UsageError("--dry-run trains nothing: it takes no lr=find (python -m cifar_fast lr_find does), "
                                 "--resume or --restart")
            print(dry_run(resolved, given))
            return 0
        if verbose():
            print(json.dumps(describe(resolved), indent=1), file=sys.stderr)
        resume = True if args.resume else False if args.restart else None
        log = "quiet" if quiet() and args.log == "auto" else args.log
        options = {"overwrite": args.overwrite, "given": given, "log": log}
        try:
            train(resolved, finds, resume=resume, allow_changes=args.allow_changes, **options)
        except Interrupted as e:
            if not (sys.stdin.isatty() and sys.stderr.isatty()):
                raise
            print(f"cifar_fast: {e}", file=sys.stderr)
            try:
                answer = input("Resume it? [Y/n] ")
            except EOFError:  # Ctrl-D
                answer = "n"
            if answer.strip().lower() not in ("", "y", "yes"):
                return 2
            train(resolved, finds, resume=True, **options)
        return 0


def resolve(name: str, changes: list[str], whole: bool = True):
    "The recipe with its changes, checked if `whole`; and whether lr=find is one of them."
    from cifar_fast.recipe import check, load_recipe, override

    finds = "lr=find" in changes
    changed = override(load_recipe(name), [c for c in changes if c != "lr=find"])
    if not whole:
        return changed, finds
    check(changed)
    if finds and getattr(getattr(changed.sched, "func", None), "sets_lr", False):
        raise UsageError("lr=find has no effect with a schedule that sets the rate itself; use sched.max_lr=…")
    return changed, finds


class Copy(Command):
    name = "copy"
    help = "copy a recipe to a file of your own"
    examples = ("copy final mine.py",)

    @staticmethod
    def add_arguments(parser):
        parser.add_argument("name", metavar="NAME")
        parser.add_argument("file", metavar="FILE", help="the new file, ending in .py; an existing one is refused")

    @staticmethod
    def run(args):
        from cifar_fast.recipe import recipe_path
        from cifar_fast.utils.files import write_new

        target, text = expand_path(args.file), recipe_path(args.name).read_text("utf-8")
        if target.suffix != ".py":
            raise UsageError(f"{args.file}: a recipe is a Python file; give it a name ending in .py")
        try:
            write_new(target, text)
        except FileExistsError:
            raise UsageError(f"{target} exists already and was not changed; choose another name") from None
        print(f"{target}: edit it, then python -m cifar_fast recipe {target}")


class LrFind(Command):
    name = "lr_find"
    help = "suggest a learning rate for a recipe"
    examples = ("lr_find final", "lr_find sprint data=digits --steps 200")

    @staticmethod
    def add_arguments(parser):
        parser.add_argument("name", metavar="NAME")
        add_changes(parser, "a setting of the recipe, as `recipe` takes them")
        parser.add_argument("--start", type=float, default=1e-6, help="first learning rate (default 1e-6)")
        parser.add_argument("--end", type=float, default=10, help="last learning rate (default 10)")
        parser.add_argument("--steps", type=int, default=100, help="how many (default 100)")

    @staticmethod
    def run(args):
        if not 0 < args.start < args.end < math.inf:
            raise UsageError(f"--start {args.start:g} --end {args.end:g}: two finite rates above 0, the smaller one "
                             f"first")
        from cifar_fast.recipe import recipe_path

        recipe_path(args.name)
        from cifar_fast.reporting import plots
        from cifar_fast.training.lr_finder import FEWEST, find
        from cifar_fast.training.prepare import prepare
        from cifar_fast.utils.files import write_text

        if args.steps < FEWEST:
            raise UsageError(f"--steps {args.steps}: a search takes at least {FEWEST}")
        resolved, _ = resolve(args.name, args.changes)
        result = find(prepare(resolved, typed=args.changes), args.start, args.end, args.steps)
        folder = expand_path(resolved.exports) / "lr_find" / resolved.name
        plots.save(plots.lr_find(result), folder / "lr_find.png")
        write_text(folder / "lr_find.json", json.dumps(result, indent=1) + "\n")
        for name, at in {**result["suggestions"], "recipe": result["recipe"]}.items():
            print(f"{name:<8} {at['lr']:.3g}")
        print(f"saved: {folder / 'lr_find.png'}, lr_find.json\n"
              f"next: python -m cifar_fast recipe "
              f"{' '.join([args.name, *args.changes])} lr={result['suggestions']['valley']['lr']:.2g}  (or lr=find)")
