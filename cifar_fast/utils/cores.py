"""How many threads decode images and run a model beside them, and which process of a pool this is."""

from __future__ import annotations

import os

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
"That this process may use."

DECODERS = min(4, CORES)
"Images that are decoded at the same time: one of 64 megapixels needs 0.7 GB."

BESIDE = max(1, CORES - DECODERS)
"Threads for a model while images are decoded; more than there are cores make both slower."

PLACE = "CIFAR_FAST_PLACE"
"The environment variable that each process of a pool has: its number, by which they share out the GPUs."
