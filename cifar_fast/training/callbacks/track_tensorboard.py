"""`track=tensorboard`: fastai's callback, without the graph and the images that it draws by default."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
from fastai.callback.tensorboard import SummaryWriter, TensorBoardCallback
from PIL import Image

from cifar_fast.training.callbacks.tracking import Tracker


class TensorBoard(Tracker, TensorBoardCallback):
    "Loss and hyperparameters of every step, `epoch/…` after each epoch; text and images at the end."

    kind = "tensorboard"

    def __init__(
        self,
        folder: Path,  # of the run's files; it writes into `tensorboard` there
        steps: int = 0,  # that the run has made, where it resumes
    ):
        super().__init__(log_dir=str(folder / self.kind), trace_model=False, log_preds=False)
        self.folder, self.steps = folder, steps

    def open(self):
        silence_writer_threads()
        # A killed run has logged steps beyond its checkpoint, which it makes again.
        self.writer = SummaryWriter(self.log_dir, purge_step=self.steps + 1 if self.steps else None)

    def _setup_writer(self):
        "fastai makes one for every fit, and closes it after."

    def after_epoch(self):
        for name, value in self.measured().items():
            self.writer.add_scalar(f"epoch/{name}", value, self.train_iter)
        self.writer.flush()

    def after_fit(self):
        self.writer.flush()  # the card is still to come

    def attach(self, card, facts, row, figures):
        step = self.state.step
        table = "\n".join(["| | |", "| --- | --- |", *(f"| {label} | {value} |" for label, value in facts)])
        self.writer.add_text("card", f"{table}\n\n```json\n{json.dumps(card, indent=1, ensure_ascii=False)}\n```", step)
        for path in figures:
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGB"))
            self.writer.add_image(f"figures/{path.stem}", pixels, step, dataformats="HWC")
        self.writer.flush()

    def close(self, finished):
        self.writer.close()


def silence_writer_threads() -> None:
    "Let TensorBoard's threads die without a traceback: their error is raised again where the next value is written."
    hook = threading.excepthook
    if getattr(hook, "silences_writer_threads", False):
        return

    def quiet(args):
        if type(args.thread).__name__ != "_AsyncWriterThread":
            hook(args)

    quiet.silences_writer_threads = True
    threading.excepthook = quiet
