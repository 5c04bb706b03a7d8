"""Processes that train together, as torchrun starts them, but forked: they have imported everything already."""

import os
import pickle
import sys
import time
import traceback

import torch.distributed as dist
from tiny import tiny, trained
from toys import state

from cifar_fast.utils.ranks import joined


class Pids(list):
    "Process ids, and the store that connects the processes for as long as it lives."

    store = None


def start(count, work, log=os.devnull):
    "Fork processes that call `work()`, each connected to the others; returns their `Pids`."
    store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)  # a free port
    pids = Pids()
    pids.store = store
    for rank in range(count):
        pid = os.fork()
        if pid == 0:
            os.environ.update(RANK=str(rank), WORLD_SIZE=str(count), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(count),
                              MASTER_ADDR="localhost", MASTER_PORT=str(store.port), TORCHELASTIC_RUN_ID="test",
                              TORCHELASTIC_USE_AGENT_STORE="True")
            code = 70
            try:
                # pytest has streams of its own, and libraries write to the numbers
                sys.stdout = sys.stderr = open(f"{log}{'' if log == os.devnull else rank}", "w", buffering=1)
                os.dup2(sys.stdout.fileno(), 1)
                os.dup2(sys.stdout.fileno(), 2)
                code = work() or 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        pids.append(pid)
    return pids


def wait(pids, seconds=300):
    "Exit codes, by the order of `pids`; fails where one takes longer."
    codes, end = {}, time.monotonic() + seconds
    while len(codes) < len(pids):
        for pid in pids:
            if pid not in codes and (found := os.waitpid(pid, os.WNOHANG))[0]:
                codes[pid] = os.waitstatus_to_exitcode(found[1])
        if time.monotonic() > end:
            for pid in pids:
                if pid not in codes:
                    os.kill(pid, 9)
                    os.waitpid(pid, 0)
            raise TimeoutError(f"{len(pids) - len(codes)} of {len(pids)} processes had not ended after {seconds} s")
        time.sleep(0.02)
    return [codes[pid] for pid in pids]


def together(count, function, folder):
    "What `function()` returns in each of `count` connected processes."
    def work():
        with joined() as here:
            result = function()
        (folder / f"{here.rank}.pickle").write_bytes(pickle.dumps(result))

    pids = start(count, work, folder / "log")
    codes = wait(pids)
    assert codes == [0] * count, "\n".join((folder / f"log{rank}").read_text()[-2000:] for rank in range(count))
    return [pickle.loads((folder / f"{rank}.pickle").read_bytes()) for rank in range(count)]


def fitted(*changes):
    "What a training of the tiny recipe leaves, as plain data that goes through a pipe."
    result = trained(tiny(*changes))
    rows = [{k: v for k, v in row.items()} for row in result.state.rows]
    return {"weights": result.weights, "ema": state(result.ema), "rows": rows, "best": result.state.best,
            "mixed": result.state.mix_counts, "hypers": result.state.hypers,
            "losses": list(result.run.learn.recorder.losses), "model": type(result.run.learn.model).__name__}
