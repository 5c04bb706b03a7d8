"""Flip-equivariant layers, and the model of them."""

import pytest
import timm
import torch
from torch import nn

from cifar_fast.models.flip_equivariant import (
    FlipEquivariantConv2d,
    FlipEquivariantConvBnAct,
    GroupPooling,
    flip_equivariant_separable,
    merge_halves,
    split_halves,
)

in_both_formats = pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last], ids=str)


def flipped(x):
    "What a feature map with two halves becomes when its image is flipped: flipped, the halves swapped."
    return x.flip(-1).roll(x.shape[1] // 2, 1)


def randomize(norm):
    "Scales and shifts other than the initial ones and zeros."
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)


@pytest.mark.parametrize("kwargs", [
    dict(), dict(kernel_size=1), dict(dilation=2), dict(kernel_size=4, stride=2), dict(kernel_size=2, stride=2),
    dict(groups=8), dict(groups=8, dilation=2), dict(kernel_size=5), dict(kernel_size=5, stride=3),
    dict(kernel_size=4, stride=4), dict(kernel_size=6, stride=4),
], ids=str)
def test_a_convolution_is_flip_equivariant(kwargs):
    torch.manual_seed(0)
    conv, x = FlipEquivariantConv2d(8, 8, **kwargs).double(), torch.randn(2, 8, 12, 12, dtype=torch.float64)
    out = conv(x)
    assert torch.allclose(conv(flipped(x)), flipped(out), atol=1e-12)
    asymmetric = conv.kernels().shape[-1] > 1  # which a pointwise one never is
    assert torch.allclose(conv(x.flip(-1)), out.flip(-1), atol=1e-6) != asymmetric
    assert out.shape[-1] == 12 // kwargs.get("stride", 1)
    assert 2 * conv.weight.numel() == conv.kernels().numel()


def test_the_lifting_convolution_takes_images():
    torch.manual_seed(0)
    conv, x = FlipEquivariantConv2d(3, 6, lifting=True).double(), torch.randn(2, 3, 9, 9, dtype=torch.float64)
    assert torch.allclose(conv(x.flip(-1)), flipped(conv(x)), atol=1e-12)


@pytest.mark.parametrize("kwargs, text", [
    (dict(out_channels=7), "8 → 7 channels"), (dict(in_channels=7), "7 → 8 channels"),
    (dict(groups=2), "in 2 groups"), (dict(groups=8, lifting=True), "in 8 groups"),
    (dict(groups=8, out_channels=16), "8 → 16 channels in 8 groups"),
    (dict(stride=2), "kernel of 3 with dilation 1 at stride 2"),
    (dict(kernel_size=4, stride=2, dilation=2), "kernel of 4 with dilation 2 at stride 2"),
    (dict(kernel_size=2, stride=4), "kernel of 2 with dilation 1 at stride 4"),
    (dict(kernel_size=4, stride=3), "kernel of 4 with dilation 1 at stride 3"),
], ids=str)
def test_what_is_not_flip_equivariant_is_refused(kwargs, text):
    with pytest.raises(ValueError, match=text):
        FlipEquivariantConv2d(**{"in_channels": 8, "out_channels": 8, **kwargs})


@in_both_formats
def test_merged_halves_are_a_view(memory):
    x = torch.randn(4, 6, 5, 3).to(memory_format=memory)
    merged = merge_halves(x)
    assert merged.shape[1] == 3 and merged.data_ptr() == x.data_ptr()
    assert merged.is_contiguous(memory_format=memory)
    assert torch.equal(split_halves(merged, x), x) and split_halves(merged, x).stride() == x.stride()


@pytest.mark.parametrize("shape", [(2, 2, 4, 4), (2, 6, 1, 1), (1, 2, 1, 1), (3, 4, 1, 5)], ids=str)
@in_both_formats
def test_halves_of_narrow_maps(shape, memory):
    "Where a tensor has both formats at once, too."
    x = torch.randn(shape).to(memory_format=memory)
    assert torch.equal(split_halves(merge_halves(x), x), x)
    assert torch.allclose(merge_halves(x).sum((0, 2, 3)), x.unflatten(1, (2, -1)).sum((0, 1, 3, 4)), atol=1e-5)


@in_both_formats
def test_batch_norm_is_that_of_both_halves_together(memory):
    "As torch's own on both halves as one batch, with gradients and running statistics."
    torch.manual_seed(0)
    unit, reference = FlipEquivariantConvBnAct(6, 6, act_layer="").double(), nn.BatchNorm2d(3).double()
    unit.conv, norm = nn.Identity(), unit.bn
    randomize(norm)
    reference.load_state_dict(norm.state_dict())
    for step in range(3):
        x = torch.randn(8, 6, 5, 4, dtype=torch.float64) * (step + 1) + torch.arange(6)[:, None, None]
        x = x.to(memory_format=memory).requires_grad_()
        out, expected = unit(x), reference(torch.cat([x[:, :3], x[:, 3:]]))
        assert torch.allclose(out, torch.cat([expected[:8], expected[8:]], 1))
        assert out.is_contiguous(memory_format=memory)
        gradients = [torch.autograd.grad(y.pow(3).sum(), [x, m.weight])
                     for y, m in ((out, norm), (expected, reference))]
        assert all(torch.allclose(*pair) for pair in zip(*gradients, strict=True))
    assert norm.num_batches_tracked == 3
    assert all(torch.allclose(v, reference.state_dict()[k]) for k, v in norm.state_dict().items())
    unit.eval()
    assert torch.allclose(unit(flipped(x)), flipped(unit(x)))


@in_both_formats
def test_group_pooling_is_flipped_and_nothing_else(memory):
    x = torch.randn(2, 6, 4, 4).to(memory_format=memory)
    pooled = GroupPooling()(x)
    assert pooled.shape == (2, 3, 4, 4)
    assert torch.allclose(GroupPooling()(flipped(x)), pooled.flip(-1))
    assert torch.allclose(pooled, (x[:, :3] + x[:, 3:]) / 2)


def test_channels_stay_last_in_both_directions():
    "One gradient in another order would make every residual block before it read across memory."
    model = timm.create_model("cifar_mirror").to(memory_format=torch.channels_last).train()
    maps = []

    def keep(_, __, out):
        maps.append(out)
        out.register_hook(maps.append)

    for layer in (m for m in model.modules() if isinstance(m, FlipEquivariantConv2d | nn.BatchNorm2d | nn.SiLU)):
        layer.register_forward_hook(keep)
    model(torch.randn(2, 3, 32, 32).to(memory_format=torch.channels_last)).square().sum().backward()
    assert len(maps) > 60 and all(m.is_contiguous(memory_format=torch.channels_last) for m in maps)


@pytest.mark.parametrize("name", ["cifar_mirror", "cifar_mirror_dilated"])
@pytest.mark.parametrize("img_size, size", [(32, 32), (32, 24), (32, 48), (48, 48), (64, 64), (96, 96), (128, 128)])
def test_the_model_predicts_the_same_for_a_flipped_image(name, img_size, size):
    torch.manual_seed(0)
    model = timm.create_model(name, img_size=img_size).double().train()
    x = torch.randn(16, 3, size, size, dtype=torch.float64)
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        randomize(norm)
    for _ in range(3):  # running statistics too
        model(x + torch.randn(()))
    model.eval()
    with torch.no_grad():
        out = model(x)
        assert torch.allclose(model(x.flip(-1)), out, atol=1e-10)
        assert out.std(0).min() > 1e-4  # and not the same for every image


def test_it_is_the_model_of_recipe_final():
    "With the figures of its docstring, and what the benchmarks call the flagship."
    from cifar_fast.audit import audit
    from cifar_fast.bench.scale import OWN, WIDTHS
    from cifar_fast.bench.synthetic import FLAGSHIP
    from cifar_fast.recipe import load_recipe

    assert load_recipe("final").arch == FLAGSHIP == "cifar_mirror"
    model = timm.create_model(FLAGSHIP)
    result = audit(model)
    assert (result.profile.params, round(result.profile.macs / 1e6), result.receptive_field_probe) == (198_170, 44, 68)
    assert not result.failures()
    own = timm.create_model(FLAGSHIP, widths=WIDTHS[OWN])
    assert [p.shape for p in own.parameters()] == [p.shape for p in model.parameters()]


def test_dilated_instead_of_strided_keeps_the_maps_at_16():
    "With the figures of its docstring."
    from cifar_fast.audit import audit

    result = audit(timm.create_model("cifar_mirror_dilated"))
    assert (result.profile.params, round(result.profile.macs / 1e6), result.receptive_field_probe) == (199_858, 102, 66)
    assert not result.failures()
    maps = timm.create_model("cifar_mirror_dilated", features_only=True)(torch.randn(2, 3, 32, 32))
    assert [tuple(m.shape[1:]) for m in maps] == [(16, 32, 32), (48, 16, 16), (112, 16, 16), (56, 16, 16)]
    with pytest.raises(ValueError, match="output_stride=3: it is built for 4 and for 2"):
        timm.create_model("cifar_mirror", output_stride=3)


@in_both_formats
def test_one_step_is_the_same_compiled(memory):
    torch.manual_seed(0)
    pair = [timm.create_model("cifar_mirror", widths=(8, 12, 16), depths=(0, 1, 1)) for _ in range(2)]
    pair[1].load_state_dict(pair[0].state_dict())
    pair[1].compile(backend="aot_eager")
    x = torch.randn(4, 3, 32, 32).to(memory_format=memory)
    for model in pair:
        model.to(memory_format=memory).train()(x).square().sum().backward()
    (eager, gradients), (compiled, same) = ((m.state_dict(), [p.grad for p in m.parameters()]) for m in pair)
    assert all(torch.allclose(v, compiled[k], atol=1e-6) for k, v in eager.items())
    assert all(torch.allclose(g, h, atol=1e-4) for g, h in zip(gradients, same, strict=True))


@in_both_formats
def test_it_can_be_exported(memory):
    "torch.export, which ONNX's exporter begins with."
    model = timm.create_model("cifar_mirror", widths=(8, 12, 16), depths=(0, 1, 1)).to(memory_format=memory).eval()
    x = torch.randn(2, 3, 32, 32).to(memory_format=memory)
    program = torch.export.export(model, (x,)).module()
    with torch.no_grad():
        assert torch.allclose(program(x), model(x), atol=1e-6)


def test_blocks_keep_the_shape():
    x = torch.randn(2, 8, 6, 6)
    assert flip_equivariant_separable(8)(x).shape == x.shape
    assert FlipEquivariantConvBnAct(8, 12, 4, stride=2)(x).shape == (2, 12, 3, 3)
    assert not [m for m in FlipEquivariantConvBnAct(8, 8, act_layer="").modules() if isinstance(m, nn.ReLU)]
