"""Where a net looked, and how that is shown."""

import numpy as np
import pytest
import timm
import torch

from cifar_fast.models import create_model
from cifar_fast.serve import looking
from cifar_fast.serve.gradcam import grad_cam


@pytest.mark.parametrize("arch", timm.list_models("cifar_*"))
def test_grad_cam_of_every_net(arch):
    "In 0..1, of the last map before the pooling, and without a trace in the net."
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
    "A net that answers by the brightness of red where it is: the map is strongest there."
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1, bias=False), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
                              torch.nn.Flatten(), torch.nn.Linear(2, 2, bias=False))
    net[0].weight.data = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]])[:, :, None, None]
    net[4].weight.data = torch.eye(2)
    x = torch.zeros(2, 3, 8, 8)
    x[:, 0, 1, 6] = 1  # red, upper right
    x[:, 1, 6, 3] = 3  # green, lower middle, and brighter
    cam = grad_cam(net, x, torch.tensor([0, 1])).numpy()
    assert looking.place(cam[0]).endswith("upper right") and looking.place(cam[1]).endswith("lower middle")
    assert looking.place(grad_cam(net, x)[0].numpy()).endswith("lower middle")  # of what it predicts
    assert cam[0].sum() == 1


def test_a_net_without_a_map_and_a_map_without_a_place():
    flat = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
    cam = grad_cam(flat, torch.ones(1, 3, 2, 2)).numpy()
    assert cam.shape == (1, 1, 1) and looking.place(cam[0]) == "no place spoke for this class"
    assert not looking.overlay(cam[0])[..., 3].any()


def test_the_overlay_is_opaque_where_the_map_is_strong():
    cam = np.zeros((8, 8), np.float32)
    cam[4, 4] = 1
    shown = looking.overlay(cam)
    assert shown.shape == (looking.VIEW, looking.VIEW, 4) and shown[0, 0, 3] == 0 and shown[36, 36, 3] > 120
    assert looking.place(cam) == "it looked most at the centre"
