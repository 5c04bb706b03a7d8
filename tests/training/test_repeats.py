"""The same again, bit for bit: with any workers, and after lr_find, which leaves no trace."""

import random
from copy import deepcopy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import MIXED, tiny, trained
from toys import Watch, equal, state

from cifar_fast.training.fit import fit
from cifar_fast.training.lr_finder import FEWEST, find
from cifar_fast.training.prepare import prepare
from cifar_fast.utils.seeds import derive, rng_restored, seed_everything


def test_the_same_seed_gives_the_same_weights_bit_for_bit(base):
    torch.manual_seed(99)  # what went before does not matter
    again = trained(tiny(*MIXED))
    assert equal(base.weights, again.weights)
    assert equal(state(base.ema), state(again.ema))
    shown = [c for c in base.frame if c not in ("seconds", "images_per_second")]
    assert base.frame[shown].equals(again.frame[shown])


def test_workers_do_not_change_the_weights(base):
    assert equal(base.weights, trained(tiny(*MIXED, "workers=2")).weights)


def test_another_seed_gives_other_weights(base):
    other = trained(tiny(*MIXED, "seed=43", "epochs=1"))
    assert all(not torch.equal(v, base.weights[k]) for k, v in other.weights.items() if v.ndim > 1)


def test_training_learns(base):
    first, last = base.frame.iloc[0], base.frame.iloc[-1]
    assert last["train_loss"] < first["train_loss"] and last["valid_accuracy"] > 0.13
    assert base.frame["epoch"].tolist() == [1, 2] and base.state.step == 16 and base.state.epoch == 2
    assert base.run.learn.loss_func.reduction == "mean"


def test_seeds_of_near_places_are_unrelated():
    places = [(s, e, b) for s in range(3) for e in range(10) for b in range(30)]
    found = {derive(*p) for p in places}
    assert len(found) == len(places) and derive(1, 2, 3) == derive(1, 2, 3)
    bits = np.array([[int(c) for c in f"{derive(1, 0, b):032b}"] for b in range(400)])
    assert abs(bits.mean() - 0.5) < 4.5 * 0.5 / bits.size**0.5


def random_states():
    return random.getstate(), np.random.get_state(), torch.get_rng_state()


def states_equal(one, other):
    return (one[0] == other[0] and all(np.array_equal(a, b) for a, b in zip(one[1], other[1], strict=True))
            and torch.equal(one[2], other[2]))


def test_random_states_are_restored_even_after_an_error():
    seed_everything(5)
    before = random_states()
    with pytest.raises(RuntimeError, match="inside"), rng_restored():
        random.random(), np.random.rand(), torch.rand(3)
        assert not states_equal(before, random_states())
        raise RuntimeError("inside")
    assert states_equal(before, random_states())


# ---------------------------------------------------------------- lr_find leaves no trace


def optimizer_state(learn):
    return deepcopy(learn.opt.opt.state_dict())


def test_training_after_lr_find_equals_training_without_it(base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = prepare(tiny(*MIXED))
    learn, train = run.learn, run.learn.dls.train
    seed_everything(77)
    before, weights, callbacks = random_states(), state(learn.model), set(learn.cbs)
    found = find(run)
    assert len(found["lr"]) == len(found["loss"]) > 20 and len(set(found["loss"])) > 20  # it did train
    assert set(found["suggestions"]) == {"valley", "slide", "minimum", "steep"}
    assert states_equal(before, random_states())
    assert equal(weights, learn.model.state_dict()) and all(p.grad is None for p in learn.model.parameters())
    assert (learn.opt, train.next_epoch, set(learn.cbs)) == (None, 0, callbacks)
    assert list(tmp_path.iterdir()) == []
    fit(run)
    assert equal(base.weights, learn.model.state_dict())

    # And in the middle of things: the optimizer with its momentum stays, and the next epoch is the one it was.
    opt, weights, epoch = learn.opt, state(learn.model), train.next_epoch
    before = optimizer_state(learn)
    find(run)
    after = optimizer_state(learn)
    assert learn.opt is opt and train.next_epoch == epoch == 2 and equal(weights, learn.model.state_dict())
    assert before["param_groups"] == after["param_groups"]
    for key, buffers in before["state"].items():
        assert torch.equal(buffers["momentum_buffer"], after["state"][key]["momentum_buffer"])


def test_lr_find_that_breaks_leaves_no_trace_either(digits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = prepare(tiny(*MIXED, "precision=bf16"))
    weights, before = state(run.learn.model), random_states()

    def break_off(learn):
        assert torch.is_autocast_enabled("cpu")
        if learn.train_iter == 3:
            raise KeyboardInterrupt

    run.learn.add_cb(watch := Watch(5, after_pred=break_off))
    with pytest.raises(KeyboardInterrupt):
        find(run)
    run.learn.remove_cb(watch)
    assert equal(weights, run.learn.model.state_dict()) and states_equal(before, random_states())
    assert run.learn.opt is None and not torch.is_autocast_enabled("cpu")
    assert not [cb for cb in run.learn.cbs if type(cb).__name__ in ("Search", "Autocast", "BatchTransforms")]


@pytest.mark.parametrize("steps", [5, 60, FEWEST - 1])
def test_too_few_steps_for_lr_find(steps):
    with pytest.raises(ValueError, match=f"num_it={steps}"):
        find(SimpleNamespace(learn=None), num_it=steps)
