"""Grad-CAM and its overlay."""

import numpy as np
import pytest
import timm
import torch

from cifar_fast.models import create_model
from cifar_fast.serve.classify import OVERLAY_SIDE, overlay, strongest_place
from cifar_fast.serve.gradcam import grad_cam


@pytest.mark.parametrize("arch", timm.list_models("cifar_*"))
def test_grad_cam_of_every_model(arch):
    "In [0, 1], of the last map before the pooling; the model is left unchanged."
    model = create_model(arch, 10).train()
    for p in model.parameters():
        p.requires_grad_(arch != "cifar_final")  # a frozen net too
    before = {k: v.clone() for k, v in model.state_dict().items()}
    cam = grad_cam(model, torch.randn(3, 3, 32, 32))
    with torch.no_grad():
        last = model.eval().forward_features(torch.zeros(1, 3, 32, 32))
    model.train()
    assert cam.shape == (3, *last.shape[2:]) and not cam.requires_grad
    assert 0 <= cam.min() and cam.max() <= 1 and all(c.max() == 1 or not c.any() for c in cam)
    assert model.training and all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks or m._backward_hooks for m in model.modules())
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_grad_cam_finds_the_place_that_matters():
    "A model that sums the red of an image: the map is strongest where it is red."
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1, bias=False), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
                              torch.nn.Flatten(), torch.nn.Linear(2, 2, bias=False))
    net[0].weight.data = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]])[:, :, None, None]
    net[4].weight.data = torch.eye(2)
    x = torch.zeros(2, 3, 8, 8)
    x[:, 0, 1, 6] = 1  # red, upper right
    x[:, 1, 6, 3] = 3  # green, lower middle, and brighter
    cam = grad_cam(net, x, torch.tensor([0, 1])).numpy()
    assert strongest_place(cam[0]).endswith("upper right") and strongest_place(cam[1]).endswith("lower middle")
    assert strongest_place(grad_cam(net, x)[0].numpy()).endswith("lower middle")  # of what it predicts
    assert cam[0].sum() == 1


def test_a_model_without_a_feature_map():
    flat = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
    cam = grad_cam(flat, torch.ones(1, 3, 2, 2)).numpy()
    assert cam.shape == (1, 1, 1) and strongest_place(cam[0]) == "no place contributed to this class"
    assert not overlay(cam[0])[..., 3].any()


def test_the_overlay_is_opaque_where_the_map_is_strong():
    cam = np.zeros((8, 8), np.float32)
    cam[4, 4] = 1
    shown = overlay(cam)
    assert shown.shape == (OVERLAY_SIDE, OVERLAY_SIDE, 4) and shown[0, 0, 3] == 0 and shown[36, 36, 3] > 120
    assert strongest_place(cam) == "strongest at the centre"
