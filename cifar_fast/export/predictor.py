"""Open a saved run and predict with it."""

from __future__ import annotations

import glob
import io
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import torch

from cifar_fast.data.images import EXTENSIONS, ImageError, read_image
from cifar_fast.export.card import Card, ExportError, Normalization, read_card
from cifar_fast.export.files import LEARNER, MODEL_BYTES, WEIGHTS, read_weights, run_folder, short
from cifar_fast.export.trust import require_trust
from cifar_fast.models import create_model
from cifar_fast.utils.files import expand_path, read_regular
from cifar_fast.utils.text import printable

READ_BYTES = 2**26
"Of images that `predict_files` holds at a time."
UNKNOWN = "unknown"
"What is answered below a threshold."


@dataclass(frozen=True)
class Predictor:
    "A trained model with everything that it needs to classify an image."

    model: torch.nn.Module  # eval mode, on `device`
    vocab: list[str]
    normalization: Normalization
    device: torch.device
    card: Card | None = None  # of its run; None for a .pkl, which has none
    origin: str = "the model"  # where it came from, for a message
    size: int = 32  # of the images, pixels
    resize_mode: str = "crop"  # how images are brought to that square
    temperature: float = 1.0  # by which logits are divided before the softmax
    threshold: float = 0.0  # least confidence of an answer; below it `answer` says UNKNOWN

    def read(self, source) -> np.ndarray:
        "An image (see `read_image`) as the model sees it, (size, size, 3) uint8. Raises ImageError."
        return read_image(source, self.size, self.resize_mode, self.card and self.card.data.ranges)

    def answer(self, probs: np.ndarray) -> str:
        "The class of highest probability (C,), or UNKNOWN below the threshold."
        return self.vocab[probs.argmax()] if probs.max() >= self.threshold else UNKNOWN

    def normalize(self, images: np.ndarray) -> torch.Tensor:
        "(N, size, size, 3) uint8 → (N, 3, size, size) float32 as the model was trained on."
        x = torch.from_numpy(np.array(images)).to(self.device).permute(0, 3, 1, 2).float().div_(255)
        mean, std = (torch.tensor(values, device=self.device)[:, None, None]
                     for values in (self.normalization.mean, self.normalization.std))
        return x.sub_(mean).div_(std)

    def predict(self, images: np.ndarray, tta: bool = False, bs: int | None = None) -> np.ndarray:
        """Class probabilities (N, C) float32 of (N, size, size, 3) uint8 images; `tta`: mean of image and mirror.

        Raises ExportError where the model gives non-finite values.
        """
        plain, mirrored = probabilities(self.model, self.batches(images, bs), tta, self.temperature)
        return self.finite(mirrored if tta else plain)

    @torch.no_grad()
    def logits(self, images: np.ndarray) -> np.ndarray:
        "The model's outputs (N, C) float32, before temperature and softmax. Raises ExportError likewise."
        return self.finite(torch.cat([self.model(x).float().cpu() for x in self.batches(images)]).numpy())

    def batches(self, images: np.ndarray, bs: int | None = None) -> Iterator[torch.Tensor]:
        # 125 images of 32×32 at a time run at about the bare model's best speed; 500 are slower.
        bs = bs or max(1, (125 if self.device.type == "cpu" else 1000) * 32**2 // max(32, self.size) ** 2)
        return (self.normalize(images[i:i + bs]) for i in range(0, len(images), bs))

    def finite(self, values: np.ndarray) -> np.ndarray:
        if not np.isfinite(values).all():
            raise ExportError(f"{self.origin} gives non-finite values (NaN or inf): its weights are too large; restore "
                              f"the files, or train again")
        return values


@torch.no_grad()
def probabilities(model, batches: Iterable[torch.Tensor], tta: bool,
                  temperature: float = 1.0) -> tuple[np.ndarray, np.ndarray | None]:
    "Class probabilities (N, C) of normalised batches, and (with `tta`) their means over image and mirror."
    was_training = model.training
    model.eval()
    plain, mirrored = [], []
    try:
        for x in batches:
            p = model(x).float().div(temperature).softmax(1)
            plain.append(p.cpu())
            if tta:
                mirrored.append(((p + model(x.flip(3)).float().div(temperature).softmax(1)) / 2).cpu())
    finally:
        model.train(was_training)
    if not plain:
        return np.zeros((0, 0), np.float32), np.zeros((0, 0), np.float32)
    return torch.cat(plain).numpy(), torch.cat(mirrored).numpy() if tta else None


def load_export(path: str | Path, device: str | torch.device = "cpu") -> Predictor:
    "Open exports/NAME by its card and weights; no pickle is read, no code of the files is run. Raises ExportError."
    folder = run_folder(path)
    card = read_card(folder)
    state = read_weights(folder, card)
    try:
        model = create_model(card.arch, len(card.vocab), card.size, card.widths)
        model.load_state_dict(state)
    except (MemoryError, RuntimeError) as e:
        raise ExportError(f"{folder / WEIGHTS} cannot be opened: {short(e)}") from None
    predictor = Predictor(model, card.vocab, card.normalize, torch.device("cpu"), card, str(folder / WEIGHTS),
                          card.size, card.resize_mode, card.temperature)
    return check_forward(predictor, device)


def check_forward(predictor: Predictor, device: str | torch.device) -> Predictor:
    "The predictor on `device`, once it has classified a black and a white image on the CPU. Raises ExportError."
    size, path, classes = predictor.size, predictor.origin, len(predictor.vocab)
    probe = np.stack([np.full((size, size, 3), grey, np.uint8) for grey in (0, 255)])
    try:
        shape = predictor.predict(probe).shape
    except ExportError:
        raise
    except Exception as e:  # a model for another image size may raise anything
        raise ExportError(f"the model of {path} does not take images of {size}×{size}: {short(e)}") from None
    if shape != (2, classes):
        raise ExportError(f"the model of {path} gives {shape[1:]} values for {classes} classes")
    device = torch.device(device)
    return replace(predictor, model=predictor.model.to(device).eval(), device=device)


def load_model(path: str | Path, device: str | torch.device = "cpu", trust_pickle: bool = False) -> Predictor:
    "Open what a user named: a trusted .pkl, else a run by its card and weights. Raises ExportError."
    path = expand_path(path)
    return load_pickle(path, device, trust_pickle) if path.suffix == ".pkl" else load_export(path, device)


def load_pickle(path: Path, device: str | torch.device = "cpu", trusted: bool = False) -> Predictor:
    "Open a Learner that was exported as .pkl, which runs its code: only with `trusted`, or from the list of the user."
    try:
        content = read_regular(path, MODEL_BYTES)  # read once: the bytes that are opened are those that were checked
    except FileNotFoundError:
        raise ExportError(f"no file {path}") from None
    except (OSError, ValueError, MemoryError) as e:
        raise ExportError(f"{path} cannot be read: {short(e)}") from None
    if not trusted:
        require_trust(path, content)
    from fastai.data.transforms import Normalize
    from fastai.learner import load_learner

    from cifar_fast.data.block import image_reader

    try:
        learn = load_learner(io.BytesIO(content))
        stats = next(t for t in learn.dls.valid.after_batch.fs if isinstance(t, Normalize))
        vocab, reader = [printable(v) for v in learn.dls.vocab], image_reader(learn.dls)
        mean, std = ([float(v) for v in t.flatten()] for t in (stats.mean, stats.std))
        temperature = float(getattr(learn.loss_func, "temperature", 1.0))
    except Exception as e:  # a pickle may raise whatever it likes
        raise ExportError(f"{path} cannot be opened as a Learner of this project: {short(e)}; "
                          f"{path.parent} opens the run instead, if it is one of ours") from None
    return check_forward(Predictor(learn.model, vocab, Normalization(mean=mean, std=std), torch.device("cpu"),
                                   origin=str(path), size=reader.size, resize_mode=reader.resize_mode,
                                   temperature=temperature), device)


def rebuild_pickle(path: str | Path) -> Path:
    "Make learner.pkl again from card and weights, for the Python and torch at hand."
    from cifar_fast.export.save import save_learner

    folder, opened = run_folder(path), load_export(path)
    save_learner(folder / LEARNER, opened.card, opened.model.state_dict())
    return folder / LEARNER


# ---------------------------------------------------------------- images


def find_images(patterns: Iterable[str]) -> tuple[list[Path], list[str], list[str]]:
    """Files for paths, folders (searched recursively) and globs, in a stable order; patterns that matched nothing; and
    what could not be read, each with the reason.
    """
    files, missing, closed = [], [], []
    for pattern in patterns:
        here, reasons = _matching(pattern)
        files += here
        closed += reasons
        if not here and not reasons:
            missing.append(pattern)
    return list(dict.fromkeys(files)), missing, closed


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
    "Files at any depth; links to folders are not followed, so loops end. What cannot be listed is added to `reasons`."
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

    bs = max(1, min(bs, READ_BYTES // (3 * exported.size**2)))

    with tqdm(total=len(paths), unit="image", disable=not progress, leave=False) as bar:
        for i in range(0, len(paths), bs):
            batch, reasons = [], {}
            for path in paths[i:i + bs]:
                try:
                    batch.append(exported.read(path))
                except ImageError as e:
                    reasons[path] = str(e)
            probs = iter(exported.predict(np.stack(batch), tta) if batch else ())
            for path in paths[i:i + bs]:
                yield (path, None, reasons[path]) if path in reasons else (path, next(probs), None)
            bar.update(len(paths[i:i + bs]))
