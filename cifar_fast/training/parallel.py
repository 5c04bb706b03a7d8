"""How many processes train together, and what each of them needs for it."""

from __future__ import annotations

import torch

from cifar_fast.recipe import RecipeError
from cifar_fast.utils.cores import CORES
from cifar_fast.utils.device import choose_device
from cifar_fast.utils.ranks import Ranks, here

ON_A_CPU = 2
"""Processes that `procs=auto` takes where there are as many cores.

`bench procs`: two of one thread train `final` 1.23 times (1.15 to 1.47) as fast as one of two threads (two cores of an
AMD EPYC with bf16, 2026-11-28); more were not measured, and every process needs a slice of the batch to normalise with.
"""

BATCH_NORM = {
    False: "of each process's own slice of the batch; running statistics are their mean, taken after each step",
    True: "of the whole batch, synchronised over the processes",
}


def choose_procs(procs: int | None, device: str) -> int:
    """The number of processes to start on this machine for `procs`, None for auto. Raises RecipeError.

    auto: one for each GPU; on a CPU two, which share the cores.
    """
    kind = choose_device(device).type
    places = {"cuda": torch.cuda.device_count(), "cpu": CORES}.get(kind, 1)
    if procs is None:
        return places if kind == "cuda" else min(places, ON_A_CPU)
    if procs > 1:
        require_device(device)
    if procs > places:
        raise RecipeError(f"procs={procs}: there {'is' if places == 1 else 'are'} {places} "
                          f"{'GPU' if kind == 'cuda' else 'core'}{'s' * (places != 1)} here for one process each; "
                          f"procs={places}, or procs=auto")
    return procs


def require_device(device: str) -> None:
    "Raise RecipeError for a device that several processes cannot train on together."
    chosen = choose_device(device)
    if chosen.type not in ("cpu", "cuda"):
        raise RecipeError(f"several processes train on GPUs of CUDA or on CPUs, not on {chosen.type}: add device=cpu, "
                          f"or procs=1")
    if chosen.type == "cuda" and (count := here().local_count) > (gpus := torch.cuda.device_count()):
        raise RecipeError(f"{count} processes need a GPU each, and this machine has {gpus}: --nproc-per-node {gpus}, "
                          f"procs=auto, or device=cpu")
    if chosen.index is not None:
        raise RecipeError(f"device={device} is one GPU, and every process needs one of its own: leave out device=, or "
                          f"procs=1")


def require_procs(procs: int | None, ranks: Ranks) -> None:
    "Raise RecipeError where the recipe asks for another number of processes than there are."
    if procs in (None, ranks.count) or (procs == 1 and ranks.several):
        return
    if ranks.several:
        raise RecipeError(f"procs={procs}, and torchrun has started {ranks.count} processes: leave out procs=, which "
                          f"starts processes itself")
    raise RecipeError(f"procs={procs} needs {procs} processes: python -m cifar_fast recipe … procs={procs} starts them")
