"""`final` at other budgets: its widths follow `budget.max_params`, from the command line to what opens the export."""

import json
from dataclasses import replace

import pytest
import timm
import torch

from cifar_fast.audit import Budget, audit, count_params
from cifar_fast.export.card import Card
from cifar_fast.export.card_format import ExportError
from cifar_fast.export.card_parts import Normalization
from cifar_fast.export.predictor import load_export
from cifar_fast.export.save import save_export
from cifar_fast.models import ModelError, create_model, scaled_widths
from cifar_fast.models.mirror import WIDTHS
from cifar_fast.recipe import RecipeError, load_recipe, override
from cifar_fast.training.init import Init, InitError
from cifar_fast.training.prepare import fitting_widths, prepare

FAMILY = {25_000: (8, 18, 34), 50_000: (6, 26, 50), 100_000: (14, 36, 70), 199_999: WIDTHS}


@pytest.mark.parametrize("limit", FAMILY)
def test_legal_and_at_most_3_percent_below_the_budget(limit):
    widths = scaled_widths("cifar_mirror", limit, 10)
    found = audit(create_model("cifar_mirror", 10, widths=widths), Budget(max_params=limit))
    assert widths == FAMILY[limit] and not found.failures() and found.rf_agrees
    assert 0.97 * limit < found.profile.params <= limit


@pytest.mark.parametrize("classes, size", [(120, 32), (2, 96)])
def test_classes_and_size_count(classes, size):
    widths = scaled_widths("cifar_mirror", 30_000, classes, size)
    assert 0.95 * 30_000 < count_params(create_model("cifar_mirror", classes, size, widths)) <= 30_000


def test_the_dilated_one_is_scaled_too():
    widths = scaled_widths("cifar_mirror_dilated", 50_000, 10)
    found = audit(create_model("cifar_mirror_dilated", 10, widths=widths), Budget(max_params=50_000))
    assert not found.failures() and found.rf_agrees and 0.97 * 50_000 < found.profile.params <= 50_000
    assert scaled_widths("cifar_mirror_dilated", 10**6, 10) == (16, 48, 112)


def test_what_cannot_be_scaled():
    assert scaled_widths("cifar_sprint", 1000, 10) is None  # no rule: its budget is broken, as before
    assert scaled_widths("cifar_mirror", 10**6, 10) == WIDTHS
    with pytest.raises(ModelError, match="cifar_mirror: max_params=100"):
        scaled_widths("cifar_mirror", 100, 10)


def test_a_limit_of_the_budget_on_the_command_line():
    final = load_recipe("final")
    assert override(final, ["budget.max_params=50_000"]).budget == Budget(max_params=50_000)
    both = override(final, ["budget.max_flash_kb=96", "budget.dilated=2", "budget.global_average_pool=false"])
    assert both.budget == Budget(max_flash_kb=96.0, dilated=2, global_average_pool=False)
    assert override(both, ["budget.max_flash_kb=none"]).budget.max_flash_kb is None
    for change, named in (("budget.max_param=1", "max_param.*max_params"), ("budget.max_params=few", "whole number"),
                          ("budget.max_params=1.5", "whole number"), ("budget.max_ram_kb=-1", "at least 0"),
                          ("budget.max_macs=nan", "at least 0"), ("budget.max_params=none", "whole number")):
        with pytest.raises(RecipeError, match=named):
            override(final, [change])


@pytest.mark.parametrize("classes, size, own", [
    (10, 32, True), (44, 32, True), (45, 32, False), (100, 32, False), (257, 32, False), (12, 224, False)])
def test_with_many_classes_or_large_images_final_is_narrower_instead_of_over_the_budget(classes, size, own):
    recipe = load_recipe("final")
    widths = fitting_widths(recipe, None, classes, size)
    assert (widths is None) == own
    found = audit(create_model("cifar_mirror", classes, size, widths), Budget(), (3, size, size))
    assert not found.failures() and 190_000 < found.profile.params < 200_000
    assert fitting_widths(load_recipe("teacher"), None, 1_000, 32) is None  # its budget is waived by name
    assert fitting_widths(load_recipe("mobile"), None, classes, 32) is None  # a published one is as it is


def test_trained_weights_are_not_taken_by_a_network_that_a_budget_makes_narrower():
    normalize = Normalization(mean=[0.5] * 3, std=[0.2] * 3)
    init = Init("exports/base", "", {}, normalize, 32)
    export = Card(arch="cifar_mirror", vocab=["a", "b"], normalize=normalize)
    recipe = override(load_recipe("final"), ["init=exports/base"])
    assert fitting_widths(recipe, init, 50, 32) is None  # the weights' own, whatever the number of classes
    for limit in ("budget.max_params=50_000", "budget.max_params=25_000"):
        for card, pruning in ((None, ""), (export, "add prune=0.5 instead.*")):
            with pytest.raises(InitError, match=r"init=exports/base holds weights of 16-48-104 channels, and with at "
                                                rf"most \d+,000 parameters .*; {pruning}.*larger budget.max_params="):
                fitting_widths(override(recipe, [limit]), replace(init, card=card), 10, 32)
    own = fitting_widths(override(recipe, ["budget.max_params=201_000"]), init, 50, 32)
    waived = replace(override(recipe, ["budget.max_params=50_000"]), waive={"parameters": "of the trained weights"})
    assert fitting_widths(waived, init, 10, 32) is None
    assert tuple(own) == (16, 48, 104)  # as the refusal of 50 classes recommends


def test_an_export_holds_its_widths(tmp_path, digits):
    run = prepare(override(load_recipe("final"), ["data=digits", "budget.max_params=25_000", "device=cpu"]))
    assert tuple(run.widths) == FAMILY[25_000] and run.audit.profile.params == 24_302
    card = Card(arch="cifar_mirror", vocab=[str(i) for i in range(10)], widths=list(run.widths),
                normalize=Normalization(mean=[0.5] * 3, std=[0.2] * 3))
    model = run.learn.model.cpu().eval()
    save_export(tmp_path / "small", model, card)
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        wanted = model(x)
        assert torch.equal(load_export(tmp_path / "small").model(x), wanted)
        assert torch.equal(timm.create_model(f"local-dir:{tmp_path / 'small'}", pretrained=True).eval()(x), wanted)
    for init in (f"init={tmp_path / 'small'}", f"init=local-dir:{tmp_path / 'small'}"):
        again = prepare(override(load_recipe("final"), ["data=digits", init, "device=cpu"]))
        assert tuple(again.widths) == FAMILY[25_000] and not again.start.unfit


@pytest.mark.parametrize("widths", [[16, 48, 10**9], [0, 48, 104], [], [8] * 9, "all", [16, 48]])
def test_widths_of_a_damaged_card(tmp_path, widths):
    card = Card(arch="cifar_mirror", vocab=["a", "b"], widths=[8, 12, 16],
                normalize=Normalization(mean=[0.5] * 3, std=[0.2] * 3))
    save_export(tmp_path / "net", create_model("cifar_mirror", 2, widths=(8, 12, 16)), card, pickle=False)
    values = json.loads((tmp_path / "net" / "card.json").read_text())
    (tmp_path / "net" / "card.json").write_text(json.dumps({**values, "widths": widths}))
    with pytest.raises(ExportError, match="widths|cifar_mirror"):
        load_export(tmp_path / "net")
