"""A sweep in Optuna's storage: its definition, and trials that workers claim, give back and finish.

All trials are created at the start, waiting, so that there are exactly as many as were asked for. A trial whose worker
died waits again under the same number, with the parameters it had: its run resumes from its checkpoint.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cifar_fast.sweep.locks import is_alive
from cifar_fast.sweep.storage import GRACE, one_at_a_time, open_storage, require_optuna
from cifar_fast.utils.errors import CifarFastError

MOST_DEATHS = 10
"Workers that may die of one trial: it probably needs more memory than there is."

WORKERS = "workers"  # folder of the locks in the sweep's


class SweepError(CifarFastError):
    "A sweep that cannot be started or continued; the message says how."


@dataclass(frozen=True)
class Definition:
    "What makes two sweeps the same."

    recipe: str  # name or file
    recipe_id: str  # of the recipe with its fixed changes
    fixed: tuple[str, ...]
    space: dict[str, str]
    sampler: str
    pruner: str
    seed: int

    @classmethod
    def from_dict(cls, saved: dict) -> Definition:
        return cls(**{**saved, "fixed": tuple(saved["fixed"])})

    def differences(self, other: Definition) -> list[str]:
        "A line for each value in which `self`, the stored one, and `other` differ."
        then, now = asdict(self), asdict(other)
        flat = [({**d, "fixed": " ".join(d["fixed"]), **d["space"]}) for d in (then, now)]
        keys = [k for k in dict.fromkeys([*flat[0], *flat[1]]) if k != "space"]
        return [f"{k}: {flat[0].get(k, '–') or '–'} then, {flat[1].get(k, '–') or '–'} now" for k in keys
                if flat[0].get(k) != flat[1].get(k)]


class Sweep:
    "The study of one sweep, as one process sees it."

    def __init__(self, name: str, folder: Path, url: str | None = None, grace: float = GRACE):
        self.name, self.folder, self.url, self.grace = name, folder, url, grace
        self.optuna = require_optuna()
        self.storage = open_storage(url, folder, grace)
        self.States = self.optuna.trial.TrialState
        self.study = None

    def lock(self):
        return one_at_a_time(self.storage, self.folder, self.name)

    # ------------------------------------------------------------ its definition

    def exists(self) -> bool:
        return self.name in self.optuna.get_all_study_names(self.storage)

    def create_or_join(self, definition: Definition | None, trials: int | None, grid: list[dict] | None = None,
                       images: str | None = None, any_pruner: bool = False) -> None:
        """Create the study, or open it where it is the same one. Raises SweepError where it is another.

        `definition` None: open whatever is there. `trials` may be more than there were, never fewer. `images`: their
        fingerprint. `any_pruner`: nobody named one, so that of a study that is there stays.
        """
        with self.lock():
            if not self.exists():
                if definition is None:
                    raise SweepError(f"there is no sweep {self.name} in {self.url and 'that storage' or self.folder}: "
                                     f"leave out --resume to start one")
                self.study = self.optuna.create_study(storage=self.storage, study_name=self.name, direction="maximize")
            else:
                self.study = self.optuna.load_study(storage=self.storage, study_name=self.name)
            if definition and not (stored := self.definition):  # it is new, or its creator died before it could say
                self.study.set_user_attr("images", images)
                self.study.set_user_attr("definition", json.dumps(asdict(definition)))
            elif definition:
                definition = replace(definition, pruner=stored.pruner) if any_pruner else definition
                if lines := stored.differences(definition):
                    raise SweepError(f"the sweep {self.name} exists and is another one:\n  " + "\n  ".join(lines)
                                     + f"\ncontinue that one with --resume and none of these, or give this one a name "
                                       f"of its own: name={self.name}-b")
                self.require_images(images)
            now = len(self.study.get_trials(deepcopy=False))
            wanted = trials or self.study.user_attrs.get("trials") or now
            if wanted < (self.study.user_attrs.get("trials") or now):
                raise SweepError(f"--trials {wanted}: the sweep {self.name} has {now} already; give as many or more")
            for number in range(now, wanted):
                self.study.enqueue_trial(grid[number] if grid else {})
            self.study.set_user_attr("trials", wanted)

    @property
    def definition(self) -> Definition | None:
        saved = self.study.user_attrs.get("definition")
        return Definition.from_dict(json.loads(saved)) if saved else None

    @property
    def images(self) -> str | None:
        "The fingerprint of the images that it began with; None of an older sweep, which goes on with what there is."
        return self.study.user_attrs.get("images")

    def require_images(self, now: str | None) -> None:
        "Raises SweepError where the images are no longer those that it began with."
        if self.images and now and self.images != now:
            raise SweepError(f"the images have changed since the sweep {self.name} began, or another version of Pillow "
                             f"decodes them otherwise (fingerprint {self.images[:8]} then, {now[:8]} now), and its "
                             f"trials could not be compared: restore them, or give a sweep of the new ones a name of "
                             f"its own: name={self.name}-b")

    # ------------------------------------------------------------ trials

    def trials(self) -> list[Any]:
        "Optuna's frozen trials, in the order of their numbers."
        return self.study.get_trials(deepcopy=False)

    def finished(self) -> bool:
        return all(t.state.is_finished() for t in self.trials())

    def claim(self, worker: str, sampler: Any, pruner: Any) -> Any | None:
        "A waiting trial, which is this worker's from now on; None where none waits (others may still run)."
        with self.lock():
            self.give_back_orphans()
            waiting = next((t for t in self.trials() if t.state == self.States.WAITING), None)
            if waiting is None:
                return None
            number, id_ = waiting.number, waiting._trial_id
            # In this order: a worker that dies between two of these leaves a trial that waits, or one that has a
            # heartbeat and an owner. Optuna never gives up a running trial without a heartbeat.
            self.storage.set_trial_user_attr(id_, "worker", worker)
            self.storage.record_heartbeat(id_)
            self.storage.set_trial_state_values(id_, self.States.RUNNING)
            self.study.sampler, self.study.pruner = sampler(number), pruner
            return self.optuna.trial.Trial(self.study, id_)

    def give_back_orphans(self) -> None:
        "Trials of workers that died wait again; the caller holds the lock."
        silent = None
        for trial in self.trials():
            if trial.state != self.States.RUNNING:
                continue
            alive = is_alive(self.folder / WORKERS, trial.user_attrs.get("worker", ""))
            if alive is None:
                if silent is None:
                    silent = set(self.storage._get_stale_trial_ids(self.study._study_id))
                alive = trial._trial_id not in silent
            if alive:
                continue
            deaths = trial.user_attrs.get("deaths", 0) + 1
            self.storage.set_trial_user_attr(trial._trial_id, "deaths", deaths)
            if deaths >= MOST_DEATHS:
                self.storage.set_trial_user_attr(trial._trial_id, "error", f"{deaths} workers died of it; it may need "
                                                                           f"more memory than there is")
                self.storage.set_trial_state_values(trial._trial_id, self.States.FAIL)
            else:
                self.storage.set_trial_state_values(trial._trial_id, self.States.WAITING)

    def owns(self, trial: Any, worker: str) -> bool:
        "Whether the trial is still this worker's: one that was silent for too long has lost it to another."
        now = self.storage.get_trial(trial._trial_id)
        return now.state == self.States.RUNNING and now.user_attrs.get("worker") == worker

    def give_back(self, trial: Any, worker: str, seconds: float | None = None) -> None:
        "The trial waits again, for whoever continues it from its checkpoint; `seconds`: spent on it so far."
        with self.lock():
            if self.owns(trial, worker):
                if seconds is not None:
                    trial.set_user_attr("seconds", seconds)
                self.storage.set_trial_state_values(trial._trial_id, self.States.WAITING)

    def finish(self, trial: Any, worker: str, state: str, value: float | None = None, **facts: Any) -> bool:
        "Record the outcome ('COMPLETE', 'PRUNED' or 'FAIL'), unless the trial is another worker's by now."
        with self.lock():
            if not self.owns(trial, worker):
                return False
            for key, fact in facts.items():
                trial.set_user_attr(key, fact)
            self.study.tell(trial, value, state=self.States[state])
            return True


def make_sampler(name: str, seed: int):
    "A function of the trial's number: each trial draws anew, whoever runs it, and no two workers draw the same."
    from optuna import samplers

    def make(number: int):
        mixed = (seed * 1_000_003 + number) % 2**32
        if name == "random" or name == "grid":  # the combinations of a grid are given
            return samplers.RandomSampler(seed=mixed)
        if name == "cmaes":
            return samplers.CmaEsSampler(seed=mixed)
        return samplers.TPESampler(seed=mixed, constant_liar=True)
    return make
