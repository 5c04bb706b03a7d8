"""Commands about recipes: list, train, copy, audit, find a rate."""

from __future__ import annotations

import json
import math
import shutil
import sys
import textwrap

from cifar_fast.cli.shared import Refused
from cifar_fast.utils.files import expand_path
from cifar_fast.utils.log import quiet, verbose


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
    from cifar_fast.recipe import describe, recipe_path

    recipe_path(args.name)  # a name that is none is answered before seconds of imports
    from cifar_fast.runs.dryrun import dry_run
    from cifar_fast.runs.run import train
    from cifar_fast.runs.run_dir import Interrupted, typed_for

    given = [args.name, *args.changes]
    if args.resume and (begun := typed_for(resolve(args.name, args.changes, whole=False)[0])):
        # What was typed when the run began need not be typed again; what is typed now is held against it, and wins.
        given = [args.name, *reversed(dict.fromkeys(reversed([*begun[1:], *args.changes])))]
    resolved, finds = resolve(given[0], given[1:])
    if args.allow_changes and not args.resume:
        raise Refused("--allow-changes belongs to --resume")
    if args.dry_run:
        if finds or args.resume or args.restart:
            raise Refused("--dry-run trains nothing: it cannot find a rate (python -m cifar_fast lr_find does), nor "
                          "resume or restart")
        print(dry_run(resolved, given))
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
    from cifar_fast.recipe import recipe_path
    from cifar_fast.utils.files import write_new

    target, text = expand_path(args.file), recipe_path(args.name).read_text("utf-8")
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

    from cifar_fast.audit import audit as audit_model
    from cifar_fast.audit import audit_table, layer_table
    from cifar_fast.models import create_arch, published

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
    if not 0 < args.start < args.end < math.inf:
        raise Refused(f"--start {args.start:g} --end {args.end:g}: two finite rates above 0, the smaller one first")
    from cifar_fast.recipe import recipe_path

    recipe_path(args.name)
    from cifar_fast.reporting import plots
    from cifar_fast.training.lr_finder import FEWEST, find
    from cifar_fast.training.prepare import prepare
    from cifar_fast.utils.files import write_text

    if args.steps < FEWEST:
        raise Refused(f"--steps {args.steps}: a search takes at least {FEWEST}")
    resolved, _ = resolve(args.name, args.changes)
    found = find(prepare(resolved, typed=args.changes), args.start, args.end, args.steps)
    folder = expand_path(resolved.exports) / "lr_find" / resolved.name
    plots.save(plots.lr_find(found), folder / "lr_find.png")
    write_text(folder / "lr_find.json", json.dumps(found, indent=1) + "\n")
    for name, at in {**found["suggestions"], "recipe": found["recipe"]}.items():
        print(f"{name:<8} {at['lr']:.3g}")
    print(f"saved: {folder / 'lr_find.png'}, lr_find.json\n"
          f"next: python -m cifar_fast recipe "
          f"{' '.join([args.name, *args.changes])} lr={found['suggestions']['valley']['lr']:.2g}  (or lr=find)")
    return 0
