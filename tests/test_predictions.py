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


@pytest.mark.parametrize("arrays, reason", [
    ({"labels": np.zeros(3, np.uint8)}, "do not fit"),
    ({"predicted": np.full(50, 200, np.uint8)}, "a class beyond"),
    ({"probabilities": np.full((50, 10), np.nan, np.float16)}, "no numbers"),
    ({"about": np.array("no JSON")}, "no file of predictions"),
    ({"about": np.array("[]")}, "no file of predictions"),
    ({"labels": np.array([print] * 50, dtype=object)}, "allow_pickle"),
])
def test_what_is_no_file_of_predictions_is_named(tmp_path, arrays, reason):
    with pytest.raises(PredictionsError, match=rf"bad\.npz is no file of predictions.*{reason}|{reason}"):
        Predictions.load(broken(tmp_path, **arrays))


def test_what_is_not_there_or_not_a_zip_is_named(tmp_path):
    with pytest.raises(PredictionsError, match=r"no .*none\.npz: python -m cifar_fast report"):
        Predictions.load(tmp_path / "none.npz")
    (tmp_path / "cut.npz").write_bytes(b"PK\3\4 cut")
    with pytest.raises(PredictionsError, match=r"cut\.npz is no file of predictions"):
        Predictions.load(tmp_path / "cut.npz")
