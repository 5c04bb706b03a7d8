"""predict --out: checks the arguments, chooses the engine, prints a summary."""

from __future__ import annotations

import sys
from argparse import Namespace

from cifar_fast.cli.command import UsageError, with_confidence
from cifar_fast.utils.files import expand_path

SUFFIXES = (".parquet", ".csv")
ON_A_GPU = 4
"Processes that predict on each GPU unless --procs says how many: each takes a part of its memory, whatever the model."


def predict_to_file(args: Namespace) -> int:
    "The exit code: 1 where an image could not be read or a path was not found."
    from cifar_fast.export.bulk.job import job_of
    from cifar_fast.export.bulk.predict import SHARD, in_processes, predict_bulk
    from cifar_fast.export.bulk.sources import list_sources
    from cifar_fast.export.load import load_model
    from cifar_fast.utils.text import printable

    out, shard, make = check(args), args.shard or SHARD, in_processes
    if args.engine == "ray":
        from cifar_fast.export.bulk.ray_engine import on_ray

        make = on_ray(args.address)
    model = with_confidence(load_model(args.export, args.device, args.trust_pickle), args)
    job = job_of(model, args.export, device=args.device, trust_pickle=args.trust_pickle, recipe=args.recipe,
                 tta=args.tta, topk=0 if args.all else args.topk)
    procs = args.procs or (10**6 if args.address else default_procs(job.engine, args.device))
    missing, closed = [], []
    done = predict_bulk(job, list_sources(args.paths, missing, closed), out, procs, shard, args.restart, make)
    for error in [*closed, *(f"{printable(pattern)}: no image there" for pattern in missing)]:
        print(f"cifar_fast: {error}", file=sys.stderr)
    if not done.images:
        print("cifar_fast: no image was found, so nothing was written", file=sys.stderr)
        return 1
    rate = f", {done.predicted / done.seconds:,.0f} a second" if done.predicted else ""
    print(f"{done.images:,} images{rate}, {done.unreadable:,} of them unreadable (column error): {out}")
    return 1 if done.unreadable or missing or closed else 0


def default_procs(engine: str, asked: str | None = None) -> int:
    "As many as there are cores, at most ON_A_GPU for each GPU; `engine` as a Job names it, `asked` as --device has it."
    from cifar_fast.utils.cores import CORES

    device = engine.partition(" on ")[2]  # none for an engine other than torch
    if device in ("", "cpu"):
        return CORES
    import torch

    shared = device == "cuda" and ":" not in (asked or "")  # by the processes of the pool, all that are there
    return min(CORES, ON_A_GPU * (torch.cuda.device_count() if shared else 1))


def check(args: Namespace):
    "The path of the table. Raises UsageError."
    out = expand_path(args.out)
    if out.suffix not in SUFFIXES:
        raise UsageError(f"--out {args.out}: a name that ends in {' or '.join(SUFFIXES)}")
    for name in ("csv", "json"):
        if getattr(args, name):
            raise UsageError(f"--{name} prints or saves every prediction; --out {out.name} replaces it")
    for name in ("topk", "procs", "shard"):
        if (value := getattr(args, name)) is not None and value < 1:
            raise UsageError(f"--{name} {value}: at least 1")
    if args.address and args.engine != "ray":
        raise UsageError("--address belongs to --engine ray")
    return out
