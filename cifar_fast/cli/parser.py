"""What the command line takes: commands, options, their examples; and what may have been meant."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping

from cifar_fast import __version__
from cifar_fast.bench import BENCHMARKS, DEFAULT
from cifar_fast.utils.text import nearest

EPILOG = """examples:
  python -m cifar_fast recipe final data=digits epochs=20  # no download
  python -m cifar_fast recipe final                        # CIFAR-10
  python -m cifar_fast recipe final --dry-run epochs=60    # look first
  python -m cifar_fast predict exports/final cat.png       # use it
  python -m cifar_fast serve exports/final                 # in the browser
  python -m cifar_fast COMMAND --help                      # examples of each

environment:
  CIFAR_FAST_DATA   an image tree of CIFAR-10 to use instead of the download
  CIFAR_FAST_CACHE  decoded images (default ~/.cache/cifar_fast)
  CIFAR_FAST_TRUST  your list of trusted .pkl (~/.config/cifar_fast/trusted)
  NO_COLOR          is kept to: nothing here is told by colours

exit codes:
  0 done   1 a check failed, or some images could not be read
  2 the input was refused
  130 stopped by Ctrl-C, 143 by SIGTERM (recipe NAME --resume goes on)
  141 whoever read the output has gone (| head)
"""

EXAMPLES = {
    "recipes": ("recipes",),
    "recipe": ("recipe sprint", "recipe final data=digits epochs=20",
               "recipe final epochs=60 mix.cutmix=0.3 valid=5000", "recipe final lr=find",
               "recipe final --dry-run epochs=60", "recipe final --resume",
               "recipe mine.py --log json > epochs.jsonl"),
    "copy": ("copy final mine.py",),
    "audit": ("audit", "audit cifar_final", "audit resnet18 --strict"),
    "lr_find": ("lr_find final", "lr_find sprint data=digits --steps 200"),
    "export": ("export final",),
    "trust": ("trust from-a-friend.pkl",),
    "predict": ("predict exports/final cat.png", "predict exports/final images/ --topk 3 --csv out.csv",
                "predict exports/final '*.jpg' --tta --json"),
    "serve": ("serve exports/final", "serve exports/final --port 0 --open"),
    "evaluate": ("evaluate exports/final", "evaluate exports/final data=my/images"),
    "results": ("results", "results --readme", "results --curves"),
    "report": ("report final",),
    "figures": ("figures", "figures elsewhere/exports"),
    "compare": ("compare", "compare --sort seconds --csv", "compare final sprint", "compare --recipes final sprint"),
    "doctor": ("doctor",),
    "bench": ("bench step", "bench --json > bench.json", "bench scale"),
    "completion": ("completion bash > ~/.local/share/bash-completion/completions/cifar_fast",),
}


SHELLS = ("bash", "zsh", "fish", "tcsh", "powershell")


class Parser(argparse.ArgumentParser):
    "argparse's, with the word that may have been meant."

    def error(self, message: str):
        words = [a for action in self._actions for a in (*action.option_strings, *(action.choices or ()))]
        unknown = message.partition("unrecognized arguments: ")[2].split() or (
            [message.split("'")[1]] if "invalid choice" in message else [])
        super().error(message + "".join(nearest(word, words) for word in unknown if word not in words))


def parse(argv: list[str] | None, handlers: Mapping[str, Callable]) -> argparse.Namespace | None:
    "The arguments, with `run` to call; None where no command was given and help was printed instead."
    top = parser(handlers)
    args, rest = top.parse_known_args(argv)
    # argparse takes no positional arguments behind an option where the list before it was already open.
    if rest and hasattr(args, "changes") and all("=" in r and not r.startswith("-") for r in rest):
        args.changes = [*args.changes, *rest]
    elif rest:
        getattr(args, "parser", top).error(f"unrecognized arguments: {' '.join(rest)}")
    if not hasattr(args, "run"):
        top.print_help()
        return None
    return args


def parser(handlers: Mapping[str, Callable], prog: str = "python -m cifar_fast") -> argparse.ArgumentParser:
    top = Parser(prog=prog, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
                 description="Train the best possible image classifier under a hard budget.")
    top.add_argument("--version", action="version", version=f"cifar_fast {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND")

    common = argparse.ArgumentParser(add_help=False)
    talk = common.add_mutually_exclusive_group()
    talk.add_argument("-q", "--quiet", action="store_true", help="say nothing but results, warnings and errors")
    talk.add_argument("-v", "--verbose", action="store_true",
                      help="say more: libraries' warnings, requests, where an error comes from")

    def command(name, help):
        examples = "".join(f"  {prog} {line}\n" for line in EXAMPLES[name])
        p = commands.add_parser(name, help=help, description=help, parents=[common], epilog=f"examples:\n{examples}",
                                formatter_class=argparse.RawDescriptionHelpFormatter)
        p.set_defaults(run=handlers[name], parser=p)
        return p

    command("recipes", "list the recipes")

    p = command("recipe", "train a recipe: audit, fit, evaluate once on test, export")
    p.add_argument("name", help="a recipe's name, or a path to a recipe file ending in .py")
    p.add_argument("changes", nargs="*", default=[], metavar="key=value",
                   help="e.g. epochs=30 data=digits lr=find fit.pct_start=0.2 sched=step sched.gamma=0.1")
    p.add_argument("--log", choices=("auto", "bars", "lines", "json", "quiet"), default="auto",
                   help="bars, plain lines every ten seconds, or JSON lines on stdout: one an epoch, then one of the "
                        "result (default auto: bars on a terminal, lines elsewhere)")
    p.add_argument("--dry-run", action="store_true", help="show recipe, audit, shapes and schedule; time three steps")
    again = p.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="continue the run of this recipe that stopped")
    again.add_argument("--restart", action="store_true", help="throw it away and begin anew")
    p.add_argument("--allow-changes", action="store_true",
                   help="with --resume: go on although recipe, data, versions or machine differ")

    p = command("copy", "copy a recipe to a file of your own")
    p.add_argument("name")
    p.add_argument("file", help="where to; must not be there yet")

    p = command("audit", "check architectures against the budget")
    p.add_argument("arch", nargs="*", help="names in timm's registry; default all of this project's")
    p.add_argument("--json", action="store_true")
    p.add_argument("--strict", action="store_true", help="exit with 1 when a rule is broken or the probe disagrees")

    p = command("lr_find", "find a learning rate for a recipe")
    p.add_argument("name")
    p.add_argument("changes", nargs="*", default=[], metavar="key=value")
    p.add_argument("--start", type=float, default=1e-6, help="first learning rate (default 1e-6)")
    p.add_argument("--end", type=float, default=10, help="last learning rate (default 10)")
    p.add_argument("--steps", type=int, default=100, help="how many (default 100)")

    p = command("export", "rebuild a .pkl from .safetensors + .json")
    p.add_argument("name", help="exports/NAME, or NAME alone")

    p = command("trust", "let predict, serve and evaluate open a .pkl: opening one runs its code")
    p.add_argument("file", help="the .pkl, from somebody you know; its SHA-256 is kept in your list")

    p = command("predict", "classify images")
    p.add_argument("export", help="exports/NAME (.safetensors + .json), or a trusted .pkl")
    p.add_argument("--trust-pickle", action="store_true", help="open a .pkl, and run its code, this once")
    p.add_argument("paths", nargs="+", metavar="PATH", help="images, folders, globs")
    p.add_argument("--topk", type=int, default=3, help="classes to show for each image (default 3)")
    p.add_argument("--tta", action="store_true", help="mean probability of the image and its mirror")
    p.add_argument("--csv", metavar="FILE", help="write file, prediction and every probability here")
    p.add_argument("--json", action="store_true", help="print JSON instead of a table")

    p = command("serve", "a page in the browser: give it images, see what the net sees; browse the runs")
    p.add_argument("export", help="exports/NAME (.safetensors + .json), or a trusted .pkl")
    p.add_argument("--trust-pickle", action="store_true", help="open a .pkl, and run its code, this once")
    p.add_argument("--port", type=int, default=8000, help="default %(default)s; 0 takes a free one")
    p.add_argument("--host", default="127.0.0.1", help="default %(default)s: only this machine can reach it")
    p.add_argument("--open", action="store_true", help="open it in the browser")

    p = command("evaluate", "accuracy, per class and confusion matrix, on the test set")
    p.add_argument("export", help="exports/NAME (.safetensors + .json), or a trusted .pkl")
    p.add_argument("--trust-pickle", action="store_true", help="open a .pkl, and run its code, this once")
    p.add_argument("changes", nargs="*", default=[], metavar="data=…", help="another dataset with the same classes")
    p.add_argument("--json", action="store_true")

    p = command("results", "what the recipes gave, from the row that every run adds to results.csv")
    p.add_argument("file", nargs="?", default="exports/results.csv", metavar="FILE", help="default: %(default)s")
    shape = p.add_mutually_exclusive_group()
    shape.add_argument("--csv", action="store_true", help="print CSV instead of a table")
    shape.add_argument("--json", action="store_true", help="print JSON instead of a table")
    shape.add_argument("--readme", nargs="?", const="README.md", metavar="README.md",
                       help="write the table between the two results markers of this file instead")
    shape.add_argument("--curves", action="store_true",
                       help="draw published against measured again, from the histories beside FILE")

    p = command("report", "rebuild report.html, its figures and the model card of a run")
    p.add_argument("name", help="exports/NAME, or NAME alone")

    p = command("figures", "redraw the figures of all runs, from the small files that they left")
    p.add_argument("exports", nargs="?", default="exports", metavar="DIR", help="default: %(default)s")

    p = command("compare", "runs beside each other, and two of them image by image; or two recipes")
    p.add_argument("runs", nargs="*", metavar="RUN",
                   help="exports/NAME, or NAME alone; default a line for each recipe in exports/results.csv")
    p.add_argument("--recipes", nargs=2, metavar=("A", "B"),
                   help="the values in which two recipes differ (names, or files ending in .py)")
    p.add_argument("--sort", metavar="COLUMN", help="a column of --csv; accuracies come greatest first")
    p.add_argument("--reverse", action="store_true", help="the other way round")
    p.add_argument("--plot", metavar="FILE", help="where the figure goes, a .png (default: compare.png, of named runs "
                                                   "compare-RUN-RUN.png beside them)")
    p.add_argument("--exports", default="exports", metavar="DIR", help="where runs are kept (default: %(default)s)")
    shape = p.add_mutually_exclusive_group()
    shape.add_argument("--csv", action="store_true", help="print the table as CSV; a figure only with --plot")
    shape.add_argument("--json", action="store_true", help="print JSON; a figure only with --plot")

    p = command("doctor", "show versions, device, data and cache, and test itself for some ten seconds")
    p.add_argument("--json", action="store_true")

    p = command("bench", "measure data path, step, training, predict and start against bare tools")
    p.add_argument("names", nargs="*", metavar="NAME",
                   help=f"{', '.join(BENCHMARKS)}; default {', '.join(DEFAULT)}")
    p.add_argument("--rounds", type=int, default=5, help="how often each side is measured, in turns (default 5)")
    p.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    p = command("completion", "print a script that completes commands and recipes of `cifar_fast` in your shell")
    p.add_argument("shell", choices=SHELLS)
    return top


def completion(handlers: Mapping[str, Callable], shell: str) -> str:
    "A script for `shell` that completes `cifar_fast`: commands, options, recipes, benchmarks, files."
    import shtab

    from cifar_fast.recipe import list_recipes

    top = parser(handlers, prog="cifar_fast")
    commands = next(a for a in top._actions if isinstance(a, argparse._SubParsersAction)).choices
    known = {"name": list(list_recipes()), "names": list(BENCHMARKS)}
    for command in commands.values():
        for action in command._actions:
            if action.choices is None and action.dest in known:
                action.choices = known[action.dest]
            elif action.nargs != 0 and action.dest in ("export", "paths", "file", "csv", "plot", "runs"):
                action.complete = shtab.FILE
    return shtab.complete(top, shell=shell)
