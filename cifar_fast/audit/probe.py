"""The receptive field, measured: how far the gradient of one unit reaches into the image."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from cifar_fast.audit.feature_maps import pair
from cifar_fast.audit.op_recorder import OpRecorder, eval_copy
from cifar_fast.audit.params import weights
from cifar_fast.utils.errors import SettingError

REFUSALS = (RuntimeError, ValueError, AssertionError)
"What models raise at images of a size that they do not take."

_IDENTITY = {
    "relu", "relu_", "relu6", "leaky_relu", "leaky_relu_", "prelu", "rrelu", "elu", "elu_", "selu", "celu",
    "gelu", "silu", "mish", "hardswish", "hardtanh", "hardtanh_", "hardsigmoid", "sigmoid", "sigmoid_",
    "logsigmoid", "tanh", "tanh_", "softplus", "softsign", "tanhshrink", "dropout", "batch_norm",
    "instance_norm", "group_norm", "layer_norm", "rms_norm",
}


def _window_mean(input, kernel_size, stride=None, padding=0, dilation=1, *_, **__):
    "Instead of a max pool, whose gradient reaches one position of the window only."
    kernel, channels = pair(kernel_size), input.shape[1]
    weight = input.new_full((channels, 1, *kernel), 1 / (kernel[0] * kernel[1]))
    return F.conv2d(input, weight, None, stride or kernel_size, padding, dilation, channels)


def _double(t: Tensor) -> Tensor:
    return t.double() if t.is_floating_point() else t


class _Linearised(TorchFunctionMode):
    "Activations and normalisations become the identity, functional ones too; a max pool becomes a mean."

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
    "Absolute weights in rows that add up to 1, so that nothing overflows or vanishes; no biases."
    for name, w in weights(model):
        if name.split(".")[-1] == "bias":
            w.zero_()
            continue
        w.abs_()
        if not w.any():  # such as the zero gain of a residual branch at the start of training
            w.fill_(1)
        if w.dim() > 1:
            w /= w.flatten(1).sum(1).clamp_min(1e-12).view(-1, *[1] * (w.dim() - 1))


def _last_map(model: nn.Module, images: Tensor) -> Tensor:
    "The last feature map: timm's `forward_features`, else the input of the last global pool."
    if hasattr(model, "forward_features"):
        last = model.forward_features(images)
    else:
        with OpRecorder(model, images) as recorder:
            model(images)
        last = recorder.tracker.last_map
    if not isinstance(last, Tensor) or last.dim() != 4:
        raise SettingError(f"{type(model).__name__} has no last feature map (N, C, H, W), which the probe needs")
    return last


@dataclass(frozen=True)
class MeasuredField:
    "A receptive field, as far as the image shows it."

    pixels: int
    image: int  # pixels of the image
    cut_off: bool  # the field touches the edge of the largest possible image: it has at least so many pixels


def receptive_field_probe(
    model: nn.Module,
    input_size: tuple[int, int, int] = (3, 32, 32),  # its channels, and the smallest size that is tried
    max_size: int = 512,  # pixels of the largest image; a receptive field that fills it is returned as this
) -> int:
    """The receptive field in pixels, measured: the extent of the gradient of one centre position before the pool.

    The copy has positive float64 weights, no biases, and the identity for activations and normalisations: gradients
    neither cancel nor vanish, so a zero one is out of reach. The image grows until the field no longer touches its
    edge, or the model takes no larger one; with squeeze-excite, which sees everything, the result is the size of the
    largest image. SettingError where there is no feature map to probe; the model's own error where it accepts no size.
    """
    return measured_field(model, input_size, max_size).pixels


def measured_field(model: nn.Module, input_size: tuple[int, int, int], max_size: int) -> MeasuredField:
    "`receptive_field_probe`, and whether that is the whole field."
    native = max(input_size[1:])
    size, field = max(64, native), None
    with eval_copy(model, torch.float64) as copied, torch.enable_grad():
        _make_positive(copied)
        while True:
            try:
                spans = _extent(copied, input_size[0], size)
            except REFUSALS:
                if field:
                    return field
                if size == native:
                    raise
                size = max_size = native
                continue
            cut_off = any(low == 0 or high == size - 1 for low, high in spans)
            field = MeasuredField(max(high - low + 1 for low, high in spans), size, cut_off)
            if not cut_off or size >= max_size:
                return field
            size = min(2 * size, max_size)


def _extent(model: nn.Module, channels: int, size: int) -> list[tuple[int, int]]:
    "First and last row, first and last column that a centre position of the last feature map sees."
    # Small and positive: hard and saturating functions that _IDENTITY lacks keep a slope.
    images = torch.full((1, channels, size, size), 1e-3, dtype=torch.float64).requires_grad_()
    with _Linearised():
        last = _last_map(model, images)
    height, width = last.shape[2:]
    centre = last[0, :, height // 2, width // 2].sum()
    seen = torch.autograd.grad(centre, images)[0][0].abs().sum(0) > 0
    if not seen.any():
        raise SettingError(f"no gradient flows through {type(model).__name__}: somewhere it is multiplied by zero")
    indices = [axis.nonzero().flatten() for axis in (seen.any(1), seen.any(0))]
    return [(int(line[0]), int(line[-1])) for line in indices]
