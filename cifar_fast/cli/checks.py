"""Commands about this machine and this program: doctor, bench, shell completion."""

from __future__ import annotations

import contextlib
import json
import sys

from cifar_fast.bench import BENCHMARKS, DEFAULT
from cifar_fast.cli.shared import Refused
from cifar_fast.utils.text import nearest


def doctor(args) -> int:
    from cifar_fast.cli.doctor import examine, text

    with contextlib.redirect_stdout(sys.stderr):  # whatever a library says
        found = examine()
    print(json.dumps(found, indent=1) if args.json else text(found))
    return 1 if found["problems"] else 0


def bench(args) -> int:
    for name in args.names:
        if name not in BENCHMARKS:
            raise Refused(f"no benchmark is called {name!r}{nearest(name, BENCHMARKS)}; there are "
                          f"{', '.join(BENCHMARKS)}")
    if args.rounds < 1:
        raise Refused(f"--rounds {args.rounds}: at least 1; 5 or more for a figure to keep")
    from cifar_fast.bench.suite import benchmark

    names = list(dict.fromkeys(args.names or DEFAULT))
    if not args.json:
        benchmark(names, args.rounds, lambda text: print(text, flush=True))
        return 0
    with contextlib.redirect_stdout(sys.stderr):  # whatever a library says, stdout holds one JSON object
        result = benchmark(names, args.rounds)
    print(json.dumps(result, indent=1))
    return 0


def completion(args) -> int:
    from cifar_fast.cli import COMMANDS
    from cifar_fast.cli import parser as options

    print(options.completion(COMMANDS, args.shell))
    return 0
