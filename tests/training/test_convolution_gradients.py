from itertools import product

import pytest
import torch
import torch.nn.functional as F
from gradients import fill_free_memory

from cifar_fast.training import convolution_gradients
from cifar_fast.training.convolution_gradients import install, join, split

SIDES = ((9, 31), (32, 32), (8, 8), (7, 10))
KERNELS = ((1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (7, 7), (3, 5), (1, 5), (5, 1), (2, 5))
DILATIONS = ((1, 1), (2, 2), (3, 3), (2, 1), (4, 3))


def gradients(conv, x, weight, bias, grad):
    return torch.autograd.grad(conv(x, weight, bias), (x, weight, bias), grad)


def arithmetic(stride, padding, dilation, groups):
    "A convolution as sums of shifted images, without PyTorch's operator."
    def conv(x, weight, bias):
        (d, e), (k, m) = dilation, weight.shape[2:]
        x = F.pad(x, (padding[1], padding[1], padding[0], padding[0]))
        height, width = (x.shape[2] - d * (k - 1) - 1) // stride + 1, (x.shape[3] - e * (m - 1) - 1) // stride + 1
        shifted = {(i, j): x[:, :, i * d:i * d + (height - 1) * stride + 1:stride,
                             j * e:j * e + (width - 1) * stride + 1:stride] for i in range(k) for j in range(m)}
        weight = weight.unflatten(0, (groups, -1))
        parts = (torch.einsum("ngchw,goc->ngohw", x.unflatten(1, (groups, -1)), weight[..., i, j])
                 for (i, j), x in shifted.items())
        return sum(parts).flatten(1, 2) + bias[:, None, None]
    return conv


def errors(dtype, memory_format, kernel, stride, dilation, size, pad, channels=6, groups=0):
    "Relative ones of the gradients of image, weight and bias; none where the kernel is larger than the image."
    padding = [d * (k - 1) // 2 if pad == "same" else pad for d, k in zip(dilation, kernel, strict=True)]
    if any(s + 2 * p <= d * (k - 1) for s, p, d, k in zip(size, padding, dilation, kernel, strict=True)):
        return []
    draw = torch.Generator().manual_seed(0)
    groups = groups or channels  # depthwise
    shapes = (3, channels, *size), (channels, channels // groups, *kernel), (channels,)
    inputs = [torch.randn(*shape, generator=draw).to(dtype) for shape in shapes]
    inputs[0] = inputs[0].contiguous(memory_format=memory_format)
    exact = [t.double().requires_grad_() for t in inputs]
    given = [t.requires_grad_() for t in inputs]
    true = arithmetic(stride, padding, dilation, groups)
    grad = torch.randn(true(*exact).shape, generator=draw).to(dtype).contiguous(memory_format=memory_format)
    fill_free_memory()
    found = gradients(lambda x, w, b: F.conv2d(x, w, b, stride, padding, dilation, groups), *given, grad)
    expected = gradients(true, *exact, grad.double())
    assert [g.dtype for g in found] == [dtype] * 3
    return [((f.double() - e).norm() / e.norm().clamp(min=1e-9)).item() for f, e in zip(found, expected, strict=True)]


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("kernel", KERNELS)
def test_they_are_those_of_the_sum(monkeypatch, kernel, memory_format):
    "In float64, which PyTorch would do itself, a mistake cannot hide behind rounding."
    install()
    monkeypatch.setattr(convolution_gradients, "LOW", (torch.float64,))
    for stride, dilation, size, pad, groups in product((1, 2), DILATIONS, SIDES, (0, 1, 3, "same"), (6, 1, 2)):
        if groups != 6 and pad in (1, 3):
            continue
        case = errors(torch.float64, memory_format, kernel, stride, dilation, size, pad, groups=groups)
        # With a stride they are computed in float32.
        assert all(e < (1e-12 if stride == 1 else 1e-5) for e in case), (stride, dilation, size, pad, groups, case)


@pytest.mark.parametrize("side", [8, 16, 30, 32, 33, pytest.param(64, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kernel, stride, dilation", [(3, 1, 2), (3, 1, 4), (5, 1, 2), (5, 1, 1), (7, 1, 1), (3, 2, 2)])
def test_in_bf16_they_are_right_to_its_rounding(side, kernel, stride, dilation):
    "oneDNN's own gradient of a dilated kernel may be off by more than its length on maps 30 or more wide."
    install()
    for memory_format, (channels, groups) in product((torch.channels_last, torch.contiguous_format),
                                                     ((24, 24), (24, 1), (52, 2), (52, 1))):
        case = errors(torch.bfloat16, memory_format, (kernel,) * 2, stride, (dilation,) * 2, (side,) * 2, "same",
                      channels, groups)
        assert max(case) < 0.01, (memory_format, channels, groups, case)


@pytest.mark.parametrize("frozen", ["image", "weight"])
def test_only_what_is_asked_for_is_computed(frozen):
    install()
    x, weight = torch.randn(2, 4, 8, 8).bfloat16(), torch.randn(4, 1, 5, 5).bfloat16()
    asked = weight.requires_grad_() if frozen == "image" else x.requires_grad_()
    F.conv2d(x, weight, None, 1, 4, 2, 4).sum().backward()
    assert asked.grad is not None
    assert (x if frozen == "image" else weight).grad is None


def test_an_empty_batch_has_gradients():
    install()
    x, weight = torch.randn(0, 4, 8, 8).bfloat16(), torch.randn(4, 1, 3, 3).bfloat16().requires_grad_()
    F.conv2d(x, weight, None, 1, 2, 2, 4).sum().backward()
    assert weight.grad.eq(0).all()


@pytest.mark.parametrize("dilation", [(2, 2), (3, 1), (2, 5)])
def test_splitting_into_rows_and_columns_is_undone(dilation):
    x = torch.randn(3, 2, 7, 10)
    assert join(split(x, dilation), dilation, 3)[:, :, :7, :10].equal(x)


def test_a_learner_on_a_cpu_has_them(digits):
    from tiny import tiny

    from cifar_fast.training.prepare import prepare

    install.cache_clear()
    prepare(tiny())
    assert install.cache_info().currsize == 1
    assert max(errors(torch.bfloat16, torch.channels_last, (3, 3), 1, (2, 2), (32, 32), "same", 16)) < 0.01
