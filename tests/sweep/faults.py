"""Sweeps whose workers are killed with SIGKILL at random moments; and a real PostgreSQL for those that need one.

    python tests/sweep/faults.py --trials 24 --kills 10 --jobs 3 [--postgres]
"""

import argparse
import glob
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).parents[2]
SPACE = ["lr=0.01..0.1:log", "fit.pct_start=0.1..0.4"]
TINY = ["data=digits", "epochs=2", "bs=64", "valid=1100", "resize=none", "channels_last=false", "tta=no", "device=cpu",
        "checkpoint_minutes=0.00001"]  # five steps an epoch, a checkpoint after each
LONG = [t.replace("epochs=2", "epochs=6") for t in TINY]  # time to act on a run while it trains
NAME = "sprint-digits"


def command(exports: Path, trials: int, jobs: int, *more: str) -> list[str]:
    return [sys.executable, "-m", "cifar_fast", "sweep", "sprint", *SPACE, *TINY, f"exports={exports}", "--trials",
            str(trials), "--jobs", str(jobs), "--pruner", "median", *more]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "NO_ALBUMENTATIONS_UPDATE": "1"}


def living(folder: Path) -> list[int]:
    "Process ids of the workers of a sweep."
    found = []
    for path in (folder / "workers").glob("*.pid"):
        try:
            pid = int(path.read_text())
            os.kill(pid, 0)
            found.append(pid)
        except (OSError, ValueError):  # it has ended
            pass
    return found


def trainers(folder: Path) -> list[int]:
    "Those whose trial has a checkpoint to continue from: a worker's output goes to the log of its trial."
    found = []
    for pid in living(folder):
        try:
            trial = Path(os.readlink(f"/proc/{pid}/fd/1")).stem
        except OSError:
            continue
        if (folder / f".{trial}.running" / "checkpoint.pt").exists():
            found.append(pid)
    return found


def kill_workers(folder: Path, processes: list, kills: int, rng: random.Random) -> int:
    "Kill a random worker at random moments, while the sweep's commands run; how many were killed."
    done = 0
    while any(p.poll() is None for p in processes):
        at_work = list(folder.glob(".trial-*.running"))
        if done < kills and at_work and (pids := living(folder)):
            time.sleep(rng.uniform(0, 2.5))
            try:
                os.kill(rng.choice(pids), signal.SIGKILL)
                done += 1
            except OSError:
                pass
        time.sleep(0.3)
    return done


def figures(folder: Path) -> dict:
    "What became of the trials: of each state, lost, stuck and double ones."
    snapshot = json.loads((folder / "sweep.json").read_text())
    trials = snapshot["trials"]
    rows = pd.read_csv(folder / "runs.csv")["recipe"]
    saved = {int(p.parent.name[-3:]) for p in folder.glob("trial-*/card.json")}
    pruned = {int(p.name[-3:]) for p in (folder / "pruned").glob("trial-*")}
    logs = {p.stem: p.read_text() for p in (folder / "logs").glob("*.log")}
    return {
        "state": snapshot["state"], "trials": len(trials), "complete": sum(t["state"] == "complete" for t in trials),
        "pruned": sum(t["state"] == "pruned" for t in trials),
        "lost": len(trials) - len(saved | pruned),
        "stuck": sum(t["state"] in ("waiting", "running") for t in trials) + len(list(folder.glob(".trial-*.running"))),
        "double": int(rows.duplicated().sum()) + len(saved & pruned)
        + sum(t.count("\nsaved: ") > 1 or "another process" in t for t in logs.values()),
        "workers died": sum(t["deaths"] for t in trials), "resumed": sum(t.count("resumes ") for t in logs.values()),
        "epochs": {len(t["curve"]) for t in trials if t["state"] == "complete"}}


def faulted(exports: Path, trials: int, kills: int, jobs: list[int], url: str | None = None, seed: int = 0) -> dict:
    "Figures of a sweep that as many commands as `jobs` has work on, each with so many workers, under `kills` SIGKILLs."
    began, folder = time.monotonic(), exports / "sweeps" / NAME
    more = ["--storage", url] if url else []
    processes = [subprocess.Popen(command(exports, trials, n, *more), env=environment(), cwd=exports,
                                  stdout=subprocess.DEVNULL, stderr=open(exports / f"err{i}", "w"))
                 for i, n in enumerate(jobs)]
    try:
        done = kill_workers(folder, processes, kills, random.Random(seed))
    finally:
        for p in processes:
            p.terminate()
            p.wait()
    codes = [p.returncode for p in processes]
    if any(codes):
        raise RuntimeError(f"exit codes {codes}\n" + "\n".join((exports / f"err{i}").read_text()[-3000:]
                                                               for i in range(len(jobs))))
    return {"kills": done, **figures(folder), "seconds": round(time.monotonic() - began)}


# ---------------------------------------------------------------- PostgreSQL


def postgres_programs() -> Path | None:
    "The folder of initdb and postgres, where they are installed: Debian keeps them out of the PATH."
    places = [Path(found).parent] if (found := shutil.which("initdb")) else []
    places += sorted(map(Path, glob.glob("/usr/lib/postgresql/*/bin")), reverse=True)
    return next((p for p in places if (p / "initdb").exists() and (p / "postgres").exists()), None)


@contextmanager
def postgres():
    "The address of a fresh PostgreSQL of its own: a free port, a data folder, an unprivileged user."
    programs, folder = postgres_programs(), Path(tempfile.mkdtemp(prefix="cifar_fast_pg"))
    user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
    if user:
        shutil.chown(folder, "postgres", "postgres")
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    data = folder / "data"
    subprocess.run([programs / "initdb", "-D", data, "-U", "sweeper", "-A", "trust", "-N"], check=True, cwd=folder,
                   stdout=subprocess.DEVNULL, **user)
    server = subprocess.Popen([programs / "postgres", "-D", data, "-p", str(port), "-k", folder, "-c",
                               "listen_addresses=127.0.0.1", "-c", "fsync=off"], cwd=folder,
                              stdout=subprocess.DEVNULL, stderr=open(folder / "log", "w"), **user)
    try:
        for _ in range(300):
            if "ready to accept connections" in (folder / "log").read_text():
                break
            time.sleep(0.1)
        yield f"postgresql://sweeper@127.0.0.1:{port}/postgres"
    finally:
        server.send_signal(signal.SIGINT)  # fast shutdown
        server.wait(30)
        shutil.rmtree(folder)


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--trials", type=int, default=24)
    options.add_argument("--kills", type=int, default=10)
    options.add_argument("--jobs", type=lambda s: [int(n) for n in re.split(",", s)], default=[3],
                         help="workers; of several commands: 2,1")
    options.add_argument("--postgres", action="store_true")
    options.add_argument("--seed", type=int, default=0)
    args = options.parse_args()
    with tempfile.TemporaryDirectory() as tmp:
        if args.postgres:
            with postgres() as url:
                result = faulted(Path(tmp), args.trials, args.kills, args.jobs, url, args.seed)
        else:
            result = faulted(Path(tmp), args.trials, args.kills, args.jobs, None, args.seed)
    print(result)
    sys.exit(bool(result["lost"] or result["stuck"] or result["double"]))
