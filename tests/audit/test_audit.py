"""The audit counts what is executed, and both receptive fields agree."""

import copy
import json

import pytest
import timm
import torch
import torch.nn.functional as F
from bodies import Body
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
)

NAMES = timm.list_models("cifar_*")
FIELDS = {
    "cifar_netv2": 81, "cifar_net": 49, "cifar_strided": 33, "cifar_optimized200k": 109, "cifar_mobile": 79,
}
BROKEN = {"cifar_strided": {"receptive_field"}, "cifar_optimized200k": {"dilation"},
          "cifar_teacher": {"parameters", "max_pooling", "depthwise_separable", "dilation"}}


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


def test_tables_fit_a_terminal(audits):
    table = audit_table(list(audits.values()))
    assert "cifar_strided breaks receptive_field: 33, at least 45" in table
    assert "cifar_optimized200k breaks dilation: 0, at least 1" in table
    layers = layer_table(audits["cifar_netv2"])
    assert "181,942" in layers and "features.block3.1.conv" in layers and "conv 3×3 d2" in layers
    assert max(map(len, (table + "\n" + layers).splitlines())) <= 100
