"""The served page in a real browser: what a person does, nothing in the console, no request that leaves the machine."""

import time

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from rows import made
from serving import XSS, served

pytest.importorskip("selenium", reason="needs selenium: pip install -e '.[dev]'")
from browsing import (  # noqa: E402
    PASTE,
    PHONE,
    chromium,  # noqa: F401
    events,
    narrow,
    press,
    pytestmark,  # noqa: F401
    requests,
    waiting,
)
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

PAGES = ("/", "/runs", "/runs/net", "/compare", "/review", "/nothing")


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    "A server with a net that was never trained, its run with a figure and a report."
    import cifar_fast.all  # noqa: F401  (the first page of Compare would import it, longer than a browser waits)
    from cifar_fast.export.card import Card
    from cifar_fast.export.card_parts import Audited, Metrics, Normalization
    from cifar_fast.export.predictor import load_export
    from cifar_fast.export.save import save_export
    from cifar_fast.models import create_model
    from cifar_fast.serve.app import create_app

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("exports")
    vocab = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    card = Card(arch="cifar_sprint", vocab=vocab, normalize=Normalization(mean=[0.5] * 3, std=[0.25] * 3), split="test",
                metrics=Metrics(n=10, accuracy=0.1), audit=Audited(params=122_730, macs=1, receptive_field=48))
    save_export(folder / "net", create_model("cifar_sprint", 10), card, pickle=False)
    Image.new("RGB", (900, 300), "white").save(folder / "net" / "history.png")
    Image.new("RGB", (1200, 600), "white").save(folder / "compare.png")
    rows = [made(), made(recipe=f"a-recipe-with-{'long-' * 10}name", recipe_id="b")]
    pd.DataFrame(rows).to_csv(folder / "results.csv", index=False)
    (folder / "net" / "report.html").write_text(
        "<!doctype html><html lang=en><title>Report</title><style>p { color: rgb(1, 2, 3) }</style><p id=p>Report</p>"
        "<script>document.getElementById('p').textContent = 'a script ran'</script>")
    with served(create_app(load_export(folder / "net"), "net", folder)) as address:
        yield address


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    "Files by name: two images, one whose name is HTML, one that is none, one too large."
    folder = tmp_path_factory.mktemp("images")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    for name in ("one.png", "two.jpg", XSS, f"{'long-' * 30}name.png"):
        Image.fromarray(pixels).save(folder / name)
    (folder / "bad.png").write_bytes(b"no image")
    with open(folder / "huge.png", "wb") as f:
        f.truncate(21 * 2**20)
    return folder


@pytest.fixture
def browser(chromium, address):  # noqa: F811
    "The start page, fresh; afterwards the console must be empty and no request may have left the machine."
    for command in ("Emulation.clearDeviceMetricsOverride", "Emulation.setEmulatedMedia"):
        chromium.execute_cdp_cmd(command, {})
    chromium.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    chromium.get("about:blank")
    chromium.get_log("browser"), chromium.get_log("performance")
    chromium.get(address)
    yield chromium
    assert chromium.get_log("browser") == []
    asked = requests(chromium)
    assert asked and not [u for u in asked if not u.startswith((f"{address}/", "data:"))]


def grad_cam(driver, count: int = 1):
    "The first of `count` maps, once they are there."
    waiting(driver, 60).until(lambda d: len(d.find_elements(By.CLASS_NAME, "overlay")) == count)
    return driver.find_element(By.CLASS_NAME, "overlay")


def give(driver, *files) -> None:
    driver.find_element(By.ID, "images").send_keys("\n".join(map(str, files)))


def cards(driver, count: int) -> list:
    "The cards once there are `count`, and the page is done."
    wait = waiting(driver, 60)
    wait.until(lambda d: len(d.find_elements(By.CSS_SELECTOR, "#results .card")) == count)
    wait.until(lambda d: "busy" not in d.find_element(By.ID, "status").get_attribute("class"))
    return driver.find_elements(By.CSS_SELECTOR, "#results .card")


def test_an_image_is_shown_as_the_model_sees_it(browser, images):
    give(browser, images / "one.png")
    (card,) = cards(browser, 1)
    overlay = grad_cam(browser)
    square, last = card.find_elements(By.TAG_NAME, "img")
    assert last == overlay
    assert square.value_of_css_property("image-rendering") == "pixelated" and "as the model sees it" in (
        square.get_attribute("alt"))
    assert browser.execute_script("return [...document.images].every(i => i.complete && i.naturalWidth)")
    assert len(card.find_elements(By.CSS_SELECTOR, "tbody tr")) == 10
    assert "one.png" in browser.find_element(By.ID, "status").text
    assert overlay.is_displayed()
    browser.find_element(By.ID, "cam").click()
    assert not overlay.is_displayed()


def test_grad_cam_is_asked_for_where_it_is_shown(browser, images, address):
    browser.execute_script("document.getElementById('cam').checked = false")
    give(browser, images / "one.png", images / "bad.png", images / "two.jpg")
    cards(browser, 3)
    assert f"{address}/gradcam" not in requests(browser)
    browser.execute_script("document.getElementById('cam').click()")
    grad_cam(browser, 2)
    assert requests(browser).count(f"{address}/gradcam") == 1
    assert [len(v.find_elements(By.TAG_NAME, "img")) for v in browser.find_elements(By.CLASS_NAME, "view")] == [2, 2]
    browser.get(address)


def test_several_at_once_and_a_bad_one_beside_them(browser, images):
    give(browser, images / "one.png", images / "bad.png", images / "two.jpg")
    cards(browser, 3)
    (bad,) = browser.find_elements(By.CSS_SELECTOR, ".card.bad")
    assert "bad.png" in bad.text and "not an image" in bad.text
    assert "no prediction for 1 image" in browser.find_element(By.ID, "status").text


def test_many_images_are_sent_in_several_requests(browser, images, address):
    give(browser, *[images / "one.png"] * 19)
    cards(browser, 19)
    assert requests(browser).count(f"{address}/predict") == 3
    browser.get(address)


def test_a_name_is_text(browser, images):
    give(browser, images / XSS)
    (card,) = cards(browser, 1)
    assert card.find_element(By.CLASS_NAME, "file").text == XSS
    assert not browser.find_elements(By.CSS_SELECTOR, "img[onerror]")


def test_a_huge_file_is_refused_by_name_and_not_sent(browser, images, address):
    give(browser, images / "huge.png", images / "one.png")
    cards(browser, 2)
    (bad,) = browser.find_elements(By.CSS_SELECTOR, ".card.bad")
    assert "huge.png" in bad.text and "larger than 20 MB" in bad.text


@pytest.mark.parametrize("way, count", [("paste", 1), ("drop", 2)])
def test_pasted_and_dropped(browser, way, count):
    browser.execute_async_script(PASTE, way, count)
    assert all("given" in card.text for card in cards(browser, count))


def test_a_clipboard_without_an_image(browser):
    browser.execute_async_script(PASTE, "paste", 0)
    assert "no image in the clipboard" in browser.find_element(By.ID, "status").text


def test_keyboard_alone(browser, images):
    "Tab meets everything in order, each with a visible frame; space and enter do what a click does."
    give(browser, images / "one.png")
    cards(browser, 1)
    grad_cam(browser)
    browser.execute_script("document.activeElement.blur(); window.scrollTo(0, 0)")
    browser.execute_cdp_cmd("Page.setInterceptFileChooserDialog", {"enabled": True})
    met = []
    for _ in range(10):
        press(browser, Keys.TAB)
        at = browser.switch_to.active_element
        met.append(at.get_attribute("id") or " ".join(at.text.split()))
        assert at.value_of_css_property("outline-style") == "solid", met
        assert float(at.value_of_css_property("outline-width").removesuffix("px")) >= 2
        if met[-1] == "images":
            press(browser, Keys.SPACE)
            waiting(browser, 10).until(
                lambda d: any(e["method"] == "Page.fileChooserOpened" for e in events(d)))
        if met[-1] == "cam":
            press(browser, Keys.SPACE)
            assert not browser.find_element(By.CLASS_NAME, "overlay").is_displayed()
    assert met == ["Skip to the content", "cifar_fast net", "Predict", "Runs", "Sweeps", "Compare", "Review", "images",
                   "cam", "clear"]
    press(browser, Keys.ENTER)
    cards(browser, 0)
    assert browser.switch_to.active_element.get_attribute("id") == "images"
    browser.execute_cdp_cmd("Page.setInterceptFileChooserDialog", {"enabled": False})


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_scrolls_in_one_direction_only(browser, images, address, scheme):
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia",
                            {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
    for page in PAGES[1:-1]:
        browser.get(address + page)
        assert narrow(browser), page
    browser.get(address)
    give(browser, images / "one.png", images / f"{'long-' * 30}name.png", images / "bad.png")
    cards(browser, 3)
    assert narrow(browser)
    page = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, page[4:-1].split(","))) > 600) == (scheme == "light")


@pytest.mark.parametrize("width", [360, 640, 900, 1200])
def test_the_name_of_a_class_stands_on_one_line_beside_two_probabilities(browser, images, width):
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE | {"width": width, "mobile": False})
    give(browser, images / "one.png")
    cards(browser, 1)
    heights = browser.execute_script(
        "return [...document.querySelectorAll('.cards tbody tr')].map(row => row.getBoundingClientRect().height)")
    assert len(heights) == 10 and max(heights) < 1.1 * min(heights)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


def test_without_scripts_the_form_works_too(browser, images, address):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    browser.get(address)
    give(browser, images / "one.png", images / "huge.png")
    browser.find_element(By.CSS_SELECTOR, "#form button").click()
    waiting(browser, 60).until(lambda d: len(d.find_elements(By.CSS_SELECTOR, "#results .card")) == 2)
    assert "larger than 20 MB" in browser.find_element(By.CSS_SELECTOR, ".card.bad").text
    overlay = browser.find_element(By.CLASS_NAME, "overlay")
    browser.find_element(By.ID, "cam").click()
    time.sleep(0.4)  # it fades
    assert not overlay.is_displayed()


def test_a_request_that_is_too_large_is_answered_although_it_was_still_being_sent(browser, images, address):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    browser.get(address)
    with open(images / "large.png", "wb") as f:
        f.truncate(20 * 2**20)
    give(browser, *[images / "large.png"] * 8)
    browser.find_element(By.CSS_SELECTOR, "#form button").click()
    waiting(browser, 60).until(lambda d: "128 MB together" in d.find_element(By.TAG_NAME, "main").text)
    assert all(" 413 " in e["message"] for e in browser.get_log("browser"))  # the browser's own line


def test_runs_are_browsed_and_a_report_runs_no_script(browser, address):
    browser.find_element(By.LINK_TEXT, "Runs").click()
    browser.find_element(By.LINK_TEXT, "net").click()
    assert browser.execute_script("return [...document.images].every(i => i.complete && i.naturalWidth)")
    browser.find_element(By.LINK_TEXT, "Open the report").click()
    shown = browser.find_element(By.ID, "p")
    assert shown.text == "Report" and shown.value_of_css_property("color") in ("rgb(1, 2, 3)", "rgba(1, 2, 3, 1)")
    refusals = browser.get_log("browser")  # this report brought a script
    assert refusals and all("report" in e["message"] for e in refusals)
    browser.back()
    browser.find_element(By.LINK_TEXT, "Compare").click()
    assert browser.find_element(By.CSS_SELECTOR, "figure img").is_displayed()


def test_a_server_that_does_not_answer(browser, images):
    browser.execute_cdp_cmd("Network.enable", {})
    browser.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["*/predict"]})
    give(browser, images / "one.png")
    status = browser.find_element(By.ID, "status")
    waiting(browser, 10).until(lambda d: "did not answer" in status.text)
    browser.execute_cdp_cmd("Network.setBlockedURLs", {"urls": []})
