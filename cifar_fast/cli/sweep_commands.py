"""The command sweep: a search over settings of a recipe."""

from __future__ import annotations

from cifar_fast.cli.command import Command, UsageError, add_changes
from cifar_fast.cli.recipe_commands import check_changes


class Sweep(Command):
    name = "sweep"
    help = "search settings of a recipe by held-out accuracy (needs Optuna)"
    examples = ("sweep final lr=0.01..0.1:log valid=5000 --trials 40",
                "sweep final mix.cutmix=0.2..0.8 valid=5000 --jobs 2",
                "sweep sprint data=digits valid=0.2 opt=sgd,muon bs=64,128",
                "sweep final --resume", "sweep final --resume --final",
                "sweep final --resume --storage postgresql://me@host/db")

    @staticmethod
    def add_arguments(parser):
        parser.add_argument("name", metavar="NAME", help="a recipe's name, or a path to a recipe file ending in .py")
        add_changes(parser, "what is searched: a range (lr=0.01..0.1:log, epochs=10..30, fit.pct_start=0.1..0.4:"
                            "step=0.1) or a list (opt=sgd,adamw); and settings that hold for all, as `recipe` takes "
                            "them. valid= is needed where the data has no valid/ of its own. name=NAME is where it is "
                            "kept, exports/sweeps/NAME")
        parser.add_argument("--trials", type=int, metavar="N",
                            help="how many (default 20; where only lists are given, all combinations)")
        parser.add_argument("--jobs", type=int, default=1, metavar="N",
                            help="processes, which share the cores (default %(default)s)")
        parser.add_argument("--sampler", choices=("tpe", "random", "cmaes", "grid"),
                            help="default tpe; grid where only lists are given")
        parser.add_argument("--pruner", choices=("median", "hyperband", "halving", "none"),
                            help="which trials end early: their accuracy is compared with that of others after "
                                 "as many epochs, or, where epochs is searched, after the same percentage of their "
                                 "epochs (default median; none where the schedule's shape is searched: fit, sched, "
                                 "their arguments, until, fade)")
        parser.add_argument("--storage", metavar="URL",
                            help="postgresql://USER@HOST/DATABASE: the same command on other machines joins in; "
                                 "default a SQLite file in the sweep's folder")
        parser.add_argument("--resume", action="store_true",
                            help="continue a sweep that was stopped; its ranges and settings need not be repeated")
        parser.add_argument("--final", action="store_true",
                            help="then train the best one on all of train, as exports/NAME-best, and test it once")
        parser.add_argument("--grace", type=float, default=300, metavar="S",
                            help="seconds without a heartbeat after which a worker of another machine counts as dead; "
                                 "too small a value gives the trials of live workers to others (default %(default)g)")

    @staticmethod
    def run(args):
        for option, least in (("trials", 1), ("jobs", 1), ("grace", 5)):
            value = getattr(args, option)
            if value is not None and not least <= value < 1e6:
                raise UsageError(f"--{option} {value:g}: expected a number of at least {least}")
        from cifar_fast.recipe import recipe_path

        recipe_path(args.name)
        check_changes(args.changes)
        from cifar_fast.sweep.storage import require_optuna

        require_optuna()  # before seconds of other imports
        from cifar_fast.sweep.run import Options, search

        search(args.name, args.changes, Options(args.trials, args.jobs, args.sampler, args.pruner, args.storage,
                                                args.grace, args.resume, args.final))
