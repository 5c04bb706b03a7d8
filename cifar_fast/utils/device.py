"""Which device a run uses."""

from __future__ import annotations

import platform

import torch

from cifar_fast.utils.errors import SettingError


def choose_device(device: str = "auto") -> torch.device:
    "cuda, then mps, then cpu for 'auto'; any other must be available. Raises SettingError."
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
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
    return chosen


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} ({platform.machine()})"
