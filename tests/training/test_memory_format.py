"""Memory format: model and batch are in the one that the setting says, `auto` times both, a resumed run keeps it."""

import json
from types import SimpleNamespace

import pytest
import torch
from kills import NAME, RUN, bytes_that_differ, weights
from tiny import MIXED, tiny
from torch import nn
from toys import Watch, equal, state

from cifar_fast.cli.main import main
from cifar_fast.recipe import RecipeError, check, load_recipe, override
from cifar_fast.training import memory_format, prepare
from cifar_fast.training.callbacks.checkpoint import load
from cifar_fast.training.fit import fit
from cifar_fast.training.memory_format import PAYS_FROM, choose_memory_format, faster, time_formats

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


@pytest.mark.parametrize("setting, chosen", [("false", "contiguous"), ("true", "channels_last")])
def test_model_average_and_batches_are_what_the_setting_says(digits, setting, chosen):
    "In training, with shrunk and mixed images, and in validation."
    run, seen = prepare.prepare(tiny("epochs=1", f"channels_last={setting}", *MIXED)), []
    inside = next(m for m in run.learn.model.modules() if isinstance(m, nn.Conv2d))
    inside.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    fitted = fit(run)
    assert len(seen) > 8 and {x.shape[-1] for x in seen} >= {24, 32}
    other = FORMATS[({*FORMATS} - {chosen}).pop()]
    for model in (run.learn.model, fitted.ema):
        kernels = [p for p in model.parameters() if p.ndim == 4 and min(p.shape[1:3]) > 1]
        assert kernels and all(p.is_contiguous(memory_format=FORMATS[chosen]) for p in kernels)
    for x in seen:
        assert x.is_contiguous(memory_format=FORMATS[chosen]) and not x.is_contiguous(memory_format=other)
    assert fitted.state.memory_format == chosen and fitted.state.format_speeds == {}


def test_the_average_is_measured_under_autocast(digits):
    run, inside = prepare.prepare(tiny("epochs=1", "precision=bf16", "valid=10")), set()

    def hook(learn):
        learn.ema.module.head.register_forward_hook(lambda *args: inside.add(torch.is_autocast_enabled("cpu")))

    run.learn.add_cb(Watch(99, before_validate=hook))
    fit(run)
    assert inside == {True} and not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("setting, device, steps, chosen", [
    (True, "cpu", 10**6, "channels_last"), (False, "cuda", 10**6, "contiguous"),
    ("auto", "cuda", 10**6, "channels_last"),
    ("auto", "cpu", PAYS_FROM - 1, "channels_last"), ("auto", "cpu", PAYS_FROM, None)])
def test_what_is_chosen_without_timing(setting, device, steps, chosen):
    assert choose_memory_format(setting, torch.device(device), steps) == chosen


@pytest.mark.parametrize("contiguous, chosen", [(90, "channels_last"), (104, "channels_last"), (106, "contiguous")])
def test_contiguous_has_to_be_clearly_faster(contiguous, chosen):
    assert faster({"contiguous": contiguous, "channels_last": 100}) == chosen


def test_timing_leaves_everything_as_it_was(digits):
    run = prepare.prepare(tiny("bs=16"))
    before, rng, epoch = state(run.learn.model), torch.get_rng_state(), run.learn.dls.train.next_epoch
    speeds = time_formats(run.learn.model, run.learn.dls.train, run.learn.loss_func, "fp32", run.device)
    assert set(speeds) == set(FORMATS) and min(speeds.values()) > 0
    assert equal(before, state(run.learn.model)) and torch.equal(rng, torch.get_rng_state())
    assert all(p.grad is None for p in run.learn.model.parameters()) and run.learn.dls.train.next_epoch == epoch


@pytest.fixture
def timed(monkeypatch):
    "Timing that says the same at once, and counts how often it was asked."
    calls = SimpleNamespace(count=0, speeds={"contiguous": 1500.0, "channels_last": 1000.0})

    def speeds(*args):
        calls.count += 1
        return dict(calls.speeds)

    monkeypatch.setattr(memory_format, "PAYS_FROM", 1)
    monkeypatch.setattr(prepare, "time_formats", speeds)
    return calls


def test_a_timed_choice_is_printed_recorded_and_kept_on_resume(timed, broken, tmp_path, capsys):
    exports = broken(5)
    assert "contiguous (images/s: contiguous 1,500, channels_last 1,000)" in capsys.readouterr().out
    saved = load(exports / f".{NAME}.running" / "checkpoint.pt")["state"]
    assert saved["memory_format"] == "contiguous" and saved["format_speeds"] == timed.speeds and timed.count == 1
    timed.speeds["contiguous"] = 500.0  # another moment, another answer: the run does not ask again
    assert main([*RUN, f"exports={exports}", "--resume"]) == 0 and timed.count == 1
    assert "contiguous (images/s: contiguous 1,500" in capsys.readouterr().out
    machine = json.loads((exports / NAME / "card.json").read_text())["machine"]
    assert machine["memory_format"] == "contiguous" and machine["format_speeds"]["channels_last"] == 1000
    assert main([*RUN, "channels_last=false", f"exports={tmp_path / 'plain'}"]) == 0
    assert bytes_that_differ(weights(exports), weights(tmp_path / "plain")) == 0


def test_the_setting():
    assert load_recipe("final").channels_last == load_recipe("sprint").channels_last == "auto"
    with pytest.raises(RecipeError, match="channels_last=fast: expected true or false or auto"):
        override(load_recipe("final"), ["channels_last=fast"])
    from dataclasses import replace

    with pytest.raises(RecipeError, match="channels_last=fast"):
        check(replace(load_recipe("final"), channels_last="fast"))
