"""Commands about this machine and this program: doctor, bench, completion."""

from __future__ import annotations

import contextlib
import json
import sys

from cifar_fast.bench import BENCHMARKS, DEFAULT
from cifar_fast.cli.command import Command, UsageError
from cifar_fast.utils.text import nearest


class Doctor(Command):
    name = "doctor"
    help = "show versions, device, data and cache, and run a self-test of ten seconds"
    examples = ("doctor", "doctor --json")

    @staticmethod
    def add_arguments(parser):
        parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")

    @staticmethod
    def run(args):
        from cifar_fast.cli.doctor import as_text, examine

        with contextlib.redirect_stdout(sys.stderr):  # libraries may print; stdout is for the result
            result = examine()
        print(json.dumps(result, indent=1) if args.json else as_text(result))
        return 1 if result["problems"] else 0


class Bench(Command):
    name = "bench"
    help = "measure data path, step, training, predict and startup against plain tools"
    examples = ("bench step", "bench --json > bench.json", "bench scale")

    @staticmethod
    def add_arguments(parser):
        parser.add_argument("names", nargs="*", metavar="NAME",
                            help=f"{', '.join(BENCHMARKS)}; default {', '.join(DEFAULT)}")
        parser.add_argument("--rounds", type=int, default=5,
                            help="measurements of each side, alternating (default 5)")
        parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")

    @staticmethod
    def run(args):
        for name in args.names:
            if name not in BENCHMARKS:
                raise UsageError(f"no benchmark is called {name!r}{nearest(name, BENCHMARKS)}; there are "
                                 f"{', '.join(BENCHMARKS)}")
        if args.rounds < 1:
            raise UsageError(f"--rounds {args.rounds}: at least 1; 5 or more for a reliable figure")
        from cifar_fast.bench.suite import benchmark

        names = list(dict.fromkeys(args.names or DEFAULT))
        if not args.json:
            benchmark(names, args.rounds, lambda text: print(text, flush=True))
            return 0
        with contextlib.redirect_stdout(sys.stderr):  # libraries may print; stdout is for the JSON object
            result = benchmark(names, args.rounds)
        print(json.dumps(result, indent=1))
        return 0


class Completion(Command):
    name = "completion"
    help = "print a script that completes commands and recipes of `cifar_fast` in your shell"
    examples = ("completion bash > ~/.local/share/bash-completion/completions/cifar_fast",
                "completion zsh > ~/.zfunc/_cifar_fast")

    @staticmethod
    def add_arguments(parser):
        from cifar_fast.cli.parser import SHELLS

        parser.add_argument("shell", choices=SHELLS)

    @staticmethod
    def run(args):
        from cifar_fast.cli import COMMANDS
        from cifar_fast.cli.parser import completion_script

        print(completion_script(COMMANDS, args.shell))
