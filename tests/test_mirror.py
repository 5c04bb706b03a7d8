"""Layers that commute with mirroring, and the net of them."""

import pytest
import timm
import torch
from torch import nn

from cifar_fast.archs.mirror_layers import MirrorBatchNorm2d, MirrorConv2d, MirrorFold, mirror_conv, mirror_separable


def mirrored(x):
    "What a map of two halves becomes when its picture is mirrored: mirrored, the halves swapped."
    return x.flip(-1).roll(x.shape[1] // 2, 1)


@pytest.mark.parametrize("kwargs", [
    dict(), dict(kernel_size=1), dict(dilation=2), dict(kernel_size=4, stride=2), dict(kernel_size=2, stride=2),
    dict(depthwise=True), dict(depthwise=True, dilation=2), dict(kernel_size=5),
], ids=str)
def test_a_convolution_commutes_with_mirroring(kwargs):
    torch.manual_seed(0)
    conv, x = MirrorConv2d(8, 8, **kwargs).double(), torch.randn(2, 8, 12, 12, dtype=torch.float64)
    out = conv(x)
    assert torch.allclose(conv(mirrored(x)), mirrored(out), atol=1e-12)
    asymmetric = conv.kernels().shape[-1] > 1  # which a pointwise one never is
    assert torch.allclose(conv(x.flip(-1)), out.flip(-1), atol=1e-6) != asymmetric
    assert out.shape[-1] == 12 // kwargs.get("stride", 1)
    assert 2 * conv.weight.numel() == conv.kernels().numel()


def test_the_first_one_takes_pictures():
    torch.manual_seed(0)
    conv, x = MirrorConv2d(3, 6, lift=True).double(), torch.randn(2, 3, 9, 9, dtype=torch.float64)
    assert torch.allclose(conv(x.flip(-1)), mirrored(conv(x)), atol=1e-12)


def test_an_odd_kernel_at_stride_2_does_not_commute_as_its_docstring_says():
    torch.manual_seed(0)
    conv, x = MirrorConv2d(4, 4, 3, stride=2), torch.randn(1, 4, 8, 8)
    assert not torch.allclose(conv(mirrored(x)), mirrored(conv(x)), atol=1e-3)


@pytest.mark.parametrize("channels", [(8, 7), (7, 8)])
def test_channels_that_have_no_halves_are_refused(channels):
    with pytest.raises(ValueError, match=f"{channels[0]} → {channels[1]}"):
        MirrorConv2d(*channels)


def test_batch_norm_keeps_one_statistic_for_both_halves():
    torch.manual_seed(0)
    norm, plain = MirrorBatchNorm2d(4, momentum=1.0), nn.BatchNorm2d(4, momentum=1.0)
    x = torch.randn(64, 4, 5, 5) * torch.tensor([1.0, 2.0, 3.0, 4.0])[:, None, None] + 1
    assert torch.allclose(norm(x), plain(x), atol=1e-5)  # in training each half is normalised by its own
    assert norm.running_mean.shape == norm.weight.shape == (2,)
    assert torch.allclose(norm.running_mean, plain.running_mean.view(2, 2).mean(0))
    assert torch.allclose(norm.running_var, plain.running_var.view(2, 2).mean(0))
    assert norm.num_batches_tracked == 1
    before = norm.running_mean.clone()
    norm.eval()
    assert torch.allclose(norm(mirrored(x)), mirrored(norm(x)))
    assert torch.equal(norm.running_mean, before)


def test_what_is_folded_is_mirrored_and_no_more():
    x = torch.randn(2, 6, 4, 4)
    assert torch.allclose(MirrorFold()(mirrored(x)), MirrorFold()(x).flip(-1))
    assert MirrorFold()(x).shape == (2, 3, 4, 4)


@pytest.mark.parametrize("size", [32, 24, 48])
def test_the_net_answers_the_same_for_a_mirrored_picture(size):
    torch.manual_seed(0)
    net = timm.create_model("cifar_mirror").double().train()
    x = torch.randn(16, 3, size, size, dtype=torch.float64)
    for _ in range(3):  # running statistics that are no longer those it was made with
        net(x + torch.randn(()))
    net.eval()
    with torch.no_grad():
        out = net(x)
        assert torch.allclose(net(x.flip(-1)), out, atol=1e-10)
        assert out.std(0).min() > 1e-4  # and not the same for every picture


def test_blocks_keep_the_shape():
    x = torch.randn(2, 8, 6, 6)
    assert mirror_separable(8)(x).shape == x.shape
    assert mirror_conv(8, 12, 4, stride=2)(x).shape == (2, 12, 3, 3)
    assert not [m for m in mirror_conv(8, 8, act_layer="").modules() if isinstance(m, nn.ReLU)]
