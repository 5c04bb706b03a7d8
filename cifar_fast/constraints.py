"""The rules that the networks obey, audited on what a network executes, not on what its modules are called.

`profile` runs a copy of the network once and watches the operations, functional calls included; the receptive
field follows the rule r ← r + (k−1)·d·j, j ← j·s through the executed graph. `receptive_field_probe` measures
the same on the network itself, by gradient. `audit` compares both with a `Budget`.

What cannot be seen: a maximum taken between shifted slices counts as no max pool, and a convolution written
as unfold and matmul counts as neither depthwise nor dilated (the two receptive fields then disagree).
"""

import copy
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules import module as nn_module
from torch.nn.modules.batchnorm import _NormBase
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

RULES = ("parameters", "receptive_field", "max_pooling", "depthwise_separable", "dilation",
         "global_average_pooling")


# Parameters -----------------------------------------------------------------------------------------------

def weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every parameter, frozen or not, then every floating-point buffer that is no normalisation statistic.

    A statistic is a buffer of a module of torch's `_NormBase` (BatchNorm, InstanceNorm, SyncBatchNorm and
    their subclasses) named running_mean or running_var; num_batches_tracked is an integer. Any other
    floating-point buffer could be a weight in disguise and counts. What two modules share comes once.
    """
    yield from model.named_parameters()
    statistics = {
        id(getattr(m, name)) for m in model.modules() if isinstance(m, _NormBase)
        for name in ("running_mean", "running_var")
    }
    for name, buffer in model.named_buffers():
        if (buffer.is_floating_point() or buffer.is_complex()) and id(buffer) not in statistics:
            yield name, buffer


def count_params(model: nn.Module) -> int:
    "All weights, frozen ones and those kept as buffers included, shared ones once."
    return sum(w.numel() for _, w in weights(model))


# The executed graph ---------------------------------------------------------------------------------------

@dataclass(frozen=True, kw_only=True)
class Layer:
    "One executed operation."

    path: str  # the innermost module that ran it, "" for the network itself
    op: str  # aten's name, e.g. "convolution"
    kind: str  # "conv", "depthwise conv", "linear", "norm", "max pool", …, or aten's name
    shape: tuple[int, ...]  # of the output, without the batch
    kernel: tuple[int, ...] = ()  # the next three: height and width; empty where there is no window
    stride: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    params: int  # first use only, so that the layers add up
    macs: int  # multiply-adds of convolutions and matrix products
    receptive_field: int  # pixels, after this operation
    jump: int  # input pixels between two neighbouring units, after this operation


@dataclass(frozen=True, kw_only=True)
class Profile:
    "What one picture costs and which operations it meets."

    input_size: tuple[int, int, int]
    layers: tuple[Layer, ...]
    params: int
    macs: int  # multiply-adds of one picture: convolutions and matrix products only
    param_bytes: int  # all weights in the type they are stored in; no gradients, no optimizer state
    activation_bytes: int  # all outputs for one picture in float32; views and in-place operations cost none
    receptive_field: int  # by the rule: average pools inside count, the global one at the end does not
    downsampling: dict[str, int]  # operation → how many were executed
    max_pools: int  # any maximum over positions, the global one too
    depthwise: int
    depthwise_separable: int  # depthwise, then (norm and activation between them or not) pointwise
    dilated: int
    global_average_pool: bool  # the output follows from one
    notes: tuple[str, ...] = ()  # where the rule cannot tell the whole truth


@dataclass(frozen=True)
class _Map:
    "What is known about a tensor that follows from the picture."

    size: tuple[int, int]  # height and width of the map
    dims: tuple[int, ...]  # the tensor's dimensions that are positions: two, or one where flattened
    field: tuple[int, int] = (1, 1)
    jump: tuple[int, int] = (1, 1)
    pooled: frozenset[str] = frozenset()  # "average", "max": the global pools behind it
    depthwise: int | None = None  # the depthwise convolution that only element-wise operations followed

    def window(self, kernel, stride, dilation=(1, 1)) -> "_Map":
        "The rule; a map that is pooled globally has no positions left."
        if self.pooled:
            return self
        axes = zip(self.field, self.jump, kernel, stride, dilation, strict=True)
        grown = [(r + (k - 1) * d * j, j * s) for r, j, k, s, d in axes]
        return replace(self, field=tuple(r for r, _ in grown), jump=tuple(j for _, j in grown))


_VIEWS = {"view", "_unsafe_view", "reshape", "squeeze", "unsqueeze", "expand", "select", "unfold"}
_NORMS = {"native_batch_norm", "_native_batch_norm_legit_no_training", "native_layer_norm",
          "native_group_norm", "_fused_rms_norm"}
_LINEAR = {"addmm", "mm", "linear", "bmm", "baddbmm", "matmul"}
_WHOLE_PICTURE = {
    "native_group_norm": "group norm takes statistics over the whole picture; no receptive field counts that",
    "grid_sampler_2d": "grid sampling may read any position; the rule does not count it",
}
_SQUEEZE = ("a global pool feeds back into the map (squeeze-excite): every unit then sees the whole picture, "
            "which the rule does not count and the probe does")
_ATTENTION = ("positions are mixed by a matrix product (attention): every unit may see the whole picture, "
              "which the rule does not count")


class _Census(TorchDispatchMode):
    "Sees each aten operation below autograd and carries a `_Map` from its inputs to its outputs."

    def __init__(self, model: nn.Module, picture: Tensor):
        super().__init__()
        self.names = {id(m): name for name, m in model.named_modules()}
        self.pending = {id(w): w.numel() for _, w in weights(model)}  # weights that no operation has used yet
        self.maps = {id(picture): _Map(tuple(picture.shape[2:]), (2, 3))}
        self.alive = [picture]  # an id is only good as long as its tensor lives
        self.path: list[str] = [""]
        self.layers: list[Layer] = []
        self.bytes = 0
        self.downsampling: Counter[str] = Counter()
        self.separated: set[int] = set()
        self.notes: dict[str, None] = {}  # ordered set
        self.last_map: Tensor | None = None  # what the last global pool read, else the last map

    def entered(self, module: nn.Module, args):
        self.path.append(self.names.get(id(module), self.path[-1]))

    def left(self, module: nn.Module, args, output):
        self.path.pop()

    @contextmanager
    def watching(self):
        "Also follow which module runs; global hooks leave the network's own alone."
        enter = nn_module.register_module_forward_pre_hook(self.entered)
        leave = nn_module.register_module_forward_hook(self.left, always_call=True)
        try:
            with self:
                yield self
        finally:
            enter.remove()
            leave.remove()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        outs = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
        if outs:
            self.see(func.name().removeprefix("aten::").split(".")[0], args, tensors, outs)
        return out

    def see(self, name: str, args: tuple, tensors: list[Tensor], outs: list[Tensor]):
        params = sum(self.pending.pop(id(t), 0) for t in tensors)
        self.alive += outs
        if not any(id(t) in self.maps for t in tensors):
            if params:  # computed from weights alone, a transposed or normalised weight
                self.pending[id(outs[0])] = params
            return
        before = {t.untyped_storage().data_ptr() for t in tensors}
        fresh = [t for t in outs if t.untyped_storage().data_ptr() not in before]
        layer = dict(op=name, kind=name.rstrip("_"), params=params, macs=0)
        after = self.follow(name.rstrip("_"), args, tensors, outs[0], layer)
        for t in outs:
            self.maps[id(t)] = after
        if outs[0].dim() == 4 and not after.pooled:
            self.last_map = outs[0]
        self.bytes += sum(4 * t.numel() for t in fresh)
        if fresh or name.endswith("_"):
            self.layers.append(Layer(path=self.path[-1], shape=tuple(outs[0].shape[1:]),
                                     receptive_field=max(after.field), jump=max(after.jump), **layer))

    def follow(self, name: str, args: tuple, tensors: list[Tensor], out: Tensor, layer: dict) -> _Map:
        "The map after one operation; fills in what the layer record says about it."
        x = args[0] if args and isinstance(args[0], Tensor) else tensors[0]
        known = self.maps.get(id(x))
        if known and name in ("convolution", "conv2d"):
            return self.convolution(known, args, out, layer)
        if name in _LINEAR:
            return self.linear(name, tensors, out, layer)
        if known and name in ("avg_pool2d", "max_pool2d", "max_pool2d_with_indices", "mkldnn_max_pool2d"):
            kernel, stride = _pair(args[1]), _pair(args[2] if len(args) > 2 and args[2] else args[1])
            dilation = _pair(args[4]) if name != "avg_pool2d" and len(args) > 4 else (1, 1)
            return self.pool(x, known, out, layer, kernel, stride, dilation, "max" in name)
        if known and name in ("_adaptive_avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d",
                              "fractional_max_pool2d"):
            stride = tuple(max(1, i // o) for i, o in zip(known.size, out.shape[-2:], strict=True))
            axes = zip(known.size, out.shape[-2:], stride, strict=True)
            kernel = tuple(i - (o - 1) * s for i, o, s in axes)
            return self.pool(x, known, out, layer, kernel, stride, (1, 1), "max" in name)
        if known and name in ("mean", "sum", "amax", "max") and len(tensors) == 1:
            return self.reduce(x, known, out, layer, args, "max" in name)
        return self.elsewhere(name, args, tensors, out, layer)

    def convolution(self, x: _Map, args: tuple, out: Tensor, layer: dict) -> _Map:
        weight, stride, dilation, transposed, groups = args[1], args[3], args[5], args[6], args[8]
        kernel = tuple(weight.shape[2:])
        depthwise = groups > 1 and weight.shape[1] == 1 and args[0].shape[1] == groups
        layer.update(
            kind="depthwise conv" if depthwise else "conv", kernel=kernel, stride=tuple(stride),
            dilation=tuple(dilation), groups=groups,
            macs=(args[0] if transposed else out).numel() // out.shape[0] * weight[0].numel(),
        )
        if len(kernel) != 2:  # over channels or time: no pixels
            return replace(x, dims=_locate(out.shape, x.size), depthwise=None)
        if transposed:
            self.notes["a transposed convolution: the rule takes its stride as finer jumps"] = None
            jump = tuple(max(1, j // s) for j, s in zip(x.jump, stride, strict=True))
            x = replace(x, jump=jump).window(kernel, (1, 1), dilation)
        else:
            x = x.window(kernel, stride, dilation)
            if max(stride) > 1:
                self.downsampling["strided conv"] += 1
        if x.depthwise is not None and max(kernel) == 1 and groups == 1:
            self.separated.add(x.depthwise)
        marker = len(self.layers) if depthwise and max(kernel) > 1 else None
        return replace(x, size=tuple(out.shape[-2:]), dims=(out.dim() - 2, out.dim() - 1), depthwise=marker)

    def linear(self, name: str, tensors: list[Tensor], out: Tensor, layer: dict) -> _Map:
        left, right = tensors[1:3] if name in ("addmm", "baddbmm") else tensors[:2]
        layer.update(kind="linear", macs=out.numel() * left.shape[-1])
        contracted = ((left, left.dim() - 1), (right, right.dim() - 2))
        operands = [(self.maps[id(t)], dim) for t, dim in contracted if id(t) in self.maps]
        x = self.merge([x for x, _ in operands]) if operands else self.maps[id(tensors[0])]
        if x.pooled:
            return replace(x, dims=())
        mixes = any(dim in x.dims for x, dim in operands)
        if len(operands) > 1 or mixes:
            self.notes[_ATTENTION] = None
        pointwise = bool(x.dims) and not mixes
        if pointwise and x.depthwise is not None:
            self.separated.add(x.depthwise)
        return replace(x, dims=_locate(out.shape, x.size) if pointwise else (), depthwise=None)

    def pool(self, tensor: Tensor, x: _Map, out: Tensor, layer: dict, kernel, stride, dilation, is_max: bool):
        what = "max" if is_max else "average"
        layer.update(kernel=kernel, stride=stride, dilation=dilation)
        covers = all(k >= s for k, s in zip(kernel, x.size, strict=True)) and max(out.shape[-2:]) == 1
        if covers:
            return self.globally(tensor, x, out, layer, what)
        layer["kind"] = f"{what} pool"
        if max(stride) > 1:
            self.downsampling[f"{what} pool"] += 1
        x = x.window(kernel, stride, dilation)
        return replace(x, size=tuple(out.shape[-2:]), dims=(out.dim() - 2, out.dim() - 1), depthwise=None)

    def globally(self, tensor: Tensor, x: _Map, out: Tensor, layer: dict, what: str) -> _Map:
        if x.pooled:  # nothing left to pool
            return replace(x, dims=())
        layer.update(kind=f"global {what} pool" if what == "average" or max(x.size) > 1 else layer["kind"])
        self.last_map = tensor
        return replace(x, size=(1, 1), dims=(), pooled=frozenset({what}), depthwise=None)

    def reduce(self, tensor: Tensor, x: _Map, out: Tensor, layer: dict, args: tuple, is_max: bool) -> _Map:
        dims = args[1] if len(args) > 1 else None
        dims = [dims] if isinstance(dims, int) else dims
        dims = {d % tensor.dim() for d in dims or range(tensor.dim())}
        over = dims & set(x.dims)
        if x.pooled or not over:
            return replace(x, dims=_locate(out.shape, x.size), depthwise=None)
        what = "max" if is_max else "average"
        if len(x.dims) == 2:
            size = tuple(1 if d in over else s for d, s in zip(x.dims, x.size, strict=True))
        else:
            size = (1, 1) if over == set(x.dims) else x.size
        if max(size) == 1:
            return self.globally(tensor, x, out, layer, what)
        if is_max:
            layer["kind"] = "max pool"
        keepdim = out.dim() == tensor.dim()
        left = x.dims if keepdim else tuple(d - sum(o < d for o in dims) for d in x.dims if d not in dims)
        return replace(x, size=size, dims=left, depthwise=None)

    def elsewhere(self, name: str, args: tuple, tensors: list[Tensor], out: Tensor, layer: dict) -> _Map:
        "Element-wise operations, reshapes and everything that the rule has no window for."
        inputs = [t for t in tensors if id(t) in self.maps]
        x = self.merge([self.maps[id(t)] for t in inputs])
        if note := _WHOLE_PICTURE.get(name) or (_ATTENTION if "scaled_dot_product" in name else None):
            self.notes[note] = None
        if name in _NORMS or "batch_norm" in name:
            layer["kind"] = "norm"
        if "max_pool" in name:  # in one or three dimensions
            layer["kind"] = "max pool"
        if x.pooled:
            return replace(x, dims=())
        if name in ("permute", "transpose", "t"):
            order = list(range(out.dim()))
            if name == "permute":
                order = [d % out.dim() for d in args[1]]
            else:
                a, b = (args[1], args[2]) if name == "transpose" else (0, 1)
                order[a], order[b] = order[b], order[a]
            return replace(x, dims=tuple(sorted(order.index(d) for d in x.dims)))
        if name == "slice":
            step = args[4] if len(args) > 4 else 1
            if step > 1 and args[1] % out.dim() in x.dims and len(x.dims) == 2:
                self.downsampling["strided slice"] += 1
                axis = x.dims.index(args[1] % out.dim())
                x = replace(x, jump=tuple(j * step if i == axis else j for i, j in enumerate(x.jump)))
        if name == "pixel_unshuffle":
            self.downsampling["pixel unshuffle"] += 1
            x = x.window(_pair(args[1]), _pair(args[1]))
        if name.startswith(("upsample", "_upsample")):
            self.notes["a resize inside the network: the rule does not count the positions it reads"] = None
            if out.shape[-1] < x.size[-1]:
                self.downsampling["resize"] += 1
            axes = zip(x.jump, x.size, out.shape[-2:], strict=True)
            x = replace(x, jump=tuple(max(1, j * i // o) for j, i, o in axes))
        if name in _VIEWS or out.dim() != max(t.dim() for t in inputs):
            return replace(x, dims=_locate(out.shape, x.size))
        if len(x.dims) == 2:
            x = replace(x, size=tuple(out.shape[d] for d in x.dims))
        return x

    def merge(self, maps: list[_Map]) -> _Map:
        "Where branches meet the deepest path counts: a shortcut lengthens nothing."
        whole = [m for m in maps if not m.pooled]
        if not whole:
            return replace(maps[0], pooled=frozenset().union(*(m.pooled for m in maps)))
        if len(whole) < len(maps):
            self.notes[_SQUEEZE] = None
        largest = max(whole, key=lambda m: (len(m.dims), m.size))
        return replace(
            largest,
            field=tuple(max(axis) for axis in zip(*(m.field for m in whole), strict=True)),
            jump=tuple(max(axis) for axis in zip(*(m.jump for m in whole), strict=True)),
            depthwise=whole[0].depthwise if len({m.depthwise for m in whole}) == 1 else None,
        )


def _pair(value) -> tuple[int, int]:
    value = (value,) if isinstance(value, int) else tuple(value)
    return value if len(value) == 2 else value * 2


def _locate(shape: Sequence[int], size: tuple[int, int]) -> tuple[int, ...]:
    "The dimensions that hold a map's positions after a reshape: a pair, a flattened one, or all that might."
    shape, n = tuple(shape), len(shape)
    for i in [n - 2, *range(1, n - 2)]:
        if i >= 1 and shape[i:i + 2] == size:
            return (i, i + 1)
    if flat := [d for d in range(n) if shape[d] == size[0] * size[1] > 1]:
        return (flat[-1],)
    return () if n <= 2 else tuple(range(2, n))


@contextmanager
def _twin(model: nn.Module, dtype: torch.dtype):
    "A copy in eval mode on the CPU, and the RNG as it was afterwards: the network itself never runs."
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
        yield copy.deepcopy(model).eval().to(device="cpu", dtype=dtype)


def profile(model: nn.Module, input_size: tuple[int, int, int] = (3, 32, 32)) -> Profile:
    "Run a copy of the network on one black picture and count what it executes."
    with _twin(model, torch.float32) as twin, torch.no_grad():
        picture = torch.zeros(1, *input_size)
        census = _Census(twin, picture)
        with census.watching():
            output = twin(picture)
        output = next(t for t in tree_leaves(output) if isinstance(t, Tensor))
    kinds = Counter(layer.kind for layer in census.layers)
    end = census.maps.get(id(output)) or _Map(input_size[1:], ())
    return Profile(
        input_size=tuple(input_size),
        layers=tuple(census.layers),
        params=count_params(model),
        macs=sum(layer.macs for layer in census.layers),
        param_bytes=sum(w.numel() * w.element_size() for _, w in weights(model)),
        activation_bytes=census.bytes,
        receptive_field=max(end.field),
        downsampling=dict(census.downsampling),
        max_pools=kinds["max pool"] + kinds["global max pool"],
        depthwise=kinds["depthwise conv"],
        depthwise_separable=len(census.separated),
        dilated=sum(any(k > 1 and d > 1 for k, d in zip(layer.kernel, layer.dilation, strict=True))
                    for layer in census.layers if layer.kind.endswith("conv")),
        global_average_pool="average" in end.pooled,
        notes=tuple(census.notes),
    )


# The receptive field, measured ----------------------------------------------------------------------------

_IDENTITY = {
    "relu", "relu_", "relu6", "leaky_relu", "leaky_relu_", "prelu", "rrelu", "elu", "elu_", "selu", "celu",
    "gelu", "silu", "mish", "hardswish", "hardtanh", "hardtanh_", "hardsigmoid", "sigmoid", "sigmoid_",
    "logsigmoid", "tanh", "tanh_", "softplus", "softsign", "tanhshrink", "dropout", "batch_norm",
    "instance_norm", "group_norm", "layer_norm", "rms_norm",
}


def _window_mean(input, kernel_size, stride=None, padding=0, dilation=1, *_, **__):
    "In place of a max pool, whose gradient reaches one position of the window only."
    kernel, channels = _pair(kernel_size), input.shape[1]
    weight = input.new_full((channels, 1, *kernel), 1 / (kernel[0] * kernel[1]))
    return F.conv2d(input, weight, None, stride or kernel_size, padding, dilation, channels)


def _double(t: Tensor) -> Tensor:
    return t.double() if t.is_floating_point() else t


class _Linearised(TorchFunctionMode):
    "Activations and normalisations pass their input on, functional ones too; a maximum becomes a mean."

    def __torch_function__(self, func, types, args=(), kwargs=None):
        # Constants that are neither parameters nor buffers were not converted with the rest.
        args, kwargs = tree_map_only(Tensor, _double, (args, kwargs or {}))
        name = getattr(func, "__name__", "")
        if name in _IDENTITY:
            return args[0] if args else kwargs["input"]
        if name == "max_pool2d":
            return _window_mean(*args, **kwargs)
        return func(*args, **kwargs)


@torch.no_grad()
def _make_positive(model: nn.Module):
    "Weights absolute, in rows that add up to 1 (nothing overflows or dies out), and no biases."
    for name, w in weights(model):
        if name.split(".")[-1] == "bias":
            w.zero_()
            continue
        w.abs_()
        if not w.any():  # a residual branch's gain at the start: closed now, but not by its geometry
            w.fill_(1)
        if w.dim() > 1:
            w /= w.flatten(1).sum(1).clamp_min(1e-12).view(-1, *[1] * (w.dim() - 1))


def _last_map(model: nn.Module, pictures: Tensor) -> Tensor:
    "The map before the global pool: timm's `forward_features`, or else what the last global pool reads."
    if hasattr(model, "forward_features"):
        found = model.forward_features(pictures)
    else:
        with _Census(model, pictures) as census:
            model(pictures)
        found = census.last_map
    if not isinstance(found, Tensor) or found.dim() != 4:
        raise ValueError(f"{type(model).__name__} ends in no map (N, C, H, W) that could be probed")
    return found


def receptive_field_probe(
    model: nn.Module,
    input_size: tuple[int, int, int] = (3, 32, 32),  # only its channels, and the least size that is tried
    max_size: int = 512,  # pixels of the largest picture; a field that fills it is returned as this
) -> int:
    """The receptive field in pixels, measured: the extent of the gradient of one centre unit before the pool.

    On a copy in float64 with positive weights, no biases, and activations and normalisations as identity, no
    gradient cancels or vanishes, so what is zero is out of reach. The picture grows until the field no longer
    touches its edge. A squeeze-excite gate sees everything: then it is the size of the largest picture tried.
    ValueError where there is no map to probe; the network's own error where it runs at no size.
    """
    native = max(input_size[1:])
    size = max(64, native)
    with _twin(model, torch.float64) as twin, torch.enable_grad():
        _make_positive(twin)
        while True:
            try:
                spans = _reach(twin, input_size[0], size)
            except RuntimeError:
                if size == native:
                    raise
                size = max_size = native  # made for one size: good enough unless the field touches the edge
                continue
            inside = all(low > 0 and high < size - 1 for low, high in spans)
            if inside or 2 * size > max_size:
                return max(high - low + 1 for low, high in spans)
            size *= 2


def _reach(model: nn.Module, channels: int, size: int) -> list[tuple[int, int]]:
    "First and last row, first and last column, that a centre unit of the last map can see."
    # Small and positive: hard and saturating functions that no name above covers stay in their slope.
    pictures = torch.full((1, channels, size, size), 1e-3, dtype=torch.float64).requires_grad_()
    with _Linearised():
        found = _last_map(model, pictures)
    height, width = found.shape[2:]
    unit = found[0, :, height // 2, width // 2].sum()
    seen = torch.autograd.grad(unit, pictures)[0][0].abs().sum(0) > 0
    if not seen.any():
        raise ValueError(f"no gradient flows through {type(model).__name__}: a weight closes it everywhere")
    lines = [axis.nonzero().flatten() for axis in (seen.any(1), seen.any(0))]
    return [(int(line[0]), int(line[-1])) for line in lines]


# Verdicts -------------------------------------------------------------------------------------------------

@dataclass(frozen=True, kw_only=True)
class Budget:
    "What a network may have at most and must have at least."

    max_params: int = 199_999
    min_receptive_field: int = 45  # pixels: more than 44
    max_pools: int = 0  # at most
    depthwise_separable: int = 1  # at least
    dilated: int = 1  # at least
    global_average_pool: bool = True


@dataclass(frozen=True)
class Verdict:
    "One rule: what it asks, what was found."

    rule: str  # one of RULES
    required: int | bool
    found: int | bool
    ok: bool

    def __str__(self) -> str:
        if self.rule == "global_average_pooling":
            return f"{self.rule}: {'there is one' if self.found else 'there is none'}"
        bound = "at most" if self.rule in ("parameters", "max_pooling") else "at least"
        return f"{self.rule}: {self.found:,}, {bound} {self.required:,}"


@dataclass(frozen=True, kw_only=True)
class Audit:
    "A profile, the measured receptive field and a verdict on each rule."

    name: str
    profile: Profile
    receptive_field_probe: int | None  # pixels; None where the network cannot run on larger pictures
    verdicts: list[Verdict] = field(default_factory=list)

    @property
    def rf_agrees(self) -> bool:
        return self.receptive_field_probe == self.profile.receptive_field

    def failures(self, waive: Mapping[str, str] | None = None) -> list[Verdict]:
        "The broken rules that `waive` (rule → reason) does not name; ValueError for an unknown rule."
        waive = waive or {}
        if unknown := sorted(set(waive) - set(RULES)):
            raise ValueError(f"no rule is called {', '.join(unknown)}; the rules are {', '.join(RULES)}")
        if silent := [rule for rule, reason in waive.items() if not str(reason).strip()]:
            raise ValueError(f"waiving {', '.join(silent)} needs a reason")
        return [v for v in self.verdicts if not v.ok and v.rule not in waive]

    def as_dict(self, layers: bool = False) -> dict:
        "Plain values for JSON; `layers` adds one entry per executed operation."
        values = asdict(self.profile)
        rows = values.pop("layers")
        return {
            "name": self.name,
            **values,
            "receptive_field_probe": self.receptive_field_probe,
            "rf_agrees": self.rf_agrees,
            "verdicts": [asdict(v) for v in self.verdicts],
            **({"layers": list(rows)} if layers else {}),
        }


STANDARD = Budget()
_PROBE_BYTES = 2**31


def _probe_room(found: Profile) -> int:
    "The largest picture worth probing: just larger than the rule's field, and 2 GiB of float64 activations."
    reach = found.receptive_field + 2 * max((layer.jump for layer in found.layers), default=1)
    area = found.input_size[1] * found.input_size[2] * _PROBE_BYTES / (2 * found.activation_bytes or 1)
    return max(64, min(1 << max(7, reach.bit_length()), 1 << (int(area**0.5).bit_length() - 1)))


def audit(
    model: nn.Module,
    budget: Budget = STANDARD,
    input_size: tuple[int, int, int] = (3, 32, 32),
    name: str | None = None,  # default: the architecture's registered name, else the class's
) -> Audit:
    "Profile, probe and judge. The receptive field is the smaller one where rule and probe disagree."
    found = profile(model, input_size)
    room = _probe_room(found)
    try:
        probe = receptive_field_probe(model, input_size, max_size=room)
    except (RuntimeError, ValueError, AssertionError) as error:  # networks of one fixed input size
        probe = None
        found = replace(found, notes=(*found.notes, f"the probe did not run: {error}"))
    if probe is not None and probe >= room < found.receptive_field:
        found = replace(found, notes=(*found.notes, f"the probe stops at {room} pixels: more would take too "
                                                    "much memory"))
    field_found = found.receptive_field if probe is None else min(found.receptive_field, probe)
    verdicts = [
        Verdict("parameters", budget.max_params, found.params, found.params <= budget.max_params),
        Verdict("receptive_field", budget.min_receptive_field, field_found,
                field_found >= budget.min_receptive_field),
        Verdict("max_pooling", budget.max_pools, found.max_pools, found.max_pools <= budget.max_pools),
        Verdict("depthwise_separable", budget.depthwise_separable, found.depthwise_separable,
                found.depthwise_separable >= budget.depthwise_separable),
        Verdict("dilation", budget.dilated, found.dilated, found.dilated >= budget.dilated),
        Verdict("global_average_pooling", budget.global_average_pool, found.global_average_pool,
                found.global_average_pool or not budget.global_average_pool),
    ]
    if name is None:
        name = (getattr(model, "default_cfg", None) or {}).get("architecture") or type(model).__name__
    return Audit(name=name, profile=found, receptive_field_probe=probe, verdicts=verdicts)


# Tables ---------------------------------------------------------------------------------------------------

def _aligned(rows: list[list[str]], left: int = 1) -> list[str]:
    "Columns as wide as their widest cell; the first `left` are flush left."
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    align = [str.ljust] * left + [str.rjust] * (len(widths) - left)
    return ["  ".join(f(c, w) for f, c, w in zip(align, row, widths, strict=True)).rstrip() for row in rows]


def audit_table(audits: Sequence[Audit]) -> str:
    "One line a network, then one for each broken rule, disagreement and note."
    rows = [["architecture", "params", "MMACs", "weights", "activ.", "RF", "probe", "down", "max", "d-sep",
             "dil", "GAP", "broken"]]
    remarks = []
    for a in audits:
        p, broken = a.profile, a.failures()
        probe = "-" if a.receptive_field_probe is None else str(a.receptive_field_probe)
        rows.append([
            a.name, f"{p.params:,}", f"{p.macs / 1e6:.1f}", _size(p.param_bytes), _size(p.activation_bytes),
            str(p.receptive_field), probe, str(sum(p.downsampling.values())), str(p.max_pools),
            str(p.depthwise_separable), str(p.dilated), "yes" if p.global_average_pool else "no",
            str(len(broken) or "-"),
        ])
        remarks += [f"{a.name} breaks {v}" for v in broken]
        if not a.rf_agrees:
            remarks.append(f"{a.name}: receptive field {p.receptive_field} by the rule, {probe} measured")
        remarks += [f"{a.name}: {note}" for note in p.notes]
    remarks = [textwrap.fill(remark, 100, subsequent_indent="  ") for remark in remarks]
    return "\n".join([*_aligned(rows), *([""] if remarks else []), *remarks])


def layer_table(audit: Audit) -> str:
    "Convolutions, products, norms, pools and joins in the order they ran, without activations and views."
    shown = ("conv", "pool", "linear", "norm", "add", "cat", "mul")
    rows = [["layer", "operation", "output", "params", "MMACs", "RF", "jump"]]
    for layer in audit.profile.layers:
        if not (layer.params or layer.kind.endswith(shown)):
            continue
        rows.append([
            layer.path, _operation(layer), "×".join(map(str, layer.shape)), f"{layer.params:,}",
            f"{layer.macs / 1e6:.2f}", str(layer.receptive_field), str(layer.jump),
        ])
    used = sum(layer.params for layer in audit.profile.layers)
    rows.append(["total", "", "", f"{used:,}", f"{audit.profile.macs / 1e6:.2f}", "", ""])
    lines = _aligned(rows, left=3)
    if used != audit.profile.params:
        lines.append(f"{audit.profile.params - used:,} more parameters are in the network but not used by it")
    return "\n".join(lines)


def _operation(layer: Layer) -> str:
    "E.g. `conv 3×3 s2 d2`."
    words = [layer.kind]
    if layer.kernel:
        words.append("×".join(map(str, layer.kernel)))
        steps = (("s", layer.stride), ("d", layer.dilation))
        words += [f"{letter}{max(v)}" for letter, v in steps if max(v) > 1]
    return " ".join(words)


def _size(count: int) -> str:
    return f"{count / 2**20:.2f}M" if count >= 2**20 else f"{count / 2**10:.0f}K"
