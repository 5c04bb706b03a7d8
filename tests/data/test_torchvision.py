"""torchvision's datasets by name: its own loaders on small archives in their true format, over a stand-in network."""

import errno
import inspect
import urllib.error
from collections import Counter
from pathlib import PurePosixPath

import numpy as np
import pytest
import torchvision
from archives import ARCHIVES, LABELS, UNSPLIT, grey
from torchvision.datasets import utils

from cifar_fast.data.errors import DataError
from cifar_fast.data.registry import named_datasets
from cifar_fast.data.sources import load_source
from cifar_fast.data.torchvision_sets import TORCHVISION

GREY = {"mnist", "fashion_mnist", "kmnist", "qmnist", "emnist", "emnist_letters", "emnist_digits", "usps"}


@pytest.fixture
def web(monkeypatch):
    "A network that serves `web.files`; `web.requests` are the addresses asked for. Checksums hold unless verified."
    class Web:
        files, requests, refusal, verified = {}, [], None, False

        def retrieve(self, url, filename, *args):
            self.requests = [*self.requests, url]
            if self.refusal:
                raise self.refusal
            with open(filename, "wb") as file:
                file.write(self.files[PurePosixPath(url).name])

    served, verify = Web(), utils.check_md5
    monkeypatch.setattr(utils, "_get_redirect_url", lambda url, max_hops=3: url)
    monkeypatch.setattr(utils, "_urlretrieve", served.retrieve)
    monkeypatch.setattr(utils, "check_md5", lambda path, md5: not served.verified or verify(path, md5))
    monkeypatch.setattr("cifar_fast.data.torchvision_files.PACKAGED", {})
    return served


@pytest.mark.parametrize("name", TORCHVISION)
def test_true_format(web, tmp_path, name):
    web.files = ARCHIVES[name]()
    source, spec = load_source(name, cache=tmp_path), TORCHVISION[name]
    unsplit = spec.splits.keys() == {"train"}
    expected = {s: Counter(LABELS[s]) for s in ("train", "test", "valid") if s in spec.splits}
    if unsplit:
        expected = {"train": Counter({0: 4, 1: 4, 2: 4}), "test": Counter({0: 1, 1: 1, 2: 1})}
    assert {split: Counter(arrays.labels.tolist()) for split, arrays in source.splits.items()} == expected
    assert source.size == spec.size and source.train.images.shape[1:] == (spec.size, spec.size, 3)
    for split, arrays in source.splits.items():
        middles = arrays.images[:, spec.size // 2, spec.size // 2].astype(int)
        for label, (red, green, blue) in zip(arrays.labels.tolist(), middles.tolist(), strict=True):
            if name == "semeion":
                assert (red, green, blue) == (255 * (label > 0),) * 3
            elif name in GREY:
                assert red == green == blue and abs(red - grey(label, split)) <= 1
            else:
                green_of = 0 if unsplit else 60 * ["train", "valid", "test"].index(split)
                assert np.abs(np.array([red - 60 * label, green - green_of, blue - 200])).max() <= 4
    assert not source.skipped and source.name == name
    assert all((part.paths() is not None) == named_datasets()[name].files for part in source.splits.values())
    requests = len(web.requests)
    load_source(name, size=16, cache=tmp_path)  # other sizes come from the same download
    assert len(web.requests) == requests


@pytest.mark.parametrize("name", TORCHVISION)
def test_constructor_arguments(tmp_path, name):
    "The class of this torchvision takes what the registry gives it, and knows the splits by these names."
    spec = TORCHVISION[name]
    cls = getattr(torchvision.datasets, spec.cls)
    for arguments in spec.splits.values():
        inspect.signature(cls).bind(tmp_path, download=False, **arguments)
        with pytest.raises((RuntimeError, FileNotFoundError)):  # not there; an unknown value would be a ValueError
            cls(tmp_path, download=False, **arguments)
    of_emnist = getattr(cls, "classes_split_dict", {}).get(arguments.get("split"))
    names = spec.vocab or of_emnist or vars(cls).get("classes")
    assert names is None or len(names) == spec.classes  # None: they stand in the download
    dataset = named_datasets()[name]
    assert (dataset.size, dataset.classes) == (spec.size, spec.classes)


@pytest.mark.parametrize("name,vocab", [
    ("cifar100", ("apple", "aquarium_fish", "baby")), ("stl10", ("airplane", "bird", "car")),
    ("imagenette", ("tench", "English springer", "cassette player")), ("caltech101", ("Faces", "airplanes", "ant")),
    ("oxford_pets", ("Abyssinian", "American Bulldog", "Bengal")),
    ("caltech256", ("ak47", "american-flag", "backpack"))])
def test_class_names(web, tmp_path, name, vocab):
    web.files = ARCHIVES[name]()
    assert load_source(name, cache=tmp_path).vocab == vocab


def test_files_are_named(web, tmp_path):
    web.files = ARCHIVES["gtsrb"]()
    source = load_source("gtsrb", cache=tmp_path)
    assert source.test.files()[:2] == ("speed limit 20 km/h/00000.ppm", "speed limit 30 km/h/00001.ppm")
    assert source.vocab[14] == "stop"


def test_letters_are_upright(web, tmp_path):
    "EMNIST's files hold columns where others hold rows."
    web.files = ARCHIVES["emnist_letters"]()
    source = load_source("emnist_letters", cache=tmp_path)
    assert source.train.images[0, 1, 16].min() == 255 > source.train.images[0, 16, 1].max()
    assert (source.vocab[0], len(source.vocab)) == ("a", 26)


def test_no_network(web, tmp_path):
    web.refusal = urllib.error.URLError("Name or service not known")
    with pytest.raises(DataError, match="svhn: Name or service not known.*torchvision/SVHN.*data=digits") as error:
        load_source("svhn", cache=tmp_path)
    assert "\n" not in str(error.value)
    with pytest.raises(DataError, match="mnist: .*Name or service not known") as error:
        load_source("mnist", cache=tmp_path)  # torchvision tries several mirrors and answers in several lines
    assert "\n" not in str(error.value) and "\\n" not in str(error.value)


def test_wrong_checksum(web, tmp_path):
    "A download with another checksum is refused, and gone, so that the next try downloads it again."
    web.files, web.verified = ARCHIVES["dtd"](), True
    for _ in range(2):
        with pytest.raises(DataError, match="dtd is damaged"):
            load_source("dtd", cache=tmp_path)
    assert [PurePosixPath(url).name for url in web.requests] == ["dtd-r1.0.1.tar.gz"] * 2
    with pytest.raises(DataError, match="fashion_mnist is damaged"):
        web.files = ARCHIVES["fashion_mnist"]()
        load_source("fashion_mnist", cache=tmp_path)


def test_cut_archive_without_checksum(web, tmp_path):
    "torchvision has no checksum for FGVC Aircraft: what cannot be unpacked is downloaded again."
    whole = ARCHIVES["fgvc_aircraft"]()
    web.files = {name: data[:-200] for name, data in whole.items()}
    with pytest.raises(DataError, match="fgvc_aircraft is damaged"):
        load_source("fgvc_aircraft", cache=tmp_path)
    web.files = whole
    assert len(load_source("fgvc_aircraft", cache=tmp_path).train) == len(LABELS["train"])


def test_disk_full(web, tmp_path):
    web.refusal = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(DataError, match="No space left.*CIFAR_FAST_CACHE"):
        load_source("eurosat", cache=tmp_path)


def test_interrupted_unpacking_is_repeated(web, tmp_path):
    "torchvision takes a half unpacked folder for the whole; here only a complete one is used."
    web.files = ARCHIVES["eurosat"]()
    part = tmp_path / "data" / "torchvision" / "EuroSAT.part" / "eurosat"
    half = part / "2750" / "River"
    half.mkdir(parents=True)
    (half / "River_1.jpg").write_bytes(b"half")
    (part / "EuroSAT.zip").write_bytes(web.files["EuroSAT.zip"])
    source = load_source("eurosat", cache=tmp_path)
    assert not web.requests and len(source.train) + len(source.test) == len(UNSPLIT) and not source.skipped


def test_copy_from_elsewhere(web, tmp_path):
    "What torchvision saved elsewhere is used as it is; a folder that is not complete is named, and left alone."
    web.files = ARCHIVES["svhn"]()
    root = tmp_path / "data" / "torchvision" / "SVHN"
    root.mkdir(parents=True)
    (root / "train_32x32.mat").write_bytes(web.files["train_32x32.mat"])
    with pytest.raises(DataError, match="torchvision/SVHN does not hold svhn"):
        load_source("svhn", cache=tmp_path)
    (root / "test_32x32.mat").write_bytes(web.files["test_32x32.mat"])
    assert len(load_source("svhn", cache=tmp_path).test) == len(LABELS["test"]) and not web.requests


def test_debians_fashion_mnist(web, tmp_path, monkeypatch):
    "The package dataset-fashion-mnist brings the archives: nothing is downloaded."
    for name, data in ARCHIVES["fashion_mnist"]().items():
        (tmp_path / name).write_bytes(data)
    monkeypatch.setattr("cifar_fast.data.torchvision_files.PACKAGED", {"FashionMNIST": tmp_path})
    assert load_source("fashion_mnist", cache=tmp_path / "cache").vocab[9] == "Ankle boot" and not web.requests


def test_misspelt_name(tmp_path):
    with pytest.raises(DataError, match="cifar_100.*did you mean cifar100"):
        load_source("cifar_100", cache=tmp_path)
