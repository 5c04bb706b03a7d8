"""Which tensors count as parameters."""

from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase


def weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every parameter, frozen or not, then every floating-point buffer except normalisation statistics.

    Statistics are running_mean and running_var of torch's `_NormBase` (BatchNorm, InstanceNorm, SyncBatchNorm and their
    subclasses). Any other floating-point buffer may serve as a weight, so it counts. A shared tensor comes once. What
    else serves as one (integer buffers, tensors that are no buffers) shows only when the model runs: see `profile`.
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
    "All weights: frozen ones and buffers included, shared ones once."
    return sum(w.numel() for _, w in weights(model))
