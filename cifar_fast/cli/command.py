"""What every command is, and what several of them share."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from dataclasses import replace

from cifar_fast.utils.errors import CifarFastError


class UsageError(CifarFastError):
    "Arguments that a command cannot work with."


class Command:
    """A command: its name, help, examples, arguments and what it runs, in one place.

    torch and fastai are imported inside `run`, never at the top of a file: `--help` and a mistyped name are answered
    at once.
    """

    name: str
    help: str
    examples: tuple[str, ...] = ()  # each without the program's name

    @staticmethod
    def add_arguments(parser: ArgumentParser) -> None:
        "Add the arguments of this command; without any of its own it takes only -q and -v."

    @staticmethod
    def run(args: Namespace) -> int | None:
        "The exit code, None for 0."
        raise NotImplementedError


def run_path(name: str) -> str:
    "The path of a run: a bare name is one in exports/."
    return name if os.sep in name or "/" in name else f"exports/{name}"


def model_path(name: str) -> str:
    "The path of a run or a model file: a bare name that is neither a file nor a folder here is a run in exports/."
    from cifar_fast.export.files import EXPORTED

    return name if os.path.exists(name) or name.endswith(EXPORTED) else run_path(name)


def add_model_arguments(parser: ArgumentParser) -> None:
    "The model that a command opens."
    parser.add_argument("export", type=model_path, metavar="RUN",
                        help="exports/NAME, or NAME alone; a .onnx or .tflite file in it, or a trusted .pkl")
    parser.add_argument("--device", metavar="D", help="cpu: by model.onnx, without torch, where the run has one; auto, "
                                                      "cuda, cuda:1 … or mps: in torch (default: cpu where there is a "
                                                      "model.onnx, else auto)")
    parser.add_argument("--trust-pickle", action="store_true", help="open a .pkl, which runs its code, this once")
    add_model_file(parser)


def add_model_file(parser: ArgumentParser) -> None:
    "Adds --recipe: the user's file that registers the model; `main` runs it before the command."
    parser.add_argument("--recipe", metavar="FILE.py", help="a file of your own that defines the model; its code runs")


def add_confidence(parser: ArgumentParser, threshold: bool = True) -> None:
    "Adds --temperature and --threshold; `with_confidence` applies them."
    if threshold:
        parser.add_argument("--threshold", type=float, default=0.0, metavar="P",
                            help="predict \"unknown\" where no class has at least this probability, e.g. 0.8")
    parser.add_argument("--temperature", type=float, metavar="T",
                        help="divide the logits by T (default: the temperature that `calibrate` saved; 1: none)")


def with_confidence(model, args: Namespace):
    "The Predictor with the threshold and temperature that were asked for. Raises UsageError."
    threshold, temperature = getattr(args, "threshold", 0.0), args.temperature
    if not 0 <= threshold <= 1:
        raise UsageError(f"--threshold {threshold:g}: a probability from 0 to 1, e.g. 0.8")
    if temperature is None:
        return replace(model, threshold=threshold)
    if not 0 < temperature < float("inf"):
        raise UsageError(f"--temperature {temperature:g}: a number above 0; 1 leaves the logits as they are")
    if temperature > (most := getattr(model, "most_temperature", float("inf"))):
        raise UsageError(f"--temperature {temperature:g}: a model file on its own takes up to {most:g}; for more, name "
                         f"the run's folder instead")
    return replace(model, threshold=threshold, temperature=temperature)


def add_changes(parser: ArgumentParser, help: str, metavar: str = "key=value") -> None:
    parser.add_argument("changes", nargs="*", default=[], metavar=metavar, help=help)
