"""Export a trained net, load it again, predict with it: .safetensors + .json, and a .pkl for `load_learner`."""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from cifar_fast.archs import create_arch
from cifar_fast.data.pictures import EXTENSIONS, PictureError, read_picture
from cifar_fast.files import write_text, written

FORMAT = 1
"The layout of the .json; a file of another layout is refused."


class ExportError(Exception):
    "An export that cannot be written or read; the message names the file and the next step."


@dataclass(frozen=True)
class Exported:
    "A trained net with all it needs to look at a picture."

    model: torch.nn.Module  # eval mode, on `device`
    card: dict  # what the .json holds
    device: torch.device

    @property
    def vocab(self) -> list[str]:
        return self.card["vocab"]

    def normalize(self, images: np.ndarray) -> torch.Tensor:
        "(N, 32, 32, 3) uint8 → (N, 3, 32, 32) float32 as the net was trained on."
        x = torch.from_numpy(np.array(images)).to(self.device).permute(0, 3, 1, 2).float().div_(255)
        mean, std = (torch.tensor(self.card["normalize"][k], device=self.device)[:, None, None]
                     for k in ("mean", "std"))
        return x.sub_(mean).div_(std)

    def predict(self, images: np.ndarray, tta: bool = False, bs: int | None = None) -> np.ndarray:
        "Class probabilities (N, C) float32 of (N, 32, 32, 3) uint8 pictures; `tta`: mean of image and mirror."
        # Of the bare net's speed 500 at a time had 0.72 (wall time, busy machine), 125 had 0.99 (CPU time).
        bs = bs or (125 if self.device.type == "cpu" else 1000)
        batches = (self.normalize(images[i:i + bs]) for i in range(0, len(images), bs))
        plain, mirrored = probabilities(self.model, batches, tta)
        return mirrored if tta else plain


@torch.no_grad()
def probabilities(model, batches: Iterable[torch.Tensor], tta: bool) -> tuple[np.ndarray, np.ndarray | None]:
    "Class probabilities (N, C) of normalised batches, plain and (with `tta`) the mean of image and mirror."
    was_training = model.training
    model.eval()
    plain, mirrored = [], []
    try:
        for x in batches:
            p = model(x).float().softmax(1)
            plain.append(p.cpu())
            if tta:
                mirrored.append(((p + model(x.flip(3)).float().softmax(1)) / 2).cpu())
    finally:
        model.train(was_training)
    if not plain:
        return np.zeros((0, 0), np.float32), np.zeros((0, 0), np.float32)
    return torch.cat(plain).numpy(), torch.cat(mirrored).numpy() if tta else None


def files_of(stem: str | Path) -> tuple[Path, Path, Path]:
    "The .safetensors, .json and .pkl of `exports/final` (any of the three may be given as well)."
    stem = Path(stem).expanduser()
    if stem.suffix in (".safetensors", ".json", ".pkl"):
        stem = stem.with_suffix("")
    return tuple(stem.with_name(stem.name + ext) for ext in (".safetensors", ".json", ".pkl"))


def save_export(
    stem: str | Path,
    model,
    card: dict,
    pickle: bool = True,  # also the .pkl, for which fastai is imported
) -> None:
    "Write the files of an export, each whole or not at all, the .json last: it says that the rest is there."
    weights, json_file, pkl = files_of(stem)
    state = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    with written(weights) as tmp:
        save_file(state, tmp, metadata={"format": "pt", "arch": card["arch"]})
    if pickle:
        save_pickle(pkl, card, state)
    card = {"format": FORMAT, **card, "sha256": file_sha256(weights)}
    write_text(json_file, json.dumps(card, indent=1, ensure_ascii=False) + "\n")


def file_sha256(path: Path) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def save_pickle(pkl: Path, card: dict, state: dict) -> None:
    "A Learner with these weights, the valid pipeline and the vocab: what fastai's `load_learner` opens."
    learn = inference_learner(card, state)
    with written(pkl) as tmp:
        learn.export(tmp.resolve())  # absolute: the Learner's own path, which is pickled, stays "."


def inference_learner(card: dict, state: dict):
    "A Learner that predicts with `state`; it holds no training data and no training callbacks."
    from fastai.learner import Learner
    from fastai.losses import CrossEntropyLossFlat
    from fastai.metrics import accuracy

    from cifar_fast.data.block import data_block
    from cifar_fast.data.sources import Arrays, Source

    blank = Arrays(np.zeros((1, 32, 32, 3), np.uint8), np.zeros(1, np.int64))
    source = Source(name=card["data"]["name"], train=blank, test=None, vocab=tuple(card["vocab"]),
                    mean=tuple(card["normalize"]["mean"]), std=tuple(card["normalize"]["std"]),
                    fingerprint=card["data"]["fingerprint"], skipped=(), origin="export")
    dls = data_block(source, [0], [0]).dataloaders(np.arange(1), bs=1, num_workers=0, device=torch.device("cpu"))
    model = create_arch(card["arch"], len(card["vocab"]))
    model.load_state_dict(state)
    return Learner(dls, model.eval(), loss_func=CrossEntropyLossFlat(), metrics=accuracy, path=Path("."))


def read_card(stem: str | Path) -> dict:
    "The .json of an export. Raises ExportError."
    _, path, _ = files_of(stem)
    try:
        card = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        near = sorted(str(p.with_suffix("")) for p in path.parent.glob("*.json")) if path.parent.is_dir() else []
        raise ExportError(f"no export {path.with_suffix('')} (no file {path}); "
                          + (f"there are {', '.join(near)}" if near else
                             "python -m cifar_fast recipe NAME makes one, recipes lists the names")) from None
    except (ValueError, OSError) as e:
        raise ExportError(f"{path} cannot be read: {e}; train again or restore the file") from None
    needed = ("arch", "vocab", "normalize", "data")
    if not isinstance(card, dict) or card.get("format") != FORMAT or any(k not in card for k in needed):
        raise ExportError(f"{path} is no export of this version (format {FORMAT} with {', '.join(needed)})")
    return card


def load_state(stem: str | Path) -> dict:
    weights, _, _ = files_of(stem)
    try:
        return load_file(weights)
    except FileNotFoundError:
        raise ExportError(f"{weights} is missing; it stands beside its .json and is needed") from None
    except (SafetensorError, OSError) as e:
        raise ExportError(f"{weights} cannot be read: {e}; train again or restore the file") from None


def load_export(stem: str | Path, device: str | torch.device = "cpu") -> Exported:
    "Open `.safetensors` + `.json`; no pickle is read, no code of the file is run. Raises ExportError."
    card, state = read_card(stem), load_state(stem)
    weights = files_of(stem)[0]
    if card.get("sha256", file_sha256(weights)) != file_sha256(weights):
        raise ExportError(f"{weights} is not the file that its .json describes (another sha256); "
                          f"restore the pair, or train again")
    try:
        model = create_arch(card["arch"], len(card["vocab"]))
        model.load_state_dict(state)
    except (ValueError, RuntimeError) as e:
        raise ExportError(f"the weights of {weights} do not fit {card['arch']}: "
                          f"{' '.join(str(e).split())[:300]}; another version made them: train again") from None
    device = torch.device(device)
    return Exported(model.to(device).eval(), card, device)


def rebuild_pickle(stem: str | Path) -> Path:
    "Make the .pkl anew from .safetensors + .json, for the Python and torch at hand."
    pkl = files_of(stem)[2]
    save_pickle(pkl, read_card(stem), load_state(stem))
    return pkl


# ---------------------------------------------------------------- pictures


def find_pictures(patterns: Iterable[str]) -> tuple[list[Path], list[str]]:
    "Files for paths, folders (searched below) and globs, in a stable order; and the patterns that matched nothing."
    found, missing = [], []
    for pattern in patterns:
        path = Path(pattern).expanduser()
        if path.is_dir():
            here = [p for p in _below(path) if p.suffix.lower() in EXTENSIONS]
        elif path.exists():
            here = [path]
        else:
            here = [Path(p) for p in sorted(glob.glob(str(path), recursive=True)) if os.path.isfile(p)]
        found += here
        if not here:
            missing.append(pattern)
    return list(dict.fromkeys(found)), missing


def _below(folder: Path) -> Iterator[Path]:
    for root, dirs, names in os.walk(folder):  # does not follow links, so loops end
        dirs[:] = sorted(d for d in dirs if not d.startswith("."))
        yield from (Path(root, n) for n in sorted(names) if not n.startswith("."))


def predict_files(exported: Exported, paths: list[Path], tta: bool = False, bs: int = 500, progress: bool = False):
    "Yields (path, probabilities (C,) or None, reason or None) for each path in order; reads and predicts in batches."
    from tqdm import tqdm

    with tqdm(total=len(paths), unit="picture", disable=not progress, leave=False) as bar:
        for i in range(0, len(paths), bs):
            batch, reasons = [], {}
            for path in paths[i:i + bs]:
                try:
                    batch.append(read_picture(path))
                except PictureError as e:
                    reasons[path] = str(e)
            probs = iter(exported.predict(np.stack(batch), tta) if batch else ())
            for path in paths[i:i + bs]:
                yield (path, None, reasons[path]) if path in reasons else (path, next(probs), None)
            bar.update(len(paths[i:i + bs]))
