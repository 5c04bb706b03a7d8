"""Records every operation that a model executes, in order, with the module that ran it."""

import copy
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules import module as nn_module
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cifar_fast.audit.int8 import Int8Cost, buffer
from cifar_fast.audit.operations import ReceptiveFieldTracker
from cifar_fast.audit.params import weights


@dataclass(frozen=True, kw_only=True)
class Layer:
    "One executed operation."

    path: str  # the innermost module that ran it, "" for the model itself
    op: str  # aten's name, e.g. "convolution"
    kind: str  # "conv", "depthwise conv", "linear", "norm", "max pool", …, or aten's name
    shape: tuple[int, ...]  # of the output, without the batch
    kernel: tuple[int, ...] = ()  # the next three: height and width; empty where there is no window
    stride: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    params: int  # counted at their first use only, so that the layers add up to the model
    macs: int  # multiply-adds of convolutions and matrix products
    receptive_field: int  # pixels, after this operation
    total_stride: int  # pixels between neighbouring positions, after this operation


@contextmanager
def eval_copy(model: nn.Module, dtype: torch.dtype):
    """A contiguous copy in eval mode on the CPU. The model itself is not run.

    Meanwhile transformer layers take no fast path and attention no fused kernel, which are one operation each; they
    and the random state are restored.
    """
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.random.fork_rng(devices=[]), torch.inference_mode(False), sdpa_kernel(SDPBackend.MATH):
            yield copy.deepcopy(model).eval().to(device="cpu", dtype=dtype, memory_format=torch.contiguous_format)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)


class OpRecorder(TorchDispatchMode):
    "Records each aten operation below autograd; a `ReceptiveFieldTracker` follows the feature maps through it."

    def __init__(self, model: nn.Module, image: Tensor):
        super().__init__()
        self.names = {id(m): name for name, m in model.named_modules()}
        self.pending = {id(w): w.numel() for _, w in weights(model)}  # weights that no operation has used so far
        self.listed = {buffer(w) for _, w in weights(model)}
        self.origins: dict[int, dict[int, Tensor]] = {}  # tensor → what it is computed from, by buffer; images aside
        self.unlisted: dict[int, Tensor] = {}  # by buffer: what convolutions and matrix products used beside weights
        self.flows: list[tuple[set[int], set[int]]] = []  # buffers that each operation reads and writes
        self.tracker = ReceptiveFieldTracker(image)
        self.int8 = Int8Cost(image)
        self.alive = [image]  # keeps the tensors: ids of freed ones would be used again
        self.path: list[str] = [""]
        self.layers: list[Layer] = []
        self.bytes = 0

    def enter_module(self, module: nn.Module, args):
        self.path.append(self.names.get(id(module), self.path[-1]))

    def exit_module(self, module: nn.Module, args, output):
        self.path.pop()

    @contextmanager
    def recording(self):
        "Also record which module runs, by global hooks: those of the model itself stay as they are."
        enter = nn_module.register_module_forward_pre_hook(self.enter_module)
        leave = nn_module.register_module_forward_hook(self.exit_module, always_call=True)
        try:
            with self:
                yield
        finally:
            enter.remove()
            leave.remove()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        outs = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
        if outs:
            named = {a.name: a.default_value for a in func._schema.arguments}
            named |= dict(zip(named, args)) | (kwargs or {})  # noqa: B905  args may leave out the last ones
            name = func.name().removeprefix("aten::").split(".")[0]
            self.record(name, args, named.get("dim"), tensors, outs)
        return out

    def record(self, name: str, args: tuple, dim: int | list[int] | None, tensors: list[Tensor], outs: list[Tensor]):
        params = sum(self.pending.pop(id(t), 0) for t in tensors)
        self.alive += outs
        images = [t for t in tensors if id(t) in self.tracker.maps]
        weights = [t for t in tensors if id(t) not in self.tracker.maps]
        origins = {key: t for w in weights for key, t in self.origins.get(id(w), {buffer(w): w}).items()}
        if not images:
            self.origins.update((id(t), origins) for t in outs)  # none of what a formula makes, such as zeros
            if params:  # computed from weights alone, such as a transposed or normalised weight
                self.pending[id(outs[0])] = params
            return
        inputs, written = set(map(buffer, tensors)), set(map(buffer, outs))
        self.flows.append((inputs, written))
        allocated = [t for t in outs if buffer(t) not in inputs]
        kind = name.rstrip("_")
        layer = dict(op=name, kind=kind, params=params, macs=0)
        after = self.tracker.follow(kind, args, tensors, outs, dim, layer)
        if layer["macs"]:
            new = {key: t for key, t in origins.items() if key not in self.listed | self.unlisted.keys()}
            layer["params"] += sum(map(Tensor.numel, new.values()))
            self.unlisted |= new
        self.int8.follow(kind, images, weights, outs[0], layer)
        self.bytes += sum(4 * t.numel() for t in allocated)
        if allocated or name.endswith("_"):
            self.layers.append(Layer(path=self.path[-1], shape=tuple(outs[0].shape[1:]),
                                     receptive_field=max(after.receptive_field), total_stride=max(after.total_stride),
                                     **layer))

    def used(self, output: Tensor) -> set[int]:
        "The ids of all tensors that `output` is computed from, itself included."
        needed = {buffer(output)}
        for inputs, written in reversed(self.flows):
            if written & needed:
                needed |= inputs
        return {id(t) for t in self.alive if buffer(t) in needed}
