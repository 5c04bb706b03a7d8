"""The parser, built from the commands, with suggestions for misspelt words, and shell completion."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import fields

from cifar_fast import __version__
from cifar_fast.cli.command import Command
from cifar_fast.utils.text import nearest

PROGRAM = "python -m cifar_fast"
SHELLS = ("bash", "zsh")
EPILOG = f"""examples:
  {PROGRAM} recipe digits                       # no download
  {PROGRAM} recipe final                        # CIFAR-10
  {PROGRAM} recipe final --dry-run epochs=60    # trains nothing
  {PROGRAM} predict exports/final cat.png       # classify an image
  {PROGRAM} serve exports/final                 # in the browser
  {PROGRAM} COMMAND --help                      # examples of each

environment:
  CIFAR_FAST_DATA     folder with CIFAR-10 as images, instead of the download
  CIFAR_FAST_CACHE    decoded images (default ~/.cache/cifar_fast)
  CIFAR_FAST_TRUST    your list of trusted .pkl (~/.config/cifar_fast/trusted)
  CIFAR_FAST_ORT_WEB  onnxruntime-web's npm package, for export --to html
  OMP_WAIT_POLICY     PASSIVE unless you set it: waiting threads do not spin

exit codes:
  0 success
  1 a check failed, images could not be read, a process was killed; or a bug
  2 any other error (input, full disk, memory, diverged loss); the message says
    why and what to do
  130 stopped by Ctrl-C, 143 by SIGTERM (recipe NAME --resume continues)
  141 the reader of the output closed it (| head)
"""


class Parser(argparse.ArgumentParser):
    "argparse's parser, which also suggests the nearest known word."

    def error(self, message: str):
        words = [a for action in self._actions for a in (*action.option_strings, *(action.choices or ()))]
        unknown = message.partition("unrecognized arguments: ")[2].split() or (
            [message.split("'")[1]] if "invalid choice" in message else [])
        super().error(message + "".join(nearest(word, words) for word in unknown if word not in words)
                      + "".join(settings_hint(word) for word in unknown[:1]))


def settings_hint(word: str) -> str:
    "For `--data` or `--lr=0.1`: how a setting is typed."
    from cifar_fast.recipe.spec import Recipe

    key = word.lstrip("-").partition("=")[0].partition(".")[0]
    return f" (settings are typed without dashes: {word.lstrip('-').partition('=')[0]}=VALUE)" \
        if word.startswith("--") and key in {f.name for f in fields(Recipe)} else ""


def parse(argv: list[str] | None, commands: Mapping[str, type[Command]]) -> argparse.Namespace | None:
    "The arguments, with `run` to call; None where no command was given and help was printed instead."
    top = build_parser(commands)
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


def build_parser(commands: Mapping[str, type[Command]], prog: str = PROGRAM) -> argparse.ArgumentParser:
    top = Parser(prog=prog, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
                 description="Train the best possible image classifier under a hard budget.")
    top.add_argument("--version", action="version", version=f"cifar_fast {__version__}")
    subparsers = top.add_subparsers(title="commands", metavar="COMMAND")

    common = argparse.ArgumentParser(add_help=False)
    verbosity = common.add_mutually_exclusive_group()
    verbosity.add_argument("-q", "--quiet", action="store_true", help="print only results, warnings and errors")
    verbosity.add_argument("-v", "--verbose", action="store_true",
                           help="also print libraries' warnings, requests, and the traceback of an error")

    for command in commands.values():
        examples = "".join(f"  {prog} {line}\n" for line in command.examples)
        p = subparsers.add_parser(command.name, help=command.help, description=command.help, parents=[common],
                                  epilog=f"examples:\n{examples}",
                                  formatter_class=argparse.RawDescriptionHelpFormatter)
        command.add_arguments(p)
        p.set_defaults(run=command.run, parser=p)
    return top


def completion_script(commands: Mapping[str, type[Command]], shell: str) -> str:
    "A script for `shell` that completes `cifar_fast`: commands, options, recipes, benchmarks, files."
    import shtab

    from cifar_fast.bench import BENCHMARKS
    from cifar_fast.recipe import list_recipes

    top = build_parser(commands, prog="cifar_fast")
    subparsers = next(a for a in top._actions if isinstance(a, argparse._SubParsersAction)).choices
    values = {"name": list(list_recipes()), "names": list(BENCHMARKS)}
    for subparser in subparsers.values():
        for action in subparser._actions:
            is_run = action.metavar == "RUN"
            if action.choices is None and action.dest in values and not is_run:
                action.choices = values[action.dest]
            elif is_run or action.nargs != 0 and action.dest in ("paths", "file", "csv", "plot", "runs"):
                action.complete = shtab.FILE
    return shtab.complete(top, shell=shell)
