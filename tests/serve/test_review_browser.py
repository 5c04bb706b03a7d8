"""The review in a real browser, with the keyboard alone and with the mouse."""

import csv
import re

import numpy as np
import pytest
import torch
from PIL import Image
from serving import served

pytest.importorskip("selenium", reason="needs selenium: pip install -e '.[dev]'")
from browsing import PHONE, chromium, narrow, press, pytestmark, waiting  # noqa: E402, F401
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

FEW, MANY = ["ant", "<b>bee", "cat"], [f"class {i:02}" for i in range(45)]


def project(folder, vocab, each):
    "Photographs of `vocab`, larger than the model takes them, and a run on them that was never trained."
    from cifar_fast.data.sources import load_source
    from cifar_fast.export.card import Card
    from cifar_fast.export.card_parts import Data, Normalization
    from cifar_fast.export.save import save_export
    from cifar_fast.models import create_model

    rng = np.random.default_rng(0)
    for name in vocab:
        (place := folder / "photos" / name).mkdir(parents=True)
        for i in range(each):
            Image.fromarray(rng.integers(0, 256, (120, 200, 3), np.uint8)).save(place / f"{i}.png")
    source = load_source(folder / "photos")
    torch.manual_seed(0)
    card = Card(arch="cifar_sprint", vocab=list(source.vocab), normalize=Normalization(mean=[0.5] * 3, std=[0.25] * 3),
                recipe={"data": str(folder / "photos"), "seed": 0}, data=Data(fingerprint=source.fingerprint))
    save_export(folder / "exports" / "net", create_model("cifar_sprint", len(source.vocab)), card, pickle=False)
    return folder


@pytest.fixture
def opened(chromium, tmp_path, request):  # noqa: F811
    "The page of a review of so many classes and images of each; the console must stay empty."
    from cifar_fast.export.predictor import load_export
    from cifar_fast.serve.app import create_app

    project(tmp_path, *request.param)
    exports = tmp_path / "exports"
    for command in ("Emulation.clearDeviceMetricsOverride", "Emulation.setEmulatedMedia"):
        chromium.execute_cdp_cmd(command, {})
    with served(create_app(load_export(exports / "net"), "net", exports)) as address:
        chromium.get("about:blank")
        chromium.get_log("browser")
        chromium.get(f"{address}/review")
        waiting(chromium, 60).until(lambda d: d.find_element(By.ID, "review").is_displayed())
        chromium.table = exports / "net.labels.csv"
        yield chromium
        assert chromium.get_log("browser") == []
        chromium.get("about:blank")


def shown(driver) -> str:
    "The file whose original is shown, once it can be seen and decided on."
    waiting(driver, 20).until(lambda d: d.execute_script(
        "const i = document.querySelector('#stage img'); return i && i.complete && i.naturalWidth === 200"))
    return driver.find_element(By.ID, "file").text


def after(driver, done: int) -> None:
    waiting(driver, 20).until(lambda d: d.find_element(By.ID, "count").text.startswith(f"{done} of "))


def labels(driver) -> dict[str, str]:
    "Label by file of the table."
    with open(driver.table, encoding="utf-8", newline="") as file:
        return {re.sub(r"^\.\./", "", row["file"]): row["label"] for row in csv.DictReader(file)}


def key(driver, pressed: str, done: int) -> str:
    "Decides with a key; the file that this was about."
    file = shown(driver).rpartition(" (")[0]
    press(driver, pressed)
    after(driver, done)
    return file


@pytest.mark.parametrize("opened", [(FEW, 2)], indirect=True)
def test_a_walk_with_the_keyboard_alone(opened):
    kept = key(opened, Keys.SPACE, 1)
    out = key(opened, Keys.DELETE, 2)
    relabelled = key(opened, "1", 3)  # sorted, the first class is the one with the mark-up
    undone = key(opened, "3", 4)
    press(opened, Keys.BACKSPACE)
    after(opened, 3)
    assert shown(opened).startswith(undone)
    key(opened, "2", 4)
    written = labels(opened)
    assert written[kept] == kept.split("/")[1] and out not in written and len(written) == 5
    assert written[relabelled] == "<b>bee" and written[undone] == "ant"
    opened.refresh()  # goes on where it was
    waiting(opened, 60).until(lambda d: d.find_element(By.ID, "review").is_displayed())
    after(opened, 4)
    for done in (5, 6):
        assert key(opened, Keys.SPACE, done) not in (kept, out, relabelled, undone)
    assert opened.find_element(By.ID, "end").is_displayed()
    press(opened, Keys.SPACE)  # no image is left
    press(opened, Keys.BACKSPACE)
    after(opened, 5)


@pytest.mark.parametrize("opened", [(MANY, 2)], indirect=True)
def test_of_many_classes_typing_filters(opened):
    file = shown(opened).rpartition(" (")[0]
    press(opened, "37")
    buttons = opened.find_elements(By.CSS_SELECTOR, "#classes button")
    assert [b.text.split("\n")[0] for b in buttons] == ["class 37"]
    press(opened, Keys.ENTER)
    after(opened, 1)
    assert labels(opened)[file] == "class 37"
    file = shown(opened).rpartition(" (")[0]
    predicted = opened.find_element(By.ID, "prediction").text
    press(opened, Keys.ENTER)  # the first is what the model predicts
    press(opened, Keys.ENTER)
    after(opened, 2)
    assert predicted.startswith(labels(opened)[file])
    shown(opened)
    press(opened, "zzz")
    assert not opened.find_elements(By.CSS_SELECTOR, "#classes button")
    press(opened, Keys.ESCAPE)
    key(opened, Keys.SPACE, 3)  # a space for the image, not for the filter


@pytest.mark.parametrize("opened", [(FEW, 2)], indirect=True)
def test_with_the_mouse_on_a_phone_and_after_it_the_keyboard(opened):
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    shown(opened)
    assert narrow(opened)
    opened.find_element(By.ID, "leave-out").click()
    after(opened, 1)
    key(opened, Keys.SPACE, 2)  # not the button that was clicked
    assert len(labels(opened)) == 5
    shown(opened)
    opened.find_elements(By.CSS_SELECTOR, "#classes button")[1].click()
    after(opened, 3)
    opened.find_element(By.ID, "undo").click()
    after(opened, 2)
    opened.find_element(By.CSS_SELECTOR, "#split option[value=test]").click()
    waiting(opened, 20).until(lambda d: "(test)" in d.find_element(By.ID, "file").text)
