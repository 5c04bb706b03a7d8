"""lr_find's curve and suggestions on known losses, and the batches it trains on."""

import numpy as np
import pytest
from tiny import MIXED, tiny
from toys import Watch

from cifar_fast.training.lr_finder import FEWEST, PASSES, curve, find, suggestions
from cifar_fast.training.prepare import prepare


def losses(steps, noise=0.0, seed=0):
    "Flat up to 1e-3, falling to 0.1, then blowing up: rates 1e-6 to 10."
    lrs = np.geomspace(1e-6, 10, steps)
    at = np.log10(lrs)
    loss = np.interp(at, [-6, -3, -1, 0, 1], [2.4, 2.4, 1.0, 3.0, 3.0])
    return lrs, (loss + np.random.default_rng(seed).normal(0, noise, steps)).tolist()


@pytest.mark.parametrize("steps", [100, 150, 400])
@pytest.mark.parametrize("seed", range(4))
def test_suggestions_hold_for_other_steps_and_seeds(steps, seed):
    lr, loss = curve(*losses(steps, 0.04, seed))
    found = {name: at["lr"] for name, at in suggestions(lr, loss).items()}
    assert 0.008 < found["valley"] < 0.1 and 0.005 < found["minimum"] < 0.02 and 0.001 < found["steep"] < 0.1
    assert lr[-1] < 1  # the rates at which it diverged are not looked at


def test_a_loss_that_never_falls_or_diverges_at_once_is_refused():
    lrs = np.geomspace(1e-6, 10, 100)
    with pytest.raises(ValueError, match="falls at no rate from 1e-06 to 10"):
        curve(lrs, [2.4] * 100)
    rise = np.exp(np.linspace(0, 3, 100) - 3) * (np.arange(100) > 50)
    for flat in (np.full(100, 6.9), np.full(100, 0.05), 2.3 + 0.03 * np.random.default_rng(0).standard_normal(100)):
        with pytest.raises(ValueError, match="falls at no rate"):  # a loss that only rises has not fallen
            curve(lrs, flat * (1 + rise))
    with pytest.raises(ValueError, match="diverged within a few steps"):
        curve(lrs, [2.4, 5.0, 9.0, 30.0])


def test_it_trains_at_the_resolution_and_with_the_mixing_that_training_starts_with(digits):
    run, sides, mixed = prepare(tiny(*MIXED, "resize.until=0.2", "mix.until=0.1", "channels_last=false")), [], []

    def look(learn):
        sides.append(learn.x.shape[-1])
        mixed.append(learn.y.ndim == 2)

    run.learn.add_cb(Watch(30, before_batch=look))
    found = find(run)
    assert set(sides) == {24} and 0.5 < np.mean(mixed) < 1 and len(sides) <= PASSES * FEWEST
    assert found["recipe"]["lr"] == run.recipe.lr == 0.05
    assert all(set(at) == {"lr", "loss"} for at in [*found["suggestions"].values(), found["recipe"]])
