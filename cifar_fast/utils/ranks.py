"""The processes that train one model together, as torchrun starts them; a plain run is a single one.

`here()` says which one this is; `total`, `from_first` and `gathered` exchange values and, in a single process, return
what they are given. torch's part is imported in `joined` alone: a plain run never gets there.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import warnings
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from cifar_fast.utils.errors import CifarFastError
from cifar_fast.utils.log import QUIET, log_progress, set_level

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

LAUNCHED = "CIFAR_FAST_LAUNCHED"
"Set for the processes that `utils.launch` starts: it tells how the run ended, so they need not."

WAIT = 5
"Seconds that a process with an error waits before it says so: where all have the same one, the first one says it."


class RanksError(CifarFastError):
    "Processes that cannot work together; the message says why and what to do."


@dataclass(frozen=True)
class Ranks:
    "Which process this is, of how many."

    rank: int = 0  # over all machines
    count: int = 1
    local: int = 0  # on this machine
    local_count: int = 1

    @property
    def first(self) -> bool:
        "The one that writes and prints."
        return self.rank == 0

    @property
    def several(self) -> bool:
        return self.count > 1

    @property
    def program(self) -> str:
        "What starts such processes, as typed before `recipe`."
        if not self.several or LAUNCHED in os.environ:  # procs= is among the changes of the recipe
            return "python -m cifar_fast"
        nodes = self.count // self.local_count
        return (f"torchrun {f'--nnodes {nodes} … ' if nodes > 1 else ''}--nproc-per-node {self.local_count} "
                f"-m cifar_fast")


_here = Ranks()


def here() -> Ranks:
    return _here


def started_by_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextmanager
def joined():
    "The `Ranks` of this process, connected to the others in the block. Raises RanksError."
    global _here
    if not started_by_torchrun():
        ignore_stray_variables()
        yield _here
        return
    env = {name: int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")}
    end_with_parent()
    connect(env["LOCAL_RANK"], env["LOCAL_WORLD_SIZE"])
    _here = Ranks(env["RANK"], env["WORLD_SIZE"], env["LOCAL_RANK"], env["LOCAL_WORLD_SIZE"])
    hide_from_fastai()
    try:
        with silenced(_here):
            yield _here
        leave()
    except BaseException:
        if not _here.first and not is_lost(sys.exception()):
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # by which torchrun ends this one once the first has ended
            time.sleep(WAIT)
        raise


def connect(local: int, local_count: int) -> None:
    import torch
    import torch.distributed as dist

    if not dist.is_available() or not dist.is_gloo_available():
        raise RanksError(f"torch {torch.__version__} has no gloo here, by which processes exchange gradients: train in "
                         f"one process (procs=1, without torchrun), or install a torch that has it")
    backend = "gloo"
    # More processes than GPUs can train on the CPU alone, which `training.parallel.require_device` sees to.
    if torch.cuda.is_available() and dist.is_nccl_available() and local_count <= torch.cuda.device_count():
        torch.cuda.set_device(local)
        backend = "cpu:gloo,cuda:nccl"
    try:
        dist.init_process_group(backend)  # address and port are torchrun's
    except (RuntimeError, ValueError) as e:
        raise RanksError(f"the processes cannot connect to each other ({' '.join(str(e).split())[:200]})") from e


def leave() -> None:
    "Part from the other processes, after all have come here; what follows is for each one alone."
    global _here
    if _here.several:
        import torch.distributed as dist

        dist.barrier()
        dist.destroy_process_group()
        _here = Ranks(_here.rank, 1, _here.local, 1)


def hide_from_fastai() -> None:
    "fastai would gather the metrics of every batch, and save nothing where RANK is not 0; we add up once an epoch."
    for name in ("RANK", "WORLD_SIZE"):
        os.environ.pop(name, None)


def ignore_stray_variables() -> None:
    "Without torchrun they mean nothing, but fastai reads them, and would wait for processes that never come."
    if os.environ.get("WORLD_SIZE", "1") != "1" or os.environ.get("RANK", "0") != "0":
        log_progress(f"WORLD_SIZE={os.environ.get('WORLD_SIZE', '')} is ignored: torchrun did not start this process, "
                     f"so it trains alone; procs=N, or torchrun, starts several")
    hide_from_fastai()


def end_with_parent() -> None:
    "On Linux this process gets SIGTERM when the one that started it dies: nobody else would end it."
    with suppress(Exception):
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


@contextmanager
def silenced(ranks: Ranks):
    "All but the first process print errors only."
    if ranks.first:
        yield
        return
    set_level(QUIET)
    warnings.simplefilter("ignore")
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        yield


def is_lost(e: BaseException | None) -> bool:
    "Whether an error says that another process has gone."
    if not _here.several or not isinstance(e, RuntimeError):
        return False
    import torch.distributed as dist

    text = str(e)
    return isinstance(e, dist.DistError) or any(sign in text for sign in (
        "gloo", "Connection closed by peer", "Connection reset by peer", "Broken pipe", "NCCL"))


# ---------------------------------------------------------------- exchange


def total(values: torch.Tensor) -> torch.Tensor:
    "The sum over all processes, in place."
    if _here.several:
        import torch.distributed as dist

        dist.all_reduce(values)
    return values


def from_first(value: T) -> T:
    "What the first process passes."
    if not _here.several:
        return value
    import torch.distributed as dist

    held = [value]
    dist.broadcast_object_list(held)
    return held[0]


def gathered(value: T) -> list[T]:
    "What each process passes, in their order."
    if not _here.several:
        return [value]
    import torch.distributed as dist

    values: list[Any] = [None] * _here.count
    dist.all_gather_object(values, value)
    return values


def wait_for_all() -> None:
    if _here.several:
        import torch.distributed as dist

        dist.barrier()
