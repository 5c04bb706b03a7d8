"""The receptive field by the rule and by the probe, and what is said where they differ."""

import warnings

import pytest
import timm
import torch
import torch.nn.functional as F
from bodies import Body
from torch import nn

import cifar_fast.models  # noqa: F401  registers cifar_*
from cifar_fast.audit import (
    audit,
    audit_table,
    profile,
    receptive_field_probe,
)


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


def test_large_networks_have_a_bounded_probe():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = audit(timm.create_model("resnet10t", num_classes=10))
    assert found.profile.max_pools == 1 and found.profile.receptive_field == found.receptive_field_probe
