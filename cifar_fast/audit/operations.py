"""What each operation does to a feature map, by the rule of the receptive field, and what it counts as."""

from collections import Counter
from dataclasses import replace

from torch import Tensor

from cifar_fast.audit.feature_maps import FeatureMapInfo, locate, merge, pair

_VIEWS = {"view", "_unsafe_view", "reshape", "squeeze", "unsqueeze", "expand", "select"}
_NORMS = {"native_layer_norm", "native_group_norm", "_fused_rms_norm"}  # and any batch norm
_LINEAR = {"addmm", "mm", "linear", "bmm", "baddbmm", "matmul"}
_POOLS = {"avg_pool2d", "max_pool2d", "max_pool2d_with_indices", "mkldnn_max_pool2d"}
_ADAPTIVE_POOLS = {"_adaptive_avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d", "fractional_max_pool2d"}
_EXTREMES = {"amax", "max", "amin", "min", "aminmax"}  # a minimum is the negative maximum of the negative
_REDUCTIONS = {"mean", "sum"} | _EXTREMES
_SORTS = {"topk", "sort", "cummax", "cummin", "kthvalue"}  # take a maximum, and keep more of the rest
_WHOLE_IMAGE = {
    "native_group_norm": "group norm takes statistics over the whole image, which no receptive field counts",
    "grid_sampler_2d": "grid sampling may read any position, which the rule does not count",
}
_SQUEEZE = ("a global pool feeds back into the feature map (squeeze-excite): every position then sees the whole image, "
            "which the probe counts and the rule does not")
_ATTENTION = ("a matrix product mixes positions (attention): every position may see the whole image, "
              "which the rule does not count")
_TRANSPOSED = "a transposed convolution: the rule divides the total stride by its stride"
_RESIZE = "a resize inside the model: the rule does not count the positions it reads"


class ReceptiveFieldTracker:
    "Carries a `FeatureMapInfo` from the inputs of each operation to its outputs, and counts operations by kind."

    def __init__(self, image: Tensor):
        self.maps = {id(image): FeatureMapInfo(tuple(image.shape[2:]), (2, 3))}
        self.downsampling: Counter[str] = Counter()
        # By the ids of their outputs:
        self.separable: set[tuple[int, int]] = set()  # a depthwise convolution, and the pointwise one that follows it
        self.dilated: set[int] = set()  # dilated convolutions
        self.notes: dict[str, None] = {}  # ordered set
        self.last_map: Tensor | None = None  # the input of the last global pool, else the last feature map

    def follow(
        self, name: str, args: tuple, tensors: list[Tensor], outs: list[Tensor],
        dim: int | list[int] | None,  # the argument of this name
        layer: dict,  # the record of the operation, completed here: kind, kernel, multiply-adds, …
    ) -> FeatureMapInfo:
        "The feature map after an operation; it is known from now on."
        after = self.after(name, args, tensors, outs[0], dim, layer)
        self.maps.update((id(t), after) for t in outs)
        if outs[0].dim() == 4 and not after.pooled:
            self.last_map = outs[0]
        return after

    def after(self, name: str, args: tuple, tensors: list[Tensor], out: Tensor, dim, layer: dict) -> FeatureMapInfo:
        tensor = args[0] if args and isinstance(args[0], Tensor) else tensors[0]
        x = self.maps.get(id(tensor))
        is_max = "max" in name
        if x and name == "convolution":
            return self.convolution(x, args, out, layer)
        if name in _LINEAR:
            return self.linear(name, tensors, out, layer)
        if x and name in _POOLS:
            kernel, stride = pair(args[1]), pair(args[2] if len(args) > 2 and args[2] else args[1])
            dilation = pair(args[4]) if name != "avg_pool2d" and len(args) > 4 else (1, 1)
            return self.pool(tensor, x, out, layer, kernel, stride, dilation, is_max)
        if x and name in _ADAPTIVE_POOLS:
            size = pooled_size(x, tensor)
            stride = tuple(max(1, i // o) for i, o in zip(size, out.shape[-2:], strict=True))
            axes = zip(size, out.shape[-2:], stride, strict=True)
            kernel = tuple(i - (o - 1) * s for i, o, s in axes)
            return self.pool(tensor, x, out, layer, kernel, stride, (1, 1), is_max)
        if x and name in _REDUCTIONS and len(tensors) == 1:
            return self.reduce(tensor, x, out, layer, dim, name in _EXTREMES)
        if x and name == "im2col":
            return self.im2col(x, args)
        if x and name in _SORTS and (x.windows or dim % tensor.dim() in x.dims):
            layer["kind"] = "max pool"
        return self.other_op(name, args, tensors, out, layer)

    def convolution(self, x: FeatureMapInfo, args: tuple, out: Tensor, layer: dict) -> FeatureMapInfo:
        weight, stride, dilation, transposed, groups = args[1], args[3], args[5], args[6], args[8]
        kernel = tuple(weight.shape[2:])
        depthwise = groups > 1 and weight.shape[1] == 1 and args[0].shape[1] == groups
        layer.update(
            kind="depthwise conv" if depthwise else "conv", kernel=kernel, stride=tuple(stride),
            dilation=tuple(dilation), groups=groups,
            macs=(args[0] if transposed else out).numel() // out.shape[0] * weight[0].numel(),
        )
        if len(kernel) != 2:  # over channels or time, not over pixels
            return replace(x, dims=locate(out.shape, x.size), depthwise=None)
        # A globally pooled map has one position: a larger kernel reads only padding beside it.
        if not x.pooled and any(k > 1 and d > 1 for k, d in zip(kernel, dilation, strict=True)):
            self.dilated.add(id(out))
        if transposed:
            self.notes[_TRANSPOSED] = None
            total = tuple(max(1, j // s) for j, s in zip(x.total_stride, stride, strict=True))
            x = replace(x, total_stride=total).window(kernel, (1, 1), dilation)
        else:
            x = x.window(kernel, stride, dilation)
            if max(stride) > 1:
                self.downsampling["strided conv"] += 1
        if x.depthwise is not None and max(kernel) == 1 and groups == 1:
            self.separable.add((x.depthwise, id(out)))
        marker = id(out) if depthwise and max(kernel) > 1 and not x.pooled else None
        return replace(x, size=tuple(out.shape[-2:]), dims=(out.dim() - 2, out.dim() - 1), depthwise=marker,
                       windows=False)

    def linear(self, name: str, tensors: list[Tensor], out: Tensor, layer: dict) -> FeatureMapInfo:
        left, right = tensors[1:3] if name in ("addmm", "baddbmm") else tensors[:2]
        layer.update(kind="linear", macs=out.numel() * left.shape[-1])
        contracted = ((left, left.dim() - 1), (right, right.dim() - 2))
        operands = [(self.maps[id(t)], dim) for t, dim in contracted if id(t) in self.maps]
        x = self.merged([x for x, _ in operands]) if operands else self.maps[id(tensors[0])]
        if x.pooled:
            return replace(x, dims=())
        mixes = any(dim in x.dims for x, dim in operands)
        if len(operands) > 1 or mixes:
            self.notes[_ATTENTION] = None
        pointwise = bool(x.dims) and not mixes
        if pointwise and x.depthwise is not None:
            self.separable.add((x.depthwise, id(out)))
        return replace(x, dims=locate(out.shape, x.size) if pointwise else (), depthwise=None, windows=False)

    def pool(
        self, tensor: Tensor, x: FeatureMapInfo, out: Tensor, layer: dict, kernel, stride, dilation, is_max: bool,
    ) -> FeatureMapInfo:
        kind = "max" if is_max else "average"
        layer.update(kernel=kernel, stride=stride, dilation=dilation)
        if all(k >= s for k, s in zip(kernel, pooled_size(x, tensor), strict=True)) and max(out.shape[-2:]) == 1:
            return self.global_pool(tensor, x, layer, kind)
        if max(kernel) == 1:  # a slice, of which there is neither a maximum nor a mean
            kind = "average"
        layer["kind"] = f"{kind} pool"
        if max(stride) > 1:
            self.downsampling[f"{kind} pool"] += 1
        x = x.window(kernel, stride, dilation)
        return replace(x, size=tuple(out.shape[-2:]), dims=(out.dim() - 2, out.dim() - 1), depthwise=None)

    def global_pool(self, tensor: Tensor, x: FeatureMapInfo, layer: dict, kind: str) -> FeatureMapInfo:
        if x.pooled:  # no positions are there to pool
            return replace(x, dims=())
        if kind == "average" or max(x.size) > 1:
            layer["kind"] = f"global {kind} pool"
        self.last_map = tensor
        return replace(x, size=(1, 1), dims=(), pooled=frozenset({kind}), depthwise=None, windows=False)

    def reduce(
        self, tensor: Tensor, x: FeatureMapInfo, out: Tensor, layer: dict, dim, is_max: bool,
    ) -> FeatureMapInfo:
        dims = [dim] if isinstance(dim, int) else dim
        dims = {d % tensor.dim() for d in dims or range(tensor.dim())}
        reduced = dims & set(x.dims)
        if x.windows and not x.pooled and not (reduced and reduced == set(x.dims)):
            layer["kind"] = "max pool" if is_max else layer["kind"]
            return replace(x.reshaped(out.shape), windows=out.dim() > 4, depthwise=None)
        if x.pooled or not reduced:
            return replace(x, dims=locate(out.shape, x.size), depthwise=None)
        if len(x.dims) == 2:
            size = tuple(1 if d in reduced else s for d, s in zip(x.dims, x.size, strict=True))
        else:
            size = (1, 1) if reduced == set(x.dims) else x.size
        if max(size) == 1:
            return self.global_pool(tensor, x, layer, "max" if is_max else "average")
        if is_max:
            layer["kind"] = "max pool"
        keepdim = out.dim() == tensor.dim()
        rest = x.dims if keepdim else tuple(d - sum(o < d for o in dims) for d in x.dims if d not in dims)
        return replace(x, size=size, dims=rest, depthwise=None)

    def im2col(self, x: FeatureMapInfo, args: tuple) -> FeatureMapInfo:
        "F.unfold: (N, C, H, W) → (N, C·k·k, positions)."
        kernel, dilation, padding, stride = map(pair, args[1:5])
        axes = zip(x.size, kernel, dilation, padding, stride, strict=True)
        size = tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, d, p, s in axes)
        if max(stride) > 1:
            self.downsampling["unfold"] += 1
        return replace(x.window(kernel, stride, dilation), size=size, dims=(2,), depthwise=None, windows=True)

    def other_op(self, name: str, args: tuple, tensors: list[Tensor], out: Tensor, layer: dict) -> FeatureMapInfo:
        "Element-wise operations, reshapes, and all others without a window."
        inputs = [t for t in tensors if id(t) in self.maps]
        x = self.merged([self.maps[id(t)] for t in inputs])
        if note := _WHOLE_IMAGE.get(name):
            self.notes[note] = None
        if name in _NORMS or "batch_norm" in name:
            layer["kind"] = "norm"
        if "max_pool" in name:  # in one or three dimensions
            layer["kind"] = "max pool"
        if x.pooled:
            return replace(x, dims=())
        if name in ("permute", "transpose", "t"):
            order = new_order(name, args, out.dim())
            return replace(x, dims=tuple(sorted(order.index(d) for d in x.dims)))
        x = self.resampled(name, args, x, out)
        if name == "unfold":
            return replace(x.reshaped(out.shape), windows=x.windows or args[1] % (out.dim() - 1) in x.dims)
        if name in _VIEWS or out.dim() != max(t.dim() for t in inputs):
            after = x.reshaped(out.shape)
            if after.total_stride != x.total_stride:
                self.downsampling["space to depth"] += 1
            return after
        if len(x.dims) == 2:
            x = replace(x, size=tuple(out.shape[d] for d in x.dims))
        return x

    def resampled(self, name: str, args: tuple, x: FeatureMapInfo, out: Tensor) -> FeatureMapInfo:
        "After a slice, a pixel unshuffle or a resize; any other operation changes nothing here."
        if name == "slice":
            step = args[4] if len(args) > 4 else 1
            if step > 1 and args[1] % out.dim() in x.dims and len(x.dims) == 2:
                self.downsampling["strided slice"] += 1
                axis = x.dims.index(args[1] % out.dim())
                return replace(x, total_stride=tuple(j * step if i == axis else j
                                                     for i, j in enumerate(x.total_stride)))
        if name == "pixel_unshuffle":
            self.downsampling["pixel unshuffle"] += 1
            return x.window(pair(args[1]), pair(args[1]))
        if name.startswith(("upsample", "_upsample")):
            self.notes[_RESIZE] = None
            if out.shape[-1] < x.size[-1]:
                self.downsampling["resize"] += 1
            axes = zip(x.total_stride, x.size, out.shape[-2:], strict=True)
            return replace(x, total_stride=tuple(max(1, j * i // o) for j, i, o in axes))
        return x

    def merged(self, maps: list[FeatureMapInfo]) -> FeatureMapInfo:
        "The feature map where branches meet; notes a globally pooled branch among the others."
        if len({bool(m.pooled) for m in maps}) > 1:
            self.notes[_SQUEEZE] = None
        return merge(maps)


def pooled_size(x: FeatureMapInfo, tensor: Tensor) -> tuple[int, int]:
    "What a pool has before it: of a flattened feature map, which pools in one dimension take, 1 and all positions."
    return tuple(tensor.shape[-2:]) if min(x.dims, default=0) >= tensor.dim() - 2 else x.size


def new_order(name: str, args: tuple, dims: int) -> list[int]:
    "Which dimension of the input each dimension of the output is, after permute, transpose or t."
    if name == "permute":
        return [d % dims for d in args[1]]
    order = list(range(dims))
    a, b = (args[1], args[2]) if name == "transpose" else (0, 1)
    order[a], order[b] = order[b], order[a]
    return order
