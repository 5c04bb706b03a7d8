"""CIFAR-10's official archive, over a network that is a stub."""

import hashlib
import http.client
import io
import pickle
import tarfile
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from cifar_fast.data import download
from cifar_fast.data.cifar10 import CLASSES
from cifar_fast.data.sources import DataError, load_source


class OldArray:
    "Pickles as Python 2 pickled an array, which is how the official batches were made."

    def __init__(self, array):
        self.array = array

    def __reduce__(self):
        state = (1, self.array.shape, self.array.dtype, False, self.array.tobytes().decode("latin1"))
        return np.empty(0).__reduce__()[0], (np.ndarray, (0,), "b"), state


def archive() -> tuple[bytes, np.ndarray]:
    "Six batches of two images in the official layout, and the images (12, 32, 32, 3)."
    images = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    planes = images.transpose(0, 3, 1, 2).reshape(12, 3072)
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    members = {"batches.meta": {"label_names": list(CLASSES)}}
    for i, name in enumerate(names):
        data = OldArray(planes[2 * i : 2 * i + 2])
        members[name] = {"data": data, "labels": [i, 9 - i], "filenames": ["a", "b"]}
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name, value in reversed(members.items()):
            data = pickle.dumps(value, protocol=2)
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue(), images


class Response(io.BytesIO):
    "What a server sends: `data` from `start` on, of which the connection passes `most` bytes."

    def __init__(self, data: bytes, start: int, most: int | None, error: Exception | None):
        super().__init__(data[start:][:most])
        self.status = 206 if start else 200
        self.headers = {"Content-Length": str(len(data) - start)}
        self.error = error

    def read(self, size):
        if not (block := super().read(size)) and self.error:
            raise self.error
        return block


@pytest.fixture
def web(monkeypatch, tmp_path):
    "A network that serves `web.data`; `web.requests` are the byte numbers that were asked for."

    class Web:
        data, requests = b"", []
        refusal = None  # raised instead of an answer
        most, error = None, None  # the connection ends after so many bytes, with this error
        ranges = True  # whether this server can resume

        def urlopen(self, request, timeout=None):
            assert request.full_url == download.URL and timeout
            start = int((request.get_header("Range") or "bytes=0-")[6:-1])
            self.requests = [*self.requests, start]
            if self.refusal:
                raise self.refusal
            if start and start >= len(self.data):
                raise urllib.error.HTTPError(request.full_url, 416, "Range Not Satisfiable", {}, None)
            return Response(self.data, start if self.ranges else 0, self.most, self.error)

        def serve(self, data):
            "These bytes, which are now the official ones."
            self.data = data
            monkeypatch.setattr(download, "MD5", hashlib.md5(data).hexdigest())

    stub = Web()
    monkeypatch.delenv("CIFAR_FAST_DATA", raising=False)
    monkeypatch.setenv("CIFAR_FAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(urllib.request, "urlopen", stub.urlopen)
    return stub


@pytest.fixture
def shelf(tmp_path):
    return tmp_path / "cache" / "data"


def names(shelf) -> list[str]:
    "The files and folders that users see."
    return sorted(path.name for path in shelf.iterdir() if not path.name.startswith("."))


def test_downloaded_once(web, shelf):
    data, images = archive()
    web.serve(data)
    source = load_source()
    assert np.array_equal(source.train.images, images[:10])
    assert np.array_equal(source.test.images, images[10:])
    assert source.train.labels.tolist() == [0, 9, 1, 8, 2, 7, 3, 6, 4, 5]
    assert source.test.labels.tolist() == [5, 4]
    assert (source.name, source.vocab) == ("cifar10", CLASSES) and download.URL in source.origin
    assert load_source().fingerprint == source.fingerprint and web.requests == [0]
    assert len(names(shelf)) == 2 and download.ARCHIVE in names(shelf)


def test_an_archive_put_there_by_hand(web, shelf):
    data, _ = archive()
    web.serve(data)
    web.refusal = OSError("no network")
    shelf.mkdir(parents=True)
    (shelf / download.ARCHIVE).write_bytes(data)
    assert len(load_source().train) == 10


def test_wrong_md5(web, shelf):
    web.data = archive()[0]  # not the official archive, so not its md5
    for _ in range(2):  # thrown away, so that the next try begins from the start
        with pytest.raises(DataError, match=f"{download.URL}.*{hashlib.md5(web.data).hexdigest()}.*{download.MD5}"):
            load_source()
    assert names(shelf) == [] and web.requests == [0, 0]
    (shelf / download.ARCHIVE).write_bytes(web.data)
    with pytest.raises(DataError, match=f"{shelf / download.ARCHIVE}.*{download.MD5}.*delete it"):
        load_source()


class Harm:
    def __reduce__(self):
        return open, ("harm", "w")


def test_an_archive_of_another_checksum_is_not_unpickled(web, shelf, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        info = tarfile.TarInfo("cifar-10-batches-py/test_batch")
        info.size = len(data := pickle.dumps(Harm()))
        tar.addfile(info, io.BytesIO(data))
    web.data = file.getvalue()
    with pytest.raises(DataError, match=download.MD5):
        load_source()
    assert not (tmp_path / "harm").exists()


def test_no_network(web, shelf):
    web.refusal = urllib.error.URLError("[Errno -3] Temporary failure in name resolution")
    with pytest.raises(DataError, match=f"name resolution.*{shelf / download.ARCHIVE}.*data=digits"):
        load_source()
    assert names(shelf) == []


@pytest.mark.parametrize("ranges", [True, False], ids=["resumes", "cannot resume"])
@pytest.mark.parametrize("error", [None, http.client.IncompleteRead(b""), TimeoutError("timed out")], ids=str)
def test_interrupted_download_resumes(web, shelf, error, ranges):
    web.serve(archive()[0])
    web.most, web.error, web.ranges = 100, error, ranges
    with pytest.raises(DataError, match=f"cannot download {download.URL}"):
        load_source()
    assert (shelf / f"{download.ARCHIVE}.part").read_bytes() == web.data[:100]
    web.most = web.error = None
    assert len(load_source().train) == 10 and web.requests == [0, 100]
    assert f"{download.ARCHIVE}.part" not in names(shelf)


def test_two_sizes_at_once_download_it_once(web, shelf):
    "Each size has an entry of its own in the cache; the archive is the same file."
    web.serve(archive()[0])
    begun, go_on = threading.Event(), threading.Event()
    read = Response.read

    def slow(self, size):
        begun.set()
        assert go_on.wait(30)
        return read(self, size)

    with ThreadPoolExecutor(2) as pool, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Response, "read", slow)
        first = pool.submit(load_source, size=32)
        assert begun.wait(30)
        second = pool.submit(load_source, size=48)
        with pytest.raises(TimeoutError):
            second.result(0.5)  # it waits
        assert web.requests == [0]
        go_on.set()
        assert first.result().train.images.shape[1] == 32 and second.result().train.images.shape[1] == 48
    assert web.requests == [0]


def test_a_download_that_was_complete_but_not_verified(web, shelf):
    web.serve(archive()[0])
    shelf.mkdir(parents=True)
    (shelf / f"{download.ARCHIVE}.part").write_bytes(web.data)
    assert len(load_source().train) == 10


def test_a_full_disk_names_the_folder(web, shelf):
    web.serve(archive()[0])
    web.most, web.error = 100, OSError(28, "No space left on device")
    with pytest.raises(DataError, match=f"{shelf}.*No space left on device.*CIFAR_FAST_CACHE"):
        load_source()
