"""CIFAR-10's official archive, the network stubbed."""

import http.client
import io
import pickle
import tarfile
import urllib.error
import urllib.request

import numpy as np
import pytest

from cifar_fast.data import download
from cifar_fast.data.sources import DataError, load_source


class OldArray:
    "Pickles as Python 2 pickled an array, which is how the official batches were made."

    def __init__(self, array):
        self.array = array

    def __reduce__(self):
        state = (1, self.array.shape, self.array.dtype, False, self.array.tobytes().decode("latin1"))
        return np.empty(0).__reduce__()[0], (np.ndarray, (0,), "b"), state


def archive(meta=None, **extra) -> tuple[bytes, np.ndarray]:
    "Six batches of two images in the official layout, and the images (12, 32, 32, 3)."
    images = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    planes = images.transpose(0, 3, 1, 2).reshape(12, 3072)
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    members = {"batches.meta": meta or {"label_names": list(download.CLASSES)}}
    for i, name in enumerate(names):
        data = OldArray(planes[2 * i : 2 * i + 2])
        members[name] = {"data": data, "labels": [i, 9 - i], "filenames": ["a", "b"]}
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name, value in reversed((members | extra).items()):
            data = value if isinstance(value, bytes) else pickle.dumps(value, protocol=2)
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue(), images


class Answer(io.BytesIO):
    headers = {"Content-Length": "1000"}


@pytest.fixture
def web(monkeypatch, tmp_path):
    "A network that serves `web.data`, or raises it; `web.asked` counts."

    class Web:
        data, asked = b"", 0

        def urlopen(self, request, timeout=None):
            assert request.full_url == download.URL and timeout
            self.asked += 1
            if isinstance(self.data, Exception):
                raise self.data
            return Answer(self.data) if isinstance(self.data, bytes) else self.data

        def serve(self, data):
            self.data = data
            (tmp_path / "sum").write_bytes(data)
            monkeypatch.setattr(download, "MD5", download._md5(tmp_path / "sum"))

    stub = Web()
    monkeypatch.delenv("CIFAR_FAST_DATA", raising=False)
    monkeypatch.setenv("CIFAR_FAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(urllib.request, "urlopen", stub.urlopen)
    return stub


def kept(tmp_path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache" / "data").iterdir())


def test_downloaded_once(web, tmp_path):
    data, images = archive()
    web.serve(data)
    source = load_source()
    assert np.array_equal(source.train.images, images[:10])
    assert np.array_equal(source.test.images, images[10:])
    assert source.train.labels.tolist() == [0, 9, 1, 8, 2, 7, 3, 6, 4, 5]
    assert source.test.labels.tolist() == [5, 4]
    assert (source.name, source.vocab) == ("cifar10", download.CLASSES) and download.URL in source.origin
    assert load_source().fingerprint == source.fingerprint and web.asked == 1
    assert len(kept(tmp_path)) == 2 and download.ARCHIVE in kept(tmp_path)


def test_an_archive_put_there_by_hand(web, tmp_path):
    data, _ = archive()
    web.serve(data)
    web.data = OSError("no network")
    (tmp_path / "cache" / "data").mkdir(parents=True)
    (tmp_path / "cache" / "data" / download.ARCHIVE).write_bytes(data)
    assert len(load_source().train) == 10


def test_wrong_md5(web, tmp_path):
    web.data = archive()[0]  # not the official archive, so not its md5
    for _ in range(2):
        with pytest.raises(DataError, match=f"not {download.MD5}: incomplete.*thrown away.*data=digits"):
            load_source()
    assert kept(tmp_path) == []
    (tmp_path / "cache" / "data" / download.ARCHIVE).write_bytes(web.data)
    with pytest.raises(DataError, match="delete it and run the same command again"):
        load_source()


def test_no_network(web, tmp_path):
    web.data = urllib.error.URLError("[Errno -3] Temporary failure in name resolution")
    with pytest.raises(
        DataError, match="name resolution.*put it at .*tar.gz; without network use data=digits"
    ):
        load_source()
    assert kept(tmp_path) == []


def test_interrupted_download(web, tmp_path):
    data, _ = archive()

    class Broken(Answer):
        def read(self, size):
            if self.tell():
                raise http.client.IncompleteRead(b"")
            return super().read(100)

    web.serve(data)
    web.data = Broken(data)
    with pytest.raises(DataError, match="cannot download"):
        load_source()
    assert kept(tmp_path) == []
    web.data = data[:-100]  # a server that simply stops
    with pytest.raises(DataError, match="incomplete"):
        load_source()
    assert kept(tmp_path) == []
    web.data = data
    assert len(load_source().train) == 10


class Payload:
    def __reduce__(self):
        return print, ("executed",)


@pytest.mark.parametrize(
    "data",
    [
        b"no archive",
        archive()[0][:500],
        archive(meta={"label_names": ["cat"]})[0],
        archive(test_batch={"data": Payload(), "labels": [1, 2]})[0],
        archive(test_batch=pickle.dumps(Payload(), protocol=0))[0],
        archive(test_batch={"data": OldArray(np.zeros((2, 7), np.uint8)), "labels": [1, 2]})[0],
        archive(test_batch={"labels": [1, 2]})[0],
        archive(test_batch=b"")[0],
        archive(test_batch=b"\x80\x02cnumpy\nndarray\n\x8a\x06" + (10**13).to_bytes(6, "little") + b"\x85\x85R.")[0],
        archive(test_batch=b"\x80\x02Nr\xff\xff\xff\xff.")[0],  # the place 4,294,967,295 in its memory
        archive(test_batch=b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b".")[0],  # bytes, a terabyte of them
        archive(test_batch=b"\x80\x04\x8e" + (2**64 - 1).to_bytes(8, "little") + b".")[0],
        archive(test_batch=b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b".")[0],
    ],
)
def test_an_archive_with_other_contents(web, tmp_path, data, capsys):
    web.serve(data)
    with pytest.raises(DataError, match="does not hold CIFAR-10 as expected"):
        load_source()
    assert "executed" not in capsys.readouterr().out
    assert kept(tmp_path) == [download.ARCHIVE]


def crafted(*members: tarfile.TarInfo, content: bytes = b"") -> bytes:
    "The official layout with its test batch replaced by these members."
    file = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(archive()[0])) as whole, tarfile.open(fileobj=file, mode="w:gz") as tar:
        for member in members:
            member.size = member.size or (len(content) if member.isreg() else 0)
            tar.addfile(member, io.BytesIO(content.ljust(member.size, b"\0")) if member.isreg() else None)
        for member in whole:
            if not member.name.endswith("test_batch"):
                tar.addfile(member, whole.extractfile(member))
    return file.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


BATCH = "cifar-10-batches-py/test_batch"
HARMFUL = {
    "a path above": lambda: crafted(member("../../outside"), content=b"harm"),
    "an absolute path": lambda: crafted(member("/tmp/cifar_fast_outside"), content=b"harm"),
    "a link for a batch": lambda: crafted(member(BATCH, tarfile.SYMTYPE, "/etc/passwd")),
    "a hard link for a batch": lambda: crafted(member(BATCH, tarfile.LNKTYPE, "../../outside")),
    "a device for a batch": lambda: crafted(member(BATCH, tarfile.CHRTYPE)),
    "a pipe for a batch": lambda: crafted(member(BATCH, tarfile.FIFOTYPE)),
    "a folder for a batch": lambda: crafted(member(BATCH, tarfile.DIRTYPE)),
    "a bomb": lambda: crafted(member("zeros", size=download._UNPACKED + 2**20)),
    "a bomb for a batch": lambda: crafted(member(BATCH, size=download._UNPACKED + 2**20)),
    "a header that is a bomb": lambda: crafted(member("x", tarfile.XHDTYPE, size=0), member(BATCH, tarfile.CHRTYPE)),
    "cut in the middle": lambda: archive()[0][:-len(archive()[0]) // 2],
    "cut by a byte": lambda: archive()[0][:-1],
    "no gzip": lambda: b"PK\3\4" + bytes(1000),
}


@pytest.mark.parametrize("name", HARMFUL)
def test_an_archive_that_means_harm(web, tmp_path, name):
    "Even where its sum were right: nothing is written outside, nothing decoded is kept."
    before = {path for path in tmp_path.rglob("*")}
    web.serve(HARMFUL[name]())
    with pytest.raises(DataError, match="does not hold CIFAR-10 as expected"):
        load_source()
    assert kept(tmp_path) == [download.ARCHIVE]
    new = {path for path in tmp_path.rglob("*")} - before
    assert all(path.is_relative_to(tmp_path / "cache") or path.name == "sum" for path in new)
