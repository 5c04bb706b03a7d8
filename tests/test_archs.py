"""Every registered architecture, found by walking timm's registry."""

import copy
import re
from functools import partial

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from cifar_fast import models as archs
from cifar_fast.recipe import load_recipe, override

ARCHS = timm.list_models("cifar_*")
EXACT = {
    "cifar_netv2": 181_942, "cifar_net": 199_368, "cifar_strided": 193_280, "cifar_optimized200k": 150_690,
    "cifar_mobile": 155_434,
}


def count(model):
    return sum(p.numel() for p in model.parameters())


def test_all_are_registered():
    assert set(ARCHS) == {*EXACT, "cifar_final", "cifar_mirror", "cifar_sprint"}


@pytest.mark.parametrize("name", EXACT)
def test_published_parameter_counts(name):
    assert count(timm.create_model(name, num_classes=10)) == EXACT[name]


@pytest.mark.parametrize("name", ARCHS)
def test_learns_and_is_deterministic_in_eval(name):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=7)
    x = torch.randn(2, 3, 32, 32)
    out = model(x)
    assert out.shape == (2, 7)
    out.square().mean().backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not without
    assert sum(p.grad.abs().sum() > 0 for p in model.parameters()) > 0.9 * len(list(model.parameters()))
    model.eval()
    with torch.no_grad():
        assert torch.equal(model(x), model(x))


@pytest.mark.parametrize("name", ARCHS)
def test_behaves_as_timm_users_expect(name):
    model = timm.create_model(name).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        features = model.forward_features(x)
        assert features.shape == (2, model.num_features, *model.default_cfg["pool_size"])
        pooled = model.forward_head(features, pre_logits=True)
        assert torch.allclose(pooled, features.mean((2, 3)), atol=1e-6)
        assert torch.equal(model.forward_head(features), model(x))
        bare = timm.create_model(name, num_classes=0).eval()
        assert bare(x).shape == (2, model.num_features)
        assert isinstance(bare.get_classifier(), nn.Identity)
        before = count(model)
        model.reset_classifier(3)
        assert model(x).shape == (2, 3) and model.num_classes == 3
        model.reset_classifier(10)
        assert count(model) == before  # a head without bias stays without
        model.reset_classifier(0)
        assert torch.allclose(model(x), pooled, atol=1e-6)
    assert model.default_cfg["input_size"] == (3, 32, 32)
    assert model.default_cfg["architecture"] == name
    for path in (model.default_cfg["first_conv"], model.default_cfg["classifier"]):
        model.get_submodule(path)


@pytest.mark.parametrize("name", ARCHS)
def test_other_channels_and_sizes(name):
    model = timm.create_model(name, in_chans=1).eval()
    smallest = (model.default_cfg.get("min_input_size") or (3, 8, 8))[1]
    with torch.no_grad():
        for size in (smallest, 45):
            assert model(torch.randn(1, 1, size, size)).shape == (1, 10)


@pytest.mark.parametrize("name", ARCHS)
def test_state_dict_round_trip(name, tmp_path):
    one = timm.create_model(name).eval()
    file = tmp_path / "weights.safetensors"
    save_file(one.state_dict(), file)
    overlay = dict(file=str(file))
    other = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay).eval()
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(one(x), other(x))
        assert torch.equal(copy.deepcopy(one)(x), one(x))


@pytest.mark.parametrize("name", ARCHS)
def test_pretrained_says_what_to_do_instead(name):
    "And the recipe that it names is one of this net."
    with pytest.raises(RuntimeError) as told:
        timm.create_model(name, pretrained=True)
    recipe, *changes = re.search(r"cifar_fast recipe (.+?)\)", str(told.value))[1].split()
    assert override(load_recipe(recipe), changes).arch == name
    assert f"exports/{recipe}.safetensors" in str(told.value)


def test_published_claims():
    assert {n for n in ARCHS if archs.published_claims(n)} == set(EXACT)
    assert archs.published_claims("resnet18") is None and archs.published_claims("no_such_net") is None
    for name in EXACT:
        claims = archs.published_claims(name)
        assert {"name", "parameters", "receptive_field", "accuracy"} <= set(claims)
        if name != "cifar_netv2":  # says about 195,000 in its text
            assert claims["parameters"] == EXACT[name]


def test_activation_memory_of_strided_is_what_was_published():
    "torchsummary's forward/backward figure: twice the outputs of all leaf modules, float32, 2^20 bytes."
    model, sizes = timm.create_model("cifar_strided").eval(), []
    for module in model.modules():
        if not list(module.children()) and not isinstance(module, nn.Identity | nn.Flatten):
            module.register_forward_hook(lambda m, args, out: sizes.append(out.numel()))
    with torch.no_grad():
        model(torch.zeros(1, 3, 32, 32))
    assert round(2 * 4 * sum(sizes) / 2**20, 2) == 6.49


@pytest.mark.parametrize("name", ["cifar_net", "cifar_strided"])
def test_units_drop_in_training_only(name):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 32, 32)
    model = timm.create_model(name, unit_drop_rate=0.5)
    kinds = {type(m) for m in model.features.modules() if isinstance(m, nn.Dropout | nn.Dropout2d)}
    assert kinds == {nn.Dropout2d if name == "cifar_net" else nn.Dropout}
    with torch.no_grad():
        assert not torch.equal(model(x), model(x))


def test_widths_and_depths_are_arguments():
    small = timm.create_model("cifar_final", widths=(8, 12, 16), depths=(0, 1, 1))
    assert count(small) < 10_000 and small(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    assert timm.create_model("cifar_sprint", widths=(8, 12, 16), depths=(1, 0)).num_features == 16


@pytest.mark.parametrize("name", ["cifar_netv2", "cifar_strided", "cifar_mobile", "cifar_final", "cifar_mirror"])
@pytest.mark.parametrize("form", ["string", "callable"])
def test_fastai_vision_learner(name, form):
    pytest.importorskip("fastai")
    from fastai.data.core import DataLoaders
    from fastai.vision.learner import vision_learner

    data = torch.utils.data.TensorDataset(torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 0]))
    dls = DataLoaders.from_dsets(data, data, bs=2, device="cpu")
    arch = name if form == "string" else getattr(archs, name)
    build = partial(vision_learner, dls, arch, n_out=3, loss_func=nn.CrossEntropyLoss(), pretrained=False)
    model = build(concat_pool=False, lin_ftrs=[], first_bn=False, ps=0.0).model.eval()
    with torch.no_grad():
        assert model(torch.randn(2, 3, 32, 32)).shape == (2, 3)
    features = timm.create_model(name, num_classes=0)
    assert count(model) == count(features) + (features.num_features + 1) * 3
    pools = [type(m).__name__ for m in model[1].modules() if "Pool" in type(m).__name__]
    assert pools == ["AdaptiveAvgPool2d"]
