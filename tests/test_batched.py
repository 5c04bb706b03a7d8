"""The batched twin of pad, crop and flip: exactly the images that Albumentations can make, each as often."""

from collections import Counter

import numpy as np
import pytest
import torch

from cifar_fast.all import A, AlbumentationsTransform
from cifar_fast.data.batched import batched

IMAGE = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)


def pad(to=10, **kw):
    return A.PadIfNeeded(min_height=to, min_width=to, **{"border_mode": 4, **kw})


def drawn_by_albumentations(pipeline, count):
    compose = A.Compose(list(pipeline))
    compose.set_random_seed(1)
    return Counter(compose(image=IMAGE)["image"].tobytes() for _ in range(count))


def drawn_by_twin(pipeline, count):
    images = np.broadcast_to(IMAGE, (count, *IMAGE.shape))
    return Counter(p.tobytes() for p in batched(pipeline)(images, np.random.default_rng(2)))


@pytest.mark.parametrize("border", [0, 1, 2, 4], ids=["black", "repeated", "mirrored with its edge", "mirrored"])
@pytest.mark.parametrize("to", [6, 10, 11])  # none, even, more below than above
@pytest.mark.parametrize("rest", [(), (A.HorizontalFlip(p=0.5),), (A.RandomCrop(8, 8), A.HorizontalFlip(p=0.5)),
                                  (A.RandomCrop(6, 8),)], ids=lambda rest: "+".join(type(t).__name__ for t in rest))
def test_gathered_images_are_the_very_ones_that_are_copied(border, to, rest):
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8)
    items, twin = [3, 19, 0, 3, 7, 11, 3], batched((pad(to, border_mode=border), *rest))
    copied = twin(images[items], np.random.default_rng(4))
    gathered = twin.gather(torch.from_numpy(images), items, np.random.default_rng(4))
    assert gathered.dtype == torch.uint8 and np.array_equal(gathered.numpy(), copied)


@pytest.mark.parametrize("border", [0, 1, 2, 4], ids=["black", "repeated", "mirrored with its edge", "mirrored"])
@pytest.mark.parametrize("rest, possible", [
    ((A.RandomCrop(8, 8), A.HorizontalFlip(p=0.5)), 18),
    ((A.RandomCrop(8, 8),), 9),
    ((A.RandomCrop(6, 9), A.HorizontalFlip(p=0.5)), 20),
    ((A.HorizontalFlip(p=0.5),), 2),
    ((), 1),
])
def test_the_same_images_as_often(border, rest, possible):
    pipeline, count = (pad(border_mode=border), *rest), 200 * possible
    theirs, ours = (draw(pipeline, count) for draw in (drawn_by_albumentations, drawn_by_twin))
    assert len(theirs) == possible and theirs.keys() == ours.keys()
    for drawn in (theirs, ours):  # chi-square against an even spread, 4.5 standard deviations at most
        spread = sum((n - 200) ** 2 / 200 for n in drawn.values())
        assert spread <= possible - 1 + 4.5 * (2 * max(possible - 1, 1)) ** 0.5


@pytest.mark.parametrize("pipeline, possible", [
    ((A.RandomCrop(5, 7), A.HorizontalFlip(p=0.5)), 16),
    ((A.RandomCrop(8, 8),), 1),
    ((pad(to=11), A.RandomCrop(8, 8)), 16),  # three rows more: one above, two below
    ((pad(to=6), A.RandomCrop(8, 8)), 1),  # large enough as it is
])
def test_other_sizes(pipeline, possible):
    theirs, ours = (draw(pipeline, 100 * possible) for draw in (drawn_by_albumentations, drawn_by_twin))
    assert len(theirs) == possible and theirs.keys() == ours.keys()


@pytest.mark.parametrize("p", [0.0, 0.2, 1.0])
def test_the_share_of_mirrored_images(p):
    drawn = drawn_by_twin((A.HorizontalFlip(p=p),), 4000)
    assert drawn[IMAGE[:, ::-1].tobytes()] / 4000 == pytest.approx(p, abs=4.5 * (p * (1 - p) / 4000) ** 0.5)


def test_row_offset_column_offset_and_mirror_are_independent():
    count = 9 * 2 * 400
    drawn = drawn_by_twin((pad(), A.RandomCrop(8, 8), A.HorizontalFlip(p=0.5)), count)
    assert len(drawn) == 18 and min(drawn.values()) > 400 - 5 * 20 and max(drawn.values()) < 400 + 5 * 20


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
def test_any_other_pipeline_has_no_twin(pipeline):
    assert batched(pipeline) is None


def test_a_crop_of_more_than_there_is():
    with pytest.raises(ValueError, match="a crop of 9×8 is larger than the images, 8×8; pad them first"):
        drawn_by_twin((A.RandomCrop(9, 8),), 1)


def test_a_seed_repeats_and_validation_stays_plain():
    aug = AlbumentationsTransform(train=(pad(), A.RandomCrop(8, 8)))
    images, runs = np.stack([IMAGE] * 32), []
    for seed in (5, 5, 6):
        aug.seed(seed)
        runs.append(aug.apply_all(images, 0))
    assert np.array_equal(runs[0], runs[1]) and not np.array_equal(runs[0], runs[2])
    assert runs[0].shape == (32, 8, 8, 3) and runs[0].dtype == np.uint8
    assert np.array_equal(aug.apply_all(images, 1), images)
