"""Compare the gradients of many kinds of convolutions in bf16 with float32: PyTorch's own, and those of training.

    python tests/gradients.py

Prints the kinds whose output or gradients are more than 2 % off, and how many of all they are. Memory that is free is
filled with NaN before each, and kept for it, as in training: some kernels read what they have not written.
"""

from itertools import product
from unittest.mock import patch

import torch
import torch.nn.functional as F

from cifar_fast.training import convolution_gradients
from cifar_fast.utils.memory import keep_large_blocks

FORMATS = (torch.channels_last, torch.contiguous_format)
BATCH = 8


def kinds():
    "Memory format, channels, groups, kernel, stride, dilation, side of the maps."
    for memory_format, channels, kernel, stride, dilation, side in product(
            FORMATS, (24, 52, 64), (1, 2, 3, 4, 5, 7), (1, 2, 3), (1, 2, 3, 4), (4, 7, 8, 16, 32)):
        if (kernel > 1 or dilation == 1) and dilation * (kernel - 1) < side + 2 * dilation * (kernel // 2):
            for groups in (1, 2, channels):
                yield memory_format, channels, groups, kernel, stride, dilation, side


def results(x, weight, grad, stride, dilation, groups):
    "Output and both gradients."
    x, weight = x.requires_grad_(), weight.requires_grad_()
    fill_free_memory()
    y = F.conv2d(x, weight, None, stride, dilation * (weight.shape[-1] // 2), dilation, groups)
    grad = torch.randn(y.shape).bfloat16() if grad is None else grad
    fill_free_memory()
    return [y.detach(), *torch.autograd.grad(y, (x, weight), grad.to(y.dtype))], grad


def fill_free_memory():
    blocks = [torch.full((2**k,), float("nan")) for k in range(8, 22)]
    del blocks


def off(memory_format, channels, groups, kernel, stride, dilation, side) -> float:
    "The largest relative error of the three."
    x = torch.randn(BATCH, channels, side, side).bfloat16().contiguous(memory_format=memory_format)
    weight = (torch.randn(channels, channels // groups, kernel, kernel) / kernel).bfloat16()
    low, grad = results(x.clone(), weight.clone(), None, stride, dilation, groups)
    exact, _ = results(x.float().contiguous(), weight.float(), grad, stride, dilation, groups)
    return max(((a.float() - b).norm() / b.norm().clamp(min=1e-9)).item() for a, b in zip(low, exact, strict=True))


def wrong() -> tuple[list, int]:
    torch.manual_seed(0)
    errors = {kind: off(*kind) for kind in kinds()}
    return [kind for kind, e in errors.items() if not e < 0.02], len(errors)


if __name__ == "__main__":
    keep_large_blocks()
    convolution_gradients.install()
    with patch.object(convolution_gradients, "LOW", ()):
        own, count = wrong()
    ours, _ = wrong()
    for memory_format, channels, groups, kernel, stride, dilation, side in own:
        print(f"{kernel}×{kernel}, stride {stride}, dilation {dilation}, {channels} channels, {groups} groups, "
              f"{side}×{side}, {memory_format}")
    print(f"more than 2 % off, of {count} kinds: {len(own)} with PyTorch's own, {len(ours)} with ours")
