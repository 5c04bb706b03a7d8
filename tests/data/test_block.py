"""Batches: the same for any number of workers, never the same twice, and exactly what single items give."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from fastai.data.block import CategoryBlock, DataBlock, TransformBlock
from fastai.torch_core import TensorCategory, TensorImage
from fastai.vision.core import PILImage

from cifar_fast.all import PUBLISHED_STATS, A, AlbumentationsTransform, cifar_learner, data_block, make_dls, test_dl
from cifar_fast.data.arrays import Arrays
from cifar_fast.data.block import split_rows
from cifar_fast.data.errors import DataError
from cifar_fast.data.loaders import BatchDL, SeededDL, choose_workers
from cifar_fast.data.transforms import ReadImage
from cifar_fast.utils.ranks import Ranks

AUGMENT = (
    A.PadIfNeeded(min_height=40, min_width=40, border_mode=0, fill=0),
    A.RandomCrop(32, 32),
    A.HorizontalFlip(p=0.5),
)


def source_of(source, count):
    "The first `count` training images, so that an epoch is short."
    return replace(source, train=Arrays(source.train.images[:count], source.train.labels[:count]))


@pytest.fixture(scope="module")
def small(digits):
    return source_of(digits, 150)


@pytest.fixture(scope="module")
def map_source(digits):
    """2,048 times the same image, whose pixels say where they come from: red 7·(row+1), green 7·(column+1).

    What an augmentation did to an image can be read off it.
    """
    place = 7 * (np.arange(32, dtype=np.uint8) + 1)
    image = np.zeros((32, 32, 3), np.uint8)
    image[..., 0], image[..., 1] = place[:, None], place[None]
    images = np.broadcast_to(image, (2048, 32, 32, 3))
    return replace(digits, train=Arrays(images, np.arange(2048) % 10), mean=(0.0,) * 3, std=(1.0,) * 3)


def moves(x):
    "(row shift, column shift, flipped) of each normalised image of the map: which crop of which side it is."
    x = (x.as_subclass(torch.Tensor) * 255).round().long()
    centre = x[:, :, 15:17, 15:17]  # at most 4 pixels of border come in
    flipped = centre[:, 1, 0, 0] > centre[:, 1, 0, 1]
    column = torch.where(flipped, centre[:, 1, 0, 1], centre[:, 1, 0, 0])  # column 15 before the flip
    return torch.stack([centre[:, 0, 0, 0] // 7 - 16, column // 7 - 16, flipped], 1)


def epochs(dls, count):
    return [[(x.clone(), y.clone()) for x, y in dls.train] for _ in range(count)]


def same(one, other):
    return len(one) == len(other) and all(
        torch.equal(x1, x2) and torch.equal(y1, y2) for (x1, y1), (x2, y2) in zip(one, other, strict=True))


def test_two_workers_give_the_batches_of_none(small):
    runs = [epochs(make_dls(small, augment=AUGMENT, bs=16, drop_last=False, seed=3, workers=n), 2) for n in (0, 2)]
    assert [len(e) for e in runs[0]] == [10, 10] and len(runs[0][0][-1][0]) == 6
    for alone, helped in zip(*runs, strict=True):
        assert same(alone, helped)
    assert not same(runs[0][0], runs[0][1])


def test_three_workers_and_a_batch_more_than_they_share(small):
    # 9 whole batches among 4 workers: one has three, the others two, and the last, smaller one is dropped.
    alone, helped = (epochs(make_dls(small, augment=AUGMENT, bs=16, seed=4, workers=n), 1)[0] for n in (0, 4))
    assert len(alone) == 9 and same(alone, helped)


def test_a_seed_repeats_and_another_differs(small):
    one, again, other = (epochs(make_dls(small, augment=AUGMENT, bs=16, seed=s), 2) for s in (3, 3, 4))
    assert same(one[0], again[0]) and same(one[1], again[1])
    assert not same(one[0], other[0])
    assert not torch.equal(one[0][0][1], other[0][0][1])  # the order as well


def test_no_global_seed_matters(small):
    torch.manual_seed(1)
    one = epochs(make_dls(small, augment=AUGMENT, bs=16, seed=3), 1)[0]
    torch.manual_seed(2)
    np.random.seed(2)
    assert same(one, epochs(make_dls(small, augment=AUGMENT, bs=16, seed=3), 1)[0])


def test_an_epoch_may_be_asked_for(small):
    # What a resume needs: the third epoch is the third whether or not the first two were asked for.
    dls = make_dls(small, augment=AUGMENT, bs=16, seed=3)
    third = epochs(dls, 3)[2]
    fresh = make_dls(small, augment=AUGMENT, bs=16, seed=3)
    fresh.train.set_epoch(2)
    assert same(third, epochs(fresh, 1)[0])


@pytest.mark.parametrize("workers", [0, 2])
def test_images_batches_and_epochs_differ_in_augmentation(map_source, workers):
    source = source_of(map_source, 256)
    first, second = ([moves(x) for x, _ in e]
                     for e in epochs(make_dls(source, augment=AUGMENT, bs=64, seed=5, workers=workers), 2))
    batches = [*first, *second]
    for batch in batches:
        assert len(batch.unique(dim=0)) > 30  # of 162 possible ones, 64 samples
    for i in range(len(batches)):
        for j in range(i):  # neither batch by batch nor epoch by epoch the same stream
            assert (batches[i] == batches[j]).all(1).float().mean() < 0.15


def test_flips_and_crops_are_distributed_as_those_of_the_bare_pipeline(map_source):
    # The DataLoader seeds the pipeline anew for every batch; near seeds must not give near streams.
    dls = make_dls(map_source, augment=AUGMENT, bs=32, seed=6)
    sampled = torch.stack([moves(x) for e in epochs(dls, 4) for x, _ in e])  # (256 batches, 32, 3)
    total = sampled[..., 0].numel()
    flips = sampled[..., 2].float()

    bare = A.Compose(list(AUGMENT), seed=6)
    image = np.array(map_source.train.images[0])
    own = torch.from_numpy(np.stack([bare(image=image)["image"] for _ in range(total)])).permute(0, 3, 1, 2)
    bare_flips = moves(own.float() / 255)[:, 2].float()

    sigma = 0.5 / total**0.5
    assert abs(flips.mean() - 0.5) < 4.5 * sigma
    assert abs(flips.mean() - bare_flips.mean()) < 4.5 * 2**0.5 * sigma
    # Each place in the batch by itself, and one batch against the next.
    assert (flips.mean(0) - 0.5).abs().max() < 4.5 * 0.5 / len(sampled)**0.5
    assert abs((flips[1:] == flips[:-1]).float().mean() - 0.5) < 4.5 * sigma
    # 9 × 9 places of the crop: chi-squared has 80 degrees of freedom, mean 80 and standard deviation 12.6.
    shifts = sampled[..., :2].reshape(-1, 2) + 4
    assert shifts.min() == 0 and shifts.max() == 8
    counts = torch.bincount(shifts[:, 0] * 9 + shifts[:, 1], minlength=81).float()
    assert ((counts - total / 81) ** 2 / (total / 81)).sum() < 80 + 4.5 * 12.6


@pytest.mark.parametrize("split", ["train", "valid"])
def test_items_that_are_transformed_together_are_those_transformed_one_by_one(small, split):
    # Brightness cannot be vectorized: there both ways sample the very same numbers.
    augment = (*AUGMENT, A.RandomBrightnessContrast(p=0.5))
    together = getattr(make_dls(small, augment=augment, valid=40, bs=16, seed=3), split)
    assert type(together) is BatchDL
    single = together.new(cls=SeededDL)
    batches = []
    for dl in (together, single):
        dl.before_iter()  # tells every transform its split
        dl.augmentations[0].seed(11)
        batches.append(dl.do_batch([dl.do_item(row) for row in (0, 7, 3, 3, 30)]))
    assert [[type(t) for t in batch] for batch in batches] == [[TensorImage, TensorCategory]] * 2
    for one, other in zip(*batches, strict=True):
        assert one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)
    x = batches[0][0]
    assert x.dtype == torch.uint8 and x.shape == (5, 3, 32, 32)
    assert torch.equal(x[2], x[3]) is (split == "valid")  # one image twice
    for dl in (together, single):
        dl.set_epoch(1)
    assert same(list(together), list(single))


@pytest.mark.parametrize("augment", [AUGMENT, ()], ids=["pad, crop, flip", "nothing"])
def test_images_kept_on_a_device_give_the_same_batches(small, monkeypatch, augment):
    in_memory = make_dls(small, augment=augment, valid=40, bs=16, seed=3)
    on_device = make_dls(small, augment=augment, valid=40, bs=16, seed=3)
    expected = [*epochs(in_memory, 2), list(in_memory.valid), list(test_dl(in_memory, small))]
    # A CPU stands in for the GPU: what is tested is the way, not the place.
    monkeypatch.setattr(BatchDL, "image_device", torch.device("cpu"))
    results = [*epochs(on_device, 2), list(on_device.valid), list(test_dl(on_device, small))]
    assert all(same(one, other) for one, other in zip(expected, results, strict=True))
    reader = on_device.train.dataset.tls[0].tfms[0]
    assert reader is on_device.valid.dataset.tls[0].tfms[0] and reader.on_device[1].nbytes == reader.nbytes
    assert pickle.loads(pickle.dumps(reader)).on_device is None  # no export and no process takes them along


def test_which_images_are_kept_on_a_device(small, monkeypatch):
    gpu = torch.device("meta")

    def kept_on(nbytes=2**30, augment=AUGMENT, workers=0, device=gpu):
        dl = make_dls(small, augment=augment, bs=16, workers=workers, device=torch.device("cpu")).train
        monkeypatch.setattr(ReadImage, "nbytes", nbytes)
        dl.device = device
        return dl.image_device

    assert kept_on() == kept_on(augment=()) == gpu
    assert kept_on(device=torch.device("cpu")) is None
    assert kept_on(nbytes=2**30 + 1) is None
    assert kept_on(workers=1) is None
    assert kept_on(augment=(*AUGMENT, A.RandomBrightnessContrast())) is None


def test_processes_help_where_a_gpu_would_wait_for_images(monkeypatch):
    cuda, cpu, slow = torch.device("cuda"), torch.device("cpu"), (*AUGMENT, A.RandomBrightnessContrast())
    monkeypatch.setattr("cifar_fast.data.loaders.CORES", 6)
    monkeypatch.setattr("multiprocessing.get_start_method", lambda allow_none: "fork")
    assert choose_workers(None, cuda, slow, 1) == 6
    assert choose_workers(None, cuda, AUGMENT, 2**30 + 1) == 6  # too many to lie on the GPU
    for processes, workers in ((2, 3), (4, 1), (8, 1)):
        monkeypatch.setattr("cifar_fast.data.loaders.here", lambda n=processes: Ranks(0, n, 0, n))
        assert choose_workers(None, cuda, slow, 1) == workers
    monkeypatch.setattr("cifar_fast.data.loaders.here", Ranks)
    assert [choose_workers(None, *rest, 1) for rest in ((cpu, slow), (cuda, AUGMENT), (cuda, ()))] == [0, 0, 0]
    assert choose_workers(0, cuda, slow, 1) == 0 and choose_workers(3, cpu, AUGMENT, 1) == 3
    monkeypatch.setattr("multiprocessing.get_start_method", lambda allow_none: "spawn")
    assert choose_workers(None, cuda, slow, 1) == 0


def test_fastais_own_loader_augments_images_of_any_kind(small):
    "AlbumentationsTransform in a DataBlock of one's own, over PIL images."
    images = [PILImage.create(np.array(image)) for image in small.train.images[:8]]
    block = DataBlock(blocks=(TransformBlock(), CategoryBlock(vocab=[0, 1])), get_y=lambda image: 0,
                      splitter=lambda items: (range(4), range(4, 8)),
                      item_tfms=AlbumentationsTransform(train=(A.HorizontalFlip(p=1.0),)))
    dls = block.dataloaders(images, bs=4, shuffle=False, num_workers=0, device=torch.device("cpu"))
    expected = torch.from_numpy(np.array(small.train.images[:8])).permute(0, 3, 1, 2)
    (train, _), (valid, _) = dls.train.new(shuffle=False).one_batch(), dls.valid.one_batch()
    assert torch.equal(train.as_subclass(torch.Tensor), expected[:4].flip(-1))
    assert torch.equal(valid.as_subclass(torch.Tensor), expected[4:])


def normalised(images, mean, std):
    x = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).double() / 255
    mean, std = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (mean, std))
    return (x - mean) / std


@pytest.mark.parametrize("stats", [None, PUBLISHED_STATS], ids=["own", "published"])
def test_batches_are_float_and_normalised_once(small, stats):
    x, y = next(iter(make_dls(small, stats=stats, bs=150, seed=3).train))
    assert x.dtype == torch.float32 and y.dtype == torch.int64
    expected = normalised(small.train.images, *(stats or (small.mean, small.std)))
    order = [int((expected - image.as_subclass(torch.Tensor)).abs().amax((1, 2, 3)).argmin()) for image in x[:9]]
    assert len(set(order)) == 9
    assert torch.allclose(x[:9].as_subclass(torch.Tensor).double(), expected[order], atol=2e-6)
    assert y[:9].tolist() == small.train.labels[order].tolist()


def test_validation_is_not_augmented(small):
    dls = make_dls(small, augment=AUGMENT, valid=40, bs=16, seed=3)
    rows = split_rows(small, 40, "held_out", 3)[1]
    for _ in range(2):
        x, y = next(iter(dls.valid))
        expected = normalised(small.train.images[rows], small.mean, small.std)
        assert torch.allclose(x.as_subclass(torch.Tensor).double(), expected, atol=2e-6)
        assert y.tolist() == small.train.labels[rows].tolist()


@pytest.mark.parametrize("workers", [0, 2])
def test_the_test_set_comes_in_order_and_plain(digits, workers):
    dls = make_dls(digits, augment=AUGMENT, bs=64, seed=3)
    dl = test_dl(dls, digits, workers=workers)
    batches = list(dl)
    assert torch.cat([y for _, y in batches]).tolist() == digits.test.labels.tolist()
    x = torch.cat([x.as_subclass(torch.Tensor) for x, _ in batches])
    assert torch.allclose(x.double(), normalised(digits.test.images, digits.mean, digits.std), atol=2e-6)
    assert dls.c == 10 and list(dls.vocab) == list(digits.vocab)


def test_the_test_set_is_no_part_of_training(digits):
    dls = make_dls(digits, valid=0.1)
    rows = {int(i) for part in (dls.train_ds, dls.valid_ds) for i in part.items}
    assert rows == set(range(len(digits.train)))
    published = make_dls(digits, validate_on="test")
    assert [int(i) for i in published.train_ds.items] == list(range(1438))
    assert [int(i) for i in published.valid_ds.items] == list(range(1438, 1797))


def test_fastai_shows_a_batch_the_same_image_and_the_most_confident_errors(digits, monkeypatch):
    from fastai.vision.all import ClassificationInterpretation  # all of it: it registers how images are shown
    from matplotlib import pyplot as plt

    shown = []
    monkeypatch.setattr(plt.Axes, "imshow", lambda ax, image, *args, **kw: shown.append(np.asarray(image)))
    dls = make_dls(digits, augment=AUGMENT, valid=0.1, bs=64)
    dls.show_batch(max_n=4)
    dls.show_batch(max_n=4, unique=True)
    batch, single = shown[:4], shown[4:]
    assert len(single) == 4 and all(image.shape == (32, 32, 3) for image in shown)
    assert not np.array_equal(single[0], single[1])  # one image, augmented each time
    bright = [np.asarray(images, float).mean(axis=(1, 2, 3)) for images in (batch, single)]
    assert np.ptp(bright[1]) < np.ptp(bright[0])
    learn = cifar_learner(dls, "cifar_sprint")
    with learn.no_bar():
        interp = ClassificationInterpretation.from_learner(learn)
        interp.plot_top_losses(5)
    assert len(shown) == 13
    losses, places, rows = interp.top_losses(3, items=True)
    assert [int(dls.valid_ds.items[i]) for i in places] == [int(i) for i in rows] and losses[0] >= losses[2]
    plt.close("all")


def test_a_block_survives_pickling(small):
    train, held = split_rows(small, 40, "held_out", 3)
    block = data_block(small, train, held, AUGMENT, PUBLISHED_STATS)
    again = pickle.loads(pickle.dumps(block))
    items = np.arange(150)
    one, other = (b.dataloaders(items, bs=16, seed=3) for b in (block, again))
    assert same(epochs(one, 1)[0], epochs(other, 1)[0])
    assert list(again.dataloaders(items).vocab) == list(small.vocab)


def test_emptied_dataloaders_still_read_images_they_are_given(small, tmp_path):
    # This is what a pickled Learner does: no data inside, the valid pipeline and the vocab still there.
    from PIL import Image

    full = make_dls(small, augment=AUGMENT, stats=PUBLISHED_STATS, bs=16, seed=3)
    dls = pickle.loads(pickle.dumps(full.new_empty()))
    image = np.array(small.train.images[5])
    Image.fromarray(image).save(tmp_path / "5.png")
    assert len(dls.train_ds) == 0 and dls.train.seed == 3
    expected = normalised(image[None], *PUBLISHED_STATS)[0]
    for given in (Image.fromarray(image), tmp_path / "5.png", str(tmp_path / "5.png")):
        (x,) = next(iter(dls.test_dl([given, given], num_workers=0)))
        assert torch.allclose(x[1].as_subclass(torch.Tensor).double(), expected, atol=2e-6)
    assert list(dls.vocab) == list(small.vocab)


def test_a_batch_of_more_than_there_is(small):
    with pytest.raises(DataError, match="bs=151 is more than the 150 training images.*bs=18.*drop_last=false"):
        make_dls(small, bs=151)
    assert len(make_dls(small, bs=151, drop_last=False).train.one_batch()[1]) == 150
    assert len(make_dls(small, bs=150).train) == 1
