"""The receptive field, measured: how far the gradient of one unit reaches into the image."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from cifar_fast.audit.feature_maps import pair
from cifar_fast.audit.op_recorder import OpRecorder, eval_copy
from cifar_fast.audit.params import weights

_IDENTITY = {
    "relu", "relu_", "relu6", "leaky_relu", "leaky_relu_", "prelu", "rrelu", "elu", "elu_", "selu", "celu",
    "gelu", "silu", "mish", "hardswish", "hardtanh", "hardtanh_", "hardsigmoid", "sigmoid", "sigmoid_",
    "logsigmoid", "tanh", "tanh_", "softplus", "softsign", "tanhshrink", "dropout", "batch_norm",
    "instance_norm", "group_norm", "layer_norm", "rms_norm",
}


def _window_mean(input, kernel_size, stride=None, padding=0, dilation=1, *_, **__):
    "In place of a max pool, whose gradient reaches one position of the window only."
    kernel, channels = pair(kernel_size), input.shape[1]
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


def _last_map(model: nn.Module, images: Tensor) -> Tensor:
    "The map before the global pool: timm's `forward_features`, or else what the last global pool reads."
    if hasattr(model, "forward_features"):
        found = model.forward_features(images)
    else:
        with OpRecorder(model, images) as census:
            model(images)
        found = census.follower.last_map
    if not isinstance(found, Tensor) or found.dim() != 4:
        raise ValueError(f"{type(model).__name__} ends in no map (N, C, H, W) that could be probed")
    return found


def receptive_field_probe(
    model: nn.Module,
    input_size: tuple[int, int, int] = (3, 32, 32),  # only its channels, and the least size that is tried
    max_size: int = 512,  # pixels of the largest image; a field that fills it is returned as this
) -> int:
    """The receptive field in pixels, measured: the extent of the gradient of one centre unit before the pool.

    On a copy in float64 with positive weights, no biases, and activations and normalisations as identity, no
    gradient cancels or vanishes, so what is zero is out of reach. The image grows until the field no longer
    touches its edge. A squeeze-excite gate sees everything: then it is the size of the largest image tried.
    ValueError where there is no map to probe; the network's own error where it runs at no size.
    """
    native = max(input_size[1:])
    size = max(64, native)
    with eval_copy(model, torch.float64) as twin, torch.enable_grad():
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
    images = torch.full((1, channels, size, size), 1e-3, dtype=torch.float64).requires_grad_()
    with _Linearised():
        found = _last_map(model, images)
    height, width = found.shape[2:]
    unit = found[0, :, height // 2, width // 2].sum()
    seen = torch.autograd.grad(unit, images)[0][0].abs().sum(0) > 0
    if not seen.any():
        raise ValueError(f"no gradient flows through {type(model).__name__}: a weight closes it everywhere")
    lines = [axis.nonzero().flatten() for axis in (seen.any(1), seen.any(0))]
    return [(int(line[0]), int(line[-1])) for line in lines]
