"""Layers that commute with mirroring, and the net of them."""

import pytest
import timm
import torch
from torch import nn

from cifar_fast.models.flip_equivariant import (
    FlipEquivariantBatchNorm2d,
    FlipEquivariantConv2d,
    GroupPooling,
    flip_equivariant_conv,
    flip_equivariant_separable,
)


def mirrored(x):
    "What a map of two halves becomes when its image is mirrored: mirrored, the halves swapped."
    return x.flip(-1).roll(x.shape[1] // 2, 1)


@pytest.mark.parametrize("kwargs", [
    dict(), dict(kernel_size=1), dict(dilation=2), dict(kernel_size=4, stride=2), dict(kernel_size=2, stride=2),
    dict(groups=8), dict(groups=8, dilation=2), dict(kernel_size=5),
], ids=str)
def test_a_convolution_commutes_with_mirroring(kwargs):
    torch.manual_seed(0)
    conv, x = FlipEquivariantConv2d(8, 8, **kwargs).double(), torch.randn(2, 8, 12, 12, dtype=torch.float64)
    out = conv(x)
    assert torch.allclose(conv(mirrored(x)), mirrored(out), atol=1e-12)
    asymmetric = conv.kernels().shape[-1] > 1  # which a pointwise one never is
    assert torch.allclose(conv(x.flip(-1)), out.flip(-1), atol=1e-6) != asymmetric
    assert out.shape[-1] == 12 // kwargs.get("stride", 1)
    assert 2 * conv.weight.numel() == conv.kernels().numel()


def test_the_first_one_takes_images():
    torch.manual_seed(0)
    conv, x = FlipEquivariantConv2d(3, 6, lifting=True).double(), torch.randn(2, 3, 9, 9, dtype=torch.float64)
    assert torch.allclose(conv(x.flip(-1)), mirrored(conv(x)), atol=1e-12)


@pytest.mark.parametrize("kwargs, told", [
    (dict(out_channels=7), "8 → 7 channels"), (dict(in_channels=7), "7 → 8 channels"),
    (dict(groups=2), "in 2 groups"), (dict(groups=8, lifting=True), "in 8 groups"),
    (dict(groups=8, out_channels=16), "8 → 16 channels in 8 groups"),
    (dict(stride=2), "kernel of 3 with dilation 1 at stride 2"),
    (dict(kernel_size=4, stride=2, dilation=2), "kernel of 4 with dilation 2 at stride 2"),
    (dict(kernel_size=4, stride=4), "kernel of 4 with dilation 1 at stride 4"),
], ids=str)
def test_what_would_not_commute_is_refused(kwargs, told):
    with pytest.raises(ValueError, match=told):
        FlipEquivariantConv2d(**{"in_channels": 8, "out_channels": 8, **kwargs})


def spread(norm):
    "Scales and shifts that are no longer those it was made with."
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_batch_norm_is_that_of_both_halves_together(memory):
    "As torch's own on the images of p and those of q as one batch, gradients and running statistics too."
    torch.manual_seed(0)
    norm, plain = FlipEquivariantBatchNorm2d(6).double(), nn.BatchNorm2d(3).double()
    spread(norm)
    plain.load_state_dict(norm.state_dict())
    for step in range(3):
        x = torch.randn(8, 6, 5, 4, dtype=torch.float64) * (step + 1) + torch.arange(6)[:, None, None]
        x = x.to(memory_format=memory).requires_grad_()
        both = torch.cat([x[:, :3], x[:, 3:]])
        out, expected = norm(x), plain(both)
        assert torch.allclose(out, torch.cat([expected[:8], expected[8:]], 1))
        assert out.is_contiguous(memory_format=memory)
        slopes = [torch.autograd.grad(y.pow(3).sum(), [x, m.weight])
                  for y, m in ((out, norm), (expected, plain))]
        assert all(torch.allclose(*pair) for pair in zip(*slopes, strict=True))
    assert all(torch.equal(v, plain.state_dict()[k]) or torch.allclose(v, plain.state_dict()[k])
               for k, v in norm.state_dict().items())
    norm.eval()
    assert torch.allclose(norm(mirrored(x)), mirrored(norm(x)))


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_what_is_folded_is_mirrored_and_no_more(memory):
    x = torch.randn(2, 6, 4, 4).to(memory_format=memory)
    assert torch.allclose(GroupPooling()(mirrored(x)), GroupPooling()(x).flip(-1))
    assert torch.allclose(GroupPooling()(x), (x[:, :3] + x[:, 3:]) / 2)
    assert GroupPooling()(x).shape == (2, 3, 4, 4)


def test_channels_stay_last_in_both_directions():
    "One gradient in another order makes every residual block before it read across memory: a fifth of all steps."
    net = timm.create_model("cifar_mirror").to(memory_format=torch.channels_last).train()
    maps = []

    def keep(_, __, out):
        maps.append(out)
        out.register_hook(maps.append)

    kinds = FlipEquivariantConv2d | FlipEquivariantBatchNorm2d | nn.SiLU
    for layer in (m for m in net.modules() if isinstance(m, kinds)):
        layer.register_forward_hook(keep)
    net(torch.randn(2, 3, 32, 32).to(memory_format=torch.channels_last)).square().sum().backward()
    assert len(maps) > 60 and all(m.is_contiguous(memory_format=torch.channels_last) for m in maps)


@pytest.mark.parametrize("size", [32, 24, 48])
def test_the_net_answers_the_same_for_a_mirrored_image(size):
    torch.manual_seed(0)
    net = timm.create_model("cifar_mirror").double().train()
    x = torch.randn(16, 3, size, size, dtype=torch.float64)
    for norm in (m for m in net.modules() if isinstance(m, FlipEquivariantBatchNorm2d)):
        spread(norm)
    for _ in range(3):  # running statistics too
        net(x + torch.randn(()))
    net.eval()
    with torch.no_grad():
        out = net(x)
        assert torch.allclose(net(x.flip(-1)), out, atol=1e-10)
        assert out.std(0).min() > 1e-4  # and not the same for every image


def test_the_flagship_is_this_net():
    "The figures in its docstring, and what the benchmarks call the flagship."
    from cifar_fast.audit import audit
    from cifar_fast.bench.made_up import FLAGSHIP
    from cifar_fast.bench.scale import OWN, WIDTHS
    from cifar_fast.recipe import load_recipe

    assert load_recipe("final").arch == FLAGSHIP == "cifar_mirror"
    net = timm.create_model(FLAGSHIP)
    found = audit(net)
    assert (found.profile.params, round(found.profile.macs / 1e6), found.receptive_field_probe) == (198_170, 44, 68)
    assert not found.failures()
    own = timm.create_model(FLAGSHIP, widths=WIDTHS[OWN])
    assert [p.shape for p in own.parameters()] == [p.shape for p in net.parameters()]


def test_one_step_is_the_same_compiled():
    torch.manual_seed(0)
    nets = [timm.create_model("cifar_mirror", widths=(8, 12, 16), depths=(0, 1, 1)) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    nets[1].compile(backend="aot_eager")
    x = torch.randn(4, 3, 32, 32)
    for net in nets:
        net.train()(x).square().sum().backward()
    (eager, slopes), (compiled, same) = ((n.state_dict(), [p.grad for p in n.parameters()]) for n in nets)
    assert all(torch.allclose(v, compiled[k], atol=1e-6) for k, v in eager.items())
    assert all(torch.allclose(g, h, atol=1e-4) for g, h in zip(slopes, same, strict=True))


def test_blocks_keep_the_shape():
    x = torch.randn(2, 8, 6, 6)
    assert flip_equivariant_separable(8)(x).shape == x.shape
    assert flip_equivariant_conv(8, 12, 4, stride=2)(x).shape == (2, 12, 3, 3)
    assert not [m for m in flip_equivariant_conv(8, 8, act_layer="").modules() if isinstance(m, nn.ReLU)]
