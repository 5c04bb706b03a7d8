"""Blocks that malloc keeps or returns."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import numpy as np
from cifar_fast.utils.memory import keep_large_blocks

def faults():
    "Page faults of five blocks of 40 MB, each freed before the next."
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        np.ones(10 << 20, np.float32)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

returned = faults()
keep_large_blocks()
faults()  # the first is new
print(returned, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc")
def test_freed_blocks_are_kept_for_the_next():
    out = subprocess.run([sys.executable, "-c", FAULTS], text=True, capture_output=True, check=True).stdout
    returned, kept = map(int, out.split())
    assert kept < returned / 10
