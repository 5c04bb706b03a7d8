import json
import zipfile

import numpy as np
import pytest

from cifar_fast.export.predictions import Predictions, PredictionsError


def some(n=50, c=10, seed=0):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(c), n).astype(np.float32)
    return Predictions(rng.integers(0, c, n), p.argmax(1), p, tuple(f"class {i}" for i in range(c)), "abc/test", "test")


@pytest.mark.parametrize("n, c", [(50, 10), (1, 2), (300, 300)])
def test_what_is_saved_comes_back(tmp_path, n, c):
    before = some(n, c)
    before.save(tmp_path / "predictions.npz")
    after = Predictions.load(tmp_path / "predictions.npz")
    assert (after.labels == before.labels).all() and (after.predicted == before.predicted).all()
    assert np.abs(after.probabilities - before.probabilities).max() < 1e-3
    assert (after.vocab, after.images, after.on) == (before.vocab, before.images, before.on)
    assert after.correct.mean() == before.correct.mean()


def test_ties_in_half_precision_do_not_change_what_was_predicted(tmp_path):
    p = np.array([[0.5, 0.5000001]], np.float32)
    Predictions(np.array([1]), p.argmax(1), p, ("a", "b"), "x/test", "test").save(tmp_path / "p.npz")
    assert Predictions.load(tmp_path / "p.npz").correct.all()


def broken(tmp_path, **arrays):
    "A saved file with some of its arrays replaced."
    some().save(tmp_path / "good.npz")
    with np.load(tmp_path / "good.npz") as file:
        np.savez(tmp_path / "bad.npz", **{**dict(file), **arrays})
    return tmp_path / "bad.npz"


def about(**values):
    return {"about": np.array(json.dumps({"vocab": list("abcdefghij"), "images": "x/test", "on": "test", **values}))}


@pytest.mark.parametrize("arrays, reason", [
    ({"labels": np.zeros(3, np.uint8)}, "do not fit"),
    ({"predicted": np.full(50, 200, np.uint8)}, "predicted class 200 is none of its 10"),
    ({"labels": np.full(50, -1, np.int8)}, "label -1 is none"),
    ({"labels": np.full(50, 0.5)}, "labels are not a list of whole numbers"),
    ({"labels": np.full(50, np.nan)}, "whole numbers"),
    ({"labels": np.full((50, 1), 1)}, "whole numbers"),
    ({"labels": np.uint8(3)}, "whole numbers"),
    ({"labels": np.array(["a"] * 50)}, "whole numbers"),
    ({"labels": np.zeros(0, np.uint8)}, "0 images"),
    ({"labels": np.full(50, 2**64 - 1, np.uint64)}, "is none of its 10"),
    ({"probabilities": np.full((50, 10), np.nan, np.float16)}, "sum to one"),
    ({"probabilities": np.full((50, 10), np.inf, np.float16)}, "sum to one"),
    ({"probabilities": np.tile([1.5, -0.5, *[0] * 8], (50, 1))}, "sum to one"),
    ({"probabilities": np.full((50, 10), 7.0)}, "sum to one"),
    ({"probabilities": np.full((50, 10), 0.1 + 0j)}, "table of fractions"),
    ({"probabilities": np.full((10, 50), 0.02)}, "do not fit"),
    ({"probabilities": np.eye(10)[np.arange(50) % 10], "predicted": np.zeros(50, np.uint8)}, "most probable"),
    ({"items": np.arange(50)}, "which images"),
    ({**about(on="held-out")}, "which images"),
    ({**about(on="held-out"), "items": np.zeros(50, np.int64)}, "twice"),
    ({**about(on="held-out"), "items": np.arange(-1, 49)}, "before the first"),
    (about(vocab="abcdefghij"), "list of texts"),
    (about(vocab=[1] * 10), "list of texts"),
    (about(vocab=[]), "0 classes"),
    (about(images=3), "which images"),
    ({"about": np.array("no JSON")}, "Expecting value"),
    ({"about": np.array("[]")}, "list indices"),
    ({"about": np.array("\x1b[31m")}, ""),
    ({"labels": np.array([print] * 50, dtype=object)}, "Python objects"),
])
def test_what_is_not_a_file_of_predictions_is_named_in_one_line(tmp_path, arrays, reason):
    with pytest.raises(PredictionsError) as e:
        Predictions.load(broken(tmp_path, **arrays))
    message = str(e.value)
    assert "bad.npz is not a file of predictions" in message and reason in message and message.isprintable()


@pytest.mark.parametrize("shape", ["(1099511627776,)", "(-1,)", "(4294967296, 4294967296)", "(1,", "(" * 3000, "None"])
def test_a_claimed_size_is_not_believed(tmp_path, shape):
    "numpy allocates what a header claims before it reads."
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    with zipfile.ZipFile(tmp_path / "bad.npz", "w") as archive:
        archive.writestr("labels.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(PredictionsError, match=r"bad\.npz is not a file of predictions"):
        Predictions.load(tmp_path / "bad.npz")


def test_what_is_not_there_or_not_a_zip_is_named(tmp_path):
    with pytest.raises(PredictionsError, match=r"no .*none\.npz: python -m cifar_fast report"):
        Predictions.load(tmp_path / "none.npz")
    (tmp_path / "cut.npz").write_bytes(b"PK\3\4 cut")
    with pytest.raises(PredictionsError, match=r"cut\.npz is not a file of predictions"):
        Predictions.load(tmp_path / "cut.npz")


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_file_is_refused_or_the_same(tmp_path, seed):
    "Any byte may change: what loads has the values that were saved."
    before, path, rng = some(), tmp_path / "p.npz", np.random.default_rng(seed)
    before.save(path)
    data = bytearray(path.read_bytes())
    for at in rng.integers(0, len(data), rng.integers(1, 4)):
        data[at] = rng.integers(0, 256)
    path.write_bytes(data[:rng.integers(1, len(data) + 1)] if seed % 4 == 0 else data)
    try:
        after = Predictions.load(path)
    except PredictionsError as e:
        assert str(e).isprintable()
    else:
        assert (after.labels == before.labels).all() and (after.predicted == before.predicted).all()


def test_file_names_travel_with_the_predictions(tmp_path):
    for files in (None, ("cat/a.png", "dog/\u732b.png")):
        p = np.array([[0.9, 0.1], [0.2, 0.8]], np.float32)
        two = Predictions(np.array([0, 1]), p.argmax(1), p, ("cat", "dog"), "x/test", "test", files=files)
        two.save(tmp_path / "p.npz")
        assert Predictions.load(tmp_path / "p.npz").files == files
    with pytest.raises(ValueError, match="3 files of 2 images"):
        Predictions(np.array([0, 1]), p.argmax(1), p, ("cat", "dog"), "x/test", "test", files=("a", "b", "c")).check()
