"""What commands share: the error of their own, and how a run is named."""

from __future__ import annotations

import os

from cifar_fast.utils.errors import CifarFastError


class Refused(CifarFastError):
    "Input that a command will not work with; the message is for the user."


def in_exports(name: str) -> str:
    "A run's path: a name alone is one in exports/."
    return name if os.sep in name or "/" in name else f"exports/{name}"
