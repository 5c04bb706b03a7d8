"""The base class of callbacks with a state that checkpoints save."""

from __future__ import annotations

from typing import Any

from fastai.callback.core import Callback


class StatefulCallback(Callback):
    "A callback whose state outlives an epoch: `state_dict` gives plain data and tensors, `load_state_dict` takes them."

    follows_recipe = False  # with a changed recipe: `catch_up` instead of taking the saved state

    def before_fit(self):
        "Also called where a resumed run has no state for this callback."

    def state_dict(self) -> dict[str, Any]:
        raise NotImplementedError

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        raise NotImplementedError

    def catch_up(self, epochs: int, batches: int, length: int) -> None:
        "Advance to the state after `epochs` of `length` batches and `batches` of the next one."
        raise NotImplementedError
