"""Pad, crop and flip, vectorized: exactly the images that Albumentations can make, each as often."""

from collections import Counter

import numpy as np
import pytest
import torch

from cifar_fast.all import A, AlbumentationsTransform
from cifar_fast.data.errors import DataError
from cifar_fast.data.transforms import ImageBatch
from cifar_fast.data.vectorized import vectorized

IMAGE = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)


def pad(to=10, **kw):
    return A.PadIfNeeded(min_height=to, min_width=to, **{"border_mode": 4, **kw})


def by_albumentations(pipeline, count):
    compose = A.Compose(list(pipeline))
    compose.set_random_seed(1)
    return Counter(compose(image=IMAGE)["image"].tobytes() for _ in range(count))


def by_vectorized(pipeline, count):
    images = torch.from_numpy(IMAGE).expand(count, *IMAGE.shape)
    return Counter(p.tobytes() for p in vectorized(pipeline)(images, np.random.default_rng(2)).numpy())


@pytest.mark.parametrize("border", [0, 1, 2, 4], ids=["black", "repeated", "symmetric", "reflected"])
@pytest.mark.parametrize("rest, possible", [
    ((A.RandomCrop(8, 8), A.HorizontalFlip(p=0.5)), 18),
    ((A.RandomCrop(8, 8),), 9),
    ((A.RandomCrop(6, 9), A.HorizontalFlip(p=0.5)), 20),
    ((A.HorizontalFlip(p=0.5),), 2),
    ((), 1),
])
def test_the_same_images_as_often(border, rest, possible):
    pipeline, count = (pad(border_mode=border), *rest), 200 * possible
    theirs, ours = (sample(pipeline, count) for sample in (by_albumentations, by_vectorized))
    assert len(theirs) == possible and theirs.keys() == ours.keys()
    for counts in (theirs, ours):  # chi-square against an even spread, 4.5 standard deviations at most
        spread = sum((n - 200) ** 2 / 200 for n in counts.values())
        assert spread <= possible - 1 + 4.5 * (2 * max(possible - 1, 1)) ** 0.5


@pytest.mark.parametrize("pipeline, possible", [
    ((A.RandomCrop(5, 7), A.HorizontalFlip(p=0.5)), 16),
    ((A.RandomCrop(8, 8),), 1),
    ((pad(to=11), A.RandomCrop(8, 8)), 16),  # three rows more: one above, two below
    ((pad(to=6), A.RandomCrop(8, 8)), 1),  # large enough as it is
])
def test_other_sizes(pipeline, possible):
    theirs, ours = (sample(pipeline, 100 * possible) for sample in (by_albumentations, by_vectorized))
    assert len(theirs) == possible and theirs.keys() == ours.keys()


@pytest.mark.parametrize("p", [0.0, 0.2, 1.0])
def test_the_fraction_of_flipped_images(p):
    counts = by_vectorized((A.HorizontalFlip(p=p),), 4000)
    assert counts[IMAGE[:, ::-1].tobytes()] / 4000 == pytest.approx(p, abs=4.5 * (p * (1 - p) / 4000) ** 0.5)


def test_row_offset_column_offset_and_flip_are_independent():
    count = 9 * 2 * 400
    counts = by_vectorized((pad(), A.RandomCrop(8, 8), A.HorizontalFlip(p=0.5)), count)
    assert len(counts) == 18 and min(counts.values()) > 400 - 5 * 20 and max(counts.values()) < 400 + 5 * 20


@pytest.mark.parametrize("pipeline", [
    (),
    (A.RandomBrightnessContrast(),),
    (pad(), A.RandomCrop(8, 8), A.HorizontalFlip(p=0.5), A.RandomBrightnessContrast()),
    (A.HorizontalFlip(p=0.5), A.RandomCrop(8, 8)),  # another order
    (pad(p=0.5), A.RandomCrop(8, 8)),
    (pad(position="top_left"), A.RandomCrop(8, 8)),
    (pad(border_mode=0, fill=7), A.RandomCrop(8, 8)),
    (A.RandomCrop(8, 8, p=0.5),),
    (A.RandomCrop(8, 8, pad_if_needed=True),),
    (A.PadIfNeeded(min_height=None, min_width=None, pad_height_divisor=4, pad_width_divisor=4), A.RandomCrop(8, 8)),
    (A.VerticalFlip(p=0.5),),
])
def test_any_other_pipeline_is_not_vectorized(pipeline):
    assert vectorized(pipeline) is None


def test_a_crop_of_more_than_there_is():
    with pytest.raises(DataError, match="9×8.*8×8"):
        by_vectorized((A.RandomCrop(9, 8),), 1)


def test_a_seed_repeats_and_validation_stays_as_it_is():
    aug = AlbumentationsTransform(train=(pad(), A.RandomCrop(8, 8)))
    images, runs = ImageBatch(torch.from_numpy(np.stack([IMAGE] * 32))), []
    for seed in (5, 5, 6):
        aug.seed(seed)
        runs.append(aug(images, split_idx=0))
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])
    assert type(runs[0]) is ImageBatch and runs[0].shape == (32, 8, 8, 3) and runs[0].dtype == torch.uint8
    assert torch.equal(aug(images, split_idx=1), images)


def test_each_image_shows_its_own_pixels():
    "Against a loop over images, with the same samples."
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8))
    flip = A.HorizontalFlip(p=0.5)
    for border, mode in ((0, "constant"), (1, "edge"), (2, "symmetric"), (4, "reflect")):
        result = vectorized((pad(11, border_mode=border), A.RandomCrop(6, 8), flip))(images, np.random.default_rng(4))
        rng = np.random.default_rng(4)
        tops, lefts, flipped = rng.integers(0, 6, 20), rng.integers(0, 4, 20), rng.random(20) < 0.5
        for image, top, left, flip_it, ours in zip(images.numpy(), tops, lefts, flipped, result.numpy(), strict=True):
            part = np.pad(image, ((1, 2), (1, 2), (0, 0)), mode=mode)[top:top + 6, left:left + 8]
            assert np.array_equal(part[:, ::-1] if flip_it else part, ours)
