"""Which device a run uses."""

from __future__ import annotations

import os
import platform
import re
import warnings

import torch

from cifar_fast.utils.cores import PLACE
from cifar_fast.utils.errors import SettingError


def choose_device(device: str = "auto") -> torch.device:
    "cuda, then mps, then cpu for 'auto'; any other must be available. Raises SettingError."
    if device == "auto":
        if torch.cuda.is_available():
            if not (problem := no_kernels(gpu := own_gpu())):
                return gpu
            warnings.warn(f"the CPU is used: {problem}", stacklevel=1)  # once, whoever asks
            return torch.device("cpu")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise SettingError(f"device={device}: expected auto, cpu, cuda, cuda:1 … or mps") from None
    here = {"cpu": True, "cuda": torch.cuda.is_available() and (chosen.index or 0) < torch.cuda.device_count(),
            "mps": torch.backends.mps.is_available()}.get(chosen.type, False)
    if not here:
        raise SettingError(f"device={device}: this machine has no such device that torch {torch.__version__} can use; "
                           f"device=auto chooses one")
    if chosen.type != "cuda":
        return chosen
    chosen = own_gpu() if chosen.index is None else chosen
    if problem := no_kernels(chosen):
        raise SettingError(f"device={device}: {problem}; or device=cpu")
    return chosen


def own_gpu() -> torch.device:
    "The one that 'auto' and 'cuda' mean: torch's current one, and in a pool each process's own, as far as there are."
    count = torch.cuda.device_count()
    if PLACE in os.environ and count > 1:
        return torch.device("cuda", int(os.environ[PLACE]) % count)
    return torch.device("cuda")


def no_kernels(gpu: torch.device) -> str | None:
    """Why torch cannot compute on `gpu`: it has no code for it. None where it can, or does not say (ROCm).

    Code for sm_75 runs on GPUs of 7.5 to 7.9; compute_75 is compiled by the driver for any from 7.5 on.
    """
    found = [re.fullmatch(r"(sm|compute)_(\d+)(\d)[af]?", arch) for arch in torch.cuda.get_arch_list()]
    built = [(m[1], (int(m[2]), int(m[3]))) for m in found if m]
    if not built:
        return None
    capability = torch.cuda.get_device_capability(gpu)
    if any(least <= capability and (kind == "compute" or least[0] == capability[0]) for kind, least in built):
        return None
    return (f"torch {torch.__version__} has no code for the {device_name(gpu)} of compute capability "
            f"{'.'.join(map(str, capability))} (only {' '.join(torch.cuda.get_arch_list())}); install a build that has")


def use_device(device: str = "auto") -> torch.device:
    "`choose_device`, and a GPU with a number becomes torch's current one, which much of torch asks or waits for."
    chosen = choose_device(device)
    if chosen.type == "cuda" and chosen.index is not None:
        torch.cuda.set_device(chosen)
    return chosen


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} ({platform.machine()})"
