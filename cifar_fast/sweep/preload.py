"""What a worker imports, for the process that workers are forked from."""

import signal

signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C during the imports is for the parent; a worker sets its own

from cifar_fast.utils.log import quiet_warnings  # noqa: E402

quiet_warnings()  # before the imports that raise them

import cifar_fast.data.block  # noqa: E402, F401
import cifar_fast.export.measure  # noqa: E402, F401
import cifar_fast.runs.run  # noqa: E402, F401
import cifar_fast.training.fit  # noqa: E402, F401
