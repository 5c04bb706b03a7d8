"""What a figure was measured on: the machine, the versions of what ran, and the commit."""

from __future__ import annotations

import os
import platform
import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from cifar_fast import __version__

LIBRARIES = ("torch", "torchvision", "fastai", "timm", "albumentations", "pandas", "numpy")


def versions() -> dict[str, str]:
    "The versions that decide a result; no library is imported for it."
    found = {"cifar_fast": __version__, "python": platform.python_version(), **{n: version(n) for n in LIBRARIES}}
    for name in ("opencv-python-headless", "opencv-python"):  # Albumentations warps with whichever is there
        with suppress(PackageNotFoundError):
            found["opencv"] = version(name)
    return found


def hardware() -> dict:
    "CPU, cores, threads and GPU; and how busy the machine is, since others' work slows every figure."
    return {
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu_name(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def cpu_name() -> str:
    "The CPU's model as Linux names it, elsewhere as Python knows it."
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def gpu_name() -> str | None:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return "Apple GPU" if torch.backends.mps.is_available() else None


def git_commit(recipes: Path) -> str | None:
    "The commit of the checkout this package and its recipes are of, with + where files differ; None outside of one."
    def git(*args: str) -> str:
        return subprocess.run(["git", "-C", str(Path(__file__).parent.parent), *args], capture_output=True, text=True,
                              check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "all.py")  # not the repository of somebody who installed us inside it
        commit = git("rev-parse", "--short=12", "HEAD")
        dirty = git("status", "--porcelain", "--untracked-files=no", "--", ".", str(recipes))
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+" if dirty else "")
