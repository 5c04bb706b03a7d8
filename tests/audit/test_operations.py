"""Operations are counted for what they compute, however they are written: pools, dilated and separable convolutions."""

import pytest
import torch
import torch.nn.functional as F
from bodies import Body
from torch import nn

from cifar_fast.audit import (
    audit,
    profile,
)


def test_multiply_adds_by_hand():
    found = profile(Body())
    assert found.macs == 32 * 32 * (8 * 3 * 9 + 8 * 8 * 9) + 8 * 10
    assert found.param_bytes == 4 * found.params == 4 * ((3 * 9 + 1) * 8 + (8 * 9 + 1) * 8 + 90)
    # conv, gelu, conv, relu at 8×32×32, then the pooled 8 and the 10 logits
    assert found.activation_bytes == 4 * (4 * 8 * 32 * 32 + 8 + 10)


@pytest.mark.parametrize("between", [
    lambda x: F.max_pool2d(x, 2),
    lambda x: F.max_pool2d(x, 3, stride=1, padding=1),
    lambda x: F.adaptive_max_pool2d(x, 16),
    lambda x: x.unflatten(3, (16, 2)).amax(4),
    lambda x: x.unfold(2, 2, 2).unfold(3, 2, 2).amax((-1, -2)),
    lambda x: F.max_pool1d(x.flatten(2), 3, 1, 1).unflatten(2, (32, 32)),
    lambda x: -(-x).unfold(2, 2, 2).unfold(3, 2, 2).amin((-1, -2)),
    lambda x: x.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4).aminmax(dim=-1).max,
    lambda x: x.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4).topk(1).values[..., 0],
    lambda x: x.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4).sort(stable=True).values[..., -1],
    lambda x: x.unfold(2, 2, 2).unfold(3, 2, 2).flatten(4).cummax(-1).values[..., -1],
    lambda x: x.unfold(2, 2, 2).unfold(3, 2, 2).reshape(-1, 4).amax(1).view(len(x), 8, 16, 16),
    lambda x: F.unfold(x, 3, padding=1).view(len(x), 8, 9, -1).amax(2).view_as(x),
], ids=["2x2", "stride 1", "adaptive", "one axis", "unfold", "flattened", "minimum", "aminmax", "topk", "sort",
        "cummax", "rows of windows", "F.unfold"])
def test_max_pools_inside_are_caught(between):
    assert profile(Body()).max_pools == 0
    assert profile(Body(between)).max_pools >= 1


@pytest.mark.parametrize("pool", [
    lambda x: F.adaptive_max_pool2d(x, 1),
    lambda x: x.amax((2, 3)),
    lambda x: x.flatten(2).max(-1).values,
    lambda x: x.max(3).values.max(2).values,
    lambda x: x.flatten(2).topk(1).values,
    lambda x: F.max_pool2d(x, 32),
    lambda x: F.adaptive_avg_pool2d(x, 1) + F.adaptive_max_pool2d(x, 1),
], ids=["adaptive", "amax", "flattened", "axis by axis", "topk", "window", "with average"])
def test_global_max_pools_are_caught(pool):
    found = audit(Body(pool=pool))
    assert found.profile.max_pools >= 1
    assert "max_pooling" in {v.rule for v in found.failures()}


@pytest.mark.parametrize("pool", [
    lambda x: F.adaptive_avg_pool2d(x, 1),
    lambda x: F.avg_pool2d(x, 32),
    lambda x: x.mean((-1, -2)),
    lambda x: x.flatten(2).mean(2),
    lambda x: x.mean(3).mean(2),
    lambda x: x.permute(0, 2, 3, 1).mean((1, 2)),
    lambda x: F.avg_pool1d(x.flatten(2), 32 * 32),
    lambda x: F.adaptive_avg_pool1d(x.flatten(2), 1),
], ids=["adaptive", "window", "mean", "flattened", "axis by axis", "channels last", "one axis", "one axis, adaptive"])
def test_global_average_pools_however_written(pool):
    found = profile(Body(pool=pool))
    assert found.global_average_pool and found.max_pools == 0
    assert found.receptive_field == 5  # no global pool counts
    assert not found.downsampling


def test_without_a_global_pool():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), nn.Flatten(), nn.Linear(4 * 8 * 8, 10))
    found = audit(model)
    assert "global_average_pooling" in {v.rule for v in found.failures()}
    assert found.profile.downsampling == {"strided conv": 1}
    assert found.profile.receptive_field == found.receptive_field_probe == 3


@pytest.mark.parametrize("between", [
    lambda x: x + x.amax(1, keepdim=True),
    lambda x: x.sort(1).values,
    lambda x: x.unflatten(1, (4, 2)).amax(2).repeat(1, 2, 1, 1),
    lambda x: F.max_pool2d(x, 1, 2),
], ids=["channels", "sorted channels", "maxout", "slice"])
def test_no_max_pools(between):
    assert profile(Body(between)).max_pools == 0


def test_channels_are_no_positions():
    found = profile(Body(pool=lambda x: F.avg_pool1d(x.flatten(2).transpose(1, 2), 8)[:, :8]))
    assert not found.global_average_pool


def test_functional_dilated_convolution_counts():
    weight = torch.ones(8, 8, 3, 3)
    found = audit(Body(lambda x: F.conv2d(x, weight, padding=3, dilation=3)))
    assert found.profile.dilated == 1
    assert found.profile.receptive_field == found.receptive_field_probe == 3 + 6 + 2
    assert profile(Body(lambda x: F.conv2d(x, weight[..., :1, :1], dilation=3))).dilated == 0  # 1×1


def test_depthwise_separable_needs_the_pointwise_right_behind():
    depthwise, pointwise = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 8, 1)
    norm = nn.BatchNorm2d(8)

    def counted(between):
        found = profile(Body(between).eval())
        return found.depthwise, found.depthwise_separable

    assert counted(lambda x: pointwise(depthwise(x))) == (1, 1)
    assert counted(lambda x: pointwise(F.silu(norm.eval()(depthwise(x))))) == (1, 1)
    assert counted(lambda x: nn.Conv2d(8, 8, 3, padding=1)(depthwise(x))) == (1, 0)
    assert counted(lambda x: depthwise(pointwise(x))) == (1, 0)
    assert counted(lambda x: pointwise(depthwise(x) + x)) == (1, 0)
    assert counted(lambda x: pointwise(torch.cat([depthwise(x), x], 1)[:, :8])) == (1, 0)
    assert counted(lambda x: pointwise(F.conv2d(x, torch.ones(8, 4, 3, 3), padding=1, groups=2))) == (0, 0)
    as_linear = nn.Linear(8, 8)
    assert counted(lambda x: as_linear(depthwise(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)) == (1, 1)


def test_what_the_output_does_not_need_or_what_sees_no_positions_does_not_count():
    dilated, depthwise = nn.Conv2d(8, 8, 3, padding=2, dilation=2), nn.Conv2d(8, 8, 3, padding=1, groups=8)
    pointwise, over_channels = nn.Conv2d(8, 8, 1), nn.Conv1d(1, 1, 3, padding=2, dilation=2)

    def block(x):
        return pointwise(depthwise(dilated(x)))

    def thrown_away(x):
        block(x)
        return x

    def counted(between):
        found = profile(Body(between))
        return found.dilated, found.depthwise_separable

    assert counted(lambda x: x + block(x)) == counted(lambda x: x.clone().mul_(block(x))) == (1, 1)
    assert counted(thrown_away) == (0, 0)
    assert counted(lambda x: x * block(x.mean((2, 3), keepdim=True))) == (0, 0)
    assert counted(lambda x: x * over_channels(x.mean((2, 3))[:, None]).view(1, 8, 1, 1)) == (0, 0)


def test_fused_attention_counts_as_its_matrix_products():
    def attention(fused):
        def between(x):
            q = k = v = x.flatten(2).transpose(1, 2)[:, None]  # (N, heads, positions, channels)
            if fused:
                return F.scaled_dot_product_attention(q, k, v)[:, 0].transpose(1, 2).reshape(x.shape)
            return ((q @ k.mT / 8**0.5).softmax(-1) @ v)[:, 0].transpose(1, 2).reshape(x.shape)
        return profile(Body(between))

    fused, by_hand = attention(True), attention(False)
    assert fused.macs == by_hand.macs == profile(Body()).macs + 2 * 1024 * 1024 * 8
    assert fused.ram_bytes >= 2 * 1024 * 1024  # the scores, before and after softmax
    assert fused.notes == by_hand.notes and any("attention" in note for note in fused.notes)
    assert torch.backends.cuda.flash_sdp_enabled()


def test_transformer_layers_show_their_operations():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    model = Body(lambda x: layer(x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(x.shape))
    model.layer = layer
    found = profile(model)
    assert found.macs - profile(Body()).macs >= 1024 * (3 * 8 * 8 + 8 * 8 + 2 * 8 * 16)
    assert any("attention" in note for note in found.notes)
    assert torch.backends.mha.get_fastpath_enabled()
