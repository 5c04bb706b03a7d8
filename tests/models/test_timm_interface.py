"""What timm's users and tools expect of a model, walked over all that are registered here."""

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import fx, nn

import cifar_fast.models  # noqa: F401  registers cifar_*
from cifar_fast.audit import profile

NAMES = timm.list_models("cifar_*")
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
each = pytest.mark.parametrize("name", NAMES)
in_both_formats = pytest.mark.parametrize("memory", FORMATS.values(), ids=FORMATS)


def seeded(name, **kwargs):
    torch.manual_seed(0)
    return timm.create_model(name, **kwargs)


def images(count=2, **kwargs):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1)).to(**kwargs)


@each
def test_default_cfg(name):
    model = timm.create_model(name)
    cfg, names = model.default_cfg, model.state_dict()
    assert cfg["architecture"] == name
    assert cfg["input_size"] == (model.in_chans, 32, 32) and cfg["num_classes"] == model.num_classes == 10
    assert f"{cfg['first_conv']}.weight" in names and f"{cfg['classifier']}.weight" in names
    assert model.get_submodule(cfg["first_conv"]).in_channels == model.in_chans
    assert model.get_submodule(cfg["classifier"]) is model.get_classifier()
    assert timm.create_model(name, in_chans=5).in_chans == 5


@each
def test_features_and_head_make_the_whole(name):
    model, x = seeded(name).eval(), images()
    with torch.no_grad():
        features = model.forward_features(x)
        assert features.shape == (2, model.num_features, *model.default_cfg["pool_size"])
        assert torch.equal(model.forward_head(features), model(x))
        pooled = model.forward_head(features, pre_logits=True)
        assert pooled.shape == (2, model.head_hidden_size)
        assert torch.allclose(pooled, features.mean((2, 3)), atol=1e-6)
        bare = seeded(name, num_classes=0).eval()
        assert isinstance(bare.get_classifier(), nn.Identity) and torch.equal(bare(x), pooled)
        unpooled = seeded(name, num_classes=0, global_pool="").eval()
        assert torch.equal(unpooled(x), features)


@each
@pytest.mark.parametrize("pool", ["avg", "max", "avgmax", "catavgmax"])
def test_global_pools(name, pool):
    model, x = seeded(name, num_classes=3, global_pool=pool).eval(), images()
    with torch.no_grad():
        features = model.forward_features(x)
        mean, most = features.mean((2, 3)), features.amax((2, 3))
        expected = {"avg": mean, "max": most, "avgmax": (mean + most) / 2,
                    "catavgmax": torch.cat([mean, most], 1)}[pool]
        assert torch.allclose(model.forward_head(features, pre_logits=True), expected, atol=1e-6)
        assert model.head_hidden_size == expected.shape[1] and model.num_features == features.shape[1]
        assert model(x).shape == (2, 3)


@each
def test_reset_classifier(name):
    model, x = seeded(name, global_pool="max").eval(), images()
    parameters = {n: p.shape for n, p in model.named_parameters()}
    with torch.no_grad():
        pooled = model.forward_head(model.forward_features(x), pre_logits=True)
        model.reset_classifier(3)
        assert model.num_classes == 3 and model(x).shape == (2, 3)
        assert torch.equal(model.forward_head(model.forward_features(x), pre_logits=True), pooled)  # still max
        model.reset_classifier(10)
        assert {n: p.shape for n, p in model.named_parameters()} == parameters  # a head without bias stays without
        model.reset_classifier(0, "avg")
        assert model.num_classes == 0 and model(x).shape == (2, model.num_features)
        assert not torch.allclose(model(x), pooled)
        model.reset_classifier(0, "")
        assert torch.equal(model(x), model.forward_features(x))
        model.reset_classifier(4, "catavgmax")
        assert model.head_hidden_size == 2 * model.num_features and model(x).shape == (2, 4)


@each
def test_reset_classifier_keeps_device_type_and_mode(name):
    model = timm.create_model(name).eval().to("meta", torch.float64).requires_grad_(False)
    model.reset_classifier(0)
    assert not [n for n, p in model.named_parameters() if p.requires_grad]
    model.reset_classifier(2, "max")
    assert {(p.device.type, p.dtype) for p in model.parameters()} == {("meta", torch.float64)}
    assert not [m for m in model.modules() if m.training]


@each
def test_device_and_dtype(name):
    model = timm.create_model(name, device="meta", dtype=torch.bfloat16)
    tensors = [*model.parameters(), *model.buffers()]
    assert {t.device.type for t in tensors} == {"meta"}
    assert {t.dtype for t in tensors if t.is_floating_point()} == {torch.bfloat16}
    real = seeded(name).eval()
    real(images())
    assert real.to(torch.bfloat16)(images(dtype=torch.bfloat16)).dtype == torch.bfloat16


@each
def test_unknown_arguments_are_refused(name):
    with pytest.raises(TypeError, match="not_an_argument"):
        timm.create_model(name, not_an_argument=1)


@each
def test_feature_maps(name):
    "Each level has the channels and the total stride that its feature_info states; the audit counts the same."
    whole, model, x = seeded(name).eval(), seeded(name, features_only=True).eval(), images()
    levels, layers = model.feature_info, profile(whole).layers
    with torch.no_grad():
        maps = model(x)
        assert torch.equal(maps[-1], whole.forward_features(x))
    assert len(maps) == len(levels.channels()) == 4
    for at, channels, stride, module in zip(maps, levels.channels(), levels.reduction(), levels.module_name(),
                                            strict=True):
        last = [layer for layer in layers if layer.path.startswith(module)][-1]
        assert (at.shape[1], stride) == (channels, last.total_stride)
        assert tuple(at.shape[1:]) == last.shape


@each
def test_chosen_feature_maps(name):
    x = images()
    with torch.no_grad():
        every = seeded(name, features_only=True).eval()(x)
        chosen = seeded(name, features_only=True, out_indices=(1, 3)).eval()
        assert all(torch.equal(a, b) for a, b in zip(chosen(x), every[1::2], strict=True))
        assert chosen.feature_info.channels() == [every[1].shape[1], every[3].shape[1]]
        assert len(seeded(name, features_only=True, out_indices=(0,)).eval()(x)) == 1


@each
def test_feature_maps_of_trained_weights(name, tmp_path):
    model, x, file = seeded(name).eval(), images(), tmp_path / "weights.safetensors"
    save_file({k: v + 0.01 if v.is_floating_point() else v for k, v in model.state_dict().items()}, file)
    overlay = dict(pretrained=True, pretrained_cfg_overlay=dict(file=str(file)))
    with torch.no_grad():
        maps = timm.create_model(name, features_only=True, **overlay).eval()(x)
        assert torch.equal(maps[-1], timm.create_model(name, **overlay).eval().forward_features(x))


@each
@in_both_formats
@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_torchscript(name, memory):
    model, x = seeded(name).to(memory_format=memory).eval(), images(memory_format=memory)
    with torch.no_grad():
        expected = model(x)
        assert torch.allclose(torch.jit.script(model)(x), expected, atol=1e-5)
        assert torch.allclose(torch.jit.script(fx.symbolic_trace(model))(x), expected, atol=1e-5)


@each
@in_both_formats
def test_fx_traces_inference(name, memory):
    model, x = seeded(name).to(memory_format=memory).eval(), images(memory_format=memory)
    traced = fx.symbolic_trace(model)
    with torch.no_grad():
        assert torch.equal(traced(x), model(x))
        other = FORMATS["contiguous" if memory is torch.channels_last else "channels_last"]
        assert torch.allclose(traced(x.to(memory_format=other)), model(x), atol=1e-5)  # the graph fits both formats


@each
@in_both_formats
def test_fx_traces_training(name, memory):
    "Gradients of all parameters and the statistics of batch norm are those of the model itself."
    rates = dict.fromkeys(["drop_rate", *(["unit_drop_rate"] if name[6:] in ("net", "netv2", "strided") else [])], 0)
    pair = [seeded(name, **rates).to(memory_format=memory).train() for _ in range(2)]
    model, traced, x = pair[0], fx.symbolic_trace(pair[1]), images(8, memory_format=memory)
    outs = [m(x) for m in (model, traced)]
    assert torch.equal(*outs)
    for out in outs:
        out.square().sum().backward()
    gradients = {n: p.grad for n, p in traced.named_parameters()}
    assert gradients.keys() == {n for n, _ in model.named_parameters()}
    assert all(torch.allclose(p.grad, gradients[n], atol=1e-5) for n, p in model.named_parameters())
    buffers = dict(traced.named_buffers())
    assert all(torch.equal(b, buffers[n]) for n, b in model.named_buffers())
    with torch.no_grad():
        assert torch.equal(traced.eval()(x), model.eval()(x))
