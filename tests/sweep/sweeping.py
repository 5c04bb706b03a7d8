"""What tests of sweeps and seeds share: images of their own, and something to do at the right moment."""

import threading
import time
from itertools import product

from PIL import Image


def when(condition, act, seconds=900):
    "Calls `act` in a thread, once `condition` gives something true, with that."
    def wait():
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := condition():
                act(found)
                return
            time.sleep(0.02)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def folder_of_images(path):
    "Of two classes, with a validation split of its own."
    for split, label, i in product(["train", "valid"], [0, 1], range(8)):
        place = path / split / "ab"[label] / f"{i}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (20 * i + label, 99 * label, split == "valid")).save(place)
    return path
