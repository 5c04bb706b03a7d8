"""What is known of a feature map: its size, receptive field and total stride, through windows and reshapes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class FeatureMapInfo:
    "What is known of a tensor that is computed from the image."

    size: tuple[int, int]  # height and width
    dims: tuple[int, ...]  # the tensor's spatial dimensions: two, or one where flattened
    receptive_field: tuple[int, int] = (1, 1)  # pixels
    total_stride: tuple[int, int] = (1, 1)  # pixels between neighbouring positions
    pooled: frozenset[str] = frozenset()  # "average", "max": the global pools applied so far
    depthwise: int | None = None  # id of the depthwise convolution that only element-wise operations followed
    windows: bool = False  # a dimension holds the positions of windows, or may: after unfold, or a view that splits

    def window(self, kernel, stride, dilation=(1, 1)) -> "FeatureMapInfo":
        "After a convolution or pool, by the rule; a globally pooled map has no positions and stays as it is."
        if self.pooled:
            return self
        axes = zip(self.receptive_field, self.total_stride, kernel, dilation, strict=True)
        field = tuple(r + (k - 1) * d * j for r, j, k, d in axes)
        total = tuple(j * s for j, s in zip(self.total_stride, stride, strict=True))
        return replace(self, receptive_field=field, total_stride=total)

    def reshaped(self, shape: Sequence[int]) -> "FeatureMapInfo":
        """After a view. Where the positions of windows became channels (space to depth), a window of that size.

        A view that scrambles positions is taken for one too; there the probe tells what is seen.
        """
        dims = locate(shape, self.size)
        x = replace(self, dims=dims, windows=self.windows or len(shape) > 4 and len(dims) > 2)
        if x.windows and len(shape) == 4 and shape[0] == 1 and len(dims) == 2 and shape[dims[0]:][:2] != self.size:
            for i in (2, 1):  # channels first or last
                size = tuple(shape[i:i + 2])
                if all(a % b == 0 for a, b in zip(self.size, size, strict=True)):
                    ratio = tuple(a // b for a, b in zip(self.size, size, strict=True))
                    return replace(x.window(ratio, ratio), size=size, dims=(i, i + 1))
        return x


def merge(maps: Sequence[FeatureMapInfo]) -> FeatureMapInfo:
    "Where branches meet: the largest receptive field and total stride of those that are not globally pooled."
    whole = [m for m in maps if not m.pooled]
    if not whole:
        return replace(maps[0], pooled=frozenset().union(*(m.pooled for m in maps)))
    largest = max(whole, key=lambda m: (len(m.dims), m.size))
    return replace(
        largest,
        receptive_field=tuple(max(axis) for axis in zip(*(m.receptive_field for m in whole), strict=True)),
        total_stride=tuple(max(axis) for axis in zip(*(m.total_stride for m in whole), strict=True)),
        depthwise=whole[0].depthwise if len({m.depthwise for m in whole}) == 1 else None,
        windows=any(m.windows for m in whole),
    )


def pair(value) -> tuple[int, int]:
    value = (value,) if isinstance(value, int) else tuple(value)
    return value if len(value) == 2 else value * 2


def locate(shape: Sequence[int], size: tuple[int, int]) -> tuple[int, ...]:
    "The spatial dimensions after a reshape: a pair of this size, one flattened dimension, or all that may be."
    shape, n = tuple(shape), len(shape)
    for i in [n - 2, *range(1, n - 2)]:
        if i >= 1 and shape[i:i + 2] == size:
            return (i, i + 1)
    if flat := [d for d in range(n) if shape[d] == size[0] * size[1] > 1]:
        return (flat[-1],)
    return () if n <= 2 else tuple(range(2, n))
