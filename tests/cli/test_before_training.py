"""What is looked at before a training: lr_find, the dry run, the audit, a copy of a recipe."""

import json

import pytest
from PIL import Image

from cifar_fast.cli.main import main
from cifar_fast.recipe import list_recipes, load_recipe


def test_lr_find_leaves_plot_json_and_suggestions(tmp_path, capsys, digits):
    assert main(["lr_find", "sprint", "data=digits", f"exports={tmp_path}", "--steps", "100"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("valley", "slide", "minimum", "steep", f"recipe   {load_recipe('sprint').lr}"))
    assert {p.name for p in tmp_path.iterdir()} == {"lr_find"}  # nothing beside the runs
    found = json.loads((tmp_path / "lr_find" / "sprint-digits" / "lr_find.json").read_text())
    assert set(found["suggestions"]) == {"valley", "slide", "minimum", "steep"}
    assert all(1e-6 <= s["lr"] <= 10 for s in found["suggestions"].values())
    assert Image.open(tmp_path / "lr_find" / "sprint-digits" / "lr_find.png").size[0] > 300


def test_a_recipe_trains_with_lr_find_first(tmp_path, capsys, digits):
    args = ["recipe", "sprint", "lr=find", "data=digits", "epochs=1", "bs=256", f"exports={tmp_path}", "name=found"]
    assert main(args) == 0
    assert "lr_find: valley" in capsys.readouterr().out
    assert json.loads((tmp_path / "found" / "card.json").read_text())["recipe"]["lr"] != 0.4


def test_dry_run_shows_and_writes_nothing(tmp_path, capsys, digits, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["recipe", "sprint", "--dry-run", "data=digits", "epochs=3"]) == 0
    out = capsys.readouterr().out
    for shown in ('"arch": "cifar_sprint"', '"epochs": 3', "RF", "images (128, 3, 32, 32)", "timed steps"):
        assert shown in out, shown
    assert not list(tmp_path.iterdir())


def test_a_step_that_compiles_again_does_not_change_what_a_dry_run_estimates(capsys, digits, monkeypatch):
    monkeypatch.setattr("cifar_fast.runs.dryrun.step_seconds", lambda run: [0.125, 40.0, 0.125])
    assert main(["recipe", "sprint", "--dry-run", "data=digits", "bs=64"]) == 0
    assert "3 timed steps: 125 ms each (median), 512 images/s" in capsys.readouterr().out


@pytest.mark.parametrize("recipe", sorted(list_recipes()))
def test_every_recipe_passes_a_dry_run(recipe, capsys, digits):
    assert main(["recipe", recipe, "--dry-run", "data=digits", "epochs=2", "bs=32"]) == 0
    assert "timed steps" in capsys.readouterr().out


def test_audit_says_what_is_broken_and_strict_fails(capsys):
    assert main(["audit"]) == 0
    out = capsys.readouterr().out
    assert "cifar_strided breaks receptive_field: 33" in out and "cifar_optimized200k breaks dilation: 0" in out
    assert "49 stated,  81 measured" in out
    assert main(["audit", "cifar_mirror", "--strict"]) == 0
    out = capsys.readouterr().out
    assert "features.stem" in out and "ok      parameters: 198,170, at most 199,999" in out  # layers, verdict per rule
    assert main(["audit", "cifar_strided", "--strict"]) == 1
    capsys.readouterr()
    assert main(["audit", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cifar_netv2"]["receptive_field"] == 81


def test_copy_makes_a_recipe_that_runs_and_never_overwrites(tmp_path, capsys, digits):
    mine = tmp_path / "mine.py"
    assert main(["copy", "sprint", str(mine)]) == 0
    assert main(["copy", "sprint", str(mine)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["recipe", str(mine), "data=digits", "epochs=1", f"exports={tmp_path}"]) == 0
    assert (tmp_path / "mine-digits" / "learner.pkl").is_file()
