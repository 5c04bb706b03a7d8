"""The audit counts what is executed, and both receptive fields agree."""

import copy
import json
import warnings

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

import cifar_fast.models  # noqa: F401  registers cifar_*
from cifar_fast.audit import (
    RULES,
    AuditError,
    Budget,
    audit,
    audit_table,
    count_params,
    layer_table,
    profile,
    receptive_field_probe,
)

NAMES = timm.list_models("cifar_*")
FIELDS = {
    "cifar_netv2": 81, "cifar_net": 49, "cifar_strided": 33, "cifar_optimized200k": 109, "cifar_mobile": 79,
}
BROKEN = {"cifar_strided": {"receptive_field"}, "cifar_optimized200k": {"dilation"},
          "cifar_teacher": {"parameters", "max_pooling", "depthwise_separable", "dilation"}}


class Body(nn.Module):
    "Two convolutions, whatever `between` does, a global pool and a linear layer."

    def __init__(self, between=lambda x: x, pool=lambda x: x.mean((2, 3))):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.fc = nn.Linear(8, 10)
        self.between, self.pool = between, pool

    def forward(self, x):
        return self.fc(self.pool(F.relu(self.conv2(self.between(F.gelu(self.conv1(x)))))).flatten(1))


@pytest.fixture(scope="module")
def audits():
    return {name: audit(timm.create_model(name)) for name in NAMES}


@pytest.mark.parametrize("name", FIELDS)
def test_published_receptive_fields_both_ways(audits, name):
    found = audits[name]
    assert (found.profile.receptive_field, found.receptive_field_probe) == (FIELDS[name], FIELDS[name])


@pytest.mark.parametrize("name", NAMES)
def test_verdicts(audits, name):
    found = audits[name]
    assert found.rf_agrees and found.name == name
    assert [v.rule for v in found.verdicts] == [r for r in RULES if r not in ("multiply_adds", "flash", "ram")]
    assert {v.rule for v in found.failures()} == BROKEN.get(name, set())
    assert found.profile.params == sum(layer.params for layer in found.profile.layers)
    assert not found.profile.notes
    json.dumps(found.as_dict(layers=True))


def test_waivers(audits):
    strided = audits["cifar_strided"]
    assert strided.failures({"receptive_field": "published as it is"}) == []
    assert [v.rule for v in strided.failures({"dilation": "not needed"})] == ["receptive_field"]
    with pytest.raises(AuditError, match="receptive_fields"):
        strided.failures({"receptive_fields": "typo"})
    with pytest.raises(AuditError, match="receptive_field"):
        strided.failures({"receptive_field": " "})


def test_budget_is_what_is_required():
    model = timm.create_model("cifar_sprint")
    strict = Budget(max_params=100, min_receptive_field=1000, depthwise_separable=99, dilated=99)
    broken = {v.rule for v in audit(model, strict).failures()}
    assert broken == {"parameters", "receptive_field", "depthwise_separable", "dilation"}
    exact = count_params(model)
    assert not audit(model, Budget(max_params=exact)).failures()
    assert audit(model, Budget(max_params=exact - 1)).failures()


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


@pytest.mark.parametrize(("between", "expected"), [
    (lambda x: F.avg_pool2d(x, 2), 3 + 1 + 4),
    (lambda x: x[..., ::2, ::2], 3 + 4),
    (lambda x: torch.cat([x, F.conv2d(x, torch.ones(8, 8, 5, 5), padding=2)], 1)[:, 4:12], 3 + 4 + 2),
    (lambda x: x + F.conv2d(x, torch.ones(8, 8, 1, 7), padding=(0, 3)), 3 + 6 + 2),
    (lambda x: F.max_pool2d(x, 3, 2, 1), 3 + 2 + 4),
    (lambda x: F.max_pool2d(x, 1, 2), 3 + 4),
    (lambda x: to_channels(F.pixel_unshuffle(x, 4)), 3 + 3 + 8),
    (lambda x: to_channels(x.unflatten(3, (-1, 4)).unflatten(2, (-1, 4)).permute(0, 1, 3, 5, 2, 4).flatten(1, 3)),
     3 + 3 + 8),
    (lambda x: to_channels(x.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 1, 4, 5, 2, 3).flatten(1, 3)), 3 + 3 + 8),
    (lambda x: to_channels(F.unfold(x, 4, stride=4).unflatten(2, (x.shape[2] // 4, -1))), 3 + 3 + 8),
    (lambda x: x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).mean((3, 5)), 3 + 1 + 4),
    (lambda x: (torch.ones(8, 72) @ F.unfold(x, 3, 2, 2)).view_as(x), 3 + 4 + 2),
], ids=["average pool", "slice", "branches", "one axis", "max pool", "pool of one", "pixel unshuffle", "split by views",
        "windows", "F.unfold", "mean of a view", "convolution by matmul"])
def test_rule_and_probe_agree_on_functional_windows(between, expected):
    found = audit(Body(between))
    assert (found.profile.receptive_field, found.receptive_field_probe) == (expected, expected)


def to_channels(x):
    "Eight, of as many as a space to depth makes."
    return F.conv2d(x, torch.ones(8, x.shape[1], 1, 1))


def test_windows_that_become_images_are_no_space_to_depth():
    "Swin's windows: they go into the batch."
    def attend(x):
        windows = x.unflatten(3, (-1, 4)).unflatten(2, (-1, 4)).permute(0, 2, 4, 1, 3, 5).flatten(0, 2)
        return windows.unflatten(0, (8, 8)).permute(2, 0, 3, 1, 4).reshape(x.shape)

    found = profile(Body(attend))
    assert found.receptive_field == 5 and not found.downsampling


def test_probe_handles_zero_gains_and_negative_weights():
    model = timm.create_model("cifar_final")
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.zeros_(norm.weight)
        nn.init.constant_(norm.bias, -5)
    for conv in (m for m in model.modules() if isinstance(m, nn.Conv2d)):
        nn.init.constant_(conv.weight, -1.0)
    assert receptive_field_probe(model) == profile(model).receptive_field


def test_a_kernel_that_is_zero_outside_its_centre_reaches_no_further():
    model = Body()
    with torch.no_grad():
        mask = torch.zeros(3, 3)
        mask[1, 1] = 1
        model.conv2.weight.mul_(mask)
    found = audit(model)
    assert (found.profile.receptive_field, found.receptive_field_probe) == (5, 3)
    assert not found.rf_agrees and "5 by the rule, 3 measured" in audit_table([found])
    assert next(v for v in found.verdicts if v.rule == "receptive_field").found == 3


@pytest.mark.parametrize("dilation, field", [(3, 56), (1, 24)])
@pytest.mark.parametrize("between, pool", [
    (lambda x: x, lambda x: F.avg_pool2d(x, 16).flatten(1)),
    (lambda x: x + torch.zeros(1, 8, 16, 16), lambda x: x.mean((2, 3))),
    (lambda x: x.view(len(x), 8, 16, 16), lambda x: x.mean((2, 3))),
], ids=["head", "position embedding", "view"])
def test_the_rule_counts_where_images_of_the_only_size_cut_off_the_probe(between, pool, dilation, field):
    layers = [nn.Conv2d(8, 8, 3, padding=dilation, dilation=dilation) for _ in range(4)]
    model = Body(lambda x: nn.Sequential(*layers)(between(F.avg_pool2d(x, 2))), pool)
    found = audit(model)
    assert found.profile.receptive_field == field and found.rf_agrees and found.profile.global_average_pool
    assert next(v for v in found.verdicts if v.rule == "receptive_field").found == field
    cut_off = field > 32
    assert found.probe_cut_off == cut_off and found.receptive_field_probe == (32 if cut_off else field)
    assert any("no larger image" in note for note in found.profile.notes) == cut_off
    assert ("≥32" in audit_table([found])) == cut_off


def test_images_that_a_model_refuses_do_not_undo_what_the_probe_saw_in_smaller_ones():
    def up_to_64(x):
        assert x.shape[-1] <= 64
        for _ in range(12):
            x = F.conv2d(x, torch.ones(8, 8, 3, 3), padding=3, dilation=3)
        return x

    assert receptive_field_probe(Body(up_to_64)) == 64  # of 77; 32 at the smallest size


def test_squeeze_excite_is_noted():
    found = audit(Body(lambda x: x * x.mean((2, 3), keepdim=True).sigmoid()))
    assert found.profile.receptive_field == 5 and found.receptive_field_probe > 32
    assert any("squeeze-excite" in note for note in found.profile.notes)


def test_group_norm_is_noted_and_reaches_no_further():
    found = audit(Body(lambda x: F.group_norm(x, 2)))
    assert found.profile.receptive_field == found.receptive_field_probe == 5
    assert any("group norm" in note for note in found.profile.notes)


def test_frozen_buffered_and_shared_weights_count_once():
    plain = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    assert count_params(plain) == 3 * 8 * 9 + 8 + 16  # no running statistics
    plain.requires_grad_(False)
    assert count_params(plain) == 3 * 8 * 9 + 8 + 16
    plain.register_buffer("kernel", torch.ones(8, 8, 3, 3))
    plain.register_buffer("hidden", torch.ones(5), persistent=False)
    plain.register_buffer("index", torch.ones(7, dtype=torch.long))
    plain.register_buffer("running_mean", torch.ones(11))  # only a norm's own statistics are excused
    assert count_params(plain) == 3 * 8 * 9 + 8 + 16 + 576 + 5 + 11
    tied = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False))
    tied[1].weight = tied[0].weight
    assert count_params(tied) == 64
    assert [layer.params for layer in profile(nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1),
                                                            nn.Flatten(), *tied)).layers] == [224, 0, 64, 0]


def test_whatever_the_image_is_multiplied_by_counts_once():
    kernel, matrix = torch.ones(8, 8, 3, 3), torch.ones(32, 32)

    class Hidden(Body):
        def __init__(self, between):
            super().__init__()
            self.between = lambda x: between(self, x)
            self.register_buffer("kernel", kernel.to(torch.int8))
            self.register_buffer("index", torch.arange(32))

    def counted(between):
        found = profile(Hidden(between))
        assert found.params == sum(layer.params for layer in found.layers)
        return found.params - profile(Body()).params, found.param_bytes - profile(Body()).param_bytes

    def twice(model, x):
        for _ in range(2):
            x = F.conv2d(x, model.kernel.float() / 127, padding=1)
        return x

    assert counted(lambda model, x: x[..., model.index]) == (0, 0)
    assert counted(twice) == (576, 576)
    assert counted(lambda model, x: F.conv2d(x, kernel, padding=1)) == (576, 4 * 576)
    assert counted(lambda model, x: x @ matrix) == (1024, 4 * 1024)
    assert counted(lambda model, x: F.conv2d(x, model.conv2.weight * kernel.bool(), padding=1)) == (576, 4 * 576)
    assert counted(lambda model, x: F.conv2d(x, F.normalize(model.conv2.weight), padding=1)) == (0, 0)
    assert counted(lambda model, x: F.conv2d(x, model.conv2.weight.data, padding=1)) == (0, 0)
    assert counted(lambda model, x: F.conv2d(x, torch.zeros(8, 8, 3, 3).copy_(model.conv2.weight))) == (0, 0)


def test_transformer_layers_show_their_operations():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    model = Body(lambda x: layer(x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(x.shape))
    model.layer = layer
    found = profile(model)
    assert found.macs - profile(Body()).macs >= 1024 * (3 * 8 * 8 + 8 * 8 + 2 * 8 * 16)
    assert any("attention" in note for note in found.notes)
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_frozen_model_breaks_the_same_budget():
    model = nn.Sequential(timm.create_model("cifar_net", num_classes=0), nn.Linear(16, 100))
    model.requires_grad_(False)
    assert "parameters" in {v.rule for v in audit(model).failures()}


def test_audit_leaves_everything_as_it_was():
    model = timm.create_model("cifar_netv2").train()
    model.head.eval()
    weights = copy.deepcopy(model.state_dict())
    modes = [m.training for m in model.modules()]
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    calls = []
    handle = model.register_forward_hook(lambda *args: calls.append(1))
    with torch.inference_mode():
        audit(model)
    audit(model)
    handle.remove()
    assert torch.equal(before, torch.random.get_rng_state())
    assert modes == [m.training for m in model.modules()]
    assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert not nn.modules.module._global_forward_hooks and not nn.modules.module._global_forward_pre_hooks


def test_bfloat16_and_channels_last_models_are_audited():
    model = timm.create_model("cifar_sprint").to(torch.bfloat16, memory_format=torch.channels_last)
    found = audit(model)
    assert found.rf_agrees and found.profile.param_bytes == 2 * found.profile.params
    assert next(model.parameters()).dtype == torch.bfloat16


def test_large_networks_have_a_bounded_probe():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = audit(timm.create_model("resnet10t", num_classes=10))
    assert found.profile.max_pools == 1 and found.profile.receptive_field == found.receptive_field_probe


def test_tables_fit_a_terminal(audits):
    table = audit_table(list(audits.values()))
    assert "cifar_strided breaks receptive_field: 33, at least 45" in table
    assert "cifar_optimized200k breaks dilation: 0, at least 1" in table
    layers = layer_table(audits["cifar_netv2"])
    assert "181,942" in layers and "features.block3.1.conv" in layers and "conv 3×3 d2" in layers
    assert max(map(len, (table + "\n" + layers).splitlines())) <= 100
