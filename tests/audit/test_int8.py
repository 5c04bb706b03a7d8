"""Flash and RAM in int8, against figures worked out by hand."""

from dataclasses import replace

import pytest
import timm
import torch
import torch.nn.functional as F
from tiny import tiny
from torch import nn

import cifar_fast.models  # noqa: F401  registers cifar_*
from cifar_fast.audit import Budget, audit, audit_table, profile
from cifar_fast.models.layers import Residual, conv_bn_act
from cifar_fast.recipe import load_recipe
from cifar_fast.training.prepare import BudgetError, prepare

AREA = 32 * 32
IMAGE = 3 * AREA
HEAD = 8 * 10 + 8 * 10  # weights, scales and biases of 8 → 10


class Net(nn.Module):
    "A 3×3 convolution to 8 channels, whatever `then` does, a global pool and a linear layer."

    def __init__(self, then, bias=True, **modules):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, bias=bias)
        self.then, self.fc = then, nn.Linear(8, 10)
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x):
        return self.fc(self.then(self, self.conv(x)).mean((2, 3)))


def flash(then=lambda net, x: x, **kw) -> int:
    return profile(Net(then, **kw)).flash_bytes - HEAD


def ram(then, **kw) -> int:
    return profile(Net(then, **kw)).ram_bytes


def test_flash_is_a_byte_a_weight_and_four_a_bias_and_a_scale():
    assert flash() == 8 * 27 + 8 * 4 + 8 * 4
    assert flash(bias=False) == 8 * 27 + 8 * 4
    assert profile(Net(lambda net, x: x)).params == 8 * 27 + 8 + 90


def test_a_batch_norm_behind_a_convolution_is_folded_into_its_bias():
    def norm(net, x):
        return net.bn(x)

    assert flash(norm, bias=False, bn=nn.BatchNorm2d(8)) == flash(norm, bn=nn.BatchNorm2d(8)) == flash()
    assert flash(lambda net, x: net.bn(x[:, :, None]).squeeze(2), bias=False, bn=nn.BatchNorm3d(8)) == flash()  # a view
    # Behind an activation nothing takes it up: a scale and a shift for each channel.
    assert flash(lambda net, x: net.bn(F.relu(x)), bn=nn.BatchNorm2d(8)) == flash() + 8 * 8
    assert flash(lambda net, x: net.bn(x), bn=nn.GroupNorm(2, 8)) == flash() + 8 * 8


def test_shared_weights_and_other_ones():
    conv = nn.Conv2d(8, 8, 3, padding=1)
    once = flash(lambda net, x: net.other(x), other=conv)
    assert once == flash() + 8 * 72 + 64
    assert flash(lambda net, x: net.other(net.other(x)), other=conv) == once
    depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
    assert flash(lambda net, x: net.dw(x), dw=depthwise) == flash() + 8 * 9 + 8 * 4
    gain = nn.ParameterList([nn.Parameter(torch.ones(8, 1, 1))])
    assert flash(lambda net, x: x * net.gain[0], gain=gain) == flash() + 8


def test_both_mirror_halves_count():
    "Of a flip-equivariant convolution half of the kernels are parameters, and all are stored."
    found = profile(timm.create_model("cifar_mirror"))
    kernels = 27 * 16 + 16 * 16 * 48 + 4 * 9 * 48 * 48 + 16 * 48 * 104 + 2 * 9 * 104 * 104 + 2 * (9 + 104) * 104
    channels = 16 + 5 * 48 + 3 * 104 + 2 * 104
    assert found.flash_bytes == kernels + 8 * channels + 2 * 4 * 104 + 52 * 10 + 8 * 10
    assert found.flash_bytes > 2 * found.params


@pytest.mark.parametrize(("then", "maps"), [
    (lambda net, x: x, 1),
    (lambda net, x: F.relu(x), 1),  # the convolution's own output, limited
    (lambda net, x: net.bn(x).relu_(), 1),
    (lambda net, x: F.relu6(net.bn(x)), 1),
    (lambda net, x: F.gelu(x), 2),
    (lambda net, x: F.silu(x), 3),  # a sigmoid, then a product
    (lambda net, x: F.silu(x, inplace=True), 3),
    (lambda net, x: net.bn(F.relu(x)), 2),  # cannot be folded
    (lambda net, x: F.relu(x) + x, 3),  # both are needed: a map of its own
    (lambda net, x: x.flatten(2).unflatten(2, (32, 32)), 1),
    (lambda net, x: torch.cat([x, F.gelu(x)], 1)[:, :8], 4),
], ids=["none", "relu", "relu in place", "relu6", "gelu", "silu", "silu in place", "norm", "both", "views", "cat"])
def test_buffers_alive_at_once(then, maps):
    assert ram(then, bn=nn.BatchNorm2d(8)) == max(IMAGE + 8 * AREA, maps * 8 * AREA)


@pytest.mark.parametrize("inplace", [True, False])
def test_a_skip_connection_is_alive_through_its_branch(inplace):
    "In the second convolution of the block: its input and output of 16 channels, and the 8 of the shortcut."
    def block(net, x):
        x = F.relu(x, inplace=inplace)
        return F.relu(x + net.down(net.up(x)), inplace=inplace)

    up, down = conv_bn_act(8, 16), conv_bn_act(16, 8, act_layer="")
    assert ram(block, up=up, down=down) == (8 + 16 + 8) * AREA
    assert ram(lambda net, x: net.down(net.up(x)), up=up, down=down) == (16 + 8) * AREA
    # The sum is written to a third map beside its two terms.
    assert ram(lambda net, x: net.block(x), block=Residual(conv_bn_act(8, 8, act_layer=""))) == 3 * 8 * AREA
    assert ram(lambda net, x: x.add_(net.same(x)), same=conv_bn_act(8, 8, act_layer="")) == 3 * 8 * AREA


def test_memory_format_and_type_change_nothing():
    model = timm.create_model("cifar_mirror")
    wanted = profile(model)
    found = profile(model.to(torch.bfloat16, memory_format=torch.channels_last))
    assert (found.flash_bytes, found.ram_bytes) == (wanted.flash_bytes, wanted.ram_bytes) == (401_368, 3 * 16 * AREA)


def test_budget():
    model = Net(lambda net, x: F.relu(x))
    exact = profile(model)
    fits = Budget(max_macs=exact.macs, max_flash_kb=exact.flash_bytes / 1024, max_ram_kb=11)
    small = replace(fits, max_macs=exact.macs - 1, max_flash_kb=0.4, max_ram_kb=10.5)
    new = ("multiply_adds", "flash", "ram")
    assert [v.ok for v in audit(model, fits).verdicts if v.rule in new] == [True] * 3
    found = audit(model, small)
    assert [v.rule for v in found.failures() if v.rule in new] == list(new)
    table = audit_table([found])
    assert "flash: 0.4 KB, at most 0.4 KB" in table and "ram: 11.0 KB, at most 10.5 KB" in table
    assert not {v.rule for v in found.failures(dict.fromkeys(new, "a larger chip"))} & set(new)
    assert not {v.rule for v in audit(model).verdicts} & set(new)


def test_a_recipe_is_held_to_them(digits):
    with pytest.raises(BudgetError, match=r"\(flash: 122.1 KB, required 96.0 KB; ram: 12.0 KB, required 8.0 KB\)"):
        prepare(replace(tiny(), budget=Budget(max_flash_kb=96, max_ram_kb=8)))
    run = prepare(replace(tiny(), budget=Budget(max_flash_kb=96), waive={"flash": "a larger chip"}))
    assert run.audit.profile.flash_bytes == 125_072


def test_micro_keeps_its_budget_and_the_standard_one():
    recipe = load_recipe("micro")
    model = timm.create_model(recipe.arch)
    found = audit(model, recipe.budget)
    assert not found.failures() and not audit(model).failures() and found.rf_agrees and not recipe.waive
    assert {v.rule: v.required for v in found.verdicts} == {
        "parameters": 199_999, "receptive_field": 45, "max_pooling": 0, "depthwise_separable": 1, "dilation": 1,
        "global_average_pooling": True, "multiply_adds": 12_500_000, "flash": 96 * 1024, "ram": 40 * 1024}
