"""For the tests of bulk prediction: a run, a folder of images, and disasters that strike while one is read."""

import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from starts import exported

from cifar_fast.export.card_file import read_card
from cifar_fast.export.load import load_model
from cifar_fast.export.predictor import load_export
from cifar_fast.export.targets import onnx

IMAGES, SHARD = 23, 4
# Python imports it in every process that has its folder in PYTHONPATH.
HOOK = """
import os, signal, sys, time
from pathlib import Path

def arm():
    from cifar_fast.data import images
    decode, here = images.decode, Path(__file__).parent

    def disastrous(file, *args):
        time.sleep(float((here / "seconds").read_text()))
        name = Path(str(getattr(file, "name", ""))).name
        for mark in here.glob("*.kill"):
            image, signum, whom, times = mark.stem.split("~")
            if image == name and int(times):
                mark.rename(here / f"{image}~{signum}~{whom}~{int(times) - 1}.kill")
                os.kill(os.getpid() if whom == "self" else os.getppid(), int(signum))
                if whom != "self":
                    signal.pause()
        return decode(file, *args)

    images.decode = disastrous

if "cifar_fast.export.bulk.worker" in sys.orig_argv:
    arm()
"""


def make_run(folder: Path) -> Path:
    exported(folder)
    onnx.make(folder, read_card(folder), load_export(folder).model)
    return folder


def make_images(folder: Path, count: int = IMAGES) -> Path:
    "Good ones in two folders, and one that is none."
    rng = np.random.default_rng(0)
    (folder / "sub").mkdir(parents=True)
    for i in range(count - 1):
        pixels = rng.integers(0, 256, (40, 40 + i, 3), np.uint8)
        Image.fromarray(pixels).save(folder / ("sub" if i % 2 else ".") / f"{i:02}.png")
    (folder / "bad.jpg").write_bytes(b"no image")
    return folder


class Disasters:
    "A folder for PYTHONPATH; `strike` arms it."

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(HOOK)
        self.seconds_an_image(0)
        self.path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])

    def seconds_an_image(self, seconds: float) -> None:
        (self.folder / "seconds").write_text(str(seconds))

    def strike(self, image: str, signum: int, whom: str = "self", times: int = 1) -> None:
        (self.folder / f"{image}~{int(signum)}~{whom}~{times}.kill").touch()

    def left(self, image: str) -> int:
        (mark,) = self.folder.glob(f"{image}~*.kill")
        return int(mark.stem.split("~")[-1])


def rows(path: Path) -> list[dict]:
    return pq.read_table(path).to_pylist()


def expected(run: Path, folder: Path) -> list[dict]:
    "The rows by the model alone, one image at a time."
    model, result = load_model(run), []
    for path in [*sorted(folder.glob("*.*")), *sorted((folder / "sub").iterdir())]:
        row = dict.fromkeys(("label", "probability", "label_2", "probability_2"))
        if path.name != "bad.jpg":
            probs = model.predict(model.read(path)[None])[0]
            first, second = probs.argsort()[::-1][:2]
            row = {"label": model.vocab[first], "probability": probs[first],
                   "label_2": model.vocab[second], "probability_2": probs[second]}
        result.append({"file": str(path), **row})
    return result
