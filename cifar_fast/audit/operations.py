"""What each operation does to a map: the rule of the receptive field, and what the operation counts as."""

from collections import Counter
from dataclasses import replace

from torch import Tensor

from cifar_fast.audit.feature_maps import Map, locate, pair

_VIEWS = {"view", "_unsafe_view", "reshape", "squeeze", "unsqueeze", "expand", "select", "unfold"}
_NORMS = {"native_layer_norm", "native_group_norm", "_fused_rms_norm"}  # and any batch norm
_LINEAR = {"addmm", "mm", "linear", "bmm", "baddbmm", "matmul"}
_WHOLE_IMAGE = {
    "native_group_norm": "group norm takes statistics over the whole image; no receptive field counts that",
    "grid_sampler_2d": "grid sampling may read any position; the rule does not count it",
}
_SQUEEZE = ("a global pool feeds back into the map (squeeze-excite): every unit then sees the whole image, "
            "which the rule does not count and the probe does")
_ATTENTION = ("positions are mixed by a matrix product (attention): every unit may see the whole image, "
              "which the rule does not count")


class ReceptiveFieldTracker:
    "Carries a `Map` from the inputs of each operation to its outputs, and counts what it meets on the way."

    def __init__(self, image: Tensor):
        self.maps = {id(image): Map(tuple(image.shape[2:]), (2, 3))}
        self.downsampling: Counter[str] = Counter()
        self.separated: set[int] = set()  # the depthwise convolutions that a pointwise one follows
        self.notes: dict[str, None] = {}  # ordered set
        self.last_map: Tensor | None = None  # what the last global pool read, else the last map

    def follow(self, name: str, args: tuple, tensors: list[Tensor], outs: list[Tensor], layer: dict) -> Map:
        "The map after one operation, known from now on; fills in what the layer record says about it."
        after = self.after(name, args, tensors, outs[0], layer)
        self.maps.update((id(t), after) for t in outs)
        if outs[0].dim() == 4 and not after.pooled:
            self.last_map = outs[0]
        return after

    def after(self, name: str, args: tuple, tensors: list[Tensor], out: Tensor, layer: dict) -> Map:
        x = args[0] if args and isinstance(args[0], Tensor) else tensors[0]
        known = self.maps.get(id(x))
        if known and name == "convolution":
            return self.convolution(known, args, out, layer)
        if name in _LINEAR:
            return self.linear(name, tensors, out, layer)
        if known and name in ("avg_pool2d", "max_pool2d", "max_pool2d_with_indices", "mkldnn_max_pool2d"):
            kernel, stride = pair(args[1]), pair(args[2] if len(args) > 2 and args[2] else args[1])
            dilation = pair(args[4]) if name != "avg_pool2d" and len(args) > 4 else (1, 1)
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

    def convolution(self, x: Map, args: tuple, out: Tensor, layer: dict) -> Map:
        weight, stride, dilation, transposed, groups = args[1], args[3], args[5], args[6], args[8]
        kernel = tuple(weight.shape[2:])
        depthwise = groups > 1 and weight.shape[1] == 1 and args[0].shape[1] == groups
        layer.update(
            kind="depthwise conv" if depthwise else "conv", kernel=kernel, stride=tuple(stride),
            dilation=tuple(dilation), groups=groups,
            macs=(args[0] if transposed else out).numel() // out.shape[0] * weight[0].numel(),
        )
        if len(kernel) != 2:  # over channels or time: no pixels
            return replace(x, dims=locate(out.shape, x.size), depthwise=None)
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
        marker = id(out) if depthwise and max(kernel) > 1 else None
        return replace(x, size=tuple(out.shape[-2:]), dims=(out.dim() - 2, out.dim() - 1), depthwise=marker)

    def linear(self, name: str, tensors: list[Tensor], out: Tensor, layer: dict) -> Map:
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
        return replace(x, dims=locate(out.shape, x.size) if pointwise else (), depthwise=None)

    def pool(self, tensor: Tensor, x: Map, out: Tensor, layer: dict, kernel, stride, dilation, is_max: bool):
        what = "max" if is_max else "average"
        layer.update(kernel=kernel, stride=stride, dilation=dilation)
        if all(k >= s for k, s in zip(kernel, x.size, strict=True)) and max(out.shape[-2:]) == 1:
            return self.globally(tensor, x, out, layer, what)
        layer["kind"] = f"{what} pool"
        if max(stride) > 1:
            self.downsampling[f"{what} pool"] += 1
        x = x.window(kernel, stride, dilation)
        return replace(x, size=tuple(out.shape[-2:]), dims=(out.dim() - 2, out.dim() - 1), depthwise=None)

    def globally(self, tensor: Tensor, x: Map, out: Tensor, layer: dict, what: str) -> Map:
        if x.pooled:  # nothing left to pool
            return replace(x, dims=())
        if what == "average" or max(x.size) > 1:
            layer["kind"] = f"global {what} pool"
        self.last_map = tensor
        return replace(x, size=(1, 1), dims=(), pooled=frozenset({what}), depthwise=None)

    def reduce(self, tensor: Tensor, x: Map, out: Tensor, layer: dict, args: tuple, is_max: bool) -> Map:
        dims = args[1] if len(args) > 1 else None
        dims = [dims] if isinstance(dims, int) else dims
        dims = {d % tensor.dim() for d in dims or range(tensor.dim())}
        over = dims & set(x.dims)
        if x.pooled or not over:
            return replace(x, dims=locate(out.shape, x.size), depthwise=None)
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

    def elsewhere(self, name: str, args: tuple, tensors: list[Tensor], out: Tensor, layer: dict) -> Map:
        "Element-wise operations, reshapes and everything that the rule has no window for."
        inputs = [t for t in tensors if id(t) in self.maps]
        x = self.merge([self.maps[id(t)] for t in inputs])
        if note := _WHOLE_IMAGE.get(name) or (_ATTENTION if "scaled_dot_product" in name else None):
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
            x = x.window(pair(args[1]), pair(args[1]))
        if name.startswith(("upsample", "_upsample")):
            self.notes["a resize inside the network: the rule does not count the positions it reads"] = None
            if out.shape[-1] < x.size[-1]:
                self.downsampling["resize"] += 1
            axes = zip(x.jump, x.size, out.shape[-2:], strict=True)
            x = replace(x, jump=tuple(max(1, j * i // o) for j, i, o in axes))
        if name in _VIEWS or out.dim() != max(t.dim() for t in inputs):
            return replace(x, dims=locate(out.shape, x.size))
        if len(x.dims) == 2:
            x = replace(x, size=tuple(out.shape[d] for d in x.dims))
        return x

    def merge(self, maps: list[Map]) -> Map:
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
