"""The command line: what it prints and with which code it ends, whatever a command meets."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from pathlib import Path

from cifar_fast.cli import COMMANDS
from cifar_fast.cli.parser import parse
from cifar_fast.utils.log import NORMAL, QUIET, VERBOSE, set_level
from cifar_fast.utils.text import printable


def main(argv: list[str] | None = None) -> int:
    "Run a command; returns the exit code."
    args = parse(argv, COMMANDS)
    if args is None:
        return 2
    set_level(QUIET if args.quiet else VERBOSE if args.verbose else NORMAL)
    quiet_warnings(args.verbose)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a name that the terminal's encoding lacks costs no answer
            stream.reconfigure(errors="backslashreplace")
    try:
        code = args.run(args) or 0
        flush()
        return code
    except KeyboardInterrupt as e:
        print("\ninterrupted", file=sys.stderr)
        return 128 + getattr(e, "signum", 2)  # as a shell reports a signal: 130 is SIGINT, 143 SIGTERM
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        leave_output()
        return 141  # as a shell reports SIGPIPE
    except Exception as e:
        told = e if refusal(e) else in_words(e)
        if args.verbose or not told:
            raise
        print(f"cifar_fast: {words(told)}", file=sys.stderr)
        try:
            flush()
        except OSError:
            leave_output()
        return 2


def flush() -> None:
    "Now, where a full disk or a reader that has gone can be told, and not when Python ends. Raises OSError."
    try:
        print(end="", flush=True)
    except BrokenPipeError:
        raise
    except OSError as e:
        raise OSError(e.errno, e.strerror, "the output") from None


def leave_output() -> None:
    "What is still in the buffer goes nowhere, or Python would fail with it once more at its end."
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def in_words(e: Exception) -> Exception | None:
    "What an error of a library means, where a user can do something about it."
    if "torch" not in sys.modules:
        return None
    from cifar_fast.runs.failures import explained

    return explained(e)


def words(e: Exception) -> str:
    "What an error says, with the next step where the system's own text knows none."
    if not (isinstance(e, OSError) and e.errno and e.filename):
        return str(e)
    name = printable(e.filename2 or e.filename)  # of a rename the target: the other one is a temporary file of ours
    if e.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"{name} cannot be written ({e.strerror}): make room, or choose another place"
    return f"{name}: {e.strerror}" + (f"; {NEXT[e.errno]}" if e.errno in NEXT else "")


NEXT = {
    errno.ENOENT: "check the name, and that its folder is there",
    errno.ENOTDIR: "check the name",
    errno.EISDIR: "name a file",
    errno.EEXIST: "choose another name",
    errno.ENAMETOOLONG: "choose a shorter name",
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "change its permissions, or choose another place"),
}
"What to do about an error of the system, where that follows from it."


def refusal(e: Exception) -> bool:
    "Whether this is an error of the input, which has a message for the user, and not one of ours."
    ours = ("RecipeError", "DataError", "ImageError", "BudgetError", "ExportError", "DivergedError", "ResultsError",
            "CheckpointError", "RunError", "PredictionsError", "CompareError", "ServeError",
            "Refused")
    if isinstance(e, OSError) or any(c.__name__ in ours for c in type(e).__mro__):
        return True
    last = e.__traceback__
    while last.tb_next:
        last = last.tb_next
    here = Path(last.tb_frame.f_code.co_filename).is_relative_to(Path(__file__).parent.parent)
    return isinstance(e, ValueError) and here  # raised by us; one that a library raises is our mistake


def quiet_warnings(verbose: bool) -> None:
    "Show our own warnings as one plain line; leave out those of libraries, which a user cannot act on (-v shows them)."
    if verbose:
        return
    warnings.showwarning = lambda message, *_, **__: print(f"cifar_fast: {message}", file=sys.stderr)
    for package in ("fastai", "albumentations", "torch", "timm", "fasttransform", "plum", "sklearn", "PIL"):
        warnings.filterwarnings("ignore", module=rf"{package}(\.|$)")
