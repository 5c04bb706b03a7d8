"""A `Recipe` is to a `Learner` what a `DataBlock` is to `DataLoaders`: a spec, realised later."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cifar_fast.files import spelled
from cifar_fast.spelling import nearest

PUBLISHED_STATS = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
"Mean and std that all five published systems normalise with (their std is not the pixels' 0.247, 0.243, 0.262)."

UNTYPED = ("stats", "augment", "budget", "waive")
"Settings that are no single value: they are written in a recipe file, never on the command line."


class RecipeError(Exception):
    "A recipe, or a change to one, that cannot work; the message names the value and the next step."


def _from(module: str, **kw) -> Any:
    "A field whose value is a callable; on the command line any public name of `module` may stand for it."
    return field(metadata={"from": module}, **kw)


def _choice(*choices: str, default: str) -> Any:
    return field(default=default, metadata={"choices": choices})


@dataclass(frozen=True, kw_only=True, eq=False)
class Recipe:
    "Everything that decides a run. Values, importable callables and partials only: it prints, compares, pickles."

    arch: str  # a name in timm's registry, e.g. "cifar_final"
    epochs: int
    name: str = ""  # where the run is kept under `exports`; "" is the recipe's own name (and -<data> elsewhere)
    data: str = "cifar10"  # "cifar10", "digits" or a folder
    bad: str = _choice("skip", "refuse", default="skip")  # what to do about pictures that cannot be read
    stats: tuple | None = None  # (mean, std) per channel in 0..1; None: those of the training pictures
    augment: tuple = ()  # Albumentations for training, applied in this order to uint8 HWC pictures
    protocol: str = _choice("split", "published", default="split")  # "published": validate and select on test
    valid: float = 0  # held out of train: a share below 1, a count from 1 up, 0 for nothing (train on all)
    select: str = _choice("last", "best", default="last")  # which epoch's weights are kept
    bs: int = 128
    drop_last: bool = True  # leave out the last, smaller batch of an epoch (fastai's default)
    workers: int | None = None  # processes that augment, `auto` (None): what helps here; the images are always the same
    lr: float = 1e-3  # peak learning rate; `lr=find` on the command line takes lr_find's valley
    opt: Callable = _from("cifar_fast.optimizers")
    fit: Callable = _from("cifar_fast.fits")
    sched: Callable | None = _from("cifar_fast.callbacks.schedule", default=None)
    loss: Callable = _from("cifar_fast.losses")
    mix: Callable | None = _from("cifar_fast.callbacks.mix", default=None)
    resize: Callable | None = _from("cifar_fast.callbacks.resize", default=None)  # smaller pictures early in the run
    ema: Callable | None = _from("cifar_fast.callbacks.ema", default=None)
    clip: float = 0  # maximal norm of the gradient, 0 for none
    patience: int = 0  # stop after so many epochs without a better validation accuracy, 0 for never
    target: float = 0  # stop once validation accuracy reaches this share (0.85), 0 for never
    seed: int = 42
    device: str = "auto"  # "auto" (cuda, then mps, then cpu) or a torch device
    precision: str = _choice("auto", "fp32", "bf16", "fp16", default="fp32")
    channels_last: bool = False
    compile: str = _choice("off", "on", "auto", default="off")  # torch.compile; "auto": where it can and pays
    tta: bool = True  # also report the mean probability of the image and its mirror
    budget: Any = None  # a constraints.Budget; None: the default one
    waive: Mapping[str, str] = field(default_factory=dict)  # broken rule → why this recipe may break it
    exports: str = "exports"  # folder that runs are left in
    report: bool = True  # leave report.html, its figures and a model card
    checkpoint_epochs: int = 1  # save the run after so many epochs, 0 for never
    checkpoint_minutes: float = 5  # and within an epoch after so many minutes, 0 for never

    def __post_init__(self):
        object.__setattr__(self, "waive", MappingProxyType(dict(self.waive)))

    def __reduce__(self):
        kw = {f.name: getattr(self, f.name) for f in fields(self)}
        return partial(type(self), **{**kw, "waive": dict(self.waive)}), ()

    def __eq__(self, other):
        return isinstance(other, Recipe) and describe(self) == describe(other)

    def __hash__(self):
        return hash(repr(describe(self)))


def describe(value: Any) -> Any:
    "`value` as JSON-able data: callables by import path, partials as {call, args}, transforms by their own dict."
    if isinstance(value, partial):
        args = {k: describe(v) for k, v in value.keywords.items()}
        return {"call": describe(value.func), "args": args}
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: describe(getattr(value, f.name)) for f in fields(value)}
    if hasattr(value, "get_transform_init_args"):  # an Albumentations transform
        return {type(value).__name__: describe({"p": value.p, **value.get_transform_init_args()})}
    if hasattr(value, "transforms"):  # several: OneOf, Sequential …
        return {type(value).__name__: {"p": value.p, "transforms": describe(list(value.transforms))}}
    if isinstance(value, Path):
        return str(value)
    if callable(value):
        return f"{value.__module__}.{value.__qualname__}"
    if isinstance(value, Mapping):
        return {str(k): describe(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [describe(v) for v in value]
    return value


def flat(described: Any, at: str = "") -> dict[str, Any]:
    "Nested dicts as one, keys joined with dots; lists, and what is empty, stay as they are."
    if not isinstance(described, dict) or not described:
        return {at: described}
    return {key: value for name, inner in described.items()
            for key, value in flat(inner, f"{at}.{name}" if at else name).items()}


# ---------------------------------------------------------------- finding recipes


def recipes_dir() -> Path:
    "The folder of the recipes: in a wheel inside the package, in a checkout at the top of the tree."
    inside = Path(__file__).parent / "recipes"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "recipes"


def list_recipes() -> dict[str, str]:
    "Recipe name → first line of its docstring, read without importing anything."
    files = sorted(p for p in recipes_dir().glob("*.py") if not p.name.startswith("_"))
    return {p.stem: (ast.get_docstring(ast.parse(p.read_text("utf-8"))) or "").split("\n")[0] for p in files}


def recipe_path(name: str) -> Path:
    "The file of a recipe: a name from `list_recipes`, or a path ending in .py. Raises RecipeError."
    path = spelled(name)
    if path.suffix != ".py":
        path = recipes_dir() / f"{name}.py"
        if name not in (names := list_recipes()):
            raise RecipeError(f"no recipe is called {name!r}{nearest(name, names)}; there are "
                              f"{', '.join(names)}, or give a file: python -m cifar_fast copy final mine.py")
    elif not path.is_file():
        raise RecipeError(f"no recipe file {name}; python -m cifar_fast copy final {name} makes one to start from")
    return path


def load_recipe(name: str) -> Recipe:
    "The `recipe` value of a recipe file, named after the file. Raises RecipeError naming the file."
    path = recipe_path(name)
    spec = importlib.util.spec_from_file_location(f"cifar_fast_recipe_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # timm looks a registered architecture's module up there
    try:
        spec.loader.exec_module(module)
    except Exception as e:
        raise RecipeError(f"{path} cannot be run: {type(e).__name__}: {e}") from e
    found = getattr(module, "recipe", None)
    if not isinstance(found, Recipe):
        raise RecipeError(f"{path} must define `recipe = Recipe(...)`; it has {type(found).__name__}")
    return replace(found, name=found.name or path.stem)


def elsewhere(recipe: Recipe, data: str) -> Recipe:
    """The recipe on another dataset than its own, called <name>-<data>, so that it never overwrites its own export.

    Statistics that were written down for its own dataset are left out: those of the pictures are used.
    """
    short = data if data in ("cifar10", "digits") else Path(os.path.realpath(spelled(data))).name
    return replace(recipe, data=data, name=f"{recipe.name}-{short}", stats=None)


# ---------------------------------------------------------------- changing recipes


def override(recipe: Recipe, changes: list[str]) -> Recipe:
    """A copy with `key=value` changes; `key.arg=value` changes an argument of a callable. Raises RecipeError.

    Another dataset changes the run's name as well, see `elsewhere`, unless `name=` is given.
    """
    # In this order, whatever was typed: data= (it names the run) before name=, sched=step before sched.gamma=0.1.
    for change in sorted(changes, key=lambda c: (not c.startswith("data="), "." in c.split("=")[0])):
        key, sep, text = change.partition("=")
        if not sep:
            raise RecipeError(f"{change!r} is no key=value pair; for example epochs=30 or fit.pct_start=0.2")
        name, _, arg = key.partition(".")
        known = {f.name: f for f in fields(Recipe)}
        if name not in known:
            raise RecipeError(f"no setting is called {name!r}{nearest(name, known)}; there are {', '.join(known)}")
        f, now = known[name], getattr(recipe, name)
        if arg:
            new = _with_argument(name, now, arg, text)
        elif "from" in f.metadata:
            new = _callable(name, f.metadata["from"], text, optional=f.default is None)
        elif f.name in UNTYPED:
            raise RecipeError(f"{name} is no single value; copy the recipe and edit it: "
                              f"python -m cifar_fast copy {recipe.name or 'final'} mine.py")
        else:
            new = _scalar(name, f.type, text, f.metadata.get("choices"))
        if name == "data" and new != recipe.data:
            recipe = elsewhere(recipe, new)
        else:
            recipe = replace(recipe, **{name: new})
    sched = getattr(recipe.sched, "func", recipe.sched)
    if getattr(sched, "sets_lr", False) and any(c.startswith("lr=") for c in changes):
        raise RecipeError(f"lr= has no effect with sched={sched.__name__}, which sets the rate itself; "
                          f"use sched.max_lr=…")
    return recipe


def _scalar(name: str, kind: str, text: str, choices=None) -> Any:
    if choices and text not in choices:
        raise RecipeError(f"{name}={text}: choose one of {', '.join(choices)}{nearest(text, choices)}")
    if kind == "str":
        return text
    if kind == "bool":
        if text.lower() not in ("true", "false", "1", "0", "yes", "no", "on", "off"):
            raise RecipeError(f"{name}={text}: expected true or false")
        return text.lower() in ("true", "1", "yes", "on")
    if "None" in kind and text.lower() in ("auto", "none"):
        return None
    try:
        number = float(text)
        if kind.startswith("int") and number != int(number):
            raise ValueError
    except (ValueError, OverflowError):
        raise RecipeError(f"{name}={text}: expected {'a whole number' if kind.startswith('int') else 'a number'}"
                          f"{' or auto' if 'None' in kind else ''}") from None
    return int(number) if kind.startswith("int") else number


def choices(module: str) -> dict[str, Callable]:
    "The public callables of `module`, by name: what the command line takes for a field that holds a callable."
    mod = importlib.import_module(module)
    return {n: getattr(mod, n) for n in mod.__all__}


def _callable(name: str, module: str, text: str, optional: bool) -> Callable | None:
    if optional and text.lower() == "none":
        return None
    known = choices(module)
    if text not in known:
        raise RecipeError(f"{name}={text}: choose one of {', '.join([*known, *(['none'] if optional else [])])}"
                          f"{nearest(text, known)}")
    return partial(known[text])


def settings(value: Callable | None) -> dict[str, Any]:
    "The arguments of a recipe's callable that a user may set, with the values they have now."
    if value is None:
        return {}
    func, given = (value.func, value.keywords) if isinstance(value, partial) else (value, {})
    params = inspect.signature(func).parameters.values()
    return {p.name: given.get(p.name, p.default) for p in params
            if p.kind == p.KEYWORD_ONLY or p.name in given or (inspect.isclass(func) and p.name != "self")}


def _with_argument(name: str, now: Any, arg: str, text: str) -> partial:
    if not callable(now):
        raise RecipeError(f"{name}.{arg}={text}: {name} is {now!r} here and takes no arguments; "
                          f"choose one first, e.g. sched=step sched.gamma=0.1")
    known = settings(now)
    if arg not in known:
        raise RecipeError(f"{name} takes no {arg!r}{nearest(arg, known)}; it takes {', '.join(known) or 'none'}")
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = {"true": True, "false": False, "none": None}.get(text.lower(), text)
    old = known[arg]
    numbers = (int, float)
    if old is not None and old is not inspect.Parameter.empty and type(value) is not type(old) and not (
            isinstance(old, numbers) and isinstance(value, numbers) and bool not in (type(old), type(value))):
        raise RecipeError(f"{name}.{arg}={text}: expected a value like {old!r}")
    func, given = (now.func, now.keywords) if isinstance(now, partial) else (now, {})
    if inspect.signature(func).parameters[arg].annotation in ("int", int) and value != int(value):
        raise RecipeError(f"{name}.{arg}={text}: expected a whole number")
    return partial(func, **{**given, arg: value})


# ---------------------------------------------------------------- combinations that cannot work


def require_text(key: str, value: str) -> None:
    "Raises RecipeError where a name or path is none that a file can hold and a file system can find."
    try:
        str(Path(value).expanduser()).encode()
    except UnicodeEncodeError:
        raise RecipeError(f"{key}={ascii(value)[1:-1]}: the name is no UTF-8, and the files of a run are; rename it, "
                          f"or take another") from None
    except RuntimeError:
        raise RecipeError(f"{key}={value}: {value.split('/')[0]} is nobody's home here") from None


def check(recipe: Recipe) -> None:
    "Raise RecipeError for values and combinations that cannot work, with the reason and a way out."
    r = recipe
    for key, least in (("epochs", 1), ("bs", 1), ("workers", 0), ("clip", 0), ("patience", 0), ("valid", 0),
                       ("checkpoint_epochs", 0), ("checkpoint_minutes", 0)):
        if not least <= (getattr(r, key) or 0) < float("inf"):  # catches nan as well
            raise RecipeError(f"{key}={getattr(r, key)}: must be a number of at least {least}")
    if not 0 < r.lr < float("inf"):
        raise RecipeError(f"lr={r.lr}: must be a number above 0")
    if not 0 <= r.seed < 2**32:
        raise RecipeError(f"seed={r.seed}: expected 0 to {2**32 - 1}")
    if not 0 <= r.target < 1:
        raise RecipeError(f"target={r.target}: a share of 1 is expected, e.g. target=0.85")
    if Path(r.name).name != r.name or r.name in (".", "..") or r.name.endswith((".json", ".pkl", ".safetensors")):
        raise RecipeError(f"name={r.name}: a plain name is expected, without ending; exports=DIR says where it is left")
    for key in ("data", "exports", "name"):  # they go into the files of the run, which are UTF-8
        require_text(key, str(getattr(r, key)))
    validates = r.protocol == "published" or r.valid > 0
    sched = getattr(r.sched, "func", r.sched)
    fit = getattr(r.fit, "func", r.fit)
    if sched is not None and getattr(fit, "sets_lr", False):
        raise RecipeError(f"sched={sched.__name__} and fit={fit.__name__} would both set the learning rate; "
                          f"add fit=flat, or sched=none")
    if r.protocol == "published" and r.valid:
        raise RecipeError(f"protocol=published validates on the test set and holds nothing out; drop valid={r.valid}")
    for on, what in ((getattr(sched, "needs_valid", False), f"sched={getattr(sched, '__name__', '')}"),
                     (r.patience, f"patience={r.patience}"), (r.target, f"target={r.target}"),
                     (r.select == "best", "select=best")):
        if on and not validates:
            raise RecipeError(f"{what} watches validation accuracy, and this recipe validates on nothing; "
                              f"add valid=0.1 to hold out a tenth of train")
    if r.mix is not None and not getattr(getattr(r.loss, "func", r.loss), "mixes", False):
        raise RecipeError(f"mix={getattr(r.mix, 'func', r.mix).__name__} needs a loss that takes several weighted "
                          f"labels, and {getattr(r.loss, 'func', r.loss).__name__} does not; "
                          f"use loss=cross_entropy, or mix=none")
    for key in ("loss", "sched", "mix", "resize", "ema"):  # these refuse values out of range when they are made
        try:
            if (make := getattr(r, key)) is not None:
                make()
        except (ValueError, TypeError) as e:
            raise RecipeError(f"{key}: {e}") from None
    from torch import nn, zeros

    try:
        r.opt([nn.Parameter(zeros(2, 2, 1, 1))], lr=r.lr)
    except (ValueError, TypeError) as e:
        raise RecipeError(f"opt: {e}") from None
    if r.precision == "fp16" and r.device == "cpu":
        raise RecipeError("precision=fp16 does not train on a CPU (no loss scaling there); use bf16 or fp32")
