"""Tests on CIFAR-10: the shipped export on the real test set and, slow, every recipe's first epoch."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cifar_fast.recipe import list_recipes

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not os.environ.get("CIFAR_FAST_DATA"), reason="CIFAR_FAST_DATA names no image tree of CIFAR-10"),
]


@pytest.fixture
def cifar10():
    from cifar_fast.data.sources import load_source

    return load_source("cifar10")


def test_cifar10_has_the_known_statistics(cifar10):
    assert (len(cifar10.train), len(cifar10.test), len(cifar10.vocab)) == (50_000, 10_000, 10)
    np.testing.assert_allclose(cifar10.mean, (0.49140, 0.48216, 0.44653), atol=1e-4)
    np.testing.assert_allclose(cifar10.std, (0.24703, 0.24348, 0.26159), atol=1e-4)


def test_the_shipped_export_has_the_accuracy_its_card_states(cifar10):
    from cifar_fast.export.predictor import load_export

    exported = load_export(ROOT / "exports" / "final")
    card = exported.card
    assert card.data.fingerprint == cifar10.fingerprint
    right = exported.predict(cifar10.test.images).argmax(1) == cifar10.test.labels
    # Another CPU sums in another order: an image or two on the edge may fall to the other side.
    assert right.mean() == pytest.approx(card.metrics.accuracy, abs=5e-4)
    assert right.mean() >= 0.85
    assert card.audit.params < 200_000 and not card.waived


@pytest.mark.slow
@pytest.mark.parametrize("recipe", sorted(list_recipes()))
def test_a_full_epoch_of_every_recipe_learns(recipe, tmp_path):
    "Minutes each (`net` half an hour on two cores): run with -s to see the seconds an epoch."
    env = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "CIFAR_FAST_CACHE")}
    done = subprocess.run([sys.executable, "-m", "cifar_fast", "recipe", recipe, "epochs=1", f"exports={tmp_path}"],
                          env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    card = json.loads((tmp_path / recipe / "card.json").read_text())
    print(f"\n{recipe}: {card['seconds']['epoch']:.0f} s an epoch, train loss {card['last_epoch']['train_loss']:.3f}, "
          f"test accuracy {card['metrics']['accuracy']:.2%}, {card['machine']}")
    assert card["last_epoch"]["train_loss"] < 0.9 * math.log(10)
    # An average with a decay of 0.999 and no warm-up is still near the first weights after one epoch.
    assert (card["metrics"]["accuracy_without_ema"] or card["metrics"]["accuracy"]) > 0.2
