"""Which memory format a run trains in: `channels_last=` true, false, or `auto`.

`auto` times both at the start; on CUDA, and in runs of fewer than 100 steps, it takes channels_last.
"""

from __future__ import annotations

import copy
import time

import torch
from torch import nn

from cifar_fast.training.batch_transforms import MemoryFormat
from cifar_fast.training.callbacks.precision import autocast
from cifar_fast.training.state import MEMORY_FORMATS
from cifar_fast.utils.seeds import rng_restored

STEPS = 3
"Timed in each format, after one that warms up."

PAYS_FROM = 100
"Steps of a run from which timing costs less than the better format can save; shorter runs take channels_last."

MARGIN = 1.05
"How much faster contiguous must be to be chosen: where both are equal, every run of a machine chooses the same."


def choose_memory_format(setting: bool | str, device: torch.device, steps: int) -> str | None:
    "'contiguous' or 'channels_last' for a run of `steps`; None where 'auto' has to time them."
    if setting == "auto" and device.type != "cuda" and steps >= PAYS_FROM:
        return None
    return "channels_last" if setting else "contiguous"


def faster(speeds: dict[str, float]) -> str:
    "The format to train in, by images per second of both."
    return "contiguous" if speeds["contiguous"] > MARGIN * speeds["channels_last"] else "channels_last"


def time_formats(model: nn.Module, dl, loss_func, precision: str, device: torch.device,
                 compiled: bool = False) -> dict[str, float]:
    """Images per second, forward and backward, of a copy of `model` in each format on a training batch of `dl`.

    Model, RNGs and the epoch of `dl` do not change. The formats alternate and the fastest step counts, to reduce the
    effect of other work on the machine.
    """
    epoch = dl.next_epoch
    with rng_restored():
        x, y = (t.as_subclass(torch.Tensor).to(device) for t in dl.one_batch())
        steps = {name: training_step(model, name, x, y, loss_func, precision, device, compiled)
                 for name in MEMORY_FORMATS}
        seconds = {name: [] for name in steps}
        for _ in range(1 + STEPS):
            for name, step in steps.items():
                seconds[name].append(timed(step, device))
    dl.set_epoch(epoch)
    return {name: len(x) / min(all_but_first) for name, (_, *all_but_first) in seconds.items()}


def training_step(model, name: str, x, y, loss_func, precision: str, device: torch.device, compiled: bool):
    "A function that does one forward and backward pass of a copy of `model`."
    model, memory_format = copy.deepcopy(model).to(device).train(), MemoryFormat(name)
    memory_format.setup(model, 0)
    if compiled:
        model.compile(dynamic=False)

    def step():
        with autocast(precision, device):
            out = model(memory_format(x, y, 0)[0])
        loss_func(out.float(), y).backward()
        model.zero_grad()
    return step


def timed(step, device: torch.device) -> float:
    "Seconds of one step, with all that it queued on an accelerator."
    start = time.perf_counter()
    step()
    if device.type != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter() - start
