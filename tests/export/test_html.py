"""The exported page in a real browser, from its file and with the network off: what it predicts, what a person does."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

import cifar_fast
from cifar_fast.data.images import RESIZE_MODES

pytest.importorskip("selenium", reason="needs selenium: pip install -e '.[dev]'")
from browsing import PASTE, PHONE, events, narrow, press, pytestmark, started, waiting  # noqa: E402, F401
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

RUN = Path(cifar_fast.__file__).parents[1] / "exports" / "sprint"
XSS = "</script><img src=x onerror=alert(1)>"
CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream", "--window-size=1200,1000")


@pytest.fixture(scope="module")
def model():
    from cifar_fast.export.predictor import load_export

    opened = load_export(RUN)
    vocab = [*opened.vocab[:-1], XSS]
    return replace(opened, vocab=vocab, card=replace(opened.card, vocab=vocab))


@pytest.fixture(scope="module")
def made(model, tmp_path_factory):
    "The page of a trained net, with one class whose name is HTML, and its row; npm brings the runtime."
    from cifar_fast.export.check import measured
    from cifar_fast.export.convert import make
    from cifar_fast.export.targets import find_targets

    folder, (target,) = tmp_path_factory.mktemp("page"), find_targets(["html"])
    ((name, row),) = make(folder, target, model, measured(model, None, target.most), None, speed=False).items()
    return folder / name, row


@pytest.fixture(scope="module")
def path(made):
    return made[0]


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    driver = started(tmp_path_factory.mktemp("chromium"), *CAMERA)
    driver.set_script_timeout(60)
    driver.execute_cdp_cmd("Network.enable", {})
    driver.execute_cdp_cmd("Network.emulateNetworkConditions",
                           {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0})
    yield driver
    driver.quit()


def idle(driver) -> str:
    "What the page says once it is done."
    waiting(driver, 90).until(lambda d: "busy" not in d.find_element(By.ID, "status").get_attribute("class"))
    return driver.find_element(By.ID, "status").text


@pytest.fixture(scope="module")
def loaded(chromium, path):
    chromium.get("about:blank")
    chromium.get_log("browser"), chromium.get_log("performance")
    chromium.get(path.as_uri())
    assert idle(chromium) == ""
    return chromium


@pytest.fixture
def browser(loaded):
    "The page without results; afterwards the console must be empty and no request may have left the file."
    loaded.execute_script("document.getElementById('results').replaceChildren(); model.mode = 'crop'; "
                          "document.getElementById('threshold').value = 0; window.scrollTo(0, 0)")
    yield loaded
    assert loaded.get_log("browser") == []
    asked = [e["params"]["request"]["url"] for e in events(loaded) if e["method"] == "Network.requestWillBeSent"]
    assert not [url for url in asked if not url.startswith(("file:///", "blob:null/", "data:", "about:"))]
    loaded.kept = []


def give(driver, *files) -> None:
    driver.find_element(By.ID, "images").send_keys("\n".join(map(str, files)))


def cards(driver, count: int) -> list:
    waiting(driver, 90).until(lambda d: len(d.find_elements(By.CSS_SELECTOR, "#results .card")) == count)
    idle(driver)
    return driver.find_elements(By.CSS_SELECTOR, "#results .card")


# ---------------------------------------------------------------- the same predictions as in Python


def photograph(rng, size) -> Image.Image:
    "Smooth shapes with some noise: every step of reading them shows, and predictions are not all the same."
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
    return Image.fromarray((np.asarray(coarse) + rng.integers(-12, 13, (*size[::-1], 3))).clip(0, 255).astype(np.uint8))


def kinds():
    "(name, how it is saved) of images whose pixels a browser and Pillow read alike."
    def turned(image, file, kind, orientation, **more):
        exif = Image.Exif()
        exif[0x112] = orientation
        image.save(file, kind, exif=exif, **more)

    def transparent(image, file, kind="png"):
        image.putalpha(ImageOps.invert(image.convert("L")))
        image.save(file, kind, **({"lossless": True} if kind == "webp" else {}))

    yield "rgb.png", lambda image, file: image.save(file, "png")
    yield "grey.png", lambda image, file: image.convert("L").save(file, "png")
    yield "palette.png", lambda image, file: image.quantize(60).save(file, "png", transparency=3)
    yield "transparent.png", transparent
    yield "transparent.webp", lambda image, file: transparent(image, file, "webp")
    yield "still.gif", lambda image, file: image.quantize(60).save(file, "gif")
    yield "plain.bmp", lambda image, file: image.save(file, "bmp")
    yield "photo.jpg", lambda image, file: image.save(file, "jpeg")
    for orientation in range(1, 9):
        yield f"turned {orientation}.png", lambda image, file, o=orientation: turned(image, file, "png", o)
        yield f"turned {orientation}.jpg", lambda image, file, o=orientation: turned(image, file, "jpeg", o)
        yield f"turned {orientation}.webp", lambda image, file, o=orientation: turned(image, file, "webp", o,
                                                                                     lossless=True)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    "100 files: three of each kind, wide, tall and small, and some of one pixel's width or the model's size."
    rng, folder, files = np.random.default_rng(0), tmp_path_factory.mktemp("photographs"), []
    for name, save in kinds():
        for size in [(300, 90), (90, 600), (40, 30)]:
            files.append(folder / f"{len(files):03} {name}")
            save(photograph(rng, tuple(s + int(rng.integers(0, 9)) for s in size)), files[-1])
    for size in [(1, 1), (1, 300), (300, 1), (32, 32)]:
        files.append(folder / f"{len(files):03} rgb.png")
        photograph(rng, size).save(files[-1])
    return files


@pytest.mark.parametrize("mode", RESIZE_MODES)
def test_the_same_pixels_and_predictions_as_in_python(browser, model, photographs, mode):
    assert len(photographs) == 100
    files = photographs if mode == "crop" else photographs[::3] + photographs[1::9] + photographs[-4:]
    browser.execute_script(f"model.mode = '{mode}'")
    give(browser, *files)
    cards(browser, len(files))
    found = browser.execute_script("return [...document.querySelectorAll('.card')].map((card) => [card.querySelector("
                                   "'.file').textContent, [...card.pixels], [...card.probabilities]])")
    reader = replace(model, resize_mode=mode)
    expected = np.stack([reader.read(file) for file in files])
    assert [name for name, _, _ in found] == [file.name for file in files]
    off = {name: abs(np.array(pixels) - seen.ravel().astype(int)).max()
           for (name, pixels, _), seen in zip(found, expected, strict=True)}
    assert not {name: levels for name, levels in off.items() if levels > name.endswith(".jpg")}  # decoders of JPEG may
    exact = [i for i, name in enumerate(off) if not off[name]]
    assert len(exact) >= 0.7 * len(files)
    probabilities, in_python = np.array([p for _, _, p in found]), model.predict(expected)
    assert (probabilities.argmax(1) == in_python.argmax(1)).all() and len(set(in_python.argmax(1))) > 2
    assert abs(probabilities - in_python)[exact].max() < 1e-4


def test_it_was_checked_in_the_browser_before_it_was_kept(made):
    path, row = made
    assert path.name == "sprint.html" and path.stat().st_size == row.bytes < 10e6
    assert (row.n, row.differ) == (100, 0) and row.difference < 1e-4 and "Chromium" in row.note


# ---------------------------------------------------------------- what a person does


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    image = photograph(np.random.default_rng(0), (60, 40))
    for name in ("one.png", "two.jpg", "<img src=x onerror=alert(1)>.png", f"{'long-' * 30}name.png"):
        image.save(folder / name)
    (folder / "bad.png").write_bytes(b"no image")
    (folder / "empty.png").write_bytes(b"")
    Image.fromarray(np.full((20, 20), 40_000, np.uint16)).save(folder / "deep.png")
    return folder


def test_several_at_once_and_bad_ones_beside_them(browser, files):
    give(browser, *(files / name for name in ("one.png", "bad.png", "empty.png", "deep.png", "two.jpg")))
    cards(browser, 5)
    bad = [card.text for card in browser.find_elements(By.CSS_SELECTOR, ".card.bad")]
    assert [text.split()[0] for text in bad] == ["bad.png", "empty.png", "deep.png"]
    assert "0 bytes" in bad[1] and "16 bits" in bad[2]
    assert "no prediction for 3 images" in idle(browser)


def test_names_of_files_and_classes_are_text(browser, files):
    give(browser, files / "<img src=x onerror=alert(1)>.png")
    (card,) = cards(browser, 1)
    assert card.find_element(By.CLASS_NAME, "file").text == "<img src=x onerror=alert(1)>.png"
    assert XSS in card.find_element(By.TAG_NAME, "table").text
    assert not browser.find_elements(By.CSS_SELECTOR, "img[onerror]")


@pytest.mark.parametrize("way, count", [("paste", 1), ("drop", 2)])
def test_pasted_and_dropped(browser, way, count):
    browser.execute_async_script(PASTE, way, count)
    assert all("given" in card.text for card in cards(browser, count))
    browser.execute_async_script(PASTE, "paste", 0)
    assert "no image in the clipboard" in browser.find_element(By.ID, "status").text


def test_the_camera(browser):
    "What it sees is said while it is open; a photo becomes a card; it is off afterwards."
    browser.find_element(By.ID, "camera").click()
    waiting(browser, 20).until(lambda d: "%" in d.find_element(By.ID, "live").text)
    browser.find_element(By.ID, "shoot").click()
    (card,) = cards(browser, 1)
    assert "photo 1.png" in card.text
    assert browser.execute_script("return [dialog.open, video.srcObject]") == [False, None]
    browser.find_element(By.ID, "camera").click()
    waiting(browser, 20).until(lambda d: d.find_element(By.ID, "dialog").is_displayed())
    press(browser, Keys.ESCAPE)
    waiting(browser, 20).until(lambda d: d.execute_script("return video.srcObject") is None)


def test_a_camera_that_is_refused(browser):
    browser.execute_script("window.real = navigator.mediaDevices.getUserMedia; navigator.mediaDevices.getUserMedia = "
                           "async () => { throw new DOMException('no', 'NotAllowedError'); }")
    browser.find_element(By.ID, "camera").click()
    waiting(browser, 20).until(lambda d: "does not allow" in d.find_element(By.ID, "status").text)
    browser.execute_script("navigator.mediaDevices.getUserMedia = window.real")


def test_keyboard_alone(browser, files):
    "Tab meets everything in order, each with a visible frame; the threshold and the buttons react to keys."
    give(browser, files / "one.png")
    (card,) = cards(browser, 1)
    browser.execute_script("const top = document.querySelector('h1'); top.tabIndex = -1; top.focus()")
    browser.execute_cdp_cmd("Page.setInterceptFileChooserDialog", {"enabled": True})
    met = []
    while not met or met[-1] != "clear":
        assert len(met) < 5
        press(browser, Keys.TAB)
        at = browser.switch_to.active_element
        met.append(at.get_attribute("id"))
        assert at.value_of_css_property("outline-style") == "solid", met
        if met[-1] == "images":
            press(browser, Keys.SPACE)
            waiting(browser, 10).until(lambda d: any(e["method"] == "Page.fileChooserOpened" for e in events(d)))
        if met[-1] == "camera":
            press(browser, Keys.ENTER)
            waiting(browser, 10).until(lambda d: d.switch_to.active_element.get_attribute("id") == "shoot")
            press(browser, Keys.TAB)
            press(browser, Keys.ENTER)
            waiting(browser, 10).until(lambda d: d.switch_to.active_element.get_attribute("id") == "camera")
        if met[-1] == "threshold":
            press(browser, Keys.END)
            assert card.find_element(By.TAG_NAME, "strong").text == "unknown"
            press(browser, Keys.HOME)
            assert card.find_element(By.TAG_NAME, "strong").text != "unknown"
    assert met == ["images", "camera", "threshold", "clear"]
    press(browser, Keys.ENTER)
    cards(browser, 0)
    assert browser.switch_to.active_element.get_attribute("id") == "images"
    browser.execute_cdp_cmd("Page.setInterceptFileChooserDialog", {"enabled": False})


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_scrolls_in_one_direction_only(browser, files, scheme):
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia",
                            {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
    give(browser, files / "one.png", files / f"{'long-' * 30}name.png", files / "bad.png")
    cards(browser, 3)
    assert narrow(browser)
    page = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, page[4:-1].split(","))) > 600) == (scheme == "light")
    for command in ("Emulation.clearDeviceMetricsOverride", "Emulation.setEmulatedMedia"):
        browser.execute_cdp_cmd(command, {})


def test_a_browser_that_changes_pixels_is_noticed(chromium, path):
    "As some do against fingerprinting. Last: it leaves the page that the other tests use."
    added = chromium.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": """
        const real = OffscreenCanvasRenderingContext2D.prototype.getImageData;
        OffscreenCanvasRenderingContext2D.prototype.getImageData = function (...box) {
          const read = real.apply(this, box);
          read.data.fill(255);
          return read;
        };"""})
    chromium.get(path.as_uri())
    idle(chromium)
    assert "may be wrong" in chromium.find_element(By.CSS_SELECTOR, "main > .card.bad").text
    chromium.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", {"identifier": added["identifier"]})
