"""Every registered model, found by walking timm's registry; its interface is in test_timm_interface.py."""

import copy
import re
from functools import partial
from pathlib import Path

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import cifar_fast
from cifar_fast import models
from cifar_fast.recipe import load_recipe, override

NAMES = timm.list_models("cifar_*")
PARAMETERS = {
    "cifar_netv2": 181_942, "cifar_net": 199_368, "cifar_strided": 193_280, "cifar_optimized200k": 150_690,
    "cifar_mobile": 155_434,
}


def count(model):
    return sum(p.numel() for p in model.parameters())


def test_all_are_registered():
    assert set(NAMES) == {*PARAMETERS, "cifar_final", "cifar_micro", "cifar_mirror", "cifar_mirror_dilated",
                          "cifar_sprint", "cifar_teacher"}


@pytest.mark.parametrize("name", PARAMETERS)
def test_published_parameter_counts(name):
    assert count(timm.create_model(name, num_classes=10)) == PARAMETERS[name]


@pytest.mark.parametrize("name", NAMES)
def test_learns_and_is_deterministic_in_eval(name):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=7)
    x = torch.randn(2, 3, 32, 32)
    out = model(x)
    assert out.shape == (2, 7)
    out.square().mean().backward()
    assert not [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert sum(p.grad.abs().sum() > 0 for p in model.parameters()) > 0.9 * len(list(model.parameters()))
    model.eval()
    with torch.no_grad():
        assert torch.equal(model(x), model(x))


@pytest.mark.parametrize("name", NAMES)
def test_other_channels_and_sizes(name):
    model = timm.create_model(name, in_chans=1).eval()
    smallest = (model.default_cfg.get("min_input_size") or (3, 8, 8))[1]
    with torch.no_grad():
        for size in (smallest, 45):
            assert model(torch.randn(1, 1, size, size)).shape == (1, 10)


@pytest.mark.parametrize("name", NAMES)
def test_state_dict_round_trip(name, tmp_path):
    one = timm.create_model(name).eval()
    file = tmp_path / "weights.safetensors"
    save_file(one.state_dict(), file)
    other = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=dict(file=str(file))).eval()
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(one(x), other(x))
        assert torch.equal(copy.deepcopy(one)(x), one(x))


def test_committed_weights_fit():
    "Names and shapes of the published exports are those of their models today."
    exports = Path(cifar_fast.__file__).parents[1] / "exports"
    files = {f.parent.name if f.stem == "model" else f.stem: f for f in exports.rglob("*.safetensors")}
    for run, arch in {"final": "cifar_mirror", "sprint": "cifar_sprint"}.items():
        with safe_open(files[run], "pt") as weights:
            shapes = {name: weights.get_slice(name).get_shape() for name in weights.keys()}
        assert shapes == {k: list(v.shape) for k, v in timm.create_model(arch).state_dict().items()}, run


@pytest.mark.parametrize("name", NAMES)
def test_pretrained_names_the_recipe_that_trains_it(name):
    with pytest.raises(RuntimeError) as raised:
        timm.create_model(name, pretrained=True)
    recipe, *changes = re.search(r"cifar_fast recipe (.+?)\)", str(raised.value))[1].split()
    assert override(load_recipe(recipe), changes).arch == name
    assert f"local-dir:exports/{recipe}'" in str(raised.value)


def test_published_claims():
    assert {n for n in NAMES if models.published_claims(n)} == set(PARAMETERS)
    assert models.published_claims("resnet18") is None and models.published_claims("no_such_model") is None
    for name in PARAMETERS:
        claims = models.published_claims(name)
        assert {"name", "parameters", "receptive_field", "accuracy"} <= set(claims)
        if name != "cifar_netv2":  # whose authors state about 195,000
            assert claims["parameters"] == PARAMETERS[name]


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
        model.eval()
        assert torch.equal(model(x), model(x))


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
    arch = name if form == "string" else getattr(models, name)
    build = partial(vision_learner, dls, arch, n_out=3, loss_func=nn.CrossEntropyLoss(), pretrained=False)
    model = build(concat_pool=False, lin_ftrs=[], first_bn=False, ps=0.0).model.eval()
    with torch.no_grad():
        assert model(torch.randn(2, 3, 32, 32)).shape == (2, 3)
    features = timm.create_model(name, num_classes=0)
    assert count(model) == count(features) + (features.num_features + 1) * 3
    pools = [type(m).__name__ for m in model[1].modules() if "Pool" in type(m).__name__]
    assert pools == ["AdaptiveAvgPool2d"]
