"""Two recipes value by value."""

import json

from cifar_fast.cli.main import main
from cifar_fast.recipe import flatten, load_recipe
from cifar_fast.reporting.compare import recipe_differences


def recipe_file(tmp_path, name, body):
    path = tmp_path / f"{name}.py"
    path.write_text(f"from cifar_fast.all import *\nrecipe = {body}\n")
    return str(path)


def test_recipes_differ_in_dotted_values():
    found, final, sprint = recipe_differences("final", "sprint"), load_recipe("final"), load_recipe("sprint")
    assert found["epochs"] == {"final": final.epochs, "sprint": sprint.epochs}
    assert found["augment.PadIfNeeded.min_height"]["sprint"] == 36
    assert found["mix.cutmix"] == {"final": final.mix.keywords["cutmix"]}
    assert found["resize"] == {"final": None, "sprint": "progressive"}
    assert found["augment"]["final"] == [*found["augment"]["sprint"], "Affine", "ColorJitter", "Sharpen"]
    assert found["lr"] == {"final": final.lr, "sprint": sprint.lr}
    assert not {"name", "fit.pct_start", "opt.weight_decay", "waive"} & set(found)
    assert recipe_differences("final", "final") == {}
    waived = recipe_differences("final", "strided")
    assert list(waived["waive.receptive_field"]) == ["strided"] and "augment.CoarseDropout.fill" not in waived


def test_a_default_that_is_spelled_out_is_no_difference(tmp_path):
    one = recipe_file(tmp_path, "one", "Recipe(arch='cifar_final', epochs=2, opt=partial(sgd), fit=partial(one_cycle), "
                                       "loss=partial(cross_entropy), augment=(A.HorizontalFlip(), A.HorizontalFlip()))")
    two = recipe_file(tmp_path, "two", "Recipe(arch='cifar_final', epochs=2, opt=sgd, fit=partial(one_cycle, "
                                       "pct_start=0.25), loss=partial(cross_entropy, label_smoothing=0.0), "
                                       "budget=Budget(max_params=50_000), "
                                       "augment=(A.HorizontalFlip(), A.HorizontalFlip(p=0.3)))")
    assert recipe_differences(one, two) == {"augment.HorizontalFlip-2.p": {one: 0.5, two: 0.3},
                                            "budget.max_params": {one: 199_999, two: 50_000}}


def test_recipes_on_the_command_line(capsys):
    assert main(["compare", "--recipes", "final", "net"]) == 0
    out = capsys.readouterr().out
    lines = {line.split(":")[0]: line for line in out.splitlines()}
    assert lines["fit"].split() == ["fit:", "one_cycle", "|", "constant"]
    assert lines["fit.pct_start"].split()[1:] == ["0.2", "|", "–"]
    assert "HorizontalFlip, Affine, ColorJitter, Sharpen | PadIfNeeded, RandomCrop" in " ".join(out.split())
    assert max(map(len, out.splitlines())) <= 80
    assert list(lines).index("opt.betas") < list(lines).index("fit")  # arguments stand by their setting
    assert main(["compare", "--recipes", "final", "final"]) == 0
    assert capsys.readouterr().out == "no difference\n"
    assert main(["compare", "--recipes", "final", "sprint", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["epochs"] == {"final": 80, "sprint": 8}


def test_flat():
    assert flatten({"a": {"b": {"c": 1}, "d": [1, {"e": 2}]}, "f": {}}) == {"a.b.c": 1, "a.d": [1, {"e": 2}], "f": {}}
    assert flatten(3, "x") == {"x": 3} and flatten({"y": None}, "x") == {"x.y": None}
