"""Send SIGINT or SIGTERM to real processes of the command line at random moments.

A command must end with 130 or 143 (or 0, where it was done before), print no traceback and leave no temporary files.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from cifar_fast.utils.files import TEMPORARY

MESS = ("Traceback", "Exception ignored", "Error in", "Fatal Python error")
ROOT = Path(__file__).parent.parent


def interrupt(argv: list[str], seconds: float, signum: int, cwd: Path) -> tuple[int, str, str]:
    "Run a command, send the signal after so many seconds; its exit code as a shell reports it, stdout and stderr."
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-m", "cifar_fast", *argv], cwd=cwd, env=env, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for_our_code(process)
    time.sleep(seconds)
    process.send_signal(signum)
    out, err = process.communicate(timeout=300)
    return (process.returncode if process.returncode >= 0 else 128 - process.returncode), out, err


def wait_for_our_code(process: subprocess.Popen) -> None:
    "Wait until the process handles SIGTERM: before, Python itself starts, and answers Ctrl-C with its own traceback."
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None and status.exists():
        caught = next((line for line in status.read_text().splitlines() if line.startswith("SigCgt")), "SigCgt: 0")
        if int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.005)


def fault(code: int, err: str, signum: int, cwd: Path) -> str | None:
    "What is wrong with how a command ended; None where nothing is."
    if code not in (128 + signum, 0):
        return f"exit code {code}"
    if found := [line for line in err.splitlines() if line.startswith(MESS)]:
        return found[0]
    if strays := [p.name for p in cwd.rglob(f"*{TEMPORARY}")]:
        return f"left {', '.join(strays)}"
    return None


def interrupts(commands: list[list[str]], count: int, longest: float, cwd: Path, seed: int = 0, say=print) -> list[str]:
    "The faults of `count` interrupted processes, each with its command and moment."
    rng, faults = random.Random(seed), []
    for i in range(count):
        argv, seconds = commands[i % len(commands)], rng.uniform(0, longest)
        signum = rng.choice((signal.SIGINT, signal.SIGINT, signal.SIGTERM))
        code, _, err = interrupt(argv, seconds, signum, cwd)
        wrong = fault(code, err, signum, cwd)
        say(f"{argv[0]:<10} {signal.Signals(signum).name} after {seconds:5.2f} s: {code} {wrong or ''}", flush=True)
        if wrong:
            faults.append(f"{' '.join(argv)} after {seconds:.2f} s: {wrong}\n{err[-1500:]}")
    return faults
