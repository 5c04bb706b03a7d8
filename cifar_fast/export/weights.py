"""The weights of a saved run, read as untrusted input: no code in them is run, and every value is checked.

card.json names an architecture of timm's registry, model.safetensors holds its weights. Sizes are capped before
anything is parsed; names, shapes and types are compared with the architecture before anything is loaded.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load

from cifar_fast.export.card import Card
from cifar_fast.export.card_format import NAME, ExportError, shown
from cifar_fast.export.files import MODEL_BYTES, SOURCE, WEIGHTS, short
from cifar_fast.models import ModelError, create_model
from cifar_fast.utils.files import regular, whole

HEADER_BYTES = 2**20  # 190 bytes a tensor
TENSORS = 5_000


def read_weights(folder: Path, card: Card) -> dict[str, torch.Tensor]:
    "The tensors of a run, those of the card's architecture exactly, with finite values. Raises ExportError."
    path = folder / WEIGHTS
    again = "restore the file, or train again"
    try:
        with regular(path, MODEL_BYTES) as (file, size):
            require_small_header(path, file, size)
            require_fit(path, card)
            content = whole(file, size)
        if card.sha256 not in (None, hashlib.sha256(content).hexdigest()):
            raise ExportError(f"{path} is not the file that {NAME} describes (another sha256); restore both, or train "
                              f"again")
        state = load(content)
    except FileNotFoundError:
        raise ExportError(f"{path} is missing, and is needed beside {NAME}: {again}") from None
    except (SafetensorError, OSError, ValueError, RecursionError, MemoryError) as e:
        raise ExportError(f"{path} cannot be read: {short(e)}; {again}") from None
    for name, t in state.items():
        if t.is_floating_point() and not torch.isfinite(t).all():
            raise ExportError(f"{path}: {shown(name)} holds non-finite values (NaN or inf); {again}")
        if name.endswith("running_var") and (t < 0).any():
            raise ExportError(f"{path}: {shown(name)} holds a variance below zero; {again}")
    return state


def require_small_header(path: Path, file, size: int) -> None:
    "Before safetensors parses it. Raises ExportError."
    length = int.from_bytes(file.read(8), "little") if size >= 8 else 0
    if not 2 <= length <= min(HEADER_BYTES, size - 8):
        raise ExportError(f"{path} is not a safetensors file, or is truncated: its header claims {length:,} of "
                          f"{size:,} bytes (at most {HEADER_BYTES:,} are read); restore the file, or train again")


DTYPES = {torch.float32: "F32", torch.int64: "I64", torch.float16: "F16", torch.bfloat16: "BF16", torch.uint8: "U8",
          torch.bool: "BOOL", torch.float64: "F64", torch.int32: "I32"}


def require_fit(path: Path, card: Card) -> None:
    "Raises ExportError where names, shapes or types are not those of the card's architecture; loads no tensor."
    arch, needed = card.arch, expected_tensors(path.with_name(NAME), card)
    with safe_open(path, framework="pt") as opened:  # checks offsets and sizes against the file's length
        names = set(opened.keys())
        if len(names) > TENSORS:
            raise ExportError(f"{path} lists {len(names):,} tensors; at most {TENSORS:,} are read")
        if odd := sorted(needed.keys() ^ names):
            more = f" and {len(odd) - 1} more" if len(odd) > 1 else ""
            raise ExportError(f"the weights of {path} do not fit {arch}: {'misses' if odd[0] in needed else 'has'} "
                              f"{shown(odd[0])}{more}; another version made them: train again")
        for name, tensor in needed.items():
            slices = opened.get_slice(name)
            there, wanted = [slices.get_dtype(), slices.get_shape()], [DTYPES.get(tensor.dtype), list(tensor.shape)]
            if there != wanted:
                raise ExportError(f"the weights of {path} do not fit {arch}: {name} is {shown(there)}, {wanted} is "
                                  f"needed; another version made them: train again")


def expected_tensors(path: Path, card: Card) -> dict[str, torch.Tensor]:
    "The card's architecture on the meta device: no memory is used for an unchecked file. Raises ExportError."
    try:
        with torch.device("meta"):
            return create_model(card.arch, len(card.vocab), card.size, card.widths).state_dict()
    except ModelError as e:
        if (own := path.with_name(SOURCE)).is_file():
            raise ExportError(f"{path.parent} holds a model of its own, {card.arch}, which {own} defines: add --recipe "
                              f"{own} (it runs that file), or in Python "
                              f"cifar_fast.models.register_from_file({str(own)!r})") from None
        raise ExportError(f"{path}: {e}") from None
    except Exception as e:  # some of timm's models do not support the meta device, or this number of classes
        raise ExportError(f"{path}: {card.arch} cannot be created for it: {short(e)}") from None
