"""Runs on images of another size: what follows it in the recipe, and what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from strangers import CARD
from tiny import tiny

from cifar_fast.all import A
from cifar_fast.data.block import make_dls
from cifar_fast.data.sources import load_source
from cifar_fast.export.card_parts import Data
from cifar_fast.export.load import load_model
from cifar_fast.export.predictor import load_export
from cifar_fast.export.save import inference_learner
from cifar_fast.models import ModelError, create_model
from cifar_fast.recipe import RecipeError, at_size, describe, load_recipe, override
from cifar_fast.reporting.report.build import same_source
from cifar_fast.reporting.results import changes, recipe_id
from cifar_fast.runs.run import train
from cifar_fast.training.prepare import prepare


def pixels(recipe):
    "The numbers of pixels in pad, crop and holes."
    names = ("min_height", "height", "hole_height_range")
    return [getattr(t, name) for t in recipe.augment for name in names if hasattr(t, name)]


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    "Two classes of 20 images of 200×150 pixels: a coloured bar at the left, outside of the centre square."
    folder = tmp_path_factory.mktemp("colours")
    for k, name in enumerate(("blue", "red")):
        (folder / name).mkdir()
        for i in range(20):
            image = np.full((150, 200, 3), 90 + i, np.uint8)
            image[:, :20, 2 - 2 * k] = 255
            Image.fromarray(image).save(folder / name / f"{i}.png")
    return folder


def test_crops_and_pads_follow_a_size_that_is_typed():
    sprint = load_recipe("sprint")
    large = override(sprint, ["size=64"])
    assert pixels(sprint) == [36, 32] and pixels(large) == [72, 64]
    assert (large.size, large.resize().size) == (64, 48)
    assert pixels(override(large, ["size=96"])) == [108, 96]
    assert override(large, ["size=auto"]) == sprint
    assert override(sprint, ["resize.size=40", "size=64"]).resize().size == 40  # as typed: for images of this size
    assert pixels(override(load_recipe("net"), ["size=48"]))[:2] == [54, 48]
    assert pixels(override(load_recipe("netv2"), ["size=64"])) == [(32, 32)]
    digits = load_recipe("digits")
    assert describe(at_size(digits, 64)) == {**describe(digits), "size": 64}  # fractions only


def test_fractions_and_nested_transforms():
    crop = A.OneOf([A.RandomCrop(32, 32), A.RandomResizedCrop(size=(32, 32), scale=(0.5, 1))], p=1)
    holes = A.CoarseDropout(hole_height_range=(0.1, 0.2), hole_width_range=(4, 8), p=0.3)
    recipe = at_size(replace(tiny(), augment=(crop, holes)), 96)
    first, second = recipe.augment[0].transforms
    assert (first.height, second.size, second.scale) == (96, (96, 96), (0.5, 1))
    holes = recipe.augment[1]
    assert (holes.hole_height_range, holes.hole_width_range, holes.p) == ((0.1, 0.2), (12, 24), 0.3)
    assert crop.transforms[0].height == 32


def test_the_same_experiment_whether_32_was_typed_or_not():
    sprint = load_recipe("sprint")
    ids = [recipe_id(describe(override(sprint, typed))) for typed in ([], ["size=32"], ["size=64"])]
    assert ids[0] == ids[1] != ids[2]
    assert changes(override(sprint, ["size=64", "epochs=3"])) == "size=64 epochs=3"


def test_a_run_at_48(tmp_path, digits):
    run = prepare(tiny("size=48"))
    x, _ = run.learn.dls.one_batch()
    assert x.shape[2:] == (48, 48) and run.audit.profile.input_size == (3, 48, 48)
    assert run.learn.model.feature_info[0]["reduction"] == 4
    assert run.learn.dls.train.augmentations[0].vectorized  # whole batches at a time, as at 32


def test_everything_of_a_run_carries_the_size(tmp_path, colours):
    "One that can be told apart by what only `pad` keeps; with the export opened in every way there is."
    recipe = override(load_recipe("sprint"), [f"data={colours}", f"exports={tmp_path}", "name=wide", "resize_mode=pad",
                                              "epochs=1", "bs=8", "seed=1", "device=cpu", "report=false"])
    card = train(recipe)
    folder = tmp_path / "wide"
    assert (card.size, card.resize_mode, card.recipe["size"]) == (64, "pad", 64)
    assert dict(card.facts())["image size"] == "64×64 px" and card.audit.receptive_field == 94
    source = same_source(card)
    assert (source.size, source.resize_mode) == (64, "pad")

    file = next((colours / "red").iterdir())
    exported, pickled = load_export(folder), load_model(folder / "learner.pkl")
    image = exported.read(file)
    assert image.shape == (64, 64, 3) and not image[:8].any() and image[32, 3, 0] > 200
    assert np.array_equal(pickled.read(file), image)
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    config = timm.data.resolve_model_data_config(theirs)
    assert config["input_size"] == (3, 64, 64) and config["crop_mode"] == "border"  # timm's pad
    with torch.no_grad():
        probs = theirs(exported.normalize(image[None])).softmax(1).numpy()
    for model in (exported, pickled):
        assert np.allclose(model.predict(image[None]), probs, atol=1e-6)


def test_the_pickle_reads_16_bits_by_the_range_of_the_dataset(tmp_path):
    "As load_export does; stretched by its own values this image would be brighter."
    Image.fromarray(np.full((32, 32), 800, np.uint16)).save(tmp_path / "dark.png")
    card = replace(CARD, data=Data(ranges={"uint16": (0.0, 4095.0)}))
    learn = inference_learner(card, create_model(card.arch, 10, 32).state_dict())
    (x,) = learn.dls.test_dl([str(tmp_path / "dark.png")]).one_batch()
    assert float(x.mean()) == pytest.approx((round(800 / 4095 * 255) / 255 - 0.5) / 0.25, abs=1e-4)
    learn.export(tmp_path / "learner.pkl")
    opened = load_model(tmp_path / "learner.pkl", trust_pickle=True)
    assert opened.ranges == card.data.ranges and opened.read(tmp_path / "dark.png")[0, 0, 0] == round(800 / 4095 * 255)


def test_a_card_without_a_size_is_of_32(tmp_path, colours):
    recipe = override(tiny("epochs=1"), [f"exports={tmp_path}", "name=old", "report=false"])
    train(recipe)
    path = tmp_path / "old" / "card.json"
    card = json.loads(path.read_text())
    del card["size"], card["resize_mode"], card["recipe"]["size"]
    path.write_text(json.dumps(card))
    exported = load_export(path.parent)
    assert (exported.size, exported.resize_mode) == (32, "crop")
    assert same_source(exported.card).size == 32


def test_a_size_of_smaller_images_that_is_typed_stays_as_it_is(colours):
    source = load_source(colours, size=64)
    assert prepare(tiny("valid=8"), source=source).recipe.resize().size == 48
    typed = "resize.size=24"
    assert prepare(tiny("valid=8", typed), source=source, typed=["sprint", typed]).recipe.resize().size == 24


def test_larger_images_are_validated_in_smaller_batches(colours):
    source = load_source(colours, size=64)
    assert prepare(tiny("valid=8"), source=source).learn.dls.valid.bs == 125


def test_a_model_refuses_with_the_reason(digits):
    with pytest.raises(ModelError, match="cifar_mirror.*size=50.*48 or 56"):
        prepare(tiny("size=50", "arch=cifar_mirror"))


@pytest.mark.parametrize("augment, told", [
    ((A.RandomCrop(32, 32),), "32×32 of images of 64×64"),
    ((A.RandomCrop(70, 70),), "images of 64×64: .*70"),
    ((A.RandomCrop(48, 48, p=0.5),), r"several sizes \(48×48, 64×64\).*A.Resize\(64, 64\)"),
    ((A.Normalize(),), "float32 images of shape.*expected uint8.*Normalize"),
    ((A.ToFloat(),), "float32"),
    ((A.HorizontalFlip(), "flip"), "'flip', which is no Albumentations transform"),
    (A.HorizontalFlip(), r"expected a tuple.*augment=\(A.Hor"),
])
def test_what_augmentation_cannot_give_is_refused(digits, augment, told):
    with pytest.raises(RecipeError, match=told):
        prepare(replace(override(tiny(), ["size=64"]), augment=augment))


def test_beyond_128_images_are_kept_encoded(colours, tmp_path):
    source = load_source(colours, size=160, cache=tmp_path)
    images = source.train.images
    assert images.shape == (32, 160, 160, 3) and len(images[3:5]) == 2
    assert sum(f.stat().st_size for f in tmp_path.rglob("train_images.*")) < images.nbytes / 4
    pixels = load_source(colours, size=128, cache=tmp_path)
    assert np.allclose(source.mean, pixels.mean, atol=0.01) and np.allclose(source.std, pixels.std, atol=0.01)
    one, many = images[7], np.asarray(images[[7, 3]])
    assert one.dtype == np.uint8 and np.array_equal(one, many[0])
    x, y = make_dls(source, bs=4).one_batch()
    assert x.shape == (4, 3, 160, 160)
    again = load_source(colours, size=160, cache=tmp_path)
    assert again.fingerprint == source.fingerprint and np.array_equal(again.train.images[7], one)


def test_a_truncated_file_of_encoded_images_is_rebuilt(colours, tmp_path):
    load_source(colours, size=160, cache=tmp_path)
    path = next(tmp_path.rglob("train_images.jpegs"))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.warns(UserWarning, match="damaged"):
        source = load_source(colours, size=160, cache=tmp_path)
    assert source.train.images[-1].shape == (160, 160, 3)


@pytest.mark.parametrize("sides, chosen", [
    ([(640, 480)] * 4, 64), ([(128, 200)] * 3 + [(30, 30)] * 2, 64), ([(600, 100)] * 4, 32), ([(32, 32)] * 4, 32),
])
def test_the_size_of_a_folder_is_chosen_from_its_images(tmp_path, sides, chosen):
    for name in "ab":
        (tmp_path / "images" / name).mkdir(parents=True)
        for i, side in enumerate(sides):
            Image.new("RGB", side, (i, 0, 0)).save(tmp_path / "images" / name / f"{i}.png")
    (tmp_path / "images" / "a" / "broken.png").write_bytes(b"no image")
    with pytest.warns(UserWarning, match="broken.png"):
        assert load_source(tmp_path / "images", cache=tmp_path / "cache").size == chosen
