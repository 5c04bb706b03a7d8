"""What a model needs on a device in int8: flash for its weights, RAM for its activations.

Counted on the recorded operations as int8 runtimes execute them: a batch norm behind a convolution is folded into it,
ReLU is part of the operation before it, and every other operation writes a buffer of its own. What a runtime adds (its
code, the graph, its own records) is not counted.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

FUSED = {"relu", "relu6", "hardtanh", "clamp", "clamp_min"}
"Activations that limit a range: int8 runtimes apply them as they write the output of the operation before."

EXTRA = {"silu": 1, "mish": 1}
"Buffers of the output's size that an operation needs beside it: silu is a sigmoid and a product."

SCALE = BIAS = 4  # bytes a channel: float32 and int32


@dataclass(frozen=True)
class Step:
    "An operation by the buffers that it reads and writes."

    reads: frozenset[int]
    writes: int
    size: int  # of what it writes: elements, which are bytes in int8
    extra: int = 0  # bytes needed while it runs
    fused: bool = False  # runs as part of the operation that wrote what it reads


class Int8Cost:
    "Follows one image through the recorded operations. A buffer is known by its storage, which views share."

    def __init__(self, image: Tensor):
        self.image = buffer(image)
        self.size = image.numel()
        self.steps: list[Step] = []
        self.flash = 0
        self.unbiased: dict[int, int] = {}  # output of a convolution that nothing but views followed → its channels
        self.stored: set[int] = set()  # weights, so that shared ones count once

    def follow(
        self, name: str,
        images: Sequence[Tensor],  # the inputs that are computed from the image
        weights: Sequence[Tensor],  # the other ones
        out: Tensor,
        layer: dict,  # the record of the operation: kind, params
    ) -> None:
        reads, writes = frozenset(map(buffer, images)), buffer(out)
        folded = layer["kind"] == "norm" and "batch_norm" in name and self.fold(buffer(images[0]))
        is_view = writes in reads and not layer["op"].endswith("_")
        if is_view:
            return
        for key in reads | {writes}:
            self.unbiased.pop(key, None)
        if layer["macs"] and weights:
            self.weights(weights, out, layer["kind"])
        elif layer["kind"] == "norm":
            self.flash += 0 if folded else 2 * BIAS * out.shape[1]
        else:
            self.flash += layer["params"]
        fused = folded or name in FUSED
        extra = EXTRA.get(name, 0) + (writes in reads and not fused)
        self.steps.append(Step(reads, writes, out.numel(), extra * out.numel(), fused))

    def fold(self, key: int) -> bool:
        "Whether a batch norm that reads this buffer becomes the bias and scales of the convolution that wrote it."
        channels = self.unbiased.pop(key, None)
        self.flash += BIAS * (channels or 0)
        return channels is not None

    def weights(self, weights: Sequence[Tensor], out: Tensor, kind: str) -> None:
        "One byte a weight, and scales by channel; a bias where there is one, or where a batch norm brings one."
        kernel = max(weights, key=Tensor.numel)
        channels = out.shape[1] if kind.endswith("conv") else out.shape[-1]
        biased = len(weights) > 1
        shared = buffer(kernel) in self.stored
        if kind.endswith("conv"):
            self.unbiased[buffer(out)] = 0 if biased or shared else channels
        if not shared:
            self.stored.add(buffer(kernel))
            self.flash += kernel.numel() + (SCALE + BIAS * biased) * channels

    def ram(self) -> int:
        "Bytes of the buffers that are alive at once, at most: from the operation that writes one to the last reader."
        readers = Counter(key for step in self.steps for key in step.reads)
        owner, sizes, first, last = {self.image: self.image}, {self.image: self.size}, {self.image: 0}, {}
        for i, step in enumerate(self.steps):
            for key in step.reads:
                last[owner.get(key, key)] = i
            if step.writes not in owner:
                (read, *others) = step.reads
                fused = step.fused and not others and readers[read] == 1
                owner[step.writes] = owner.get(read, read) if fused else step.writes
            mine = owner[step.writes]
            first.setdefault(mine, i)
            last[mine] = max(last.get(mine, i), i)
            sizes[mine] = max(sizes.get(mine, 0), step.size)
        return max((step.extra + sum(size for key, size in sizes.items() if first[key] <= i <= last.get(key, 0))
                    for i, step in enumerate(self.steps)), default=self.size)


def buffer(t: Tensor) -> int:
    return t.untyped_storage().data_ptr()
