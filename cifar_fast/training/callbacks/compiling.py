"""torch.compile for the training steps alone."""

from __future__ import annotations

import logging
import shutil
import warnings

import torch
from fastai.callback.core import Callback
from torch import nn

from cifar_fast.utils.errors import SettingError

PAYS_FROM = 2000
"Steps from which compiling (about half a minute) is worth its time."


def choose_compile(compile: str, device: torch.device, steps: int, model: nn.Module) -> bool:
    """Whether to torch.compile `model` for a run of `steps`. Raises SettingError for 'on' where it cannot be.

    'auto' compiles long runs: on a GPU of CUDA all, on a CPU those of mostly depthwise models, as others are no faster
    there (`python -m cifar_fast bench train` measures); on MPS, where nobody has measured it, none.
    """
    pays = steps >= PAYS_FROM and (device.type == "cuda" or device.type == "cpu" and mostly_depthwise(model))
    if compile == "off" or (compile == "auto" and not pays):
        return False
    problem = why_not(device)
    if problem and compile == "on":
        raise SettingError(f"compile=on: torch.compile does not work here ({problem}); compile=auto runs without it")
    if problem:
        warnings.warn(f"not compiled, which is slower: torch.compile does not work here ({problem})", stacklevel=2)
    return not problem


def mostly_depthwise(model: nn.Module) -> bool:
    "Whether more than half of the convolutions wider than 1×1 are depthwise."
    wide = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size != (1, 1)]
    return 2 * sum(m.groups == m.in_channels > 1 for m in wide) > len(wide)


def why_not(device: torch.device) -> str | None:
    "Why torch.compile cannot work for `device`, by trying: it needs a compiler and headers, or triton and a new GPU."
    if device.type == "cpu" and not any(shutil.which(c) for c in ("c++", "g++", "clang++", "cl")):
        return "no C++ compiler is on the PATH"
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # on a CPU it misses CUDA
    try:
        torch.compile(torch.nn.functional.gelu)(torch.ones(8, device=device))
    except Exception as e:  # a compiler's tool chain may raise anything
        return f"{type(e).__name__}: {' '.join(str(e).split())[:120]}"
    return None


class Compiled(Callback):
    "torch.compile for training steps; validation stays eager, so that no other batch size compiles again."

    compiled = None  # the model, once it is compiled

    def before_fit(self):
        self.compiled = self.model
        self.compiled.compile(dynamic=False)

    def before_validate(self):
        torch.compiler.set_stance("force_eager")

    def after_validate(self):
        torch.compiler.set_stance("default")

    def after_fit(self):
        self.undo()

    def undo(self):
        torch.compiler.set_stance("default")
        if self.compiled is not None:
            self.compiled._compiled_call_impl = None  # there is no public way back from Module.compile
