"""gradients: those of depthwise convolutions in bf16 on a CPU, by `convolution_gradients` against PyTorch's own.

Batches of random maps in channels last. Elsewhere, and in fp32, training takes PyTorch's own.
"""

from __future__ import annotations

from unittest.mock import patch

import torch
import torch.nn.functional as F

from cifar_fast.bench.timing import Bar, alternate, compare, note, rate
from cifar_fast.training import convolution_gradients

BAR = Bar(goal=1.0)
BATCH = 256
CASES = [(96, 8, 3, 2), (96, 8, 5, 1), (96, 8, 7, 1), (48, 16, 3, 2), (48, 16, 5, 1), (32, 32, 3, 2)]
"Channels, side of the maps, side of the kernel, dilation."


def measure(rounds: int) -> dict:
    note(f"gradients: {len(CASES)} kinds of layers, batches of {BATCH}")
    convolution_gradients.install()
    return {"comparisons": {
        f"{k}×{k}, dilation {d}, {channels} channels at {side}×{side}": compared(channels, side, k, d, rounds)
        for channels, side, k, d in CASES}, "notes": [f"batches of {BATCH} in bf16, both gradients"]}


def compared(channels: int, side: int, kernel: int, dilation: int, rounds: int) -> dict:
    shape = (BATCH, channels, side, side)
    x = torch.randn(shape).bfloat16().contiguous(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(channels, 1, kernel, kernel).bfloat16().requires_grad_()
    y = F.conv2d(x, weight, None, 1, dilation * (kernel // 2), dilation, channels)
    work = rate(1, lambda: torch.autograd.grad(y, (x, weight), y.detach(), retain_graph=True))

    def own() -> float:
        with patch.object(convolution_gradients, "LOW", ()):
            return work()
    values = alternate({"ours": work, "own": own}, rounds)
    return compare(values["ours"], values["own"], "batches/s", BAR, "PyTorch's own")
