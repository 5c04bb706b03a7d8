"""Pruning: which channels go, what is left of them, and a pruned run that is saved and opened like any other."""

import json
import sys

import numpy as np
import pytest
import torch
from breaking import resume
from kills import NAME, RUN, bytes_that_differ, weights
from starts import exported
from tiny import tiny

from cifar_fast.audit import count_params
from cifar_fast.cli.main import main
from cifar_fast.export.card_file import read_card
from cifar_fast.export.predictions import Predictions
from cifar_fast.export.predictor import load_export
from cifar_fast.models import create_model
from cifar_fast.recipe import RecipeError, check
from cifar_fast.training.init import InitError, read_init
from cifar_fast.training.prepare import prepare
from cifar_fast.training.prune import narrowed

DIGITS = [str(i) for i in range(10)]
ARCHS = {"cifar_sprint": (32, 48, 64), "cifar_micro": (16, 28, 72), "cifar_final": (16, 48, 72),
         "cifar_mirror": (16, 48, 104), "cifar_mirror_dilated": (16, 48, 112)}
MIRRORED = ("cifar_mirror", "cifar_mirror_dilated")  # half of their channels follow from the other half


def init_of(folder, arch):
    exported(folder, arch=arch, vocab=DIGITS)
    return read_init(tiny(f"init={folder}", f"arch={arch}"))


def without_every_fourth(state, arch):
    "Tensors in which every fourth channel of each layer is nothing: neither computed nor read."
    widths, halves = ARCHS[arch], 2 if arch in MIRRORED else 1
    result = {}
    for name, t in state.items():
        t = t.clone()
        if t.ndim and not name.startswith("head.fc"):
            assert len(t) * halves in widths
            t[::4] = 1 if name.endswith("running_var") else 0
        if t.ndim > 1 and t.shape[1] > 3:  # what reads them; depthwise kernels and the stem read one channel, an image
            t[:, ::4] = 0
        result[name] = t
    return result


@pytest.mark.parametrize("arch", ARCHS)
def test_channels_that_do_nothing_are_those_that_go(tmp_path, arch):
    "Then the narrower model is the same function; of a flip-equivariant one both halves of a channel have gone."
    init = init_of(tmp_path / "farm", arch)
    init.state.update(without_every_fourth(init.state, arch))
    narrow = narrowed(init, 0.25)
    assert narrow.theirs == ARCHS[arch] and narrow.widths == tuple(w * 3 // 4 for w in ARCHS[arch])
    before, after = create_model(arch, 10).eval(), create_model(arch, 10, widths=narrow.widths).eval()
    before.load_state_dict(init.state)
    after.load_state_dict(narrow.state)
    assert count_params(after) < 0.6 * count_params(before)
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert before(x).std() > 1e-3 and torch.allclose(before(x), after(x), atol=1e-5)
        if arch in MIRRORED:
            assert torch.allclose(after(x), after(x.flip(3)), atol=1e-5)


def test_a_head_of_the_same_classes_stays(digits, tmp_path):
    exported(tmp_path / "same", vocab=DIGITS)
    exported(tmp_path / "other", vocab=["ant", "bee"])
    same, other = (prepare(tiny(f"init={tmp_path / name}", "prune=0.5")).start for name in ("same", "other"))
    assert same.taken == same.tensors and same.new == [] and "50% of their channels pruned" in same.amount
    assert other.new == ["head.fc.weight", "head.fc.bias"]


@pytest.mark.parametrize("changes, said", [
    (["prune=0.5"], "init=exports/NAME"), (["prune=1", "init=x"], "prune=1"), (["prune=-0.1", "init=x"], "prune=-0.1")])
def test_settings_that_cannot_work(changes, said):
    with pytest.raises(RecipeError, match=said):
        check(tiny(*changes))


def test_what_cannot_be_pruned(tmp_path, monkeypatch):
    with pytest.raises(InitError, match="cifar_netv2 has no `widths`"):
        narrowed(init_of(tmp_path / "netv2", "cifar_netv2"), 0.5)
    init = init_of(tmp_path / "sprint", "cifar_sprint")
    with pytest.raises(InitError, match="no channel of 32"):
        narrowed(init, 0.99)
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(InitError, match="pip install torch-pruning"):
        narrowed(init, 0.5)


def test_a_pruned_run_is_saved_opened_and_resumed_like_any_other(tmp_path, broken, digits, capsys):
    exported(tmp_path / "farm", vocab=DIGITS)
    changes = [f"init={tmp_path / 'farm'}", "prune=0.5"]
    whole = tmp_path / "whole"
    assert main([*RUN, f"exports={whole}", *changes]) == 0
    assert "50% of their channels pruned (widths were 32, 48, 64)" in capsys.readouterr().out
    card = read_card(whole / NAME)
    assert card.widths == [16, 24, 32] and card.start.pruned == 0.5 and card.audit.params == 31_546
    assert json.loads((whole / NAME / "config.json").read_text())["model_args"]["widths"] == [16, 24, 32]
    measured = Predictions.load(whole / NAME / "predictions.npz")
    arrays, places = digits.locate(measured.items)
    probs = load_export(whole / NAME).predict(arrays.images[places])
    assert len(probs) > 100 and np.allclose(probs, measured.probabilities, atol=2e-3)
    # A pruned run may be pruned again.
    assert prepare(tiny(f"init={whole / NAME}", "prune=0.5")).widths == (8, 12, 16)
    exports = broken(5, *changes)
    assert resume(exports) == 0
    assert bytes_that_differ(weights(whole), weights(exports)) == 0
