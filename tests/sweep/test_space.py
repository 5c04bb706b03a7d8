"""Ranges and lists of the command line; what is no range, or cannot be searched, is refused with what to write."""

import pytest

from cifar_fast.cli.main import main
from cifar_fast.recipe import RecipeError
from cifar_fast.sweep.space import SpaceError, is_searched, parse_space, split_list

FIXED = ("data=digits", "valid=500")


def one(*changes):
    space = parse_space("sprint", [*FIXED, *changes])
    assert space.fixed == FIXED
    return space.dimensions[0]


def test_kinds_follow_from_the_setting():
    assert (one("lr=0.01..0.1:log").kind, one("lr=0.01..0.1:log").log) == ("float", True)
    assert one("epochs=3..8").kind == "int" and one("epochs=3..8").values == [3, 4, 5, 6, 7, 8]
    assert one("fit.div=10..25").kind == "float"  # whole ends alone make no whole number
    assert one("fit.pct_start=0.1..0.3:step=0.1").values == [0.1, 0.2, 0.3]  # and not 0.30000000000000004
    assert one("opt.weight_decay=1e-13..3e-13:step=1e-13").values == [1e-13, 2e-13, 3e-13]
    assert one("budget.max_params=50_000..200_000:step=50_000").values == [50_000, 100_000, 150_000, 200_000]
    assert parse_space("sprint", [*FIXED, "epochs=2e1,10.0"]).fewest_epochs == 10
    assert one("opt=sgd,adamw").choices == ("sgd", "adamw")
    assert one("fit.moms=(0.9,0.9,0.9),(0.8,0.8,0.8)").choices == ("(0.9,0.9,0.9)", "(0.8,0.8,0.8)")
    assert one("lr=-1e-3..1".replace("-1e-3", "1e-3")).low == 0.001


def test_an_argument_may_need_a_fixed_choice_first():
    space = parse_space("sprint", [*FIXED, "mix=mixing", "mix.cutmix=0.2..0.7"])
    assert space.dimensions[0].key == "mix.cutmix" and "mix=mixing" in space.fixed


def test_arguments_that_are_settings_of_their_own():
    "Of which the command line writes views.weight for views_weight."
    assert parse_space("sprint", [*FIXED, "views=2", "views.weight=1..12"]).dimensions[0].high == 12
    assert parse_space("sprint", [*FIXED, "distill=exports/a", "distill.alpha=0.5..1"]).dimensions[0].low == 0.5
    for change in ("distill.cache=yes,no", "data.label=a,b"):
        with pytest.raises(SpaceError, match="cannot be compared|nothing to search"):
            parse_space("sprint", [*FIXED, "distill=exports/a", change])


def test_a_grid_is_every_combination():
    space = parse_space("sprint", [*FIXED, "opt=sgd,muon", "bs=64,128,256"])
    assert space.only_lists and len(list(space.grid())) == 6
    assert list(space.grid())[-1] == {"opt": "muon", "bs": "256"}
    assert list(parse_space("sprint", [*FIXED, "bs=64..256:step=64"]).grid())[1:3] == [{"bs": 128}, {"bs": 192}]
    with pytest.raises(SpaceError, match="step="):
        list(parse_space("sprint", [*FIXED, "lr=0.1..0.2"]).grid())


def test_paths_are_no_lists():
    assert split_list("a,(b,c),'d,e'") == ["a", "(b,c)", "'d,e'"]
    assert not is_searched("distill=exports/a,exports/b") and not is_searched("distill=../exports/teacher")
    assert not is_searched("data=../photos,2024") and not is_searched("exports=a..b") and not is_searched("name=1..2")
    assert is_searched("lr=.1..5") and not is_searched("lr=0.1")


@pytest.mark.parametrize("change, error, words", [
    ("lr=0.1..0.01", SpaceError, "lr=0.01..0.1"), ("lr=0.1..0.1", SpaceError, "write lr=0.1"),
    ("lr=0..0.1:log", SpaceError, "begins above 0"), ("lr=0.1..0.2:lin", SpaceError, ":lin"),
    ("lr=0.1..0.2:log:step=0.1", SpaceError, "no steps"), ("lr=0.1..0.2:step=1", SpaceError, "width"),
    ("lr=1__0..20", SpaceError, "both ends"), ("bs=5_..64", SpaceError, "both ends"),
    ("lr=0.1..x", SpaceError, "both ends"), ("opt=0.1..0.2", SpaceError, "opt=a,b"),
    ("arch=1..2", SpaceError, "no number"), ("tta=0..1", SpaceError, "no number"),
    ("resize_mode=1..2", SpaceError, "no number"), ("fit.moms=1..2", RecipeError, "(0.8, 0.8, 0.8)"),
    ("nope=1..2", RecipeError, "nope"), ("fit.nope=1..2", RecipeError, "nope"),
    ("epochs=0..3", RecipeError, "epochs=0 "),
    ("bs=1.5..3", RecipeError, "whole"), ("epochs=2..8:step=1.5", SpaceError, "whole"),
    ("opt=sgd,nope", RecipeError, "nope"), ("lr=0.1,0.1", SpaceError, "twice"), ("lr=0.1,", SpaceError, "empty"),
    ("seed=1,2", SpaceError, "seeds=5"), ("validate_on=held_out,test", SpaceError, "compared"),
    ("workers=0,1", SpaceError, "compared"),
    ("budget.max_params=1..x", SpaceError, "both ends"), ("lr=0.1", SpaceError, "nothing to search"),
])
def test_what_cannot_be_searched(change, error, words):
    with pytest.raises(error) as e:
        parse_space("sprint", [*FIXED, change])
    assert type(e.value) is error and words in str(e.value)


def test_a_setting_that_works_is_not_blamed_for_another():
    with pytest.raises(RecipeError, match="^mix.cutmix=0.2: mix is None .*as in mix=mixing mix.cutmix=0.2$"):
        parse_space("sprint", [*FIXED, "lr=0.01..0.1:log", "mix.cutmix=0.2..0.8"])


def test_a_setting_is_given_once():
    with pytest.raises(SpaceError, match="lr= is given twice"):
        parse_space("sprint", [*FIXED, "lr=0.1", "lr=0.1..0.2"])


def test_recipe_points_to_sweep(capsys):
    assert main(["recipe", "sprint", "data=digits", "lr=0.01,0.05"]) == 2
    assert "python -m cifar_fast sweep sprint data=digits lr=0.01,0.05 valid=0.1" in capsys.readouterr().err
    assert main(["recipe", "sprint", "data=digits", "valid=300", "lr=0.01..0.05:log"]) == 2
    assert "sweep sprint data=digits valid=300 lr=0.01..0.05:log\n" in capsys.readouterr().err
