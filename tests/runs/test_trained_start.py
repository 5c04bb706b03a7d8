"""A saved run that starts from trained weights: resumed bit for bit, identified by them, and saying so everywhere."""

import json
import shutil

import pytest
from breaking import STEPS, resume
from kills import NAME, RUN, bytes_that_differ, history, weights
from starts import exported

from cifar_fast.cli.main import main
from cifar_fast.export.card_file import read_card
from cifar_fast.export.files import WEIGHTS, file_sha256
from cifar_fast.reporting.results import read, recipe_id


@pytest.fixture(scope="module")
def farm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("starts") / "farm"
    exported(folder)
    return folder


@pytest.fixture(scope="module")
def tuned(farm, tmp_path_factory, digits):
    "The exports of a run that nothing interrupts: one epoch frozen, one not."
    exports = tmp_path_factory.mktemp("tuned")
    assert main([*RUN, f"exports={exports}", f"init={farm}", "fit=fine_tune", "report=yes"]) == 0
    return exports


@pytest.mark.parametrize("saves, where", [
    (5, "in epoch 1 of 2, after 5 batches"), (STEPS + 1, "after epoch 1 of 2"),
    (STEPS + 4, "in epoch 2 of 2, after 3 batches")])
def test_it_resumes_to_the_same_weights_before_at_and_after_the_end_of_the_frozen_epochs(
        tuned, farm, broken, capsys, saves, where):
    exports = broken(saves, f"init={farm}", "fit=fine_tune")
    assert resume(exports) == 0  # with the changes that the run was started with
    assert f"resumes {where}" in capsys.readouterr().out
    assert bytes_that_differ(weights(tuned), weights(exports)) == 0
    assert history(exports).equals(history(tuned))


def test_other_weights_under_the_same_name_do_not_resume_it(farm, broken, tmp_path, capsys):
    copy = shutil.copytree(farm, tmp_path / "copy")
    exports = broken(3, f"init={copy}")
    first = file_sha256(copy / WEIGHTS)
    shutil.rmtree(copy)
    exported(copy, seed=8)
    for more in ([], ["--allow-changes"]):
        assert main([*RUN, f"init={copy}", f"exports={exports}", "--resume", *more]) == 2
        err = capsys.readouterr().err
        assert first in err and file_sha256(copy / WEIGHTS) in err
    assert main([*RUN, "init=none", f"exports={exports}", "--resume"]) == 2
    shutil.rmtree(copy)
    assert main([*RUN, f"init={copy}", f"exports={exports}", "--resume"]) == 2
    assert f"init={copy}" in capsys.readouterr().err


def test_the_run_says_what_it_started_from(tuned, farm, capsys):
    folder, sha256 = tuned / NAME, file_sha256(farm / WEIGHTS)
    card = read_card(folder)
    assert (card.start.sha256, card.start.accuracy, card.start.data) == (sha256, 0.75, "farm")
    assert json.loads((folder / "recipe.json").read_text())["init_sha256"] == sha256
    assert f"init={farm} valid=0.2 keep=best bs=128 fit=fine_tune" in read(tuned / "runs.csv").iloc[0]["settings"]
    for name in ("README.md", "report.html"):
        text = (folder / name).read_text("utf-8")
        assert str(farm) in text and sha256[:12] in text and "75.00% test accuracy on farm" in text, name
    copy = shutil.copytree(folder, folder.parent / "copy")
    assert main(["compare", str(folder), str(copy)]) == 0
    assert f"{NAME}: started from {farm} (75.00% test accuracy on farm" in " ".join(capsys.readouterr().out.split())


def test_weights_identify_a_run_and_their_place_does_not(tuned, farm):
    recipe = read_card(tuned / NAME).recipe
    assert recipe_id({**recipe, "init": "elsewhere"}) == recipe_id(recipe)
    assert recipe_id({**recipe, "init_sha256": "0" * 64}) != recipe_id(recipe)


def test_a_dry_run_says_it_too(farm, capsys):
    assert main([*RUN, f"init={farm}", "fit=fine_tune", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert f"starts from {farm} (75.00% test accuracy on farm" in out
    assert "37 of 39 tensors, new head (head.fc.weight, head.fc.bias)" in out
    assert "mean and std are theirs; images of 32×32; epoch 1 trains the head and batch norm alone" in out
