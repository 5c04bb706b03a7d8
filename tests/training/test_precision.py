"""Precision and device: what is chosen where, that it trains, and that nothing of it stays behind."""

import warnings
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from fastai.callback.core import CancelTrainException
from tiny import MIXED, tiny
from torch import nn
from toys import Watch, equal, state

from cifar_fast.export.load import load_model
from cifar_fast.recipe import RecipeError
from cifar_fast.training.callbacks.precision import Autocast, choose_precision
from cifar_fast.training.fit import fit
from cifar_fast.training.prepare import prepare
from cifar_fast.utils.cores import PLACE
from cifar_fast.utils.device import choose_device
from cifar_fast.utils.log import quiet_warnings


@pytest.mark.parametrize("kind, bf16, chosen", [
    ("cuda", True, "bf16"), ("cuda", False, "fp16"), ("mps", True, "fp32"), ("cpu", True, "bf16"),
    ("cpu", False, "fp32"),
])
def test_automatic_precision(monkeypatch, kind, bf16, chosen):
    # No such device is needed for the choice: what is asked about it is answered here.
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: bf16)
    monkeypatch.setattr("cifar_fast.training.callbacks.precision.cpu_has_bf16", lambda: bf16)
    assert choose_precision("auto", torch.device(kind)) == chosen
    for asked in ("fp32", "bf16"):
        assert choose_precision(asked, torch.device(kind)) == asked


def test_fp16_is_refused_on_a_cpu(digits):
    assert choose_precision("fp16", torch.device("cuda")) == "fp16"
    with pytest.raises(ValueError, match="fp16 is for GPUs.*bf16 or fp32"):
        choose_precision("fp16", torch.device("cpu"))
    with pytest.raises(RecipeError, match="fp16 is for GPUs"):
        prepare(tiny("precision=fp16"))


def test_fp16_scales_the_loss_and_skips_a_step_that_overflows(digits):
    "On a CPU, whose loss scaler is the same: `auto` takes fp16 on GPUs without bf16."
    states, scales, broken = [], [], 3

    def overflow(learn):
        states.append(state(learn.model))
        scales.append(scaler.get_scale())
        if learn.train_iter == broken:
            next(learn.model.parameters()).grad.fill_(torch.inf)

    def scaler_of(learn):
        nonlocal scaler
        scaler = learn.autocast.scaler

    def few(learn):
        if learn.training and learn.train_iter == 6:
            raise CancelTrainException

    scaler = None
    run = replace(prepare(tiny("epochs=1", "valid=10", "clip=1")), precision="fp16")
    run.learn.add_cbs([Watch(8, after_backward=overflow, before_fit=scaler_of), Watch(99, after_batch=few)])
    fit(run)
    assert scales[0] == 2.0**16 and scales[broken + 1:] == [2.0**15] * (len(scales) - broken - 1)
    weights = [{k: v for k, v in one.items() if k.endswith("weight")} for one in states]
    moved = [not equal(a, b) for a, b in zip(weights, weights[1:], strict=False)]
    assert moved == [i != broken for i in range(len(moved))]
    assert len(moved) > broken + 1
    assert all(torch.isfinite(v).all() for v in state(run.learn.model).values() if v.is_floating_point())


def test_bf16_on_a_cpu(digits):
    seen, inside, losses = set(), set(), []

    def look(learn):
        seen.add((learn.pred.dtype, torch.is_autocast_enabled("cpu"), learn.training))

    def few(learn):  # three batches are enough: depthwise convolutions in bf16 are slow on most CPUs
        losses.append(float(learn.loss))
        if learn.training and learn.train_iter == 3:
            raise CancelTrainException

    run = prepare(tiny("epochs=1", "precision=bf16", "valid=10"))
    conv = next(m for m in run.learn.model.modules() if isinstance(m, nn.Conv2d))
    conv.register_forward_hook(lambda module, args, output: inside.add(output.dtype))
    before = state(run.learn.model)
    run.learn.add_cbs([Watch(20, after_pred=look), Watch(99, after_batch=few)])
    fit(run)
    assert torch.bfloat16 in inside  # the net runs in bf16, the loss and the weights are fp32
    assert seen == {(torch.float32, True, True), (torch.float32, True, False)}
    assert len(losses) == 4 and np.isfinite(losses).all()
    assert not equal(before, state(run.learn.model)) and not torch.is_autocast_enabled("cpu")
    assert {p.dtype for p in run.learn.model.parameters()} == {torch.float32}


@pytest.mark.parametrize("before, after", [("bf16", "fp16"), ("fp16", "bf16")])
def test_a_run_resumes_in_the_other_16_bits(before, after):
    "As on another GPU: only fp16 has the state of a loss scaler."
    cpu = torch.device("cpu")
    Autocast(after, cpu).load_state_dict(Autocast(before, cpu).state_dict())


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("event", ["after_pred", "after_batch"])
def test_an_interrupted_run_leaves_nothing_behind(digits, error, event):
    run = prepare(tiny("precision=bf16", "clip=1", "patience=1", *MIXED))
    callbacks, logger = list(run.learn.cbs), run.learn.logger

    def break_off(learn):
        assert event != "after_pred" or torch.is_autocast_enabled("cpu")
        if learn.train_iter == 2:
            raise error("in the middle of a batch")

    watch = Watch(15, **{event: break_off})
    run.learn.add_cb(watch)
    with pytest.raises(error):
        fit(run)
    run.learn.remove_cb(watch)
    assert not torch.is_autocast_enabled("cpu")
    assert {type(cb) for cb in run.learn.cbs} == {type(cb) for cb in callbacks}
    assert run.learn.logger is logger and run.learn.loss_func.reduction == "mean"


def test_devices_that_are_not_here(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    for name in ("cuda", "cuda:0", "mps", "meta", "xpu"):
        with pytest.raises(ValueError, match=f"device={name}: this machine has no such device.*device=auto"):
            choose_device(name)
    for name in ("gpu", "", "cuda:x", "cpu,cuda"):
        with pytest.raises(ValueError, match="expected auto, cpu, cuda, cuda:1 … or mps"):
            choose_device(name)


@pytest.fixture
def gpus(monkeypatch):
    "Two of compute capability 8.6, as far as torch is asked; the ones that are made current."
    current = []
    for name, value in dict(is_available=True, device_count=2, get_arch_list=["sm_80", "sm_90a"],
                            get_device_capability=(8, 6), get_device_name="RTX 3090").items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    return current


def test_devices_that_are_here(monkeypatch, gpus):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        assert choose_device().type == "mps"
    assert choose_device().type == "cuda" and choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ValueError, match="device=cuda:2"):
        choose_device("cuda:2")


@pytest.mark.parametrize("capability, built, runs", [
    ((8, 6), "sm_80", True), ((8, 0), "sm_86", False), ((6, 0), "sm_75 sm_80 compute_80", False),
    ((12, 0), "sm_75 sm_90 compute_90", True), ((12, 0), "sm_75 sm_90a", False), ((9, 0), "sm_90a", True),
    ((10, 3), "sm_100 sm_120", True), ((9, 4), "gfx906 gfx942", True), ((8, 6), "", True),
])
def test_a_gpu_that_torch_has_no_code_for(monkeypatch, gpus, capability, built, runs):
    monkeypatch.setattr(torch.cuda, "get_arch_list", built.split)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda gpu: capability)
    if runs:
        assert choose_device().type == choose_device("cuda:1").type == "cuda"
        return
    with pytest.warns(UserWarning, match=rf"CPU.*RTX 3090.*{capability[0]}\.{capability[1]}.*{built}"):
        assert choose_device().type == "cpu"
    with pytest.raises(ValueError, match="device=cuda: .*RTX 3090"):
        choose_device("cuda")


def test_why_there_is_no_gpu_is_not_hidden(capsys):
    with warnings.catch_warnings():
        quiet_warnings()
        for line, text in enumerate(("CUDA initialization: The NVIDIA driver is too old", "one for developers")):
            warnings.warn_explicit(text, UserWarning, torch.cuda.__file__, line, "torch.cuda")
    err = capsys.readouterr().err
    assert "driver is too old" in err and "developers" not in err


def test_a_gpu_with_a_number_becomes_the_current_one(monkeypatch, gpus, tmp_path):
    class Opened(Exception):
        pass

    def opened(*args):
        raise Opened

    monkeypatch.setattr("cifar_fast.training.prepare.choose_precision", opened)
    monkeypatch.setattr("cifar_fast.export.predictor.load_export", opened)
    for open_on in (lambda device: prepare(tiny(f"device={device}")), partial(load_model, tmp_path)):
        for device in ("cuda:1", "cuda"):
            with pytest.raises(Opened):
                open_on(device)
    assert gpus == [torch.device("cuda:1")] * 2


def test_processes_of_a_pool_share_out_the_gpus(monkeypatch, gpus):
    found = []
    for place in "0123":
        monkeypatch.setenv(PLACE, place)
        found += [str(choose_device()), str(choose_device("cuda"))]
        assert str(choose_device("cuda:1")) == "cuda:1" and choose_device("cpu").type == "cpu"
    assert found == ["cuda:0"] * 2 + ["cuda:1"] * 2 + ["cuda:0"] * 2 + ["cuda:1"] * 2
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert str(choose_device()) == "cuda"
