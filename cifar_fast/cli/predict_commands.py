"""Commands that use a trained model: predict, serve, evaluate, calibrate."""

from __future__ import annotations

import json
import os
import shlex
import sys

from cifar_fast.cli.command import (
    Command,
    UsageError,
    add_changes,
    add_confidence,
    add_model_arguments,
    add_model_file,
    run_path,
    with_confidence,
)
from cifar_fast.utils.files import expand_path
from cifar_fast.utils.log import quiet


class Predict(Command):
    name = "predict"
    help = "classify images"
    examples = ("predict exports/final cat.png", "predict exports/final images/ --topk 3 --csv out.csv",
                "predict exports/final '*.jpg' --tta --json", "predict exports/final images/ --threshold 0.8",
                "predict exports/final images/ --out predictions.parquet",
                "predict exports/final s3://b/x --out a.csv --engine ray")

    @staticmethod
    def add_arguments(parser):
        add_model_arguments(parser)
        parser.add_argument("paths", nargs="+", metavar="PATH",
                            help="images, folders, globs, or a .txt with one path per line")
        add_confidence(parser)
        parser.add_argument("--topk", type=int, default=3, help="classes to give for each image (default 3)")
        parser.add_argument("--tta", action="store_true", help="mean probability of the image and its mirror image")
        parser.add_argument("--csv", metavar="FILE", help="save file, prediction and every probability here")
        parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
        many = parser.add_argument_group("any number of images", "If interrupted, repeat the command to resume.")
        many.add_argument("--out", metavar="FILE", help="a .parquet or .csv with file, label, probability, further "
                                                        "classes, error; prints nothing of each image")
        many.add_argument("--all", action="store_true", help="with --out: the probability of every class, not --topk")
        many.add_argument("--procs", type=int, metavar="N",
                          help="processes, or CPUs of Ray (default: one for each core, at most 4 for each GPU; with "
                               "--address all CPUs of the cluster). More pay where images are read over a network")
        many.add_argument("--shard", type=int, metavar="N", help="images in a shard: each shard is saved as a "
                                                                 "whole, and an interrupted one is done again "
                                                                 "(default 1000)")
        many.add_argument("--restart", action="store_true", help="discard what is there and begin anew")
        many.add_argument("--engine", choices=("processes", "ray"), default="processes",
                          help="ray: over a cluster, whose nodes all have this package and see the same images")
        many.add_argument("--address", metavar="A", help="of a Ray cluster, auto or ray://HOST:10001 (default: this "
                                                         "machine)")

    @staticmethod
    def run(args):
        if args.out:
            from cifar_fast.cli.bulk import predict_to_file

            return predict_to_file(args)
        for name in ("all", "procs", "shard", "restart", "address"):
            if getattr(args, name):
                raise UsageError(f"--{name} belongs to --out FILE.parquet")
        if args.engine == "ray":
            raise UsageError("--engine ray writes a table: --out FILE.parquet")
        from cifar_fast.utils.text import encodable, printable

        if uri := next((path for path in args.paths if "://" in path), None):
            raise UsageError(f"{printable(uri)} is a URI, which is read with --out FILE.parquet (or .csv)")
        from cifar_fast.export.find_images import find_images
        from cifar_fast.export.load import load_model
        from cifar_fast.export.predict_files import predict_files

        if args.topk < 1:
            raise UsageError(f"--topk {args.topk}: at least 1")
        if args.csv and expand_path(args.csv).is_dir():  # before the work, not after it
            raise UsageError(f"--csv {args.csv} is a folder; name a file in it")
        model = with_confidence(load_model(args.export, args.device, args.trust_pickle), args)
        origins = {}
        paths, missing, unreadable = find_images(args.paths, origins)
        for error in [*unreadable, *(f"{printable(pattern)}: no image there" for pattern in missing)]:
            print(f"cifar_fast: {error}", file=sys.stderr)
        vocab, rows, failed = model.vocab, [], len(unreadable)
        top = min(args.topk, len(vocab))
        for path, probs, error in predict_files(model, paths, args.tta, progress=sys.stderr.isatty() and not quiet()):
            if error:
                failed += 1
                print(f"cifar_fast: {f'{origins[path]}: ' if path in origins else ''}{error}", file=sys.stderr)
                continue
            best = probs.argsort()[::-1][:top]
            label = model.label(probs)
            rows.append({"file": encodable(path), "prediction": label, "probs": [float(p) for p in probs]})
            if not args.json:
                likely = "  ".join(f"{vocab[i]} {probs[i]:.1%}" for i in best)
                print(f"{printable(path)}  " + (likely if probs.max() >= model.threshold else f"{label}  ({likely})"))
        if args.json:
            print(as_json(rows, vocab, top))
        if args.csv:
            write_csv(args.csv, vocab, rows)
        if failed or missing:
            print(f"cifar_fast: {len(rows)} predicted, {failed} unreadable, {len(missing)} not found", file=sys.stderr)
        return 1 if failed or missing else 0


def as_json(rows: list[dict], vocab: list[str], top: int) -> str:
    ranked = [sorted(zip(vocab, r["probs"], strict=True), key=lambda kv: -kv[1])[:top] for r in rows]
    return json.dumps([{"file": r["file"], "prediction": r["prediction"], "probabilities": dict(best)}
                       for r, best in zip(rows, ranked, strict=True)], indent=1, ensure_ascii=False)


def write_csv(path: str, vocab: list[str], rows: list[dict]) -> None:
    import pandas as pd

    from cifar_fast.utils.csv import csv_text
    from cifar_fast.utils.files import write_text

    frame = pd.DataFrame([[r["file"], r["prediction"], *r["probs"]] for r in rows],
                         columns=["file", "prediction", *vocab])
    write_text(expand_path(path), csv_text(frame))


class Serve(Command):
    name = "serve"
    help = "a page in the browser: classify images, browse the runs, review labels"
    examples = ("serve exports/final", "serve exports/final --port 0 --open")

    @staticmethod
    def add_arguments(parser):
        add_model_arguments(parser)
        add_confidence(parser)
        parser.add_argument("--port", type=int, default=8000, help="default %(default)s; 0 takes a free one")
        parser.add_argument("--host", default="127.0.0.1", help="default %(default)s: only this machine can reach it")
        parser.add_argument("--open", action="store_true", help="open it in the browser")

    @staticmethod
    def run(args):
        from cifar_fast.serve.server import listen, run

        with listen(args.host, args.port) as sock:
            from cifar_fast.export.files import run_folder
            from cifar_fast.export.load import load_model

            model = with_confidence(load_model(args.export, args.device, args.trust_pickle), args)
            folder = run_folder(args.export).absolute()  # "." has a parent too
            name = folder.resolve().name.removesuffix(".pkl")
            run(model, name, folder.parent, sock, args.host, args.verbose, args.open)


class Evaluate(Command):
    name = "evaluate"
    help = "accuracy and confusion matrix on the test set, or on images of your own"
    examples = ("evaluate exports/final", "evaluate exports/final data=my/images",
                "evaluate exports/final data=labels.csv --csv out.csv",
                "evaluate exports/final --corruptions --images 2000")

    @staticmethod
    def add_arguments(parser):
        add_model_arguments(parser)
        add_changes(parser, "data=NAME (`recipes` lists them), data=FOLDER or data=TABLE: all of its images are "
                            "measured, classes are found by name; data.file=, data.label= and data.split= name the "
                            "columns of a table", metavar="data=…")
        parser.add_argument("--csv", metavar="FILE", help="save file, label, prediction and every probability here")
        add_confidence(parser, threshold=False)
        parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
        parser.add_argument("--corruptions", action="store_true",
                            help="instead: accuracy on the images as noise, blur, weather and JPEG spoil them, fifteen "
                                 "corruptions at five severities, and JPEG qualities 90 to 10")
        parser.add_argument("--images", type=int, metavar="N", help="with --corruptions: only N of the images, of each "
                                                                    "class the same fraction (default: all)")
        parser.add_argument("--seed", type=int, default=0, metavar="N", help="with --corruptions: of the random draws "
                                                                             "(default: %(default)s)")

    @staticmethod
    def run(args):
        from cifar_fast.cli.corrupted import evaluate_corruptions
        from cifar_fast.data.balance import balanced_accuracy, unequal
        from cifar_fast.export.calibration import confidence_scores, confidence_text
        from cifar_fast.export.evaluate import evaluate, is_named
        from cifar_fast.export.files import run_folder
        from cifar_fast.export.load import load_model
        from cifar_fast.export.metrics import scores, scores_text
        from cifar_fast.export.trained import read_trained
        from cifar_fast.utils.cores import BESIDE, CORES
        from cifar_fast.utils.statistics import interval_text

        data, columns = named_data(args.changes)
        threads = CORES if is_named(data) else BESIDE  # a dataset by name is decoded already
        model = with_confidence(load_model(args.export, args.device, args.trust_pickle, threads), args)
        if not data and not (model.card and model.card.recipe.get("data")):
            raise UsageError(f"{args.export} does not say what it was trained on; name the images: data=cifar10, "
                             f"data=digits, data=FOLDER or data=TABLE")
        if args.corruptions:
            evaluate_corruptions(args, model, data, columns)
            return
        if args.images is not None:
            raise UsageError("--images goes with --corruptions; all images are evaluated as they are")
        if args.seed:
            raise UsageError(f"--seed {args.seed} goes with --corruptions; without them nothing is drawn")
        measured = evaluate(model, data, columns, read_trained(run_folder(args.export)))
        probs, labels = measured.probabilities, measured.labels
        result = scores(probs, labels, model.vocab)
        result["balanced_accuracy"] = balanced_accuracy(result["per_class"])
        result |= confidence_scores(probs, probs.argmax(1) == labels, model.temperature, labels)
        if model.tta_applies:
            result["accuracy_tta"] = float((measured.mirrored.argmax(1) == labels).mean())
        result["data"] = {"name": measured.name, "fingerprint": measured.fingerprint}
        result |= {"splits": by_split(measured), "unknown": dict(measured.unknown), "missing": list(measured.missing)}
        result["trained_on"] = seen_before(measured)
        if args.csv:
            save_predictions(args.csv, measured, model.vocab)
        if args.json:
            print(json.dumps({**result, "notes": list(measured.notes)}, indent=1, ensure_ascii=False))
            return
        print(f"{scores_text(result, model.vocab)}\n\n{confidence_text(result)}\n")
        print("".join(f"{line}\n" for line in evaluated_lines(result, measured.notes)), end="")
        if model.card and model.card.selected_on_test and not args.changes:
            print("this model's epoch was selected on these very images, as its authors did")
        interval = interval_text(result["accuracy"], result["n"])
        balanced = f", balanced accuracy {result['balanced_accuracy']:.2%}" if unequal(map(sum, result["confusion"])) \
            else ""  # it is the accuracy
        tta = f", TTA (image and mirror image) {result['accuracy_tta']:.2%}" if "accuracy_tta" in result else ""
        print(f"accuracy {result['accuracy']:.2%}{balanced}{tta}" + (f"  ({interval})" if interval else ""))


def named_data(changes: list[str]) -> tuple[str | None, dict[str, str]]:
    "data= and the columns of a table, from what was typed."
    data, columns = None, {}
    for change in changes:
        key, sep, value = change.partition("=")
        if key == "data" and sep and value:
            data = value
        elif key.startswith("data.") and sep and value:
            columns[key.removeprefix("data.")] = value
        else:
            raise UsageError(f"{change!r}: name images with data=NAME (a dataset that recipes lists), data=FOLDER or "
                             "data=TABLE, of which data.file=, data.label= and data.split= name the columns")
    if columns and (data is None or os.path.isdir(expand_path(data))):
        key = next(iter(columns))
        raise UsageError(f"data.{key}={columns[key]} names a column of a label table, and there is none: name it with "
                         "data=TABLE, or leave this out")
    return data, columns


def by_split(measured) -> dict[str, dict]:
    "n and accuracy of each split, where there are several."
    if measured.splits is None:
        return {}
    right = measured.probabilities.argmax(1) == measured.labels
    return {split: {"n": int(here.sum()), "accuracy": float(right[here].mean())}
            for split in dict.fromkeys(measured.splits.tolist()) if (here := measured.splits == split).any()}


def seen_before(measured) -> dict | None:
    "How many of the images the run was trained on, and n and accuracy of the others; None where nobody knows."
    if measured.trained is None:
        return None
    right, new = measured.probabilities.argmax(1) == measured.labels, ~measured.trained
    return {"images": int((~new).sum()), "others": int(new.sum()),
            "accuracy_of_others": float(right[new].mean()) if new.any() else None}


def evaluated_lines(result: dict, notes) -> list[str]:
    "What a reader should know of the images that were measured."
    from cifar_fast.data.layout import names
    from cifar_fast.utils.statistics import interval_text

    lines = [f"{split}: {of['accuracy']:.2%}  ({interval_text(of['accuracy'], of['n']) or 'n = ' + str(of['n'])})"
             for split, of in result["splits"].items()]
    if (seen := result["trained_on"]) and seen["images"]:
        of_others = "and on no other image" if not seen["others"] else (
            f"without them: {seen['accuracy_of_others']:.2%}  "
            f"({interval_text(seen['accuracy_of_others'], seen['others']) or 'n = ' + str(seen['others'])})")
        lines.append(f"{seen['images']:,} of these images were trained on, equal in every pixel; {of_others}")
    if result["missing"]:
        lines.append(f"no images of {names(result['missing'])}")
    return [*lines, *notes]


def save_predictions(path: str, measured, vocab: list[str]) -> None:
    "A row an image: file, label, prediction, its split where there are several, and every probability."
    import pandas as pd

    from cifar_fast.utils.csv import csv_text
    from cifar_fast.utils.files import write_text

    frame = pd.DataFrame({"file": measured.files or range(len(measured.labels)),
                          "label": [vocab[i] for i in measured.labels],
                          "prediction": [vocab[i] for i in measured.probabilities.argmax(1)]})
    if measured.splits is not None:
        frame["split"] = measured.splits
    probs = pd.DataFrame(measured.probabilities, columns=vocab)
    write_text(expand_path(path), csv_text(pd.concat([frame, probs], axis=1)))


class Calibrate(Command):
    name = "calibrate"
    help = "fit a temperature, so that a model's confidence says how often it is right"
    examples = ("calibrate exports/final", "calibrate exports/final data=my/images", "calibrate exports/final --undo")

    @staticmethod
    def add_arguments(parser):
        parser.add_argument("name", metavar="RUN", help="exports/NAME, or NAME alone")
        add_changes(parser, "labelled images that the run was not trained on: a folder or a table, as evaluate takes "
                            "them (default: the images that it held out)", metavar="data=…")
        parser.add_argument("--undo", action="store_true", help="take the temperature out of the run again")
        add_model_file(parser)

    @staticmethod
    def run(args):
        from cifar_fast.export.calibrate import calibrate, undo
        from cifar_fast.export.card_file import read_card
        from cifar_fast.export.files import run_folder
        from cifar_fast.reporting.report.build import renew_model_card, same_source

        folder = run_folder(run_path(args.name))
        if args.undo and args.changes:
            raise UsageError(f"--undo takes the temperature out and needs no images; leave out "
                             f"{' '.join(args.changes)}")
        if args.undo:
            undo(folder)
            renew_model_card(folder)
            print(f"{folder}: its probabilities are those without a temperature")
            return
        data, columns = named_data(args.changes)
        card = calibrate(folder, None if data else same_source(read_card(folder)), data, columns)
        renew_model_card(folder)
        print(f"{card.calibration}\nkept in {folder}: predict, serve and evaluate use it (--temperature 1: not this "
              f"once; calibrate {shlex.quote(args.name)} --undo: no more)\n"
              f"next: python -m cifar_fast report {shlex.quote(args.name)} redraws its report")
