"""A map and where it stands: positions, receptive field and jump, through windows and reshapes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Map:
    "What is known about a tensor that follows from the image."

    size: tuple[int, int]  # height and width of the map
    dims: tuple[int, ...]  # the tensor's dimensions that are positions: two, or one where flattened
    field: tuple[int, int] = (1, 1)
    jump: tuple[int, int] = (1, 1)
    pooled: frozenset[str] = frozenset()  # "average", "max": the global pools behind it
    depthwise: int | None = None  # the depthwise convolution that only element-wise operations followed

    def window(self, kernel, stride, dilation=(1, 1)) -> "Map":
        "The rule; a map that is pooled globally has no positions left."
        if self.pooled:
            return self
        axes = zip(self.field, self.jump, kernel, stride, dilation, strict=True)
        grown = [(r + (k - 1) * d * j, j * s) for r, j, k, s, d in axes]
        return replace(self, field=tuple(r for r, _ in grown), jump=tuple(j for _, j in grown))


def pair(value) -> tuple[int, int]:
    value = (value,) if isinstance(value, int) else tuple(value)
    return value if len(value) == 2 else value * 2


def locate(shape: Sequence[int], size: tuple[int, int]) -> tuple[int, ...]:
    "The dimensions that hold a map's positions after a reshape: a pair, a flattened one, or all that might."
    shape, n = tuple(shape), len(shape)
    for i in [n - 2, *range(1, n - 2)]:
        if i >= 1 and shape[i:i + 2] == size:
            return (i, i + 1)
    if flat := [d for d in range(n) if shape[d] == size[0] * size[1] > 1]:
        return (flat[-1],)
    return () if n <= 2 else tuple(range(2, n))
