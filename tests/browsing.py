"""A real browser for the tests of pages, and what a person does in it."""

import json
import shutil

import pytest

pytest.importorskip("selenium", reason="needs selenium: pip install -e '.[dev]'")
from selenium import webdriver  # noqa: E402
from selenium.common.exceptions import StaleElementReferenceException, TimeoutException  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver on the PATH")

FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--no-first-run", "--window-size=1200,900")
PHONE = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}


def started(folder, *more: str):
    "A browser with a profile in `folder` and these flags besides."
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, *more, f"--user-data-dir={folder}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))  # named: nothing is downloaded
    driver.set_page_load_timeout(30)
    return driver


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    driver = started(tmp_path_factory.mktemp("chromium"))
    yield driver
    driver.quit()


def events(driver) -> list[dict]:
    kept = getattr(driver, "kept", [])
    driver.kept = kept + [json.loads(e["message"])["message"] for e in driver.get_log("performance")]
    return driver.kept


def requests(driver) -> list[str]:
    "Every address that was asked for since the last time."
    found = [e["params"]["request"]["url"] for e in events(driver) if e["method"] == "Network.requestWillBeSent"]
    driver.kept = []
    return found


def waiting(driver, seconds: float) -> WebDriverWait:
    "What was found may be gone before it is read, while another page takes the place of this one: look again then."
    return WebDriverWait(driver, seconds, ignored_exceptions=[StaleElementReferenceException])


def press(driver, key: str) -> None:
    "A key on whatever has the focus."
    ActionChains(driver).send_keys(key).perform()


def narrow(driver) -> bool:
    "Whether the page fits the phone, once the browser has laid it out for it, which may be after it has loaded."
    fits = "return document.documentElement.scrollWidth <= 360 && window.innerWidth == 360"
    try:
        return waiting(driver, 10).until(lambda d: d.execute_script(fits))
    except TimeoutException:
        return False


PASTE = """
const [type, count] = arguments, transfer = new DataTransfer();
const canvas = Object.assign(document.createElement('canvas'), {width: 50, height: 40});
canvas.getContext('2d').fillRect(0, 0, 25, 40);
const done = arguments[arguments.length - 1];
canvas.toBlob((blob) => {
  for (let i = 0; i < count; i++) transfer.items.add(new File([blob], `given ${i}.png`, {type: 'image/png'}));
  const init = {bubbles: true, cancelable: true, clipboardData: transfer, dataTransfer: transfer};
  document.body.dispatchEvent(type === 'paste' ? new ClipboardEvent(type, init) : new DragEvent(type, init));
  done();
});
"""
