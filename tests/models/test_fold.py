"""The fold is exact for every registered model, and for others of timm."""

import pytest
import timm
import torch
from timm.layers import BatchNormAct2d
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import cifar_fast.models  # noqa: F401 - registers them
from cifar_fast.models import fold as folding
from cifar_fast.models.fold import fold

TIMM = ("resnet18", "mobilenetv3_small_050", "efficientnet_lite0", "regnetx_002", "densenet121", "repvgg_a0",
        "vit_tiny_patch16_224")


def as_trained(name, size=32, **kwargs):
    "A model whose batch norms have other statistics, scales and shifts than the initial ones."
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=7, **kwargs)
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.uniform_(m.weight, 0.5, 1.5)
            nn.init.normal_(m.bias, std=0.2)
    with torch.no_grad():
        for _ in range(3):  # statistics that fit, so that values stay in range
            model.train()(torch.randn(8, 3, size, size))
    return model.eval()


@torch.no_grad()
def difference(model, folded, size):
    "The largest, as a fraction of the largest value."
    x = torch.randn(4, 3, size, size)
    here, there = model(x), folded(x)
    return ((here - there).abs().max() / here.abs().max().clamp(min=1)).item()


def norms(model):
    return [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("name", timm.list_models("cifar_*"))
def test_exact_for_every_registered_model(name, size):
    mirrored = ("cifar_mirror", "cifar_mirror_dilated")
    sized = {"img_size": size} if name in ("cifar_final", "cifar_sprint", *mirrored) else {}
    model = as_trained(name, size, **sized)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    folded = fold(model)
    assert difference(model, folded, size) < 1e-5
    assert norms(model) and not norms(folded)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())  # a copy was folded


@pytest.mark.parametrize("name", TIMM)
def test_exact_for_models_of_timm(name):
    size = 224 if name.startswith("vit") else 64
    model = as_trained(name, size)
    folded = fold(model)
    assert difference(model, folded, size) < 1e-5
    assert not norms(folded)


class Shared(nn.Module):
    "One convolution is read twice, one is called twice: no batch norm may be merged into either."

    def __init__(self):
        super().__init__()
        self.read, self.called = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
        self.bn1, self.bn2 = nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x):
        x = self.read(x)
        x = self.bn1(x) + x
        return self.bn2(self.called(x)) + self.called(x)


def test_a_convolution_that_others_use_stays_as_it_is():
    torch.manual_seed(0)
    model = Shared()
    with torch.no_grad():
        model.train()(torch.randn(8, 3, 5, 5) * 3 + 1)
    folded = fold(model.eval())
    assert difference(model, folded, 5) < 1e-5 and not norms(folded)


def test_a_norm_that_takes_its_input_by_name():
    class Named(nn.Sequential):
        def forward(self, x):
            return self[1](input=self[0](x))

    model = Named(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    with torch.no_grad():
        model.train()(torch.randn(8, 3, 5, 5) * 3 + 1)
    folded = fold(model.eval())
    assert difference(model, folded, 5) < 1e-5 and not norms(folded)


def test_a_model_that_cannot_be_traced_keeps_its_norms(monkeypatch):
    class Branches(Shared):
        def forward(self, x):
            return super().forward(x if x.sum() > 0 else -x)

    model = Branches().eval()
    folded = fold(model)
    assert difference(model, folded, 5) == 0 and len(norms(folded)) == 2 and folded is not model
    assert not isinstance(folded, folding.fx.GraphModule)


def test_norms_are_merged_where_they_are(monkeypatch):
    "Fake tensors stand in for a GPU, which may be one of MPS: that has no float64."
    double, gpu = torch.Tensor.double, dict(device="cuda")
    monkeypatch.setattr(torch.Tensor, "double", lambda t: double(t) if t.device.type == "cpu" else pytest.fail("MPS"))
    with FakeTensorMode():
        conv, norm = nn.Conv2d(3, 4, 1, **gpu), folding.norm_of(BatchNormAct2d(4, **gpu))
        folding.merge(conv, norm)
        made = nn.ModuleList([conv, norm, folding.depthwise(norm)])
    assert {t.device.type for t in made.state_dict().values()} == {"cuda"}
