"""Steps the torch learning-rate scheduler of a recipe's `sched`."""

from __future__ import annotations

import warnings

from cifar_fast.training.callbacks.stateful import StatefulCallback
from cifar_fast.training.schedules import Schedule
from cifar_fast.training.state import TrainState


class Scheduler(StatefulCallback):
    "Steps the scheduler that `schedule` makes for the Learner's optimizer, after each batch or each epoch."

    order = 60  # after Recorder (50), so that each step is recorded with its own rate
    follows_recipe = True

    def __init__(self, schedule: Schedule, state: TrainState):
        self.schedule, self.state = schedule, state

    def before_fit(self):
        steps = len(self.dls.train)
        self.torch_scheduler = self.schedule.make(self.opt.opt, self.n_epoch * steps, steps)

    def state_dict(self):
        return self.torch_scheduler.state_dict()

    def load_state_dict(self, saved):
        self.torch_scheduler.load_state_dict(saved)

    def catch_up(self, epochs, batches, length):
        if self.schedule.every == "batch":
            for _ in range(epochs * length + batches):
                self.step()
        else:
            for row in self.state.rows[:epochs]:
                self.step(row)

    def after_batch(self):
        if self.training and self.schedule.every == "batch":
            self.step()

    def after_epoch(self):
        if self.schedule.every == "epoch":
            self.step(self.state.rows[-1])

    def step(self, row: dict | None = None) -> None:
        with warnings.catch_warnings():  # fp16 may skip the first optimizer step, and a resume makes none
            warnings.filterwarnings("ignore", "Detected call of")
            self.torch_scheduler.step(*([row[self.schedule.metric]] if self.schedule.metric else []))
