"""`track=wandb`: fastai's callback, without the predictions and the batch that it draws by default."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

import wandb
from fastai.callback.wandb import WandbCallback

from cifar_fast.training.callbacks.tracking import Tracker
from cifar_fast.utils.log import verbose
from cifar_fast.utils.seeds import rng_restored

PROJECT = "cifar_fast"
"On W&B, unless WANDB_PROJECT names another."

PATIENCE = {"init_timeout": 30, "login_timeout": 60, "finish_timeout": 60}
"Seconds to wait for the server, for an answer to its prompt, and at the end; what is not sent by then stays on disk."


class Wandb(Tracker, WandbCallback):
    "Loss and hyperparameters of every step, the state's row after each epoch; card and figures at the end."

    kind = "wandb"

    def __init__(
        self,
        folder: Path,  # of the run's files; it writes into `wandb` there
        name: str,  # of the run
        id: str,  # of the run on W&B: the same for a run that resumes
        config: dict[str, Any],  # the described recipe
    ):
        super().__init__(log_preds=False)
        self.folder, self.run_name, self.run_id, self.config = folder, name, id, config

    def open(self):
        with rng_restored():
            try:
                self.start()
            except Exception as e:  # no login, no network, a server that refuses
                if os.environ.get("WANDB_MODE", "online") != "online":
                    raise
                warnings.warn(f"track=wandb cannot reach W&B ({' '.join(str(e).split())[:200]}), so it records offline "
                              f"in {self.folder / self.kind}; `wandb sync` sends that later", stacklevel=2)
                wandb.teardown()  # its service still holds the id
                self.start(mode="offline")

    def start(self, **more) -> None:
        wandb.init(project=os.environ.get("WANDB_PROJECT", PROJECT), name=self.run_name, id=self.run_id, resume="allow",
                   dir=self.folder, config=self.config,
                   settings=wandb.Settings(console="off", silent=not verbose(), **PATIENCE), **more)

    @property
    def place(self):
        if wandb.run is None or wandb.run.disabled:
            return ""
        return self.kind if wandb.run.offline else wandb.run.url

    def before_fit(self):
        self.learn.gather_args = dict  # fastai's own reads a batch, and describes less than the recipe does
        try:
            super().before_fit()
        finally:
            del self.learn.gather_args

    def before_train(self):
        # fastai goes on from what W&B knows, which offline is nothing and after a kill is too much.
        self._wandb_step, self._wandb_epoch = self.train_iter - 1, self.train_iter / len(self.dls.train)

    def after_epoch(self):
        wandb.log({"epoch": self.epoch + 1, **self.measured()}, step=self._wandb_step)

    def attach(self, card, facts, row, figures):
        run = wandb.run
        run.log({f"figures/{path.stem}": wandb.Image(str(path)) for path in figures})
        run.summary.update({name: value for name, value in row.items() if value is not None})
        file = Path(run.dir) / "card.json"  # in its own folder: of others it keeps a link
        file.write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n", "utf-8")
        run.save(str(file), base_path=run.dir, policy="end")

    def close(self, finished):
        wandb.finish(exit_code=0 if finished else 1)
