"""Commands about a trained net: its files, what it says of images, how good it is."""

from __future__ import annotations

import json
import os
import sys

from cifar_fast.cli.shared import Refused, in_exports
from cifar_fast.utils.files import expand_path
from cifar_fast.utils.log import quiet


def export(args) -> int:
    from cifar_fast.export.predictor import rebuild_pickle
    from cifar_fast.export.trust import trust

    made = rebuild_pickle(in_exports(args.name))
    trust(made)
    print(f"made {made}")
    return 0


def trust_file(args) -> int:
    from cifar_fast.export.trust import trust, trust_list
    from cifar_fast.utils.text import printable

    path = expand_path(args.file)
    if not os.path.isfile(path):
        raise Refused(f"no file {printable(path)}")
    if path.suffix != ".pkl":
        raise Refused(f"{printable(path)} is no .pkl: nothing else runs code when it is opened, so nothing else needs "
                      f"your trust (a .safetensors and its .json open as they are)")
    print(f"{trust(path)}  {printable(path)}\nnow in {trust_list()}: predict, serve and evaluate open this very "
          f"content when it is named")
    return 0


def predict(args) -> int:
    from cifar_fast.export.predictor import find_images, load_model, predict_files
    from cifar_fast.utils.device import choose_device
    from cifar_fast.utils.text import encodable, printable

    if args.topk < 1:
        raise Refused(f"--topk {args.topk}: at least 1")
    exported = load_model(args.export, choose_device(), args.trust_pickle)
    paths, missing, closed = find_images(args.paths)
    vocab, rows, bad = exported.vocab, [], len(closed)
    for told in [*closed, *(f"{printable(pattern)}: no image there" for pattern in missing)]:
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

    from cifar_fast.utils.files import write_text

    frame = pd.DataFrame([[r["file"], r["prediction"], *r["probs"]] for r in rows],
                         columns=["file", "prediction", *vocab])
    write_text(expand_path(path), frame.to_csv(index=False))


def serve(args) -> int:
    from cifar_fast.serve.server import listen, run

    with listen(args.host, args.port) as sock:
        from cifar_fast.export.predictor import load_model
        from cifar_fast.utils.device import choose_device

        exported = load_model(args.export, choose_device(), args.trust_pickle)
        path = expand_path(args.export)
        name = path.stem if path.suffix in (".pkl", ".json", ".safetensors") else path.name
        run(exported, name, path.parent, sock, args.host, args.verbose, args.open)
    return 0


def evaluate(args) -> int:
    from cifar_fast.data.sources import load_source
    from cifar_fast.export.metrics import scores, scores_text
    from cifar_fast.export.predictor import load_model
    from cifar_fast.utils.device import choose_device
    from cifar_fast.utils.text import printable

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
        raise Refused(f"{args.export} does not say what it was trained on; name the images: data=cifar10, "
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
            print("this net's epoch was selected on these very images, as its authors did")
        print(f"accuracy {result['accuracy']:.2%}, TTA (image and mirror) {result['accuracy_tta']:.2%}")
    return 0
