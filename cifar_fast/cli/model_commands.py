"""Commands about models and their files: audit, export, trust."""

from __future__ import annotations

import json
import os
import sys
import textwrap

from cifar_fast.cli.command import Command, UsageError, add_model_file, run_path
from cifar_fast.utils.files import expand_path


class Audit(Command):
    name = "audit"
    help = "check architectures against the budget"
    examples = ("audit", "audit cifar_final", "audit resnet18 --strict", "audit cifar_mirror --size 96",
                "audit my_model --recipe mine.py")

    @staticmethod
    def add_arguments(parser):
        parser.add_argument("arch", nargs="*", metavar="ARCH",
                            help="names in timm's registry; default all of this project's")
        parser.add_argument("--size", type=int, default=32, help="side of the images, pixels (default %(default)s)")
        parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
        parser.add_argument("--strict", action="store_true",
                            help="exit with 1 when a rule is broken, or calculated and measured receptive field differ")
        add_model_file(parser)

    @staticmethod
    def run(args):
        import timm

        from cifar_fast.audit import LEGEND, audit, audit_table, layer_table
        from cifar_fast.models import create_model, published_claims

        names = args.arch or timm.list_models("cifar_*")
        if args.size < 1:
            raise UsageError(f"--size {args.size}: at least 1 pixel")
        audits = {n: audit(create_model(n, 10, args.size), input_size=(3, args.size, args.size)) for n in names}
        if args.json:
            print(json.dumps({n: {**a.as_dict(), "stated": published_claims(n)} for n, a in audits.items()}, indent=1))
        else:
            print(audit_table(list(audits.values())))
            print(f"\n{textwrap.fill(LEGEND, 100, break_on_hyphens=False)}")
            stated = [(n, published_claims(n)) for n in names if published_claims(n)]
            if stated:
                print("\nwhat the published systems state, and what was measured here:")
                for n, s in stated:
                    p = audits[n].profile
                    print(f"  {n:<20} parameters {s['parameters']:>9,} stated, {p.params:>9,} measured;  receptive "
                          f"field {s['receptive_field']:>3} stated, {p.receptive_field:>3} measured")
            if len(names) == 1:
                for verdict in audits[names[0]].verdicts:
                    print(f"{'ok    ' if verdict.ok else 'BROKEN'}  {verdict}")
                print(f"\n{layer_table(audits[names[0]])}")
        return 1 if args.strict and any(a.failures() or not a.rf_agrees for a in audits.values()) else 0


class Export(Command):
    name = "export"
    help = "make files of a run for other programs: browsers, phones, microcontrollers"
    examples = ("export final --to onnx,onnx-int8", "export final --to all",
                "export final --to litert,micro", "export final --to html --runtime ort-web.tgz")

    @staticmethod
    def add_arguments(parser):
        parser.add_argument("name", metavar="RUN", help="exports/NAME, or NAME alone")
        parser.add_argument("--to", default="pickle", metavar="TARGET[,TARGET…]",
                            help="onnx, onnx-int8, html, litert, micro, torch, pickle; all: those that can be made "
                                 "here (default: %(default)s, learner.pkl)")
        parser.add_argument("--runtime", metavar="PATH",
                            help="for html: the npm package onnxruntime-web, its .tgz or folder (default: "
                                 "CIFAR_FAST_ORT_WEB, else npm brings it once into the cache)")
        add_model_file(parser)

    @staticmethod
    def run(args):
        from cifar_fast.export.card_file import read_card
        from cifar_fast.export.files import run_folder
        from cifar_fast.export.summary import exported_table
        from cifar_fast.export.targets import require_known

        folder, names = run_folder(run_path(args.name)), [name.strip() for name in args.to.split(",")]
        read_card(folder)  # this and a wrong target are refused before seconds of imports
        require_known([name for name in names if name != "all"])
        from cifar_fast.export.convert import Conversion, chosen
        from cifar_fast.export.predictor import load_export
        from cifar_fast.reporting.report import renew_model_card
        from cifar_fast.utils.errors import CifarFastError

        if args.runtime:
            os.environ["CIFAR_FAST_ORT_WEB"] = args.runtime
        load_export(folder)  # refused before anything else is said
        source = images_at_hand(read_card(folder))
        targets, left_out = chosen(names, folder, source)
        job, made, failed = Conversion.of(folder, source, targets), {}, 0
        for target in targets:
            try:
                made |= (rows := job.make(target))
                for name, row in rows.items():
                    print(f"made {folder / name}{row.note and f' ({row.note})'}", flush=True)
            except CifarFastError as e:
                if len(targets) == 1:
                    raise
                failed += 1
                print(f"cifar_fast: {target.name}: {e}", file=sys.stderr)
        renew_model_card(folder)
        if made:
            print("\n".join(["", *exported_table(made)]))
        for reason in left_out:
            print(f"left out: {reason}")
        return 1 if failed else 0


def images_at_hand(card):
    "What the run was trained on; None, and a line that says why, where it is not there or not the same."
    from cifar_fast.reporting.report.build import same_source
    from cifar_fast.utils.errors import CifarFastError

    try:
        return same_source(card)
    except (CifarFastError, OSError) as e:
        print(f"cifar_fast: compared on noise, as the images of the run are not at hand: {e}", file=sys.stderr)
        return None


class Trust(Command):
    name = "trust"
    help = "let predict, serve and evaluate open a .pkl: opening one runs its code"
    examples = ("trust from-a-friend.pkl",)

    @staticmethod
    def add_arguments(parser):
        parser.add_argument("file", metavar="FILE",
                            help="the .pkl, from somebody you know; its SHA-256 is added to your list")

    @staticmethod
    def run(args):
        from cifar_fast.export.trust import trust, trust_list
        from cifar_fast.utils.text import printable

        path = expand_path(args.file)
        if not os.path.isfile(path):
            raise UsageError(f"{printable(path)}: no such file; name the .pkl to trust")
        if path.suffix != ".pkl":
            raise UsageError(f"{printable(path)} is no .pkl: only those run code when they are opened, so only those "
                             f"need your trust; open the run's folder instead")
        print(f"{trust(path)}  {printable(path)}\nadded to {trust_list()}: predict, serve and evaluate open this file "
              f"as long as its content is the same")
