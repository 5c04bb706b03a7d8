"""A trained start: which weights are taken, and which starts are refused."""

import json
from dataclasses import replace

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from starts import STATS, exported
from tiny import tiny
from toys import state

from cifar_fast.export.card_file import read_card
from cifar_fast.export.card_parts import Data
from cifar_fast.export.files import CONFIG, WEIGHTS, file_sha256
from cifar_fast.models import create_model
from cifar_fast.recipe import PUBLISHED_STATS, RecipeError, check, describe
from cifar_fast.runs.started import started
from cifar_fast.training.init import InitError, read_init, take_weights
from cifar_fast.training.prepare import prepare

HEAD = ["head.fc.weight", "head.fc.bias"]


@pytest.mark.parametrize("prefix", ["", "local-dir:"])
def test_all_but_the_head_is_taken(digits, tmp_path, prefix):
    trained = exported(tmp_path / "farm")
    run = prepare(tiny(f"init={prefix}{tmp_path / 'farm'}"))
    ours, scratch = state(run.learn.model), state(prepare(tiny()).learn.model)
    assert all(torch.equal(v, scratch[k] if k in HEAD else trained[k]) for k, v in ours.items())
    assert not any(torch.equal(v, scratch[k]) for k, v in trained.items() if v.ndim > 1)
    assert (run.start.taken, run.start.tensors, run.start.new) == (len(ours) - 2, len(ours), HEAD)
    assert run.start.unfit == run.start.unused == [] and run.start.size == 32
    mean, std = (v.flatten().tolist() for v in normalize(run.learn.dls))
    assert (mean, std) == (pytest.approx(STATS[0]), pytest.approx(STATS[1]))
    assert run.stats == STATS and run.recipe.init_sha256 == run.start.sha256


def normalize(dls):
    transform = next(t for t in dls.valid.after_batch.fs if type(t).__name__ == "Normalize")
    return transform.mean, transform.std


def test_it_says_what_it_starts_from(digits, tmp_path):
    exported(tmp_path / "farm")
    start = prepare(tiny(f"init={tmp_path / 'farm'}")).start
    sha256 = file_sha256(tmp_path / "farm" / WEIGHTS)
    assert start.sha256 == sha256
    assert start.what == f"{tmp_path / 'farm'} (75.00% test accuracy on farm, sha256 {sha256[:12]})"
    assert start.amount == "37 of 39 tensors, new head (head.fc.weight, head.fc.bias)"


def test_weights_that_know_the_held_out_images_are_pointed_out(digits, tmp_path):
    "A part of train that one run holds out is trained on by another one with another seed, or without a hold-out."
    exported(tmp_path / "farm")
    card = read_card(tmp_path / "farm")
    same = digits.fingerprint
    for fingerprint, data, seed, seen in ((same, "digits", 1, True), ("of another size", "digits", 1, True),
                                          (same, "digits", 2, False), ("other", "hens", 1, False)):
        recipe = tiny(f"init={tmp_path / 'farm'}", "seed=1")
        replace(card, data=Data(name="farm", fingerprint=fingerprint),
                recipe=describe(replace(recipe, data=data, seed=3 - seed))).write(tmp_path / "farm")
        start = prepare(recipe).start
        assert start.saw_held_out is seen and ("accuracy is too high" in start.what) is seen


def test_the_statistics_of_a_recipe_come_first(digits, tmp_path):
    exported(tmp_path / "farm")
    assert prepare(replace(tiny(f"init={tmp_path / 'farm'}"), stats=PUBLISHED_STATS)).stats == PUBLISHED_STATS


def test_a_head_is_new_for_the_same_number_of_classes_too(digits, tmp_path):
    trained = exported(tmp_path / "farm", vocab=[str(i) for i in range(10)])
    ours = state(prepare(tiny(f"init={tmp_path / 'farm'}")).learn.model)
    assert not any(torch.equal(ours[name], trained[name]) for name in HEAD)


def test_a_run_takes_the_size_of_its_weights_unless_another_is_given(digits, tmp_path):
    trained = exported(tmp_path / "farm", size=64)
    theirs, other = (prepare(tiny(f"init={tmp_path / 'farm'}", *more)) for more in ((), ("size=32",)))
    assert theirs.source.size == theirs.start.size == 64 and theirs.start.unfit == []
    assert "images of 64×64;" in started(theirs) + ";"
    assert other.source.size == 32 and other.start.unfit == ["features.stem.conv.weight"]
    assert "images of 32×32, theirs were 64×64" in started(other)
    assert torch.equal(other.learn.model.features.down.conv.weight, trained["features.down.conv.weight"])


def test_a_model_of_timms_with_its_own_input(tmp_path):
    torch.manual_seed(3)
    theirs = timm.create_model("test_resnet", num_classes=7)
    save_file(theirs.state_dict(), tmp_path / WEIGHTS)
    (tmp_path / CONFIG).write_text(json.dumps({"architecture": "test_resnet", "num_classes": 7, "pretrained_cfg": {
        "input_size": [3, 160, 160], "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "num_classes": 7,
        "first_conv": "conv1.0", "classifier": "fc"}}))
    init = read_init(tiny("arch=test_resnet", f"init=local-dir:{tmp_path}"))
    model = timm.create_model("test_resnet", num_classes=2)
    start = take_weights(model, init)
    assert start.new == ["fc.weight", "fc.bias"] and start.taken == start.tensors - 2 and start.size == 160
    assert all(torch.equal(v, theirs.state_dict()[k]) for k, v in model.state_dict().items() if k not in start.new)
    assert init.normalize.mean == [0.1, 0.2, 0.3] and start.accuracy is None
    assert start.what == f"local-dir:{tmp_path} (sha256 {init.sha256[:12]})"


def test_tensors_that_do_not_fit_stay_new_and_are_named(tmp_path):
    exported(tmp_path / "farm")
    init = read_init(tiny(f"init={tmp_path / 'farm'}"))
    init.state["features.stem.conv.weight"] = torch.zeros(32, 3, 8, 8)
    init.state["extra"] = torch.zeros(1)
    model = create_model("cifar_sprint", 10)
    stem = model.features.stem.conv.weight.clone()
    start = take_weights(model, init)
    assert start.unfit == ["features.stem.conv.weight"] and start.unused == ["extra"]
    assert torch.equal(model.features.stem.conv.weight, stem) and "features.stem.conv.weight" in start.amount
    for name in init.state:
        init.state[name] = torch.zeros(2, 2)
    with pytest.raises(InitError, match="none of its 40 tensors"):
        take_weights(model, init)


def truncate(folder):
    with open(folder / WEIGHTS, "r+b") as file:
        file.truncate(1000)


def other_weights(folder):
    save_file({k: v + 1 for k, v in load_file(folder / WEIGHTS).items()}, folder / WEIGHTS)


def without_numbers(folder):
    save_file({k: v / 0 if "weight" in k else v for k, v in load_file(folder / WEIGHTS).items()}, folder / WEIGHTS)


@pytest.mark.parametrize("prefix, change, said", [
    ("", lambda folder: (folder / WEIGHTS).unlink(), "model.safetensors is missing"),
    ("", truncate, "truncated"), ("", other_weights, "another sha256"),
    ("", lambda folder: (folder / "card.json").write_text("{"), "card.json: it cannot be read"),
    ("", lambda folder: (folder / "card.json").unlink(), r"no run .*farm"),
    ("local-dir:", truncate, "cannot be opened"), ("local-dir:", without_numbers, "non-finite"),
    ("local-dir:", lambda folder: (folder / CONFIG).unlink(), "Config file not found"),
    ("hf-hub:", lambda folder: None, "cannot be opened"),
])
def test_a_damaged_start_is_refused(tmp_path, monkeypatch, prefix, change, said):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    exported(tmp_path / "farm")
    change(tmp_path / "farm")
    with pytest.raises(InitError, match=f"^init={prefix}.*{said}"):
        read_init(tiny(f"init={prefix}{tmp_path / 'farm'}"))


@pytest.mark.parametrize("prefix", ["", "local-dir:"])
def test_weights_of_another_architecture_are_refused(tmp_path, prefix):
    exported(tmp_path / "farm", arch="cifar_final")
    with pytest.raises(InitError, match="add arch=cifar_final, or start from weights of cifar_sprint"):
        read_init(tiny(f"init={prefix}{tmp_path / 'farm'}"))


def test_a_name_without_its_folder_is_completed(tmp_path):
    exported(tmp_path / "farm")
    with pytest.raises(InitError, match=f"write init={tmp_path / 'farm'}"):
        read_init(tiny("init=farm", f"exports={tmp_path}"))


@pytest.mark.parametrize("file", ["model.onnx", "model.int8.onnx", "model.tflite", "learner.pkl", "other.onnx"])
def test_an_exported_file_is_no_start(tmp_path, file):
    exported(tmp_path / "farm")
    with pytest.raises(InitError, match=f"cannot be trained further; name its run: init={tmp_path / 'farm'}$"):
        read_init(tiny(f"init={tmp_path / 'farm' / file}"))


def test_a_recipe_may_say_which_weights(tmp_path):
    exported(tmp_path / "farm")
    recipe = tiny(f"init={tmp_path / 'farm'}")
    right = read_init(recipe).sha256
    assert read_init(replace(recipe, init_sha256=right)).sha256 == right
    with pytest.raises(InitError, match=right):
        read_init(replace(recipe, init_sha256="0" * 64))


@pytest.mark.parametrize("changes, said", [
    (["fit=fine_tune"], "add init=exports/NAME"),
    (["fit=fine_tune", "init=x", "fit.freeze_epochs=2"], "epochs=2"),
    (["init_sha256=123"], "init_sha256=123"), (["init=x", "init_sha256=123"], "64 hex digits"),
    (["init=~nobody-here/x"], "no home folder ~nobody-here"),
])
def test_settings_that_cannot_work(changes, said):
    with pytest.raises(RecipeError, match=said):
        check(tiny(*changes))
