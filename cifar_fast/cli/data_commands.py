"""Commands about data: duplicates."""

from __future__ import annotations

import json
from dataclasses import replace

from cifar_fast.cli.command import Command, UsageError, add_model_file, run_path
from cifar_fast.utils.files import expand_path


class Duplicates(Command):
    name = "duplicates"
    help = "test images with near-duplicates in train; accuracy without them"
    examples = ("duplicates final", "duplicates data=my/images", "duplicates final sprint --csv pairs.csv",
                "duplicates final sprint --list exports/duplicates.csv")

    @staticmethod
    def add_arguments(parser):
        parser.add_argument("runs", nargs="*", metavar="RUN | data=…",
                            help="exports/NAME, or NAME alone: the dataset of the first run is searched, by pixels and "
                                 "by that network's features; of every run the accuracy with and without the "
                                 "duplicates is printed and saved in its card. Or data=, a dataset by name, a folder "
                                 "or a table (data.file=, data.label=, data.split= name its columns), searched by "
                                 "pixels alone")
        parser.add_argument("--list", metavar="FILE", help="a list that was made before: nothing is searched")
        parser.add_argument("--csv", metavar="FILE", help="where the list is saved (default: duplicates.csv in the "
                                                          "folder of the first run; with data= it is printed only)")
        parser.add_argument("--json", action="store_true", help="print JSON instead of text")
        add_model_file(parser)

    @staticmethod
    def run(args):
        from cifar_fast.cli.predict_commands import named_data
        from cifar_fast.export.card_file import read_card
        from cifar_fast.export.duplicates import listing
        from cifar_fast.export.files import run_folder

        settings = [word for word in args.runs if word.startswith(("data=", "data."))]
        data, columns = named_data(settings)
        folders = [run_folder(run_path(word)) for word in args.runs if word not in settings]
        if bool(data) == bool(folders):
            raise UsageError("name runs, or images with data=NAME, data=FOLDER or data=TABLE")
        if args.list and (data or args.csv):
            raise UsageError("--list goes with runs alone: their accuracy with and without the images of that list")
        cards = [read_card(folder) for folder in folders]
        rows = listing.read(expand_path(args.list)) if args.list else \
            search(folders, cards, data, columns, args.csv and expand_path(args.csv), args.json)
        scores = {str(folder): score(folder, rows) for folder in folders}
        if args.json:
            print(json.dumps({"duplicates": json.loads(rows.to_json(orient="records")),
                              "runs": {name: vars(found) for name, found in scores.items()}},
                             indent=1, ensure_ascii=False))
            return
        for name, found in scores.items():
            print(f"{name}: {found}")


def search(folders, cards, data: str | None, columns: dict[str, str], csv, quiet: bool):
    "The list of a dataset, saved and drawn where there is a place for it."
    from cifar_fast.data.errors import DataError
    from cifar_fast.data.sources import load_source
    from cifar_fast.export.duplicates import listing
    from cifar_fast.export.duplicates.features import features
    from cifar_fast.export.duplicates.find import find
    from cifar_fast.export.predictor import load_export
    from cifar_fast.reporting import plots
    from cifar_fast.reporting.report.build import same_source
    from cifar_fast.reporting.report.copies import figure_of_pairs

    if csv and not csv.exists() and (figure := csv.with_suffix(".png")).exists():
        raise UsageError(f"--csv {csv}: the figure of the pairs would replace {figure}; name another file")
    source = load_source(data, columns=columns or None, seed=42) if data else same_source(cards[0])
    test = source.test or source.valid
    if test is None:
        raise DataError(f"{source.name} has no test set whose images could be in train too")
    model = load_export(folders[0]) if folders else None
    seen = model and tuple(features(model, part.images, name) for name, part in (("train", source.train),
                                                                                ("test", test)))
    found = find(source.train.images, test.images, seen)
    rows = listing.listing(found.pairs, source.train, test, source.vocab)
    path = csv or (folders[0] / "duplicates.csv" if folders else None)
    if path:
        listing.save(rows, path)
        if fig := figure_of_pairs(found, source.train.images, test.images):
            plots.save(fig, path.with_suffix(".png"))
    if not quiet:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in rows["kind"].value_counts().items())
        print(f"{source.name}: {len(rows):,} of {len(test):,} test images are (nearly) in train too"
              + (f" ({kinds})" if kinds else ""))
        print(f"saved: {path}" + (f", {path.with_suffix('.png').name}" if fig else "") if path else
              rows.head(20).to_string(index=False) + ("\n… --csv FILE saves all of them" if len(rows) > 20 else ""))
    return rows


def score(folder, rows):
    "Accuracy with and without the listed images, kept in the run's card."
    from cifar_fast.export.card_file import read_card
    from cifar_fast.export.duplicates.listing import ListingError, with_and_without
    from cifar_fast.export.predictions import NAME, Predictions
    from cifar_fast.reporting.report import renew_model_card

    predicted = Predictions.load(folder / NAME)
    if predicted.on != "test":
        raise ListingError(f"{folder} was measured on images held out of train, and the list is of the test set; "
                           f"name runs with valid=0, or only data=")
    found = with_and_without(predicted, rows)
    replace(read_card(folder), duplicates=found).write(folder)
    renew_model_card(folder)
    return found
