"""`python -m cifar_fast`, and the command `cifar_fast`."""

import sys

from cifar_fast.utils.signals import exit_on_signals


def program() -> int:
    exit_on_signals()  # before anything else is imported
    from cifar_fast.cli.main import main

    return main()


if __name__ == "__main__":
    sys.exit(program())
