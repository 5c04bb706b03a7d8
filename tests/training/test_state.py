"""The record of a run: what it derives, what it refuses to load."""

import math

import pytest

from cifar_fast.training.state import TrainState


def filled():
    return TrainState(rows=[{"epoch": 1, "valid_accuracy": 0.5}, {"epoch": 2, "valid_accuracy": 0.5}],
                      hypers=[(0.1, 0.9), (0.2, None)], mix_counts={"mixup": 2}, resumes=1,
                      memory_format="channels_last", format_speeds={"contiguous": 1.5, "channels_last": 2})


def test_what_is_derived():
    state = filled()
    assert (state.epoch, state.step, state.best, state.is_best) == (2, 2, {"epoch": 1, "accuracy": 0.5}, False)
    state.rows.append({"epoch": 3, "valid_accuracy": 0.1, "valid_ema_accuracy": 0.2})
    assert state.best == {"epoch": 3, "accuracy": 0.2} and state.is_best  # of the weights that will be exported
    assert TrainState().best is None and not TrainState(rows=[{"epoch": 1, "train_loss": 2.0}]).is_best


def test_it_goes_through_a_dict():
    state, other = filled(), TrainState()
    state.seconds_before = 100.0
    other.load_state_dict(state.state_dict())
    saved = {k: v for k, v in state.state_dict().items() if k != "seconds"}
    assert {k: v for k, v in other.state_dict().items() if k != "seconds"} == saved
    assert 100 <= other.seconds < 110
    other.rows[0]["epoch"] = 9
    assert state.rows[0]["epoch"] == 1


@pytest.mark.parametrize("key, value", [
    ("rows", None), ("rows", [1]), ("rows", [{"epoch": "one"}]), ("rows", [{}]), ("hypers", [0.1]),
    ("hypers", [("a", 0.9)]), ("mix_counts", {"mixup": -1}), ("mix_counts", []), ("resumes", 0.5), ("resumes", True),
    ("memory_format", "NHWC"), ("format_speeds", {"contiguous": "fast"}), ("seconds", math.nan), ("seconds", -1)])
def test_a_damaged_entry_is_named(key, value):
    with pytest.raises(ValueError, match=repr(key)):
        TrainState().load_state_dict(filled().state_dict() | {key: value})
    with pytest.raises(ValueError, match=repr(key)):
        TrainState().load_state_dict({k: v for k, v in filled().state_dict().items() if k != key})
