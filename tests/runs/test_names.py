"""Finished runs are never replaced unless asked for; which folder a run gets, and how it is found again."""

import json
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from breaking import Broken
from PIL import Image

from cifar_fast.cli.main import main
from cifar_fast.export.card_file import read_card
from cifar_fast.recipe import at_size, describe, load_recipe, override
from cifar_fast.runs.names import choose_folder, set_by_data, settings_of
from cifar_fast.runs.run_dir import Busy, Interrupted, RunFolder
from cifar_fast.training.callbacks.checkpoint import Checkpoint

ROOT = Path(__file__).parents[2]


@pytest.fixture
def sprint(tmp_path, digits):
    "Runs `recipe sprint` on digits for an epoch with changes; returns the exit code."
    def run(*changes):
        return main(["recipe", "sprint", "data=digits", "epochs=1", "bs=512", "report=no", "tta=no",
                     f"exports={tmp_path}", *changes])
    return run


@pytest.fixture
def stopped(sprint, monkeypatch):
    "The same, stopped at its first checkpoint."
    def run(*changes):
        def breaking(self, *where, save=Checkpoint.save):
            save(self, *where)
            raise Broken

        with monkeypatch.context() as patch, pytest.raises(Broken):
            patch.setattr(Checkpoint, "save", breaking)
            sprint(*changes)
    return run


def runs(folder):
    return sorted(p.parent.name for p in folder.glob("*/card.json"))


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_a_second_configuration_goes_beside_the_first_and_its_first_line_says_so(sprint, tmp_path, capsys):
    assert sprint("lr=0.01") == 0
    before = contents(tmp_path / "sprint-digits")
    capsys.readouterr()
    assert sprint("lr=0.05") == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert str(tmp_path / "sprint-digits-2") in first and "lr=0.01" in first
    assert sprint("lr=0.01", "seed=7") == 0  # another seed
    assert sprint("lr=0.01") == 0  # the very same once more
    assert "with the same settings" in capsys.readouterr().out
    assert runs(tmp_path) == ["sprint-digits", *(f"sprint-digits-{i}" for i in (2, 3, 4))]
    assert contents(tmp_path / "sprint-digits") == before
    rows = pd.read_csv(tmp_path / "runs.csv").set_index("recipe")
    assert [rows.loc[name, "settings"].split()[-1] for name in runs(tmp_path)] == ["tta=false"] * 4
    assert ["lr=0.01" in s for s in rows["settings"]] == [True, False, True, True]
    assert list(rows["seed"]) == [42, 42, 7, 42] and read_card(tmp_path / "sprint-digits-2").name == "sprint-digits-2"


def test_overwrite_replaces_and_only_once_the_new_run_has_finished(sprint, stopped, tmp_path):
    assert sprint("lr=0.01") == 0
    before = contents(tmp_path / "sprint-digits")
    stopped("lr=0.05", "--overwrite")
    assert contents(tmp_path / "sprint-digits") == before
    assert sprint("lr=0.05", "--resume") == 0  # it was asked for when the run began
    assert runs(tmp_path) == ["sprint-digits"] and read_card(tmp_path / "sprint-digits").recipe["lr"] == 0.05
    rows = pd.read_csv(tmp_path / "runs.csv")  # the replaced run's row has gone with it
    assert len(rows) == 1 and "lr=0.01" not in rows["settings"][0] and not list(tmp_path.glob("*/re*d.csv"))


def test_a_run_whose_batch_size_the_images_decide_is_found_again(digits, tmp_path, capsys):
    few = ["data=digits", "epochs=1", "valid=1300", "report=no", "tta=no", f"exports={tmp_path}"]  # 137 to train on

    def breaking(self, *where, save=Checkpoint.save):
        save(self, *where)
        raise Broken

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Broken):
        patch.setattr(Checkpoint, "save", breaking)
        main(["recipe", "sprint", *few])
    assert main(["recipe", "sprint", *few]) == 2  # it is offered, not started beside the stopped one
    assert "--resume" in capsys.readouterr().err
    assert main(["recipe", "sprint", *few, "--resume"]) == 0
    assert read_card(tmp_path / "sprint-digits").recipe["bs"] == 16
    assert main(["recipe", "sprint", *few, "--resume"]) == 0 and runs(tmp_path) == ["sprint-digits"]
    assert "has finished already" in capsys.readouterr().out
    assert main(["recipe", "sprint", *few, "bs=32"]) == 0
    assert read_card(tmp_path / "sprint-digits-2").recipe["bs"] == 32


def test_an_argument_that_is_typed_leaves_the_others_to_the_images():
    recipe = override(load_recipe("sprint"), ["resize.until=0.5"])
    then = {**describe(at_size(recipe, 64))}
    assert settings_of(then, set_by_data(["resize.until=0.5"])) == settings_of(
        describe(recipe), set_by_data(["resize.until=0.5"]))
    for typed in (["resize.size=24"], ["size=32"]):
        assert settings_of(then, set_by_data(typed)) != settings_of(describe(recipe), set_by_data(typed))
    other = override(load_recipe("sprint"), ["resize.until=0.6"])
    assert settings_of(then, set_by_data([])) != settings_of(describe(other), set_by_data([]))


def test_two_folders_of_the_same_name(tmp_path, digits):
    for place in ("one", "two"):
        for kind in ("a", "b"):
            folder = tmp_path / place / "own" / kind
            folder.mkdir(parents=True)
            for i in range(20):
                Image.fromarray(digits.train.images[i]).save(folder / f"{i}.png")
        assert main(["recipe", "sprint", f"data={tmp_path / place / 'own'}", "epochs=1", "bs=8", "report=no",
                     f"exports={tmp_path / 'exports'}"]) == 0
    assert runs(tmp_path / "exports") == ["sprint-own", "sprint-own-2"]


def test_a_name_is_taken_as_it_is_or_refused_before_anything_runs(sprint, tmp_path, capsys):
    assert sprint("name=mine") == 0 and runs(tmp_path) == ["mine"]
    row = pd.read_csv(tmp_path / "runs.csv").iloc[0]
    assert row["recipe"] == "mine" and row["settings"].startswith("data=digits epochs=1")  # whatever its name is
    (tmp_path / "a file").touch()
    (tmp_path / "photos").mkdir()
    capsys.readouterr()
    for name, named in (("mine", "--overwrite"), ("a file", "a file"), ("photos", "photos"), ("", "name="),
                        ("a/b", "a/b"), ("..", ".."), (".x", ".x"), ("results.csv", "results.csv")):
        assert sprint(f"name={name}") == 2
        err = capsys.readouterr().err
        assert named in err and err.count("\n") == 1
    assert sprint("name=photos", "--overwrite") == 2  # somebody's folder is no run
    assert (tmp_path / "photos").is_dir() and runs(tmp_path) == ["mine"]


def test_stopped_runs_of_several_settings_are_resumed_each_by_its_own(sprint, stopped, tmp_path, capsys):
    stopped("lr=0.01")
    stopped("lr=0.05")
    stopped("lr=0.01", "seed=7")
    capsys.readouterr()
    assert sprint("lr=0.02", "--resume") == 2
    assert str(tmp_path / "sprint-digits-2") in capsys.readouterr().err
    assert sprint("lr=0.05", "--resume") == 0
    assert runs(tmp_path) == ["sprint-digits-2"]
    assert sprint("lr=0.01") == 2 and "--resume" in capsys.readouterr().err  # asks
    assert sprint("lr=0.01", "--resume") == 0 and sprint("lr=0.01", "seed=7", "--resume") == 0
    assert [read_card(tmp_path / name).recipe["lr"] for name in runs(tmp_path)] == [0.01, 0.05, 0.01]
    assert not list(tmp_path.glob(".*.running"))
    capsys.readouterr()
    assert sprint("lr=0.05", "--resume") == 0  # it has finished: nothing is trained again
    assert "has finished already" in capsys.readouterr().out and len(runs(tmp_path)) == 3


def test_restart_leaves_a_stopped_run_of_seeds(sprint, stopped, tmp_path, capsys):
    "`seeds=` calls its runs NAME-SEED, which looks like a run that was numbered."
    for seed in ("42", "43"):  # the first has the recipe's own seed
        stopped(f"seed={seed}", f"name=sprint-digits-{seed}")
    kept = {path: path.read_bytes() for path in tmp_path.glob(".*.running/checkpoint.pt")}
    assert sprint("lr=0.02", "--resume") == 2 and "no run of sprint-digits has stopped" in capsys.readouterr().err
    assert sprint("--restart") == 0 and runs(tmp_path) == ["sprint-digits"]
    assert len(kept) == 2 and all(path.read_bytes() == content for path, content in kept.items())


def test_restart_leaves_a_stopped_run_on_data_whose_name_is_a_number(sprint, stopped, tmp_path, capsys):
    for name in "abcdefgh":
        path = tmp_path / "2024" / "ab"["e" <= name] / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (ord(name), 0, 0)).save(path)
    photos = ["recipe", "sprint", f"data={tmp_path / '2024'}", "name=sprint-digits-2024", "epochs=1", "bs=2"]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Broken):
        def breaking(self, *where, save=Checkpoint.save):
            save(self, *where)
            raise Broken

        patch.setattr(Checkpoint, "save", breaking)
        main([*photos, "report=no", f"exports={tmp_path}"])
    kept = (tmp_path / ".sprint-digits-2024.running" / "checkpoint.pt").read_bytes()
    assert sprint("--restart") == 0 and runs(tmp_path) == ["sprint-digits"]
    assert (tmp_path / ".sprint-digits-2024.running" / "checkpoint.pt").read_bytes() == kept


def test_a_run_at_work_keeps_its_name(sprint, tmp_path):
    with RunFolder(tmp_path / "sprint-digits"):
        assert sprint() == 0
    assert runs(tmp_path) == ["sprint-digits-2"]


@pytest.mark.parametrize("moved", [0, 1, 2])
def test_a_kill_between_the_renames_leaves_one_of_them_and_the_next_start_repairs(sprint, stopped, tmp_path, moved):
    "With --overwrite: the former run is moved away, the new one takes its place, the former one is removed."
    assert sprint("lr=0.01") == 0
    stopped("lr=0.05", "--overwrite")
    folder = RunFolder(tmp_path / "sprint-digits")
    for name, content in contents(folder.path).items():  # as if it had come to its end
        (folder.staged / name).write_bytes(content)
    card = json.loads((folder.staged / "card.json").read_text())
    (folder.staged / "card.json").write_text(json.dumps(card | {"commit": "new"}))
    if moved:
        folder.path.rename(folder.former)
    if moved == 2:
        folder.staged.rename(folder.path)
    assert sprint("lr=0.05", "--resume") == 0 or moved == 2
    assert read_card(folder.path).commit == "new" and runs(tmp_path) == ["sprint-digits"]
    assert not folder.working.exists()


def test_a_finished_run_opens_in_timm_by_its_folder(sprint, tmp_path):
    import timm
    import torch

    from cifar_fast.export.predictor import load_export

    assert sprint() == 0
    ours = load_export(tmp_path / "sprint-digits").model
    theirs = timm.create_model(f"local-dir:{tmp_path / 'sprint-digits'}", pretrained=True).eval()
    x = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(ours(x), theirs(x))
    assert theirs.num_classes == 10 and theirs.pretrained_cfg["label_names"] == [str(i) for i in range(10)]


def test_the_shipped_runs_open_in_timm():
    import timm
    import torch

    from cifar_fast.export.predictor import load_export

    x = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for name in ("final", "sprint"):
        opened = load_export(ROOT / "exports" / name)
        model = timm.create_model(f"local-dir:{ROOT / 'exports' / name}", pretrained=True).eval()
        with torch.no_grad():
            assert torch.equal(opened.model(x), model(x)) and opened.card.name == name


OWN = '''
import timm
from torch import nn
from timm.models import register_model
from cifar_fast.all import *

@register_model
def tiny_of_mine(pretrained=False, num_classes=10, **kw):
    return nn.Sequential(nn.Conv2d(3, 8, 3, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(8, num_classes))

recipe = Recipe(arch="tiny_of_mine", data="digits", epochs=1, bs=512, opt=partial(sgd), fit=partial(constant),
                loss=partial(cross_entropy), report=False,
                waive={"receptive_field": "small", "depthwise_separable": "small", "dilation": "small"})
'''


def test_the_file_that_defines_a_model_travels_with_its_run(tmp_path, digits):
    mine = tmp_path / "mine.py"
    mine.write_text(OWN)
    assert main(["recipe", str(mine), "epochs=2", f"exports={tmp_path}"]) == 0
    card = read_card(tmp_path / "mine")
    assert card.source_file == "mine.py" and (tmp_path / "mine" / "recipe.py").read_text() == OWN
    assert card.settings == "epochs=2" and card.recipe_name == "mine"


def test_the_first_command_after_a_clone_changes_nothing_that_is_committed(tmp_path, monkeypatch, digits, capsys):
    if not (ROOT / ".git").exists():
        pytest.skip("no checkout")
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", "--no-hardlinks", str(ROOT), str(clone)], check=True)
    monkeypatch.chdir(clone)
    assert main(["recipe", "sprint", "data=digits", "epochs=1", "bs=512", "report=no"]) == 0
    assert main(["recipe", "sprint", "data=digits", "epochs=1", "bs=256", "report=no", "name=other"]) == 0
    assert main(["results"]) == 0 and main(["compare", "other", "sprint-digits"]) == 0
    assert main(["compare"]) == 0
    status = subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    assert status == ""


def test_a_run_that_has_just_begun_is_at_work_and_not_stopped(tmp_path):
    "Two workers of seeds= look at one seed: the first one has made its folder, and not written its settings yet."
    recipe = override(load_recipe("sprint"), ["data=digits", f"exports={tmp_path}", "name=one"])
    with RunFolder(tmp_path / "one") as folder:
        folder.start_run(keep=False)
        with pytest.raises(Busy):
            choose_folder(recipe, named=True, resume=None, overwrite=False)
    with pytest.raises(Interrupted):
        choose_folder(recipe, named=True, resume=None, overwrite=False)
