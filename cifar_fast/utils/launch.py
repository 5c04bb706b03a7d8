"""`procs=N`: the same command in N processes on this machine, by torchrun's launcher."""

from __future__ import annotations

import logging
import os
import signal
import sys
import uuid
from collections.abc import Sequence

from cifar_fast.utils.cores import CORES
from cifar_fast.utils.errors import CifarFastError
from cifar_fast.utils.ranks import LAUNCHED

HANDLED = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT") if hasattr(signal, name)]
"The launcher passes them on, and leaves its handlers behind."


class LaunchError(CifarFastError):
    "A process that was killed; the message has the command that resumes."

    exit_code = 1


def launch(
    arguments: Sequence[str],  # of python
    procs: int,
    resume: str = "",  # the command that resumes, for the message
) -> int:
    """Run `python ARGUMENTS` in `procs` processes; returns the exit code. Raises LaunchError where one was killed.

    The launcher chooses a free port, and ends all processes as soon as one has failed. Each has its share of the cores.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, CORES // procs)))
    os.environ[LAUNCHED] = "1"
    for name in [name for name in logging.root.manager.loggerDict if name.startswith("torch.distributed.elastic")]:
        logging.getLogger(name).setLevel(logging.CRITICAL)  # they would log what the processes have said
    config = LaunchConfig(1, 1, procs, run_id=uuid.uuid4().hex, rdzv_backend="c10d", rdzv_endpoint="localhost:0",
                          local_addr="localhost", max_restarts=0)
    handlers = {s: signal.getsignal(s) for s in HANDLED}
    try:
        elastic_launch(config, sys.executable)(*arguments)
    except SignalException as e:  # it has passed the signal on, and waited for them
        return 128 + e.sigval
    except ChildFailedError as e:
        rank, failure = min(e.failures.items(), key=lambda item: item[1].timestamp)
        if failure.exitcode < 0 and failure.exitcode != -signal.SIGTERM:
            name = signal.Signals(-failure.exitcode).name
            raise LaunchError(f"process {rank} of {procs} was killed ({name}), so all were ended"
                              + (f"\nresume with: {resume}" if resume else "")) from None
        return max((f.exitcode for f in e.failures.values() if f.exitcode > 0), default=1)
    finally:
        del os.environ[LAUNCHED]
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
    return 0


