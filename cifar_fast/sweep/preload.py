"""What a worker imports, for the process that workers are forked from."""

import cifar_fast.data.block  # noqa: F401
import cifar_fast.export.measure  # noqa: F401
import cifar_fast.runs.run  # noqa: F401
import cifar_fast.training.fit  # noqa: F401
