"""Gradients of convolutions in bf16 and fp16 on a CPU, where oneDNN's kernels for some of them are wrong or slow.

With dilation, channels last and a map 30 or more pixels wide, the gradient of the weights may come out of memory that
nobody has written: always for depthwise kernels, and by the number of channels for others (52 and 72, not 32 and 64;
torch 2.15 with oneDNN 3.13, on a processor with AVX-512 and bf16). And depthwise kernels that are dilated or larger
than 3×3 have a reference kernel only, which is many times slower. Both are avoided by writing the sum in another way
(or, for the rare kernels that are dilated and have a stride, by computing it in fp32):

- a dilated convolution is one without dilation of every d-th row and column, of which there are d × d sets;
- the gradient of a large depthwise kernel consists of those of its 3×3 parts, each with the image shifted to that
  part's place.

`install` replaces PyTorch's operator in this process, so that models of any origin have it, and torch.compile, which
calls the same operator. All that is not named here goes on to PyTorch's own.

`bench gradients` times them, and `python tests/gradients.py` compares them with float32.
"""

from functools import cache, partial
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, library

OPERATOR = "aten::convolution_backward"
FAST = 3  # side of the depthwise kernels that oneDNN has a fast gradient for
NARROW = 16  # pixels; up to this width its dilated kernels are right, and faster than ours where not depthwise
LOW = (torch.bfloat16, torch.float16)  # in fp32 PyTorch's gradients are right, and on large maps as fast as these


@cache  # once is enough; what it returns must live on, or PyTorch goes back to its own
def install() -> library.Library:
    "From now on in this process."
    own = library.get_kernel(OPERATOR, "CPU")
    operators = library.Library("aten", "IMPL")
    operators.impl(OPERATOR.removeprefix("aten::"), partial(backward, own), "CPU", with_keyset=True)
    return operators


def backward(own, keyset, grad: Tensor, x: Tensor, weight: Tensor, bias_sizes, stride, padding, dilation,
             transposed: bool, output_padding, groups: int, mask) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The gradients of x, weight and bias that `mask` asks for.

    `own` is the operator that this one replaces; the other arguments are that operator's.
    """
    def pytorch(grad, x, weight, padding, dilation, mask):
        return own.call_boxed(keyset, grad, x, weight, bias_sizes, stride, padding, dilation, transposed,
                              output_padding, groups, mask)

    if x.ndim != 4 or transposed or x.dtype not in LOW or x.numel() == 0:
        return pytorch(grad, x, weight, padding, dilation, mask)
    depthwise = groups == x.shape[1] == weight.shape[0]
    large = depthwise and max(weight.shape[2:]) > FAST <= min(weight.shape[2:])
    dilated = max(dilation) > 1 and (depthwise or x.shape[3] > NARROW)
    if dilated and max(stride) > 1:  # rare, and neither way fits
        exact = pytorch(grad.float(), x.float(), weight.float(), padding, dilation, mask)
        return tuple(g if g is None else g.to(x.dtype) for g in exact)
    if not dilated and (not large or max(stride) > 1):
        return pytorch(grad, x, weight, padding, dilation, mask)
    for_bias = grad.sum((0, 2, 3)) if mask[2] else None
    if not dilated:
        return *undilated(grad, x, weight, padding, mask, large, pytorch), for_bias
    n, _, height, width = x.shape
    # A set of rows has its share of the padding where the dilation divides it; else all of it is made rows first.
    top, left = (p if p % d else 0 for p, d in zip(padding, dilation, strict=True))
    padding = [p // d if p % d == 0 else 0 for p, d in zip(padding, dilation, strict=True)]
    x = F.pad(x, (left, left, top, top))
    for_x, for_weight = undilated(split(grad, dilation), split(x, dilation), weight, padding, mask, large,
                                    pytorch)
    if for_x is not None:
        for_x = join(for_x, dilation, n)[:, :, top:top + height, left:left + width]
    return for_x, for_weight, for_bias


def undilated(grad: Tensor, x: Tensor, weight: Tensor, padding, mask, large: bool,
              pytorch) -> tuple[Tensor | None, Tensor | None]:
    "The gradients of x and weight. Those of x are fast for kernels of any size."
    for_weight = weight_gradient(grad, x, weight, padding, pytorch) if large and mask[1] else None
    rest = [mask[0], mask[1] and for_weight is None, False]
    if not any(rest):
        return None, for_weight
    for_x, of_small = pytorch(grad, x, weight, padding, [1, 1], rest)[:2]
    return for_x, of_small if for_weight is None else for_weight


def weight_gradient(grad: Tensor, x: Tensor, weight: Tensor, padding, pytorch) -> Tensor:
    "Of a kernel without dilation, (C, 1, k, l), from parts of 3×3. The last ones overlap where 3 does not divide k."
    x = F.pad(x, (padding[1], padding[1], padding[0], padding[0]))
    height, width = (side + FAST - 1 for side in grad.shape[2:])
    result, part = torch.empty_like(weight), weight[:, :, :FAST, :FAST].contiguous()
    for i, j in product(*(sorted({min(s, k - FAST) for s in range(0, k, FAST)}) for k in weight.shape[2:])):
        shifted = x[:, :, i:i + height, j:j + width].contiguous(memory_format=torch.channels_last)
        result[:, :, i:i + FAST, j:j + FAST] = pytorch(grad, shifted, part, [0, 0], [1, 1], [False, True, False])[1]
    return result


def split(x: Tensor, dilation) -> Tensor:
    "(N, C, H, W) → (N d e, C, ⌈H / d⌉, ⌈W / e⌉): every d-th row and e-th column, zeros where there are none left."
    d, e = dilation
    x = F.pad(x, (0, -x.shape[3] % e, 0, -x.shape[2] % d)).permute(0, 2, 3, 1)
    n, h, w, c = x.shape
    return x.reshape(n, h // d, d, w // e, e, c).permute(0, 2, 4, 1, 3, 5).reshape(-1, h // d, w // e, c).permute(
        0, 3, 1, 2)


def join(x: Tensor, dilation, n: int) -> Tensor:
    "The inverse of `split`, with its zeros: (N d e, C, h, w) → (N, C, d h, e w)."
    d, e = dilation
    _, c, h, w = x.shape
    return x.permute(0, 2, 3, 1).reshape(n, d, e, h, w, c).permute(0, 3, 1, 4, 2, 5).reshape(
        n, d * h, e * w, c).permute(0, 3, 1, 2)
