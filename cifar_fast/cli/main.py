"""The command line: what it prints and its exit code, whatever happens in a command."""

from __future__ import annotations

import os
import sys
import traceback

from cifar_fast.cli import COMMANDS
from cifar_fast.cli.command import UsageError
from cifar_fast.cli.parser import parse
from cifar_fast.utils.errors import CifarFastError, file_error
from cifar_fast.utils.log import NORMAL, QUIET, VERBOSE, as_before, quiet_warnings, set_level
from cifar_fast.utils.ranks import here, hide_from_fastai, started_by_torchrun
from cifar_fast.utils.signals import raise_on_signals


def main(argv: list[str] | None = None) -> int:
    "Run a command; returns the exit code. Any exception that `as_user_error` does not explain is a bug, and is raised."
    try:
        with raise_on_signals(), as_before():
            return run(argv)
    except KeyboardInterrupt as e:
        if here().first:
            print("\ninterrupted", file=sys.stderr)
        return getattr(e, "exit_code", 130)
    except BrokenPipeError:  # the reader of our output, such as `head`, has closed it
        discard_output()
        return 141  # as a shell reports SIGPIPE


def run(argv: list[str] | None) -> int:
    args = parse(argv, COMMANDS)
    if args is None:
        return 2
    set_level(QUIET if args.quiet else VERBOSE if args.verbose else NORMAL)
    if not args.verbose:
        quiet_warnings()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a name that the terminal's encoding lacks must not end the command
            stream.reconfigure(errors="backslashreplace")
    try:
        args.argv = sys.argv[1:] if argv is None else list(argv)
        if (command := args.parser.prog.rpartition(" ")[2]) != "recipe":
            refuse_torchrun(command)
        if getattr(args, "recipe", None):
            from cifar_fast.models import register_from_file  # here: it imports torch

            register_from_file(args.recipe)
        code = args.run(args) or 0
        flush()
        return code
    except BrokenPipeError:
        raise
    except Exception as e:
        error = as_user_error(e)
        if error is None:
            raise
        if args.verbose:
            traceback.print_exc()
        print(f"cifar_fast: {error}", file=sys.stderr)
        try:
            flush()
        except OSError:
            discard_output()
        return error.exit_code


def refuse_torchrun(command: str) -> None:
    "Every process would do the same, and write the same files. Raises UsageError."
    if started_by_torchrun():
        raise UsageError(f"torchrun starts several processes, which only `recipe` shares its work among; run {command} "
                         f"without it")
    hide_from_fastai()


def as_user_error(e: Exception) -> CifarFastError | None:
    "The error itself if it is one of ours; else the CifarFastError that explains it; None for a bug."
    if isinstance(e, CifarFastError):
        return e
    if isinstance(e, OSError) and (error := file_error(e)):
        return error
    if "torch" not in sys.modules:
        return None
    from cifar_fast.runs.failures import explained

    return explained(e)


def flush() -> None:
    "Flush stdout while a full disk or a closed pipe can still be reported, which it cannot at Python's exit."
    try:
        print(end="", flush=True)
    except BrokenPipeError:
        raise
    except OSError as e:
        raise OSError(e.errno, e.strerror, "the output") from None


def discard_output() -> None:
    "Send what is still buffered to nowhere, or Python would fail with it once more at its exit."
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
