"""The doctor says what is here, tests itself, and ends with 1 where something must be done."""

import json

import pytest
import torch
from PIL import Image

from cifar_fast.cli.main import main


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    from cifar_fast.cli.doctor import examine

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("CIFAR_FAST_DATA", raising=False)
        return examine()


def test_a_healthy_machine_has_nothing_to_do(healthy):
    assert healthy["problems"] == []
    assert healthy["self_test"]["checks"] == dict.fromkeys(
        ["gradients", "data", "training", "same seed, same weights", "export and prediction"], "ok")
    assert healthy["versions"]["torch"] and healthy["machine"]["precision"] in ("fp32", "bf16", "fp16")


def test_it_is_told_in_words(healthy):
    from cifar_fast.cli.doctor import as_text

    assert {"digits", "cifar100"} < set(healthy["data"]["named"])
    told = as_text(healthy)
    assert "export and prediction: ok" in told and "CIFAR-10" in told and "to do" not in told
    assert "to do: buy a disk" in as_text({**healthy, "problems": ["buy a disk"]})


def test_it_is_data_as_well(healthy, monkeypatch, capsys):
    from cifar_fast.cli import doctor

    monkeypatch.setattr(doctor, "examine", lambda: healthy)
    assert main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(healthy))


def test_broken_training_is_found(monkeypatch, capsys):
    from cifar_fast.cli import doctor

    monkeypatch.setattr(doctor, "fit", lambda run: (_ for _ in ()).throw(RuntimeError("no such kernel")))
    monkeypatch.setattr(doctor, "why_not", lambda device: None)
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "training: RuntimeError: no such kernel" in out and "to do: self-test: training" in out
    assert "export and prediction" not in out  # it cannot be tried


def test_another_result_of_the_same_seed_is_found(monkeypatch):
    from cifar_fast.cli import doctor

    made, seeds = doctor.new_run, iter((1, 2))

    def other(source):
        from dataclasses import replace

        run = made(source)
        return doctor.prepare(replace(run.recipe, seed=next(seeds)), source)

    monkeypatch.setattr(doctor, "new_run", other)
    assert "tensors differ" in doctor.self_test()["checks"]["same seed, same weights"]


@pytest.mark.parametrize("variable, value, told", [
    ("CIFAR_FAST_DATA", "/nonexistent", "CIFAR_FAST_DATA=/nonexistent holds no image tree"),
    ("CIFAR_FAST_CACHE", "/proc/nowhere", "cannot be written")])
def test_what_keeps_data_from_being_found_is_told(monkeypatch, variable, value, told):
    from cifar_fast.cli import doctor

    monkeypatch.setenv(variable, value)
    part = doctor.data() if variable.endswith("DATA") else doctor.cache()
    assert told in part["problem"]


def test_an_image_tree_of_other_classes_is_told(tmp_path, monkeypatch):
    from cifar_fast.cli import doctor

    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("RGB", (32, 32)).save(tmp_path / split / name / "0.png")
    monkeypatch.setenv("CIFAR_FAST_DATA", str(tmp_path))
    assert "classes are not CIFAR-10's: cat, dog" in doctor.data()["problem"]


@pytest.mark.parametrize("device, precision, advice", [
    ("cpu", "bf16", "precision=fp32"), ("mps", "fp32", "device=cpu")])
def test_a_wrong_gradient_is_found(monkeypatch, device, precision, advice):
    "As one processor's kernel for one kind of layer would give it; a CPU computes for the GPU."
    from cifar_fast.cli import doctor

    compute = doctor.gradients

    def right(x, weight, how, device, dtype):
        return compute(x, weight, how, torch.device("cpu"), dtype)

    def wrong(x, weight, how, device, dtype):
        output, image, weights = right(x, weight, how, device, dtype)
        broken = (device.type, dtype) != ("cpu", torch.float32) and how.get("dilation") == 4
        return [output, image, weights.flip(-1) if broken else weights]

    monkeypatch.setattr(doctor, "choose_device", lambda: torch.device(device))
    monkeypatch.setattr(doctor, "choose_precision", lambda *_: precision)
    monkeypatch.setattr(doctor, "gradients", right)
    doctor.check_gradients(None)
    monkeypatch.setattr(doctor, "gradients", wrong)
    with pytest.raises(doctor.SelfTestError, match=f"weights of a 3×3 .*=24, dilation=4; maps of 8×8, .*{advice}"):
        doctor.check_gradients(None)
