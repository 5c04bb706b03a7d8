"""torch.compile for the training steps alone."""

from __future__ import annotations

import logging
import shutil
import warnings

import torch
from fastai.callback.core import Callback

PAYS_FROM = 2000
"Steps from which compiling (about half a minute) is worth its time."


def choose_compile(compile: str, device: torch.device, steps: int) -> bool:
    """Whether to torch.compile a run of `steps`. Raises ValueError for 'on' where it cannot be.

    'auto' compiles long runs on a GPU. On a CPU our nets ran at 716 images/s eager and 727 compiled (batches of 128),
    710 and 634 (256): nothing that pays for the compiler (two AVX2 cores, medians of one run, alternating).
    """
    if compile == "off" or (compile == "auto" and (steps < PAYS_FROM or device.type == "cpu")):
        return False
    problem = why_not(device)
    if problem and compile == "on":
        raise ValueError(f"compile=on: torch.compile does not work here ({problem}); compile=auto goes on without it")
    if problem:
        warnings.warn(f"not compiled, which is slower: torch.compile does not work here ({problem})", stacklevel=2)
    return not problem


def why_not(device: torch.device) -> str | None:
    "Why torch.compile cannot work for `device`, by trying: it needs a compiler and headers, or triton and a new GPU."
    if device.type == "cpu" and not any(shutil.which(c) for c in ("c++", "g++", "clang++", "cl")):
        return "no C++ compiler is on the PATH"
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # on a CPU it misses CUDA
    try:
        torch.compile(torch.nn.functional.gelu)(torch.ones(8, device=device))
    except Exception as e:  # whatever breaks in a compiler's tool chain
        return f"{type(e).__name__}: {' '.join(str(e).split())[:120]}"
    return None


class Compiled(Callback):
    "torch.compile for training steps; validation stays eager, so that no other batch size compiles again."

    net = None

    def before_fit(self):
        self.net = self.model
        self.net.compile(dynamic=False)

    def before_validate(self):
        torch.compiler.set_stance("force_eager")

    def after_validate(self):
        torch.compiler.set_stance("default")

    def after_fit(self):
        self.undo()

    def undo(self):
        torch.compiler.set_stance("default")
        if self.net is not None:
            self.net._compiled_call_impl = None  # there is no public way back from Module.compile
