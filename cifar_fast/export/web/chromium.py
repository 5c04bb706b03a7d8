"""Runs an exported page as it will be used, where Chromium, its driver and selenium are installed."""

from __future__ import annotations

import base64
import io
import shutil
import warnings
import weakref
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from cifar_fast.export.card_format import ExportError
from cifar_fast.utils.text import printable

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--no-first-run")
NEEDED = "chromium, chromedriver and pip install selenium"
SECONDS = 300  # of one call
CLASSIFY = """
const [images, done] = arguments;
(async () => {
  await ready;
  const all = [];
  for (const png of images) {
    const bytes = Uint8Array.from(atob(png), (c) => c.charCodeAt(0));
    const image = await decode(new Blob([bytes]));
    all.push([...(await predict(square(image, model.size, model.mode)))]);
  }
  return all;
})().then(done, (error) => done(String(error)));
"""


def programs() -> tuple[str | None, str | None]:
    "Browser and driver."
    return next(filter(None, map(shutil.which, BROWSERS)), None), shutil.which("chromedriver")


def can_open() -> bool:
    return all(programs()) and find_spec("selenium") is not None


def open_page(path: Path) -> Callable[[np.ndarray], np.ndarray] | None:
    "(N, size, size, 3) uint8 → (N, C) float32 by the page, from its file with the network off; None without a browser."
    if not can_open():
        return None
    browser, driver = programs()  # named, so that selenium downloads none
    from selenium.common.exceptions import WebDriverException

    try:
        return Page(path, browser, driver)
    except WebDriverException as e:  # the browser's fault: its driver is of another version, say
        warnings.warn(f"{browser} does not open {path.name}, which was not checked in it: {printable(e.msg)[:200]}",
                      stacklevel=2)
        return None


class Page:
    "An open page; its browser ends with it."

    def __init__(self, path: Path, browser: str, driver: str):
        from selenium import webdriver

        options = webdriver.ChromeOptions()
        options.binary_location = browser
        for flag in FLAGS:
            options.add_argument(flag)
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
        self.end = weakref.finalize(self, self.driver.quit)  # also where Python ends
        self.driver.set_script_timeout(SECONDS)
        self.driver.execute_cdp_cmd("Network.enable", {})
        self.driver.execute_cdp_cmd("Network.emulateNetworkConditions", {
            "offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0})
        self.driver.get(path.absolute().as_uri())

    def __call__(self, images: np.ndarray) -> np.ndarray:
        from selenium.common.exceptions import WebDriverException

        try:
            found = self.driver.execute_async_script(CLASSIFY, [png(image) for image in images])
        except WebDriverException as e:  # it ran out of time or memory, say
            raise ExportError(f"Chromium ends or takes more than {SECONDS} s while it classifies {len(images)} images: "
                              f"{printable(e.msg)[:200]}; try again with more memory free, or leave html out of "
                              f"--to") from None
        if isinstance(found, str):
            raise ExportError(f"the page fails in Chromium: {found}")
        return np.array(found, dtype=np.float32)


def png(image: np.ndarray) -> str:
    Image.fromarray(image).save(file := io.BytesIO(), "png")
    return base64.b64encode(file.getvalue()).decode()
