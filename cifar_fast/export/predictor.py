"""Export a trained net, load it again, predict with it: .safetensors + .json, and a .pkl for `load_learner`."""

from __future__ import annotations

import glob
import io
import json
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save

from cifar_fast.data.images import EXTENSIONS, ImageError, read_image
from cifar_fast.export.files import (
    FORMAT,
    MODEL_BYTES,
    ExportError,
    export_files,
    file_sha256,
    read_card,
    read_weights,
    short,
)
from cifar_fast.export.own_models import recipe_files_by_value
from cifar_fast.export.trust import require_trust
from cifar_fast.models import create_model
from cifar_fast.utils.files import atomic_write, expand_path, read_regular, rollback_on_error
from cifar_fast.utils.text import printable


@dataclass(frozen=True)
class Predictor:
    "A trained net with all it needs to look at an image."

    model: torch.nn.Module  # eval mode, on `device`
    card: dict  # what the .json holds
    device: torch.device
    origin: str = "the net"  # where it came from, for a message

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
        """Class probabilities (N, C) float32 of (N, 32, 32, 3) uint8 images; `tta`: mean of image and mirror.

        Raises ExportError where the net answers with what is no number.
        """
        # Of the bare net's speed 500 at a time had 0.72 (wall time, busy machine), 125 had 0.99 (CPU time).
        bs = bs or (125 if self.device.type == "cpu" else 1000)
        batches = (self.normalize(images[i:i + bs]) for i in range(0, len(images), bs))
        plain, mirrored = probabilities(self.model, batches, tta)
        found = mirrored if tta else plain
        if not np.isfinite(found).all():
            raise ExportError(f"{self.origin} answers with what is no number: its weights are too large to count with; "
                              f"restore the files, or train again")
        return found


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


def save_export(
    stem: str | Path,
    model,
    card: dict,
    pickle: bool = True,  # also the .pkl, for which fastai is imported
) -> None:
    """Write the files of an export: all of them beside their targets first, so that a full disk leaves the former ones.

    The .json comes last: it says that the rest is there. Where one of them cannot be renamed the others take their
    former names again.
    """
    weights, json_file, pkl = export_files(stem)
    state = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    # What is entered last is renamed first.
    with rollback_on_error(weights, pkl, json_file), atomic_write(json_file) as tmp_json, ExitStack() as others:
        tmp_pkl = others.enter_context(atomic_write(pkl)) if pickle else None
        tmp = others.enter_context(atomic_write(weights))
        tmp.write_bytes(save(state, metadata={"format": "pt", "arch": card["arch"]}))
        if pickle:
            save_pickle(tmp_pkl, card, state)
        card = {"format": FORMAT, **card, "sha256": file_sha256(tmp)}
        tmp_json.write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def save_pickle(path: Path, card: dict, state: dict) -> None:
    "A Learner with these weights, the valid pipeline and the vocab: what fastai's `load_learner` opens."
    from fastai.learner import cloudpickle

    learn, content = inference_learner(card, state), io.BytesIO()
    learn.dls = learn.dls.new_empty()
    # As `learn.export` does. It writes into the file itself, and torch says of a full disk "unexpected pos 128 vs 0".
    with recipe_files_by_value():
        torch.save(learn, content, pickle_module=cloudpickle, pickle_protocol=2)
    path.write_bytes(content.getbuffer())


def inference_learner(card: dict, state: dict):
    "A Learner that predicts with `state`; it holds no training data and no training callbacks."
    from fastai.learner import Learner
    from fastai.losses import CrossEntropyLossFlat
    from fastai.metrics import accuracy

    from cifar_fast.data.block import data_block
    from cifar_fast.data.sources import Arrays, Source

    blank = Arrays(np.zeros((1, 32, 32, 3), np.uint8), np.zeros(1, np.int64))
    source = Source(name=card["data"].get("name", "unknown"), train=blank, test=None, vocab=tuple(card["vocab"]),
                    mean=tuple(card["normalize"]["mean"]), std=tuple(card["normalize"]["std"]),
                    fingerprint=card["data"].get("fingerprint", ""), skipped=(), origin="export")
    dls = data_block(source, [0], [0]).dataloaders(np.arange(1), bs=1, num_workers=0, device=torch.device("cpu"))
    model = create_model(card["arch"], len(card["vocab"]))
    model.load_state_dict(state)
    return Learner(dls, model.eval(), loss_func=CrossEntropyLossFlat(), metrics=accuracy, path=Path("."))


def load_export(stem: str | Path, device: str | torch.device = "cpu") -> Predictor:
    "Open `.safetensors` + `.json`; no pickle is read, no code of the files is run. Raises ExportError."
    card = read_card(stem)
    state = read_weights(stem, card)
    path = export_files(stem)[0]
    try:
        model = create_model(card["arch"], len(card["vocab"]))
        model.load_state_dict(state)
    except (MemoryError, RuntimeError) as e:
        raise ExportError(f"{path} cannot be opened: {short(e)}") from None
    return check_forward(model, card, device, path)


def check_forward(model: torch.nn.Module, card: dict, device: str | torch.device, path: Path) -> Predictor:
    "The net of `path`, once it has answered for a black and a white image. Raises ExportError."
    probe = np.stack([np.zeros((32, 32, 3), np.uint8), np.full((32, 32, 3), 255, np.uint8)])
    try:
        shape = Predictor(model, card, torch.device("cpu"), str(path)).predict(probe).shape
    except ExportError:
        raise
    except Exception as e:  # many of timm's nets take images of another size, each says so in its own way
        raise ExportError(f"the net of {path} cannot look at images of 32×32: {short(e)}") from None
    if shape != (2, len(card["vocab"])):
        raise ExportError(f"the net of {path} gives {shape[1:]} answers for {len(card['vocab'])} classes")
    device = torch.device(device)
    return Predictor(model.to(device).eval(), card, device, str(path))


def load_model(path: str | Path, device: str | torch.device = "cpu", trust_pickle: bool = False) -> Predictor:
    """Open what a user named: a .pkl where it says so and is trusted, else the .safetensors and .json.

    Neither stands in for the other. Raises ExportError.
    """
    path = expand_path(path)
    return load_pickle(path, device, trust_pickle) if path.suffix == ".pkl" else load_export(path, device)


def load_pickle(path: Path, device: str | torch.device = "cpu", trusted: bool = False) -> Predictor:
    "Open a Learner that was exported as .pkl, which runs its code: only with `trusted`, or from the list of the user."
    try:
        content = read_regular(path, MODEL_BYTES)  # once: what is opened is what was looked up
    except FileNotFoundError:
        raise ExportError(f"no file {path}") from None
    except (OSError, ValueError, MemoryError) as e:
        raise ExportError(f"{path} cannot be read: {short(e)}") from None
    if not trusted:
        require_trust(path, content)
    from fastai.data.transforms import Normalize
    from fastai.learner import load_learner

    try:
        learn = load_learner(io.BytesIO(content))
        stats = next(t for t in learn.dls.valid.after_batch.fs if isinstance(t, Normalize))
        vocab = [printable(v) for v in learn.dls.vocab]
        mean, std = ([float(v) for v in t.flatten()] for t in (stats.mean, stats.std))
    except Exception as e:  # a pickle may raise whatever it likes
        raise ExportError(f"{path} cannot be opened as a Learner of this project: {short(e)}; "
                          f"{path.with_suffix('')} names the .safetensors and .json, if they are there") from None
    return check_forward(learn.model, {"vocab": vocab, "normalize": {"mean": mean, "std": std}}, device, path)


def rebuild_pickle(stem: str | Path) -> Path:
    "Make the .pkl anew from .safetensors + .json, for the Python and torch at hand."
    pkl, made = export_files(stem)[2], load_export(stem)
    with atomic_write(pkl) as tmp:
        save_pickle(tmp, made.card, made.model.state_dict())
    return pkl


# ---------------------------------------------------------------- images


def find_images(patterns: Iterable[str]) -> tuple[list[Path], list[str], list[str]]:
    """Files for paths, folders (searched below) and globs, in a stable order; patterns that matched nothing; and what
    could not be looked at, each with the reason. None of them costs the others.
    """
    found, missing, closed = [], [], []
    for pattern in patterns:
        here, reasons = _matching(pattern)
        found += here
        closed += reasons
        if not here and not reasons:
            missing.append(pattern)
    return list(dict.fromkeys(found)), missing, closed


def _matching(pattern: str) -> tuple[list[Path], list[str]]:
    path, reasons = expand_path(pattern), []
    if not pattern:  # an empty variable of a script, which a path would take for this folder
        return [], []
    try:
        if stat.S_ISDIR(os.stat(path).st_mode):
            return [p for p in _below(path, reasons) if p.suffix.lower() in EXTENSIONS], reasons
        return [path], reasons
    except (OSError, ValueError) as e:  # a glob is no file either
        here = _globbed(path, reasons)
        if not here and not isinstance(e, FileNotFoundError | NotADirectoryError):
            reasons.append(f"{printable(pattern)}: {getattr(e, 'strerror', None) or e}")
        return here, reasons


def _globbed(pattern: Path, reasons: list[str]) -> list[Path]:
    "Files that match a glob. `**` follows no links to folders: with two that lead in circles glob's own never ends."
    parts = pattern.parts
    if "**" not in parts:
        return [Path(p) for p in sorted(glob.glob(str(pattern))) if os.path.isfile(p)]
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    root = Path(*parts[:fixed])
    return [p for p in (_below(root, reasons) if root.is_dir() else ())
            if _matches(p.relative_to(root).parts, parts[fixed:]) and p.is_file()]


def _matches(names: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    "Whether the parts of a path match those of a glob, in which ** stands for any number of folders."
    if not pattern:
        return not names
    if pattern[0] == "**":
        return any(_matches(names[i:], pattern[1:]) for i in range(len(names) + 1))
    return bool(names) and fnmatch(names[0], pattern[0]) and _matches(names[1:], pattern[1:])


def _below(folder: Path, reasons: list[str]) -> Iterator[Path]:
    "Files at any depth; links to folders are not followed, so loops end. What cannot be listed is told in `reasons`."
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        try:
            with os.scandir(current) as entries:
                here = sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
        except OSError as e:
            reasons.append(f"{printable(current)}: cannot be listed ({e.strerror})")
            continue
        folders = []
        for entry in here:
            if not _is_folder(entry):
                yield Path(entry.path)
            elif not entry.is_symlink():
                folders.append(Path(entry.path))
        waiting += reversed(folders)


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def predict_files(exported: Predictor, paths: list[Path], tta: bool = False, bs: int = 500, progress: bool = False):
    "Yields (path, probabilities (C,) or None, reason or None) for each path in order; reads and predicts in batches."
    from tqdm import tqdm

    with tqdm(total=len(paths), unit="image", disable=not progress, leave=False) as bar:
        for i in range(0, len(paths), bs):
            batch, reasons = [], {}
            for path in paths[i:i + bs]:
                try:
                    batch.append(read_image(path))
                except ImageError as e:
                    reasons[path] = str(e)
            probs = iter(exported.predict(np.stack(batch), tta) if batch else ())
            for path in paths[i:i + bs]:
                yield (path, None, reasons[path]) if path in reasons else (path, next(probs), None)
            bar.update(len(paths[i:i + bs]))
