"""Kill real training processes with SIGKILL, resume them, and compare with a run that nobody disturbed.

    python tests/kills.py --kills 50 --interrupts 20

A run is killed again and again until it ends. Half of the kills come from outside at a random moment, the other half
at a random one of the process's own file replacements (of a checkpoint, the history, the export, a plot or the table
of results), with the new file written and not yet in place. Every process is a fork of this one, which has imported
everything and trained nothing. The interrupts are SIGINT and SIGTERM to fresh processes, see interrupts.py.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: threads do not survive a fork

import pandas as pd
import torch
from interrupts import interrupts
from safetensors.torch import load_file

from cifar_fast.cli.main import main as cifar_fast
from cifar_fast.runs.dryrun import dry_run  # noqa: F401  (fastai and all that a run imports)
from cifar_fast.utils import files
from cifar_fast.utils.files import TEMPORARY

RUN = ["recipe", "final", "data=digits", "arch=cifar_sprint", "epochs=2", "bs=128", "valid=0.2", "keep=best",
       "checkpoint_minutes=0.00001", "report=no"]
NAME = "final-digits"
WRITES = 42  # of the undisturbed run with its report: a checkpoint a step and an epoch, and all that follows the last


def child(argv: list[str], log: Path, dies_at: int | None = None) -> int:
    "Fork a process that runs the command line; at its own write number `dies_at` it kills itself. Returns its pid."
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        with open(log, "a") as out:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
        if dies_at is not None:
            files.os = Dying(dies_at)
        code = cifar_fast(argv)
    except BaseException:
        import traceback
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


class Dying:
    "The module os, whose `replace` kills the process at its n-th call."

    def __init__(self, calls: int):
        self.calls = calls

    def __getattr__(self, name):
        return getattr(os, name)

    def replace(self, source, target):
        self.calls -= 1
        if self.calls <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
        os.replace(source, target)


def run_to_its_end(exports: Path, kills: int, seconds: float, rng: random.Random, log: Path) -> Counter:
    "Train with up to `kills` kills on the way; counts them by kind. Raises where a process fails by itself."
    counted, argv = Counter(), [*RUN[:-1], f"exports={exports}"]  # with its report
    while True:
        kind = rng.choice(["random moment", "write"]) if counted.total() < kills else None
        if (exports / NAME).exists() and not working(exports).exists():  # killed when all was done
            return counted
        resume = ["--resume"] if working(exports).exists() else []
        write = round(WRITES ** rng.random())  # small numbers more often: a run that goes on has fewer writes left
        pid = child(argv + resume, log, write if kind == "write" else None)
        if kind == "random moment":
            time.sleep(rng.uniform(0, seconds))
            os.kill(pid, signal.SIGKILL)  # no harm where it has ended: it is not yet waited for
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status == 0:
            return counted
        if status != -signal.SIGKILL:
            raise RuntimeError(f"a run ended with {status} instead of going on; see {log}:\n"
                               f"{log.read_text()[-2000:]}")
        counted[kind] += 1


def working(exports: Path) -> Path:
    "Where the unfinished run is."
    return exports / f".{NAME}.running"


def weights(exports: Path) -> dict[str, torch.Tensor]:
    return load_file(exports / NAME / "model.safetensors")


def history(exports: Path) -> pd.DataFrame:
    "Without the columns that a clock decides."
    return pd.read_csv(exports / NAME / "history.csv").drop(columns=["seconds", "images_per_second"])


def bytes_that_differ(one: dict, other: dict) -> int:
    if one.keys() != other.keys():
        return sum(v.nbytes for v in one.values())
    return sum(int((a.flatten().view(torch.uint8) ^ b.flatten().view(torch.uint8)).count_nonzero())
               for a, b in ((one[k].contiguous(), other[k].contiguous()) for k in one))


def strays(exports: Path) -> list[str]:
    "Files that only a run at work has."
    return [str(p) for p in exports.rglob("*") if p.name.endswith((TEMPORARY, ".running", ".discarded"))
            or p.name in ("checkpoint.pt", "row.csv")]


def harness(kills: int, folder: Path, seed: int = 0, say=print) -> dict:
    "The figures of at least `kills` kills."
    rng, found = random.Random(seed), {"kills": Counter(), "runs": 0, "lost": 0, "different": 0, "strays": []}
    plain, log = folder / "undisturbed", folder / "log"
    run_to_its_end(plain, 0, 0, rng, log)  # decodes the data
    begun = time.monotonic()
    run_to_its_end(folder / "timed", 0, 0, rng, log)
    seconds = time.monotonic() - begun
    while found["kills"].total() < kills:
        exports = folder / f"run{found['runs']}"
        found["kills"] += run_to_its_end(exports, min(8, kills - found["kills"].total()), seconds, rng, log)
        found["runs"] += 1
        same = len(pd.read_csv(exports / "runs.csv")) == 1 and history(exports).equals(history(plain))
        found["lost"] += not same
        found["different"] += bytes_that_differ(weights(plain), weights(exports))
        found["strays"] += strays(exports)
        say(f"run {found['runs']}: {dict(found['kills'])} kills so far, history and row "
            f"{'the same' if same else 'NOT THE SAME'}, {found['different']} bytes of weights different, "
            f"{len(found['strays'])} stray files", flush=True)
    return found


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--kills", type=int, default=50)
    options.add_argument("--interrupts", type=int, default=0, help="then interrupt so many fresh commands")
    options.add_argument("--seconds", type=float, default=10, help="at a random moment of so many first seconds")
    options.add_argument("--seed", type=int, default=0)
    args = options.parse_args()
    with tempfile.TemporaryDirectory() as tmp:
        result = harness(args.kills, Path(tmp), args.seed)
        print({**result, "kills": result["kills"].total(), "by kind": dict(result["kills"])})
        exports, path = Path(tmp) / "undisturbed", Path(tmp) / "undisturbed" / NAME
        commands = [["recipe", "sprint", "data=digits", "epochs=2", "--restart", f"exports={Path(tmp) / 'new'}"],
                    ["evaluate", str(path)], ["report", str(path)], ["compare", f"--exports={exports}"]]
        faults = interrupts(commands, args.interrupts, args.seconds, Path(tmp), args.seed)
    print(f"{args.interrupts} interrupts, {len(faults)} faults", *faults, sep="\n")
    sys.exit(bool(result["lost"] or result["different"] or result["strays"] or faults))
