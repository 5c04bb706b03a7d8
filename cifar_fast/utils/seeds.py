"""Every random number of a run follows from (seed, epoch, batch), so no random state needs to be saved.

Images, mixes and dropout masks are the same with any number of workers and after a resume.
"""

from __future__ import annotations

import os
import random
from contextlib import contextmanager

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import numpy as np
import torch


def derive(seed: int, *where: int) -> int:
    "A 32-bit seed for `where` (an epoch, a batch …) in the run of `seed`; those of adjacent places are unrelated."
    return int(np.random.SeedSequence([seed % 2**63, *where]).generate_state(1)[0])


def seed_everything(seed: int) -> None:
    "Seed Python, NumPy and torch (every device)."
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextmanager
def rng_restored():
    "Restore the global RNGs of Python, NumPy and torch (CPU and CUDA) when the block ends."
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else None
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)
