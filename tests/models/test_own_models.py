"""Models that a recipe file of one's own defines: trained, exported, and opened in another process."""

import json
import subprocess
import sys

import numpy as np
import pytest
import timm
from PIL import Image

from cifar_fast.cli.main import main
from cifar_fast.export.card_file import read_card
from cifar_fast.export.source import copy_source
from cifar_fast.export.summary import summary
from cifar_fast.models import ModelError, create_model, register_from_file
from cifar_fast.recipe import RecipeError

MINE = '''"""A model of my own."""

from timm.models import register_model
from torch import nn

from cifar_fast.all import *

SLOPE = 0.2


def activation(x):
    return nn.functional.leaky_relu(x, SLOPE)


class Tiny(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 3, 2, 1), nn.Linear(8, num_classes)

    def forward(self, x):
        return self.fc(activation(self.conv(x)).mean((2, 3)))


@register_model
def tiny_of_mine(pretrained=False, num_classes=10, **kwargs):
    return Tiny(num_classes)


recipe = Recipe(arch="tiny_of_mine", data="digits", epochs=1, lr=0.01, opt=partial(adam), fit=partial(one_cycle),
                loss=partial(cross_entropy),
                waive=dict.fromkeys(("receptive_field", "depthwise_separable", "dilation"), "a toy"))
'''

ELSEWHERE = """
import contextlib, io, json, sys
from pathlib import Path

exports, mine, image, learner = sys.argv[1:]

def run(*argv):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(list(argv))
    return code, out.getvalue(), err.getvalue()

# As fastai's users do it, before anything of this project is imported: the pickle brings the class.
from fastai.learner import load_learner
import torch
learn = load_learner(learner)
with torch.no_grad():
    logits = learn.model(torch.zeros(1, 3, 32, 32)).tolist()

from cifar_fast.cli.main import main
print(json.dumps({
    "logits": logits,
    "pickle": run("predict", learner, image, "--json"),
    "unnamed": run("predict", exports, image, "--json"),
    "by_torch": run("predict", exports, image, "--json", "--device", "auto"),
    "named": run("predict", exports, image, "--json", "--recipe", mine),
    "evaluate": run("evaluate", exports, "--json", "--recipe", mine),
    "audit": run("audit", "tiny_of_mine", "--json", "--recipe", mine),
    "printed": run("predict", exports, image, "--json", "--recipe", exports + "/recipe.py"),
    "export": run("export", exports, "--recipe", mine),
}))
"""


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory, digits):
    "What another process gives for a run of mine.py."
    folder = tmp_path_factory.mktemp("own")
    mine, exports, image = folder / "mine.py", folder / "exports", folder / "image.png"
    mine.write_text(MINE)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)).save(image)
    assert main(["recipe", str(mine), f"exports={exports}", "-q"]) == 0
    (learner,) = exports.rglob("*.pkl")
    run = learner.with_suffix("") if learner.parent == exports else learner.parent
    done = subprocess.run([sys.executable, "-c", ELSEWHERE, str(run), str(mine), str(image), str(learner)],
                          capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]) | {"run": run}


def test_the_next_step_that_a_run_prints_names_its_recipe_file(elsewhere):
    run = elsewhere["run"]
    assert f"predict {run} IMAGE… --recipe {run / 'recipe.py'}" in summary(read_card(run), run).splitlines()[-1]
    assert elsewhere["printed"][:2] == elsewhere["named"][:2]


def test_model_onnx_predicts_without_the_file_of_the_model(elsewhere):
    assert elsewhere["unnamed"][0] == 0 and json.loads(elsewhere["unnamed"][1])


def test_the_file_is_kept_as_it_was_run(tmp_path):
    "Not as it is once the training has ended."
    mine = tmp_path / "own.py"
    mine.write_text(MINE)
    register_from_file(mine)
    mine.write_text(MINE.replace("SLOPE = 0.2", "SLOPE = 0.9"))
    assert copy_source("tiny_of_mine", tmp_path) == "own.py" and (tmp_path / "recipe.py").read_text() == MINE
    mine.unlink()
    assert copy_source("tiny_of_mine", tmp_path) == "own.py"


def test_an_export_without_its_file_names_the_model_and_what_to_do(elsewhere):
    code, out, err = elsewhere["by_torch"]
    assert (code, out) == (2, "")
    own = elsewhere["run"] / "recipe.py"
    assert "tiny_of_mine" in err and f"--recipe {own}" in err and f"register_from_file('{own}')" in err
    assert len(err.splitlines()) == 1


def test_it_predicts_with_the_file_named(elsewhere):
    code, out, err = elsewhere["named"]
    assert code == 0, err
    assert json.loads(out) == json.loads(elsewhere["pickle"][1])
    code, out, err = elsewhere["evaluate"]
    assert code == 0, err
    assert 0 < json.loads(out)["accuracy"] <= 1
    assert elsewhere["export"][0] == 0


def test_its_pickle_carries_the_class(elsewhere):
    assert elsewhere["pickle"][0] == 0, elsewhere["pickle"][2]
    assert np.shape(elsewhere["logits"]) == (1, 10) and np.isfinite(elsewhere["logits"]).all()


def test_it_can_be_audited(elsewhere):
    code, out, err = elsewhere["audit"]
    assert code == 0, err
    assert json.loads(out)["tiny_of_mine"]["params"] == 8 * 27 + 8 + 8 * 10 + 10


def test_a_file_may_register_models_alone(tmp_path):
    file = tmp_path / "layers only.py"
    file.write_text("from timm.models import register_model\nfrom torch import nn\n\n\n@register_model\n"
                    "def only_a_model(pretrained=False, num_classes=10, **kwargs):\n"
                    "    return nn.Sequential(nn.Flatten(), nn.Linear(3072, num_classes))\n")
    with pytest.raises(ModelError, match="only_a_model"):
        create_model("only_a_model", 3)
    register_from_file(file)
    assert timm.is_model("only_a_model") and create_model("only_a_model", 3)[1].out_features == 3


@pytest.mark.parametrize("content", [None, "raise KeyError('sesame')"])
def test_a_file_that_cannot_be_run_is_named(tmp_path, content):
    file = tmp_path / "mine.py"
    if content:
        file.write_text(content)
    with pytest.raises(RecipeError, match="mine.py"):
        register_from_file(file)


def test_the_nearest_name_is_suggested():
    with pytest.raises(ModelError, match="did you mean cifar_mirror"):
        create_model("cifar_miror", 10)
