"""What counts as a parameter."""

from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase


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
