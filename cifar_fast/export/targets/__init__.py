"""What a run can be exported to. A target is registered where it is made, a file each, with `@register_target`.

    @register_target("onnx", about="…", needs=("onnx", "onnxscript"), open=open_model)
    def make(folder: Path, card: Card, model: nn.Module) -> list[Path]: …

`make` writes its files into `folder`; the caller moves them to the run once they passed `check`, which runs them by
`open_model`. The modules import the libraries of their targets inside of functions: all targets can be listed where
none of them can be made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from cifar_fast.export.card import Card
from cifar_fast.export.card_format import ExportError
from cifar_fast.utils.text import nearest

MODULES = {"onnx": "onnx", "onnx-int8": "onnx_int8", "torch": "torch_export", "pickle": "pickle", "html": "html",
           "litert": "litert", "micro": "micro"}
"Target → the module of this package that registers it; importing one may import torch."

Predict = Callable[[np.ndarray], np.ndarray]
"(N, size, size, 3) uint8 images → (N, C) float32 probabilities."


@dataclass(frozen=True)
class Target:
    "A kind of file that a run can be exported to."

    name: str
    about: str  # where it runs
    make: Callable[..., list[Path]]  # (folder, card, model), with `images` also images=
    needs: tuple[str, ...] = ()  # packages that it imports
    install: Callable[[str], str] | None = None  # (run): the commands that install them; default pip install of `needs`
    open: Callable[[Path, Card], Predict | None] | None = None  # opens a file; None where nothing here can run it
    images: bool = False  # it is given images of train, (N, size, size, 3) uint8, to calibrate with
    most: int = 10_000  # images that its files are checked on
    note: Callable[[Path, bool], str] = lambda path, run: ""  # what its row says besides; run: whether it was, here
    memory: Callable[[Path], dict[str, int]] = lambda path: {}  # flash and arena of a microcontroller, where known
    ready: Callable[[str], object] = lambda run: None  # fetches what else it needs; raises ExportError where it cannot


TARGETS: dict[str, Target] = {}


def register_target(name: str, *, about: str, **more) -> Callable:
    "A decorator: the function makes the target (see `Target`)."
    def register(make: Callable[..., list[Path]]) -> Callable[..., list[Path]]:
        TARGETS[name] = Target(name, about, make, **more)
        return make
    return register


def all_targets() -> dict[str, Target]:
    "By name."
    for module in MODULES.values():
        import_module(f"cifar_fast.export.targets.{module}")
    return TARGETS


def require_known(names: Sequence[str]) -> None:
    "Raises ExportError where no target has such a name."
    known = list(dict.fromkeys([*MODULES, *TARGETS]))
    for name in names:
        if name not in known:
            raise ExportError(f"no target is called {name!r}{nearest(name, known)}; there are {', '.join(known)}, and "
                              f"all")


def find_targets(names: Sequence[str]) -> list[Target]:
    "By their names. Raises ExportError."
    require_known(names)
    known = all_targets()
    return [known[name] for name in dict.fromkeys(names)]


def lacking(target: Target) -> list[str]:
    "Packages that it needs and that are not installed."
    return [package for package in target.needs if find_spec(package) is None]


def require(target: Target, run: str) -> None:
    "Raises ExportError, with the commands that bring it and export the run, where what the target needs is missing."
    if missing := lacking(target):
        install = target.install(run) if target.install else f"python -m pip install {' '.join(target.needs)}"
        raise ExportError(f"--to {target.name} needs {', '.join(missing)}, not installed here:\n{install}")
    target.ready(run)
