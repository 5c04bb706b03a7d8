"""The cache of decoded images: reuse, damage, crashes, several processes."""

import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cifar_fast.data import cache, fill
from cifar_fast.data.arrays import write_split
from cifar_fast.data.sources import DataError, load_source


@pytest.fixture(autouse=True)
def shelf(monkeypatch, tmp_path):
    monkeypatch.delenv("CIFAR_FAST_DATA", raising=False)
    monkeypatch.setenv("CIFAR_FAST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "data"


def entries(shelf) -> list[str]:
    "The names of what is there beside the lock."
    return sorted(path.name for path in shelf.iterdir() if path.suffix != ".lock")


@pytest.fixture
def pets(tmp_path):
    for label, name in enumerate(("cat", "dog")):
        for i in range(10):
            path = tmp_path / "pets" / "train" / name / f"p{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (32, 32), (100 * label, 10 * i, 5)).save(path)
    return tmp_path / "pets"


@pytest.fixture
def decoded(monkeypatch):
    "The paths decoded so far."
    paths, read = [], fill.read_image
    monkeypatch.setattr(fill, "read_image", lambda path, *how: paths.append(path) or read(path, *how))
    return paths


def test_decoded_once(pets, decoded, shelf):
    first, second = load_source(pets), load_source(str(pets))
    assert len(decoded) == 20 and first.fingerprint == second.fingerprint
    assert np.array_equal(first.train.images, second.train.images) and first.mean == second.mean
    assert len(entries(shelf)) == 1


def test_any_change_is_noticed_and_the_former_entry_goes(pets, decoded, shelf):
    path, former = pets / "train" / "cat" / "p0.png", load_source(pets)
    times = os.stat(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns + 1))  # time only
    assert load_source(pets).fingerprint == former.fingerprint and len(decoded) == 40
    Image.new("RGB", (32, 32), "white").save(path)  # contents
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert load_source(pets).fingerprint != former.fingerprint and len(decoded) == 60
    path.rename(path.with_name("new.png"))  # name
    load_source(pets)
    (pets / "train" / "cat" / "p1.png").unlink()
    assert len(load_source(pets).train) == 19 and len(decoded) == 99
    assert len(entries(shelf)) == 1
    assert former.train.images[0, 0, 0].tolist() == [0, 0, 5]  # what was mapped stays readable
    assert len(names := former.train.files()) == 20 and "cat/p0.png" in names  # so do their names, for predictions.npz


def test_equal_contents_have_equal_fingerprints(pets, tmp_path):
    shutil.copytree(pets, tmp_path / "copy")
    assert load_source(tmp_path / "copy").fingerprint == load_source(pets).fingerprint


@pytest.mark.parametrize("harm", ["cut", "empty", "gone", "json", "count", "label", "kind"])
def test_a_damaged_entry_is_built_again(pets, shelf, harm):
    former = load_source(pets)
    entry = shelf / entries(shelf)[0]
    images, meta = entry / "train_images.npy", entry / "meta.json"
    if harm == "cut":
        os.truncate(images, 5000)
    elif harm == "empty":
        os.truncate(images, 0)
    elif harm == "gone":
        images.unlink()
    elif harm == "json":
        meta.write_text(meta.read_text()[:100])
    elif harm == "count":
        meta.write_text(json.dumps(json.loads(meta.read_text()) | {"splits": {"train": 3}}))
    elif harm == "label":
        np.save(entry / "train_labels.npy", np.full(20, 7))
    elif harm == "kind":
        np.save(images, np.zeros((20, 32, 32, 3)))
    with pytest.warns(UserWarning, match="is damaged"):
        assert load_source(pets).fingerprint == former.fingerprint
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_source(pets).fingerprint == former.fingerprint
    assert len(entries(shelf)) == 1


KILLED = """
import os, signal, sys
from cifar_fast.data import fill
from cifar_fast.data.sources import load_source
read, done = fill.read_image, []
def die(path, *how):
    done.append(path)
    if len(done) > 7: os.kill(os.getpid(), signal.SIGKILL)
    return read(path, *how)
fill.read_image = die
load_source(sys.argv[1])
"""
COUNTED = """
import sys
from cifar_fast.data import fill
from cifar_fast.data.sources import load_source
read, decoded = fill.read_image, []
fill.read_image = lambda path, *how: decoded.append(path) or read(path, *how)
print(load_source(sys.argv[1]).fingerprint, len(decoded))
"""


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_a_killed_build_leaves_nothing_that_is_used(pets, shelf):
    subprocess.run([sys.executable, "-c", KILLED, str(pets)], capture_output=True)
    assert [Path(name).suffix for name in entries(shelf)] == [".part"]
    assert len(load_source(pets).train) == 20
    assert [name[:5] for name in entries(shelf)] == ["pets-"]


def test_interrupted_by_hand(pets, shelf, monkeypatch):
    def stop(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fill, "read_image", stop)
        with pytest.raises(KeyboardInterrupt):
            load_source(pets)
    assert not entries(shelf)
    assert len(load_source(pets).train) == 20


def test_of_processes_at_once_one_builds(pets, shelf):
    command = [sys.executable, "-c", COUNTED, str(pets)]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    results = [run.communicate()[0].split() for run in runs]
    assert all(run.returncode == 0 for run in runs)
    assert {fingerprint for fingerprint, _ in results} == {load_source(pets).fingerprint}
    assert sorted(int(count) for _, count in results) == [0, 0, 0, 20]
    assert len(entries(shelf)) == 1


def test_an_entry_is_opened_where_nothing_can_be_written(pets, shelf, monkeypatch):
    expected = load_source(pets)

    def refuse(*args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(cache, "FileLock", refuse)
    assert load_source(pets).fingerprint == expected.fingerprint


def test_a_cache_that_cannot_be_written(pets, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="file.*CIFAR_FAST_CACHE"):
        load_source(pets, cache=tmp_path / "file")


def test_a_full_disk(pets, shelf, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DataError, match=f"{re.escape(str(shelf))}.*No space left on device"):
            load_source(pets)
    assert not entries(shelf)


def test_where_the_cache_lies(monkeypatch, tmp_path):
    assert cache.cache_folder(tmp_path) == tmp_path
    assert cache.cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("CIFAR_FAST_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.cache_folder() == tmp_path / "xdg" / "cifar_fast"


@pytest.mark.parametrize("count", [0, 1, 12_345])
def test_streamed_arrays_are_plain_npy(tmp_path, count):
    image = np.arange(3072, dtype=np.uint8).reshape(32, 32, 3)
    labels = write_split(tmp_path, "train", ((image, i % 7) for i in range(count)), 32)
    images = np.load(tmp_path / "train_images.npy")
    assert images.shape == (count, 32, 32, 3) and (images == image).all() and len(labels) == count
