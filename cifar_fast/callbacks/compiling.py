"""torch.compile for the training steps alone."""

from __future__ import annotations

import importlib.util
import logging
import shutil

import torch
from fastai.callback.core import Callback

PAYS_FROM = 2000
"Steps from which compiling (about half a minute) is worth its time."


def choose_compile(compile: str, device: torch.device, steps: int) -> bool:
    "Whether to torch.compile a run of `steps`. Raises ValueError for 'on' where it cannot be."
    # On a CPU torch writes C++ and calls a compiler; on CUDA it needs triton, which comes with torch on Linux only.
    can = (any(shutil.which(c) for c in ("c++", "g++", "clang++", "cl")) if device.type == "cpu" else
           device.type == "cuda" and importlib.util.find_spec("triton") is not None)
    if compile == "on" and not can:
        raise ValueError(f"compile=on: torch.compile finds no {'C++ compiler' if device.type == 'cpu' else 'triton'} "
                         f"for {device.type}; install one, or use compile=auto (slower without it, same recipe)")
    return compile == "on" or (compile == "auto" and can and steps >= PAYS_FROM)


class Compiled(Callback):
    "torch.compile for training steps; validation stays eager, so that no other batch size compiles again."

    net = None

    def before_fit(self):
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it misses CUDA on a CPU
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
