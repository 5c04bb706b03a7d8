"""Peak memory of training steps, in a fresh process: `python -m cifar_fast.bench.memory IMAGES SIDE BATCH WIDTH…`.

On a CPU: the growth of resident memory since before images and model were created; on CUDA: what torch allocated.
Prints megabytes. fastai is not imported, since its memory would hide what is measured.
"""

from __future__ import annotations

import sys
from pathlib import Path

import timm
import torch

import cifar_fast.models  # noqa: F401  (registers the architectures with timm)
from cifar_fast.bench.synthetic import FLAGSHIP, random_images
from cifar_fast.utils.device import choose_device

STEPS = 3


def peak_mb(
    images: int,  # decoded images held in memory
    side: int,  # of the model's input, pixels
    batch: int,
    widths: tuple[int, ...],  # channels of the flagship's stages
) -> float | None:
    "Megabytes (10^6 bytes) at the peak; None without CUDA on systems other than Linux."
    device = choose_device()
    before = resident("VmRSS")
    images = random_images(images)
    model = timm.create_model(FLAGSHIP, num_classes=10, widths=tuple(widths)).to(device)
    opt = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    y = torch.arange(batch, device=device) % 10
    for _ in range(STEPS):
        x = torch.from_numpy(images[:batch]).to(device).permute(0, 3, 1, 2).float()
        x = torch.nn.functional.interpolate(x, size=side)
        torch.nn.functional.cross_entropy(model(x), y).backward()
        opt.step()
        opt.zero_grad()
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    return None if before is None else (resident("VmHWM") - before) / 1e6


def resident(field: str) -> float | None:
    "Resident bytes of this process, now (VmRSS) or at its peak (VmHWM); None except on Linux."
    # Not resource's ru_maxrss, which includes the peak of the parent process.
    try:
        lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    except OSError:
        return None
    return next((float(line.split()[1]) * 1024 for line in lines if line.startswith(field)), None)


if __name__ == "__main__":
    images, side, batch, *widths = map(int, sys.argv[1:])
    print(peak_mb(images, side, batch, tuple(widths)))
