"""Python in a process of its own."""

import subprocess
import sys


def fresh(*args, **kw):
    "Run Python with these arguments; what it printed and its exit code."
    return subprocess.run([sys.executable, *map(str, args)], capture_output=True, text=True, timeout=300, **kw)
