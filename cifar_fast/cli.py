"""The command line: one small function a command. torch and fastai are imported inside them, never here."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import sys
import textwrap
import warnings
from pathlib import Path

from cifar_fast.bench import BENCHMARKS, DEFAULT
from cifar_fast.files import spelled
from cifar_fast.options import parse
from cifar_fast.verbosity import NORMAL, QUIET, VERBOSE, quiet, set_level, verbose


class Refused(Exception):
    "Input that a command will not work with; the message is for the user."


def main(argv: list[str] | None = None) -> int:
    "Run a command; returns the exit code."
    args = parse(argv, COMMANDS)
    if args is None:
        return 2
    set_level(QUIET if args.quiet else VERBOSE if args.verbose else NORMAL)
    quiet_warnings(args.verbose)
    try:
        return args.run(args) or 0
    except KeyboardInterrupt as e:
        print("\ninterrupted", file=sys.stderr)
        return 128 + getattr(e, "signum", 2)  # as a shell reports a signal: 130 is SIGINT, 143 SIGTERM
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # as a shell reports SIGPIPE
    except Exception as e:
        told = e if refusal(e) else in_words(e)
        if args.verbose or not told:
            raise
        print(f"cifar_fast: {words(told)}", file=sys.stderr)
        return 2


def in_words(e: Exception) -> Exception | None:
    "What an error of a library means, where a user can do something about it."
    if "torch" not in sys.modules:
        return None
    from cifar_fast.failures import explained

    return explained(e)


def words(e: Exception) -> str:
    "What an error says, with the next step where the system's own text knows none."
    if isinstance(e, OSError) and e.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) and e.filename:
        return f"{e.filename} cannot be written ({e.strerror}): make room, or choose another place"
    return str(e)


def refusal(e: Exception) -> bool:
    "Whether this is an error of the input, which has a message for the user, and not one of ours."
    ours = ("RecipeError", "DataError", "PictureError", "BudgetError", "ExportError", "Diverged", "ResultsError",
            "CheckpointError", "RunError", "PredictionsError", "CompareError", "ServeError",
            "Refused")
    if isinstance(e, OSError) or any(c.__name__ in ours for c in type(e).__mro__):
        return True
    last = e.__traceback__
    while last.tb_next:
        last = last.tb_next
    here = Path(last.tb_frame.f_code.co_filename).is_relative_to(Path(__file__).parent)
    return isinstance(e, ValueError) and here  # raised by us; one that a library raises is our mistake


def quiet_warnings(verbose: bool) -> None:
    "Show our own warnings as one plain line; leave out those of libraries, which a user cannot act on (-v shows them)."
    if verbose:
        return
    warnings.showwarning = lambda message, *_, **__: print(f"cifar_fast: {message}", file=sys.stderr)
    for package in ("fastai", "albumentations", "torch", "timm", "fasttransform", "plum", "sklearn", "PIL"):
        warnings.filterwarnings("ignore", module=rf"{package}(\.|$)")


# ---------------------------------------------------------------- commands


def recipes(args) -> int:
    from cifar_fast.recipe import list_recipes

    width = shutil.get_terminal_size((10_000, 24)).columns  # a pipe has none
    for name, line in list_recipes().items():
        print(textwrap.fill(f"{name:<14} {line}", width, subsequent_indent=" " * 15))
    print("\npython -m cifar_fast recipe NAME            trains one; --dry-run shows it first\n"
          "python -m cifar_fast copy NAME mine.py      makes it yours")
    return 0


def resolve(name: str, changes: list[str], whole: bool = True):
    "A recipe with changes, checked where they are all there; and whether lr=find was asked for."
    from cifar_fast.recipe import check, load_recipe, override

    finds = "lr=find" in changes
    changed = override(load_recipe(name), [c for c in changes if c != "lr=find"])
    if not whole:
        return changed, finds
    check(changed)
    if finds and getattr(getattr(changed.sched, "func", None), "sets_lr", False):
        raise Refused("lr=find has no effect with a schedule that sets the rate itself; use sched.max_lr=…")
    return changed, finds


def recipe(args) -> int:
    from cifar_fast.dryrun import dry_run
    from cifar_fast.recipe import describe
    from cifar_fast.runs import Interrupted, given_for
    from cifar_fast.train import train

    given = [args.name, *args.changes]
    if args.resume and (begun := given_for(resolve(args.name, args.changes, whole=False)[0])):
        # What was typed when the run began need not be typed again; what is typed now is held against it, and wins.
        given = [args.name, *reversed(dict.fromkeys(reversed([*begun[1:], *args.changes])))]
    resolved, finds = resolve(given[0], given[1:])
    if args.allow_changes and not args.resume:
        raise Refused("--allow-changes belongs to --resume")
    if args.dry_run:
        if finds or args.resume or args.restart:
            raise Refused("--dry-run trains nothing: it cannot find a rate (python -m cifar_fast lr_find does), nor "
                          "resume or restart")
        print(dry_run(resolved))
        return 0
    if verbose():
        print(json.dumps(describe(resolved), indent=1), file=sys.stderr)
    resume = True if args.resume else False if args.restart else None
    log = "quiet" if quiet() and args.log == "auto" else args.log
    try:
        train(resolved, finds, resume=resume, allow_changes=args.allow_changes, given=given, log=log)
    except Interrupted as e:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise
        print(f"cifar_fast: {e}", file=sys.stderr)
        try:
            answer = input("Continue it? [Y/n] ")
        except EOFError:  # Ctrl-D
            answer = "n"
        if answer.strip().lower() not in ("", "y", "yes"):
            return 2
        train(resolved, finds, resume=True, given=given, log=log)
    return 0


def copy(args) -> int:
    from cifar_fast.files import write_new
    from cifar_fast.recipe import recipe_path

    target, text = spelled(args.file), recipe_path(args.name).read_text("utf-8")
    if target.suffix != ".py":
        raise Refused(f"{args.file}: a recipe is a Python file; give it a name ending in .py")
    try:
        write_new(target, text)
    except FileExistsError:
        raise Refused(f"{target} is there already and was left alone; choose another name") from None
    print(f"{target}: edit it, then python -m cifar_fast recipe {target}")
    return 0


def audit(args) -> int:
    import timm

    from cifar_fast.archs import create_arch, published
    from cifar_fast.constraints import audit as audit_model
    from cifar_fast.constraints import audit_table, layer_table
    
    names = args.arch or timm.list_models("cifar_*")
    found = {n: audit_model(create_arch(n, 10)) for n in names}
    if args.json:
        print(json.dumps({n: {**a.as_dict(), "stated": published(n)} for n, a in found.items()}, indent=1))
    else:
        print(audit_table(list(found.values())))
        stated = [(n, published(n)) for n in names if published(n)]
        if stated:
            print("\nwhat the published systems state, and what is true:")
            for n, s in stated:
                print(f"  {n:<20} parameters {s['parameters']:>9,} stated, {found[n].profile.params:>9,} true;  "
                      f"receptive field {s['receptive_field']:>3} stated, {found[n].profile.receptive_field:>3} true")
        if len(names) == 1:
            for verdict in found[names[0]].verdicts:
                print(f"{'ok    ' if verdict.ok else 'BROKEN'}  {verdict}")
            print(f"\n{layer_table(found[names[0]])}")
    return 1 if args.strict and any(a.failures() or not a.rf_agrees for a in found.values()) else 0


def lr_find(args) -> int:
    from cifar_fast import plots
    from cifar_fast.files import write_text
    from cifar_fast.lrfind import find
    from cifar_fast.train import prepare

    resolved, _ = resolve(args.name, args.changes)
    found = find(prepare(resolved), args.start, args.end, args.steps)
    folder = spelled(resolved.exports) / resolved.name
    plots.save(plots.lr_find(found), folder / "lr_find.png")
    write_text(folder / "lr_find.json", json.dumps(found, indent=1) + "\n")
    for name, at in found["suggestions"].items():
        print(f"{name:<8} {at['lr']:.3g}")
    print(f"left: {folder / 'lr_find.png'}, lr_find.json\n"
          f"next: python -m cifar_fast recipe "
          f"{' '.join([args.name, *args.changes])} lr={found['suggestions']['valley']['lr']:.2g}  (or lr=find)")
    return 0


def in_exports(name: str) -> str:
    "A run's path: a name alone is one in exports/."
    return name if os.sep in name or "/" in name else f"exports/{name}"


def export(args) -> int:
    from cifar_fast.inference import rebuild_pickle
    from cifar_fast.trust import trust

    made = rebuild_pickle(in_exports(args.name))
    trust(made)
    print(f"made {made}")
    return 0


def trust_file(args) -> int:
    from cifar_fast.data.errors import printable
    from cifar_fast.trust import trust, trust_list

    path = spelled(args.file)
    if not os.path.isfile(path):
        raise Refused(f"no file {printable(path)}")
    print(f"{trust(path)}  {printable(path)}\nnow in {trust_list()}: predict, serve and evaluate open this very "
          f"content when it is named")
    return 0


def predict(args) -> int:
    from cifar_fast.data.errors import encodable, printable
    from cifar_fast.device import choose_device
    from cifar_fast.inference import find_pictures, load_model, predict_files

    if args.topk < 1:
        raise Refused(f"--topk {args.topk}: at least 1")
    exported = load_model(args.export, choose_device(), args.trust_pickle)
    paths, missing, closed = find_pictures(args.paths)
    vocab, rows, bad = exported.vocab, [], len(closed)
    for told in [*closed, *(f"{printable(pattern)}: no picture there" for pattern in missing)]:
        print(f"cifar_fast: {told}", file=sys.stderr)
    top = min(args.topk, len(vocab))
    for path, probs, reason in predict_files(exported, paths, args.tta, progress=sys.stderr.isatty() and not quiet()):
        if reason:
            bad += 1
            print(f"cifar_fast: {reason}", file=sys.stderr)
            continue
        best = probs.argsort()[::-1][:top]
        rows.append({"file": encodable(path), "prediction": vocab[best[0]], "probs": [float(p) for p in probs]})
        if not args.json:
            print(f"{printable(path)}  " + "  ".join(f"{vocab[i]} {probs[i]:.1%}" for i in best))
    if args.json:
        for r in rows:
            ranked = sorted(zip(vocab, r["probs"], strict=True), key=lambda kv: -kv[1])
            r["probabilities"] = dict(ranked[:top])
        shown = [{k: r[k] for k in ("file", "prediction", "probabilities")} for r in rows]
        print(json.dumps(shown, indent=1, ensure_ascii=False))
    if args.csv:
        write_csv(args.csv, vocab, rows)
    if bad or missing:
        print(f"cifar_fast: {len(rows)} predicted, {bad} unreadable, {len(missing)} not found", file=sys.stderr)
    return 1 if bad or missing else 0


def write_csv(path: str, vocab: list[str], rows: list[dict]) -> None:
    import pandas as pd

    from cifar_fast.files import write_text

    frame = pd.DataFrame([[r["file"], r["prediction"], *r["probs"]] for r in rows],
                         columns=["file", "prediction", *vocab])
    write_text(spelled(path), frame.to_csv(index=False))


def serve(args) -> int:
    from cifar_fast.serve.server import listen, run

    with listen(args.host, args.port) as sock:
        from cifar_fast.device import choose_device
        from cifar_fast.inference import load_model

        exported = load_model(args.export, choose_device(), args.trust_pickle)
        path = spelled(args.export)
        name = path.stem if path.suffix in (".pkl", ".json", ".safetensors") else path.name
        run(exported, name, path.parent, sock, args.host, args.verbose, args.open)
    return 0


def evaluate(args) -> int:
    from cifar_fast.data.errors import printable
    from cifar_fast.data.sources import load_source
    from cifar_fast.device import choose_device
    from cifar_fast.evaluation import scores, scores_text
    from cifar_fast.inference import load_model

    exported = load_model(args.export, choose_device(), args.trust_pickle)
    unknown = [c for c in args.changes if not c.startswith("data=")]
    if unknown:
        raise Refused(f"{unknown[0]!r}: evaluate takes data=cifar10, data=digits or data=FOLDER")
    begun = exported.card.get("recipe")
    begun = begun if isinstance(begun, dict) else {}
    data, seed = begun.get("data"), begun.get("seed", 42)
    if args.changes:
        data = args.changes[-1].removeprefix("data=")
    if not isinstance(data, str) or not isinstance(seed, int):
        raise Refused(f"{args.export} does not say what it was trained on; name the pictures: data=cifar10, "
                      f"data=digits or data=FOLDER")
    source = load_source(data, seed=seed)
    if list(source.vocab) != exported.vocab:
        raise Refused(f"data={printable(data)} has the classes {', '.join(source.vocab)}; {args.export} was trained on "
                      f"{', '.join(exported.vocab)}")
    if source.test is None:
        raise Refused(f"data={printable(data)} has no test/ or valid/ folder to evaluate on")
    result = scores(exported.predict(source.test.images), source.test.labels, source.vocab)
    mirrored = exported.predict(source.test.images, tta=True)
    result["accuracy_tta"] = float((mirrored.argmax(1) == source.test.labels).mean())
    result["data"] = {"name": source.name, "fingerprint": source.fingerprint}
    if args.json:
        print(json.dumps(result, indent=1))
    else:
        print(scores_text(result, source.vocab))
        if str(exported.card.get("protocol", "")).startswith("selected on test") and not args.changes:
            print("this net's epoch was selected on these very pictures, as its authors did")
        print(f"accuracy {result['accuracy']:.2%}, TTA (image and mirror) {result['accuracy_tta']:.2%}")
    return 0


def results(args) -> int:
    from cifar_fast import results
    from cifar_fast.files import write_text

    path = spelled(args.file)
    if args.curves:
        for made in results.redraw(path.parent):
            print(f"drew {made}")
        return 0
    rows, facts = results.read(path), results.facts()
    lines = results.summarize(rows, {name: fact["recipe_id"] for name, fact in facts.items()})
    if args.readme:
        readme = spelled(args.readme)
        text = readme.read_text("utf-8")
        write_text(readme, results.replace_block(text, results.markdown(lines, facts), str(readme)))
        print(f"{readme}: the table of {len(facts)} recipes stands between its markers")
    elif args.json:
        print(lines.to_json(orient="records", indent=1, force_ascii=False))
    else:
        print(lines.to_csv(index=False).rstrip() if args.csv else results.terminal(lines))
    return 0


def report(args) -> int:
    from cifar_fast.modelfiles import read_card
    from cifar_fast.report import rebuild
    from cifar_fast.train import draw_fed

    stem = spelled(in_exports(args.name))
    begun = unchanged(read_card(stem))
    if begun and not (stem / "augmented.png").is_file():
        draw_fed(begun, stem / "augmented.png")
    made, missing = rebuild(stem)
    for reason in missing:
        print(f"cifar_fast: left out: {reason}", file=sys.stderr)
    print(f"made {', '.join(path.name for path in made)} in {stem}/\nopen {stem / 'report.html'}")
    return 0


def pictures(args) -> int:
    from cifar_fast import compare
    from cifar_fast.modelfiles import ExportError
    from cifar_fast.predictions import PredictionsError
    from cifar_fast.report import redraw

    exports, drawn, failed = Path(args.exports).expanduser(), 0, 0
    for stem in sorted(path.with_suffix("") for path in exports.glob("*.json")):
        try:
            made, left = redraw(stem)
        except (ExportError, PredictionsError, ValueError) as e:  # ValueError: a net of a recipe file of one's own
            failed += 1
            print(f"cifar_fast: left out: {e}", file=sys.stderr)
            continue
        drawn += len(made)
        print(f"{stem}: drew {', '.join(path.name for path in made)}"
              + (f"\n  left as it was: {'; '.join(left)}" if left else ""), flush=True)
    if (table := exports / "results.csv").is_file():
        rows = compare.ordered(compare.table(compare.lines_of_recipes(table)), "accuracy", False)
        compare.draw(rows, exports / "compare.png", compare.FLOOR)
        print(f"{exports}: drew compare.png")
        drawn += 1
    if not drawn:
        raise Refused(f"{exports} holds no run to draw; python -m cifar_fast recipe final leaves one")
    return 1 if failed else 0


def unchanged(card: dict):
    "The project's recipe that a run's card describes, where it still is the same; else None."
    from cifar_fast.recipe import describe, list_recipes, load_recipe
    from cifar_fast.results import recipe_id

    if card.get("name") not in list_recipes() or not isinstance(card.get("recipe"), dict):
        return None
    now = load_recipe(card["name"])
    return now if recipe_id(describe(now)) == recipe_id(card["recipe"]) else None

def compare(args) -> int:
    from cifar_fast import compare

    if args.recipes:
        return compare_recipes(args)
    exports = spelled(args.exports)
    runs = compare.find_runs(args.runs, exports)
    lines = compare.lines_of_runs(runs) if runs else compare.lines_of_recipes(exports / "results.csv")
    rows = compare.ordered(compare.table(lines), args.sort or (None if runs else "accuracy"), args.reverse)
    # The figure of all keeps its name to itself: README and the page show it.
    name = "-".join(["compare", *(run.stem.name for run in runs)])[:200]
    path = spelled(args.plot) if args.plot else (runs[0].stem.parent if runs else exports) / f"{name}.png"
    floor = None if runs else compare.FLOOR
    if args.json or args.csv:
        if args.csv:
            print(compare.table_csv(rows))
        else:
            pair = compare.pair(*runs).as_dict() if len(runs) == 2 else None
            print(json.dumps({"runs": compare.records(rows), "pair": pair}, indent=1, ensure_ascii=False))
        if args.plot:
            print(compare.draw(rows, path, floor), file=sys.stderr)
        return 0
    print(f"{compare.table_text(rows)}\n\n{compare.draw(rows, path, floor)}")
    if len(runs) == 2:  # last, so that its sentence is the last word; without predictions the table stands all the same
        print(f"\n{compare.pair_text(compare.pair(*runs), *runs)}")
    return 0


def compare_recipes(args) -> int:
    from cifar_fast.compare import differences_text, recipe_differences

    if args.runs or args.sort or args.reverse or args.plot or args.csv:
        raise Refused("--recipes compares the values of two recipes and takes nothing else but --json")
    found = recipe_differences(*args.recipes)
    print(json.dumps(found, indent=1, ensure_ascii=False) if args.json else differences_text(found, *args.recipes))
    return 0


def doctor(args) -> int:
    from cifar_fast.doctor import examine, text

    with contextlib.redirect_stdout(sys.stderr):  # whatever a library says
        found = examine()
    print(json.dumps(found, indent=1) if args.json else text(found))
    return 1 if found["problems"] else 0


def bench(args) -> int:
    from cifar_fast.recipe import nearest

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
    from cifar_fast import options

    print(options.completion(COMMANDS, args.shell))
    return 0


COMMANDS = {"recipes": recipes,
            "recipe": recipe,
            "copy": copy,
            "audit": audit,
            "lr_find": lr_find,
            "export": export,
            "trust": trust_file,
            "predict": predict,
            "serve": serve,
            "evaluate": evaluate,
            "results": results,
            "report": report,
            "pictures": pictures,
            "compare": compare,
            "doctor": doctor,
            "bench": bench, "completion": completion}
"Name → what it runs."
