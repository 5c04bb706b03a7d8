"""The environment of a measurement: hardware, versions of the libraries, and the commit."""

from __future__ import annotations

import os
import platform
import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from cifar_fast import __version__
from cifar_fast.utils.cores import CORES

LIBRARIES = ("torch", "torchvision", "fastai", "timm", "albumentations", "pandas", "numpy")


def versions() -> dict[str, str]:
    "Versions of Python and of the libraries that affect a result; imports none of them."
    result = {"cifar_fast": __version__, "python": platform.python_version(), **{n: version(n) for n in LIBRARIES}}
    for name in ("opencv-python-headless", "opencv-python"):  # Albumentations uses whichever is installed
        with suppress(PackageNotFoundError):
            result["opencv"] = version(name)
    return result


def hardware() -> dict:
    "CPU, cores, threads and GPU; and the load, since other processes slow every measurement."
    return {
        "cpu": cpu_name(),
        "cores": CORES,
        "threads": torch.get_num_threads(),
        "gpu": gpu_name(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def cpu_name() -> str:
    "The CPU's model, from /proc/cpuinfo on Linux, elsewhere from `platform`."
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
    "The commit of the checkout that holds this package, with + where tracked files were changed; None outside of one."
    def git(*args: str) -> str:
        return subprocess.run(["git", "-C", str(Path(__file__).parent.parent), *args], capture_output=True, text=True,
                              check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "all.py")  # not another repository that this package is installed in
        commit = git("rev-parse", "--short=12", "HEAD")
        dirty = git("status", "--porcelain", "--untracked-files=no", "--", ".", str(recipes))
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+" if dirty else "")
