"""Ctrl-C and SIGTERM at any moment: 130 or 143, no traceback, nothing lost and nothing left half written."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from interrupts import interrupts

from cifar_fast.utils.files import TEMPORARY, write_text
from cifar_fast.utils.signals import StopRequested, hold_signals, raise_on_signals

ROOT = Path(__file__).parents[2]


def test_real_processes_at_random_moments(tmp_path, cache):
    commands = [["recipe", "sprint", "data=digits", "epochs=1", "report=no", "--restart"], ["doctor"], ["recipes"],
                ["recipe", "sprint", "data=digits", "--dry-run"], ["audit", "cifar_sprint"]]
    assert interrupts(commands, 5, 3, tmp_path, say=lambda *_, **__: None) == []


PRESS = "import os, signal; os.kill(os.getpid(), signal.{})\n"
SWALLOWS = "try:\n    import pressing\nexcept BaseException:\n    pass\n"


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("body", [
    SWALLOWS,  # a library that hides whatever its import meets
    "try:\n    import pressing\nexcept BaseException as e:\n    raise ImportError('numpy is missing') from e\n",
    "try:\n    exec(open(pressing).read())\nexcept BaseException:\n    pass\n",
    "class Press:\n    def __del__(self):\n        exec(open(pressing).read())\nPress()\n"],
    ids=["import swallows", "import raises another", "swallowed", "in a destructor"])
def test_a_library_cannot_swallow_a_signal(tmp_path, name, body):
    "A command that does what the libraries do that were met."
    (tmp_path / "pressing.py").write_text(PRESS.format(name))
    (tmp_path / "run.py").write_text(
        f"import sys\nfrom cifar_fast.__main__ import program\nfrom cifar_fast.cli import COMMANDS\n"
        f"pressing = {str(tmp_path / 'pressing.py')!r}\n"
        f"def run(args):\n    exec({body!r}, {{'pressing': pressing}})\n    print('result')\n"
        f"COMMANDS['recipes'].run = staticmethod(run)\nsys.argv = ['x', 'recipes']\nsys.exit(program())\n")
    found = subprocess.run([sys.executable, tmp_path / "run.py"], capture_output=True, text=True,
                           env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert found.returncode == 128 + getattr(signal, name)
    assert found.stderr.strip() == "interrupted"


def test_a_process_that_ends_at_once_removes_its_half_written_files(tmp_path):
    (tmp_path / "pressing.py").write_text(PRESS.format("SIGINT"))
    code = (f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
            f"from cifar_fast.utils.files import atomic_write\nfrom cifar_fast.utils.signals import raise_on_signals\n"
            f"with raise_on_signals(), atomic_write('result.txt') as tmp:\n"
            f"    tmp.write_text('half')\n    import pressing\n")
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True,
                           env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert (found.returncode, found.stderr.strip()) == (130, "interrupted")
    assert not list(tmp_path.glob(f"*{TEMPORARY}")) + list(tmp_path.glob(f".*{TEMPORARY}"))
    assert not (tmp_path / "result.txt").exists()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_held_signal_waits_for_the_end_of_the_block(tmp_path, signum):
    before = signal.getsignal(signum)
    with pytest.raises(StopRequested) as raised, raise_on_signals():
        with hold_signals():
            signal.raise_signal(signum)
            write_text(tmp_path / "whole", "all of it")
        pytest.fail("the signal was lost")
    assert raised.value.exit_code == 128 + signum
    assert (tmp_path / "whole").read_text() == "all of it"
    assert signal.getsignal(signum) is before


def test_a_forked_worker_leaves_signals_to_its_parent():
    with raise_on_signals():
        if not (pid := os.fork()):
            signal.raise_signal(signal.SIGINT)
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
