"""A trained model in torch. `load` opens a run without torch where it can."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from cifar_fast.data.depth import Ranges
from cifar_fast.data.images import batch_size
from cifar_fast.export.base import BasePredictor, probe
from cifar_fast.export.card import Card
from cifar_fast.export.card_file import read_card
from cifar_fast.export.card_format import ExportError
from cifar_fast.export.card_parts import Normalization
from cifar_fast.export.files import LEARNER, MODEL_BYTES, WEIGHTS, run_folder, short
from cifar_fast.export.trust import require_trust
from cifar_fast.export.weights import read_weights
from cifar_fast.models import create_model
from cifar_fast.models.fold import fold
from cifar_fast.utils.files import read_regular
from cifar_fast.utils.text import printable


@dataclass(frozen=True)
class Predictor(BasePredictor):
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
    threshold: float = 0.0  # least confidence; below it `label` gives UNKNOWN
    folded: torch.nn.Module | None = None  # the same function in fewer operations, used instead of `model`
    pickled_ranges: Ranges | None = None  # `ranges` of a .pkl

    @property
    def ranges(self) -> Ranges | None:
        return self.card.data.ranges if self.card else self.pickled_ranges

    def normalize(self, images: np.ndarray) -> torch.Tensor:
        "(N, size, size, 3) uint8 → (N, 3, size, size) float32 as the model was trained on."
        x = torch.from_numpy(np.array(images)).to(self.device).permute(0, 3, 1, 2).float().div_(255)
        mean, std = (torch.tensor(values, device=self.device)[:, None, None]
                     for values in (self.normalization.mean, self.normalization.std))
        return x.sub_(mean).div_(std)

    def probabilities(self, images: np.ndarray, tta: bool = False,
                      bs: int | None = None) -> tuple[np.ndarray, np.ndarray | None]:
        return probabilities(self.folded or self.model, self.batches(images, bs), tta, self.temperature)

    @torch.no_grad()
    def logits(self, images: np.ndarray) -> np.ndarray:
        "The model's outputs (N, C) float32, before temperature and softmax. Raises ExportError likewise."
        model = self.folded or self.model
        return self.finite(torch.cat([model(x).float().cpu() for x in self.batches(images)]).numpy())

    def batches(self, images: np.ndarray, bs: int | None = None) -> Iterator[torch.Tensor]:
        bs = bs or batch_size(self.size, 125 if self.device.type == "cpu" else 1000)
        return (self.normalize(images[i:i + bs]) for i in range(0, len(images), bs))


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
    return open_weights(folder, read_card(folder), device)


def open_weights(folder: Path, card: Card, device: str | torch.device = "cpu") -> Predictor:
    "The same with a card that is not in the folder yet."
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
    """The predictor on `device`, folded if that is a CPU, once it has classified a black and a white image there.

    Raises ExportError where it cannot.
    """
    size, path, classes = predictor.size, predictor.origin, len(predictor.vocab)
    try:
        shape = predictor.predict(probe(size)).shape
    except ExportError:
        raise
    except Exception as e:  # a model for another image size may raise anything
        raise ExportError(f"the model of {path} does not take images of {size}×{size}: {short(e)}") from None
    if shape != (2, classes):
        raise ExportError(f"the model of {path} gives {shape[1:]} values for {classes} classes")
    device, model = torch.device(device), predictor.model.eval()
    folded = fold(model) if device.type == "cpu" else None
    return replace(predictor, model=model.to(device), folded=folded, device=device)


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
                                   temperature=temperature, pickled_ranges=reader.ranges), device)


def rebuild_pickle(path: str | Path) -> Path:
    "Make learner.pkl again from card and weights, for the Python and torch at hand."
    from cifar_fast.export.save import save_learner

    folder, opened = run_folder(path), load_export(path)
    save_learner(folder / LEARNER, opened.card, opened.model.state_dict())
    return folder / LEARNER
