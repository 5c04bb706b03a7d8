"""Commands about recipes: recipes, recipe, copy, lr_find."""

from __future__ import annotations

import json
import math
import re
import shlex
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
                "recipe final procs=2",
                "recipe final seeds=5 --jobs 2",
                "recipe final --dry-run epochs=60", "recipe final --resume",
                "recipe mine.py --log json > epochs.jsonl")

    @staticmethod
    def add_arguments(parser):
        parser.add_argument("name", metavar="NAME", help="a recipe's name, or a path to a recipe file ending in .py")
        add_changes(parser, "a setting of the recipe, e.g. epochs=30 data=digits lr=find fit.pct_start=0.2 sched=step "
                            "sched.gamma=0.1 (--dry-run shows all of them); name=NAME is where the run is saved, "
                            "exports/NAME (default: the recipe's name, on other data NAME-DATA; with a number "
                            "added if a finished run already has that name); seeds=5, or seeds=0,1,2, trains "
                            "one for each seed, NAME-SEED, and prints mean and interval")
        parser.add_argument("--jobs", type=int, default=1, metavar="N",
                            help="with seeds=: how many at a time; they share the cores (default %(default)s)")
        parser.add_argument("--log", choices=("auto", "bars", "lines", "json", "quiet"), default="auto",
                            help="bars, plain lines every ten seconds, or JSON lines on stdout: one per epoch, then "
                                 "one for the result; quiet: no progress (default auto: bars on a terminal, lines "
                                 "elsewhere)")
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
        from cifar_fast.recipe import recipe_path
        from cifar_fast.utils.ranks import joined

        with joined() as ranks:  # this process alone, unless torchrun has started several
            # What no recipe takes is refused before seconds of imports.
            recipe_path(args.name)
            check_changes(args.changes)
            if args.allow_changes and not args.resume:
                raise UsageError("--allow-changes is for --resume only")
            require_values(args)
            if args.jobs != 1 and not any(c.startswith("seeds=") for c in args.changes):
                raise UsageError(f"--jobs {args.jobs} goes with seeds=; procs={args.jobs} trains one run in several "
                                 "processes")
            if any(c.startswith("seeds=") for c in args.changes) and not args.dry_run:
                if ranks.several:
                    raise UsageError("seeds= starts processes of its own (--jobs): run it without torchrun")
                train_seeds(args)
                return 0
            args.changes = [c for c in args.changes if not c.startswith("seeds=")]
            return train_or_show(args, ranks)


def train_or_show(args, ranks) -> int:
    from cifar_fast.recipe import describe
    from cifar_fast.runs.dryrun import dry_run
    from cifar_fast.runs.run import train
    from cifar_fast.runs.run_dir import Interrupted
    from cifar_fast.training.parallel import choose_procs
    from cifar_fast.utils.ranks import from_first

    given = from_first(with_earlier(args) if ranks.first else None)
    resolved, finds = resolve(given[0], given[1:])
    if args.dry_run and (finds or args.resume or args.restart):
        raise UsageError("--dry-run trains nothing: it takes no lr=find (python -m cifar_fast lr_find does), "
                         "--resume or --restart")
    if not ranks.several and (procs := choose_procs(resolved.procs, resolved.device)) > 1:
        from cifar_fast.utils.launch import launch

        return launch(["-m", "cifar_fast", *args.argv], procs, resume_command(given))
    if args.dry_run:
        print(dry_run(resolved, given))
        return 0
    if verbose() and ranks.first:
        print(json.dumps(describe(resolved), indent=1), file=sys.stderr)
    resume = True if args.resume else False if args.restart else None
    log = "quiet" if quiet() and args.log == "auto" else args.log
    options = {"overwrite": args.overwrite, "given": given, "log": log}
    try:
        train(resolved, finds, resume=resume, allow_changes=args.allow_changes, **options)
    except Interrupted as e:
        if ranks.several or not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise
        print(f"cifar_fast: {e}", file=sys.stderr)
        try:
            print("Resume it? [Y/n] ", end="", file=sys.stderr, flush=True)  # stdout may be redirected to a file
            answer = input()
        except EOFError:  # Ctrl-D
            answer = "n"
        if answer.strip().lower() not in ("", "y", "yes"):
            return 2
        train(resolved, finds, resume=True, **options)
    return 0


def with_earlier(args) -> list[str]:
    """What was typed: the recipe and its changes, with --resume those of the stopped run too.

    They need not be repeated; those typed now are added and take precedence.
    """
    from cifar_fast.runs.names import typed_for
    from cifar_fast.training.checksums import with_checksums

    given = [args.name, *args.changes]
    stopped = with_checksums(resolve(args.name, args.changes, whole=False)[0]) if args.resume else None
    if stopped and (earlier := typed_for(stopped, args.changes)):
        return [args.name, *reversed(dict.fromkeys(reversed([*earlier[1:], *args.changes])))]
    return given


def resume_command(given: list[str]) -> str:
    from cifar_fast.runs.run_dir import command

    return command({"given": given})


def check_changes(changes: list[str]) -> None:
    "Raises RecipeError for those that no recipe takes; those that are searched are left to `sweep`."
    from cifar_fast.recipe import check_typed
    from cifar_fast.sweep.space import is_searched, parse_seeds

    seeds = [change for change in changes if change.startswith("seeds=")]
    for change in seeds:
        parse_seeds(change.partition("=")[2], 0)
    check_typed(change for change in changes if change not in seeds and not is_searched(change))


def require_values(args) -> None:
    "Raises UsageError for a range or list of values, with the command that takes it."
    from cifar_fast.sweep.space import is_searched

    searched = [c for c in args.changes if is_searched(c) and not c.startswith("seeds=")]
    if not searched:
        return
    from cifar_fast.recipe import RecipeError, load_recipe, override

    base = load_recipe(args.name)
    for change in searched:
        try:
            override(base, [change])
        except RecipeError:  # else it is one value with a comma in it
            if point := with_decimal_point(base, change):
                raise UsageError(f"{change}: decimals have a point here; did you mean {point}?") from None
            words = shlex.join([args.name, *args.changes])
            valid = "" if base.valid or any(c.startswith("valid=") for c in args.changes) else " valid=0.1"
            raise UsageError(f"{change}: `recipe` trains one value; for several: python -m cifar_fast sweep "
                             f"{words}{valid}") from None


def with_decimal_point(base, change: str) -> str | None:
    "`lr=0.05` for `lr=0,05`, where that is a value that the recipe takes and a list of both parts is unlikely."
    from cifar_fast.recipe import RecipeError, override

    key, _, text = change.partition("=")
    found = re.fullmatch(r"(\d+),(\d+)", text)
    if not found:
        return None
    meant = f"{key}={found[1]}.{found[2]}"
    try:
        override(base, [meant])
    except RecipeError:
        return None
    return meant if found[1] == "0" or found[2].startswith("0") else None


def train_seeds(args) -> None:
    "`recipe NAME seeds=5`: one run a seed."
    if args.overwrite or args.log not in ("auto", "quiet"):
        raise UsageError("seeds= takes no --overwrite (runs that have finished are kept and counted) and no --log "
                         "(each has a log file)")
    if not 1 <= args.jobs <= 1024:
        raise UsageError(f"--jobs {args.jobs}: expected a number of processes from 1 up")
    from cifar_fast.sweep.seeds import run_seeds

    text = next(c for c in reversed(args.changes) if c.startswith("seeds=")).partition("=")[2]
    changes = [c for c in args.changes if not c.startswith("seeds=")]
    run_seeds(args.name, changes, text, args.jobs, True if args.resume else False if args.restart else None,
              args.allow_changes)


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
        print(f"{target}: edit it, then python -m cifar_fast recipe {shlex.quote(str(target))}")


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
        check_changes(args.changes)
        from cifar_fast.reporting import plots
        from cifar_fast.training.lr_finder import FEWEST, find
        from cifar_fast.training.prepare import prepare
        from cifar_fast.utils.files import write_text

        if args.steps < FEWEST:
            raise UsageError(f"--steps {args.steps}: a search takes at least {FEWEST}")
        resolved, _ = resolve(args.name, args.changes)
        result = find(prepare(resolved, typed=args.changes), args.start, args.end, args.steps)
        folder = expand_path(resolved.exports) / "lr_find" / resolved.name
        plots.save(plots.lr_find(result, resolved.name), folder / "lr_find.png")
        write_text(folder / "lr_find.json", json.dumps(result, indent=1) + "\n")
        for name, at in {**result["suggestions"], "recipe": result["recipe"]}.items():
            print(f"{name:<8} {at['lr']:.3g}")
        own = getattr(getattr(resolved.sched, "func", resolved.sched), "sets_lr", False)
        key, otherwise = ("sched.max_lr", "") if own else ("lr", "  (or lr=find)")
        print(f"saved: {folder / 'lr_find.png'}, lr_find.json\n"
              f"next: python -m cifar_fast recipe "
              f"{shlex.join([args.name, *args.changes])} {key}={result['suggestions']['valley']['lr']:.2g}{otherwise}")
