"""Models for larger images: the stem strides more, so that they cost about the same and see as much of the image."""

import pytest
import timm
import torch

from cifar_fast.audit import AuditError, audit, receptive_field_probe
from cifar_fast.models import ModelError, create_model, scaled_widths
from cifar_fast.recipe import load_recipe, override
from cifar_fast.training.prepare import prepare

SIZED = ("cifar_mirror", "cifar_mirror_dilated", "cifar_final", "cifar_sprint", "cifar_micro")


@pytest.mark.parametrize("name", SIZED)
@pytest.mark.parametrize("size", [48, 64, 96, 128, 224])
def test_within_the_budget_at_every_size(name, size):
    small, large = (audit(create_model(name, 10, s, scaled_widths(name, 199_999, 10, s)), input_size=(3, s, s))
                    for s in (32, size))  # narrower, as a run makes it, where the larger stem leaves no room
    assert not large.failures() and large.rf_agrees
    assert large.receptive_field_probe / size > 0.9 * small.receptive_field_probe / 32  # sees as much of the image
    assert large.profile.macs < (1.3 if size <= 128 else 1.8) * small.profile.macs
    assert create_model(name, 10, size).default_cfg["input_size"] == (3, size, size)


@pytest.mark.parametrize("name", SIZED)
def test_32_is_the_model_that_was_published(name):
    theirs, ours = timm.create_model(name).state_dict(), create_model(name, 10, 32).state_dict()
    assert {k: v.shape for k, v in theirs.items()} == {k: v.shape for k, v in ours.items()}


@pytest.mark.parametrize("name", SIZED)
def test_feature_maps_state_their_stride(name):
    model = timm.create_model(name, img_size=96, features_only=True).eval()
    with torch.no_grad():
        maps = model(torch.randn(1, 3, 96, 96))
    assert [96 // m.shape[-1] for m in maps] == model.feature_info.reduction()


@pytest.mark.parametrize("size, near", [(33, "32 or 40"), (100, "96 or 112"), (2, "take 4")])
def test_a_size_at_which_it_would_not_be_exact_is_refused(size, near):
    with pytest.raises(ModelError, match=f"size={size}.*{near}"):
        create_model("cifar_mirror", 10, size)


@pytest.mark.parametrize("img_size", [(64, 32), 0])
def test_no_square(img_size):
    with pytest.raises(ValueError, match="img_size"):
        timm.create_model("cifar_sprint", img_size=img_size)


def test_other_models_of_timm_take_what_they_take():
    assert create_model("vit_tiny_patch16_224", 2, 64)(torch.randn(1, 3, 64, 64)).shape == (1, 2)
    small, large = (audit(create_model("cifar_netv2", 10, s), input_size=(3, s, s)).profile.macs for s in (32, 64))
    assert large == pytest.approx(4 * small, rel=0.01)  # the maps are as much larger as the images
    with pytest.raises(AuditError, match="cifar_strided.*12×12"):
        audit(create_model("cifar_strided", 10, 12), input_size=(3, 12, 12))


def test_the_probe_grows_to_its_largest_image():
    "From a size that is no power of two: 96, 192, then the whole 256."
    assert receptive_field_probe(create_model("cifar_mirror", 10, 96), (3, 96, 96), 256) == 200


def test_a_size_beyond_what_a_stem_takes_is_refused_before_images_are_read():
    recipe = override(load_recipe("sprint"), ["data=/nowhere", "size=1000"])
    with pytest.raises(ModelError, match="size=1000: it takes images of up to 224 pixels"):
        prepare(recipe)
