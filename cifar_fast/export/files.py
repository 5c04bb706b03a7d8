"""The files of an export, read as a stranger's: nothing of them is run, and nothing is believed unchecked.

The .json names an architecture of timm's registry, the .safetensors holds its weights. Sizes are capped before
anything is parsed, and names, shapes and types are held against the architecture before anything is loaded.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from cifar_fast.models import ModelError, create_model
from cifar_fast.utils.errors import CifarFastError
from cifar_fast.utils.files import expand_path, read_regular, regular, whole
from cifar_fast.utils.text import nearest, printable

FORMAT = 1
"The layout of the .json; a file of another layout is refused."

CARD_BYTES = 16 * 2**20  # a card is some ten kilobytes, its confusion matrix grows with the square of the classes
HEADER_BYTES = 2**20  # 190 bytes a tensor
TENSORS = 5_000
CLASSES = 10_000
NAME_LENGTH = 6 * 255  # of a class: a folder's name has up to 255 bytes, shown as up to six characters each
MODEL_BYTES = 2**29  # of a .safetensors or .pkl: 134 million parameters, where the budget allows 200,000


class ExportError(CifarFastError):
    "An export that cannot be written or read; the message names the file and the next step."


def export_files(stem: str | Path) -> tuple[Path, Path, Path]:
    "The .safetensors, .json and .pkl of `exports/final` (any of the three may be given as well)."
    stem = expand_path(stem)
    if stem.suffix in (".safetensors", ".json", ".pkl"):
        stem = stem.with_suffix("")
    if stem.name in ("", ".."):
        raise ExportError(f"{stem} is a folder; an export has a name, as exports/final has")
    return tuple(stem.with_name(stem.name + ext) for ext in (".safetensors", ".json", ".pkl"))


def file_sha256(path: Path) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


# ---------------------------------------------------------------- the .json


def read_card(stem: str | Path) -> dict:
    "The .json of an export, what the net is built and fed by checked. Raises ExportError."
    _, path, _ = export_files(stem)
    try:
        card = json.loads(read_regular(path, CARD_BYTES))
    except FileNotFoundError:
        there = sorted(p.stem for p in path.parent.glob("*.json"))
        raise ExportError(f"no export {path.with_suffix('')}{nearest(path.stem, there)}: there is no {path}; "
                          + (f"there are {', '.join(str(path.parent / n) for n in there)}" if there else
                             "python -m cifar_fast recipe NAME makes one, recipes lists the names")) from None
    except (ValueError, OSError, RecursionError, MemoryError) as e:
        raise ExportError(f"{path} cannot be read: {short(e)}; train again or restore the file") from None
    needed = ("arch", "vocab", "normalize", "data")
    if not isinstance(card, dict) or card.get("format") != FORMAT or any(k not in card for k in needed):
        raise ExportError(f"{path} is no export of this version (format {FORMAT} with {', '.join(needed)})")
    for problem in problems(card):
        raise ExportError(f"{path}: {problem}; restore the file, or train again")
    return card


def problems(card: dict):
    "What is wrong with a card's values, one sentence each."
    arch, vocab, stats = card["arch"], card["vocab"], card["normalize"]
    if not isinstance(arch, str) or not re.fullmatch(r"[A-Za-z0-9_.-]{1,200}", arch):  # no place to load it from
        yield f"arch is {shown(arch)}, which is no name of an architecture"
    if not isinstance(vocab, list) or not 1 <= len(vocab) <= CLASSES:
        yield f"vocab must be a list of 1 to {CLASSES:,} class names"
    elif bad := [v for v in vocab if not isinstance(v, str) or not 0 < len(v) <= NAME_LENGTH or not v.isprintable()]:
        # A folder's own name has become printable; a line break or an escape would write what a stranger likes.
        yield f"vocab holds {shown(bad[0])}, which is no class name of up to {NAME_LENGTH:,} printable characters"
    elif len(set(vocab)) < len(vocab):
        yield "vocab names a class twice"
    for key, least in (("mean", -100.0), ("std", 1e-6)):
        values = stats.get(key) if isinstance(stats, dict) else None
        if not isinstance(values, list) or len(values) != 3 or not all(
                type(v) in (int, float) and least <= v <= 100 for v in values):  # nor is NaN, whatever it is held to
            yield f"normalize.{key} must be three numbers of a sensible size (for red, green and blue)"
    if not isinstance(card["data"], dict) or not all(isinstance(card["data"].get(k, ""), str)
                                                     for k in ("name", "fingerprint")):
        yield "data must say what it was trained on, by texts"
    if not isinstance(card.get("sha256", ""), str):
        yield "sha256 must be text"
    begun = card.get("recipe", {})
    if not isinstance(begun, dict) or not is_path(begun.get("data", "")) or not is_seed(begun.get("seed", 0)):
        yield "recipe must say which data (a name or path) and seed (0 to 2**32 - 1) it was trained with"


FULL_CARD = {"name": str, "protocol": str, "on": str | None, **dict.fromkeys(
    ("test", "held_out", "audit", "last_epoch", "best_epoch", "seconds"), dict | None)}
"What a card tells of its run, where it does: nothing that a prediction needs."


def read_full_card(stem: str | Path) -> dict:
    "`read_card`, for those who show what a run tells of itself as well. Raises ExportError."
    card = read_card(stem)
    if odd := [key for key, kind in FULL_CARD.items() if key in card and not isinstance(card[key], kind)]:
        raise ExportError(f"{export_files(stem)[1]}: {odd[0]} is {shown(card[odd[0]])}, which tells nothing of a run; "
                          f"restore the file, or train again")
    return card


def is_path(value: Any) -> bool:
    "Whether this is text that a file system could be asked for."
    try:
        return isinstance(value, str) and b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        return False


def is_seed(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**32


def shown(value: Any) -> str:
    text = printable(repr(value))
    return text if len(text) <= 60 else f"{text[:57]}..."


def short(e: BaseException) -> str:
    return f"{type(e).__name__}: {printable(' '.join(str(e).split()))[:200]}"


# ---------------------------------------------------------------- the .safetensors


def read_weights(stem: str | Path, card: dict) -> dict[str, torch.Tensor]:
    "The tensors of an export, those of the card's architecture exactly, with values to count with. Raises ExportError."
    weights, _, _ = export_files(stem)
    try:
        with regular(weights, MODEL_BYTES) as (file, size):  # open once: what is loaded is what was looked at
            header, start = read_header(weights, file, size)
            require_fit(weights, header, card, size - start)
            content = whole(file, size)
        if card.get("sha256", found := hashlib.sha256(content).hexdigest()) != found:
            raise ExportError(f"{weights} is not the file that its .json describes (another sha256); "
                              f"restore the pair, or train again")
        state = load(content)
    except FileNotFoundError:
        raise ExportError(f"{weights} is missing; it stands beside its .json and is needed") from None
    except (SafetensorError, OSError, ValueError, RecursionError, MemoryError) as e:
        raise ExportError(f"{weights} cannot be read: {short(e)}; train again or restore the file") from None
    for name, t in state.items():
        if t.is_floating_point() and not torch.isfinite(t).all():
            raise ExportError(f"{weights}: {shown(name)} holds values that are no numbers; restore the file, or train "
                              f"again")
        if name.endswith("running_var") and (t < 0).any():
            raise ExportError(f"{weights}: {shown(name)} holds a variance below zero; restore the file, or train again")
    return state


def read_header(path: Path, file, size: int) -> tuple[dict[str, dict], int]:
    "Name → dtype and shape, and where the tensors begin. Raises ExportError, ValueError."
    first = file.read(8)
    length = struct.unpack("<Q", first)[0] if len(first) == 8 else 0
    if not 2 <= length <= min(HEADER_BYTES, size - 8):
        raise ExportError(f"{path} is no safetensors file, or a cut one: its header claims {length:,} of "
                          f"{size:,} bytes (at most {HEADER_BYTES:,} are read)")
    header = json.loads(file.read(length))
    if not isinstance(header, dict) or not all(isinstance(v, dict) for v in header.values()):
        raise ExportError(f"{path}: its header does not list tensors")
    header.pop("__metadata__", None)
    if len(header) > TENSORS:
        raise ExportError(f"{path} lists {len(header):,} tensors; at most {TENSORS:,} are read")
    return header, 8 + length


DTYPES = {torch.float32: "F32", torch.int64: "I64", torch.float16: "F16", torch.bfloat16: "BF16", torch.uint8: "U8",
          torch.bool: "BOOL", torch.float64: "F64", torch.int32: "I32"}


def require_fit(
    path: Path,
    header: dict[str, dict],
    card: dict,
    size: int,  # bytes of the tensors
) -> None:
    "Raises ExportError where names, shapes, types or the size are not those of the card's architecture."
    arch = card["arch"]
    try:
        with torch.device("meta"):  # without memory: the file has not shown yet that it fills it
            wanted = create_model(arch, len(card["vocab"])).state_dict()
    except ModelError as e:
        raise ExportError(f"{path.with_suffix('.json')}: {e}") from None
    except Exception as e:  # some of timm's cannot be made without memory, or not for any number of classes
        raise ExportError(f"{path.with_suffix('.json')}: {arch} cannot be made for this: {short(e)}") from None
    if wanted.keys() != header.keys():
        odd = sorted(wanted.keys() ^ header.keys())
        has = "misses" if odd[0] in wanted else "has"
        raise ExportError(f"the weights of {path} do not fit {arch}: {has} {shown(odd[0])}"
                          f"{f' and {len(odd) - 1} more' if len(odd) > 1 else ''}; another version made them: train "
                          f"again")
    for name, tensor in wanted.items():
        told = [header[name].get("dtype"), header[name].get("shape")]
        needed = [DTYPES.get(tensor.dtype), list(tensor.shape)]
        if told != needed:
            raise ExportError(f"the weights of {path} do not fit {arch}: {name} is {shown(told)}, {needed} is needed; "
                              f"another version made them: train again")
    filled = sum(t.numel() * t.element_size() for t in wanted.values())
    if size != filled:
        raise ExportError(f"{path} cannot be read: {size:,} bytes of tensors, {arch} fills {filled:,}; train again or "
                          f"restore the file")
