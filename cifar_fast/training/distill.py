"""Distillation as function matching: a teacher's predictions for the very images that the student sees.

Hinton et al., 2015, arXiv:1503.02531, with the same view for both, mixed and augmented, over a long training (Beyer et
al., 2021, arXiv:2106.05237). The loss of a batch is

    (1 - alpha) · (the recipe's loss, on labels or mixed targets)  +  alpha · T² · KL(teacher ‖ student)

of both softmaxes at temperature T.

Several teachers, `distill=exports/a,exports/b`, are one whose logits are the mean of theirs: its probabilities are the
geometric mean of theirs, as Hinton et al. have it for an ensemble.

T² keeps the gradient's size from depending on T. Label smoothing is in the first term alone: the teacher's
probabilities are soft by themselves. With `balance=loss` both terms of an image are multiplied by the same weight, the
mean of the class weights under its label or mixed target.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from fastai.callback.core import Callback
from fastai.learner import Metric

from cifar_fast.audit import count_params
from cifar_fast.data.layout import names
from cifar_fast.data.sources import Source
from cifar_fast.export.card_file import read_card
from cifar_fast.export.card_format import ExportError
from cifar_fast.export.card_parts import Normalization, Teacher
from cifar_fast.export.files import EXPORTED, WEIGHTS, file_sha256, run_folder
from cifar_fast.export.trained import read_trained
from cifar_fast.export.weights import read_weights
from cifar_fast.models import create_model
from cifar_fast.models.fold import fold
from cifar_fast.recipe import Recipe
from cifar_fast.training.batch_transforms import TORCH_FORMATS
from cifar_fast.training.callbacks.precision import DTYPES
from cifar_fast.training.init import Init, place_hint, saw_held_out
from cifar_fast.training.logits_cache import LogitsCache, logits_cache_of
from cifar_fast.utils.errors import CifarFastError
from cifar_fast.utils.files import expand_path
from cifar_fast.utils.seeds import rng_restored
from cifar_fast.utils.text import printable


class TeacherError(CifarFastError):
    "An export that a run cannot learn from; the message names it and the next step."


def read_teachers(recipe: Recipe) -> list[Init]:
    "The weights that `recipe.distill` names, in that order. Raises TeacherError."
    names = teacher_names(recipe.distill)
    known = recipe.distill_sha256.split(",") if recipe.distill_sha256 else [""] * len(names)
    if len(known) != len(names):
        raise TeacherError(f"teachers in distill={recipe.distill}: {len(names)}, checksums in distill_sha256: "
                           f"{len(known)}; give one for each, separated by commas, or leave out distill_sha256")
    return [read_teacher(recipe, name, sha256) for name, sha256 in zip(names, known, strict=True)]


def teacher_names(distill: str) -> list[str]:
    "One, or several separated by commas. Raises TeacherError."
    if "," not in distill or expand_path(distill).exists():  # a folder may have a comma in its name
        return [distill]
    names = [name.strip() for name in distill.split(",")]
    if "" in names:
        raise TeacherError(f"distill={distill}: a name is missing beside a comma; write distill=exports/a,exports/b")
    if again := [name for i, name in enumerate(names) if name in names[:i]]:
        raise TeacherError(f"distill={distill} names {again[0]} twice; name each teacher once")
    return names


def checksums_of(teachers: list[Init]) -> str:
    "As `distill_sha256` holds them."
    return ",".join(teacher.sha256 for teacher in teachers)


def read_teacher(recipe: Recipe, name: str, sha256: str = "") -> Init:
    "The weights of the export `name`, which must have this checksum if one is given. Raises TeacherError."
    path = expand_path(name)
    folder = run_folder(path)
    if path.suffix in EXPORTED:
        raise TeacherError(f"distill={name}: a teacher is a run, whose card says what its classes are; write "
                           f"distill={folder if folder != path else path.parent}")
    try:
        card = read_card(folder)
        state, trained = read_weights(folder, card), read_trained(folder)
    except ExportError as e:
        raise TeacherError(f"distill={name}: {e}{place_hint('distill', recipe, folder)}") from None
    own = card.sha256 or file_sha256(folder / WEIGHTS)
    if sha256 not in ("", own):
        raise TeacherError(f"distill={name} holds other weights (sha256 {own}) than those of "
                           f"distill_sha256={sha256}; restore them, or leave out distill_sha256")
    return Init(name, own, state, card.normalize, card.size, card, card.widths,
                trained=trained)


def require_classes(name: str, theirs: list[str], ours: list[str]) -> None:
    "Raises TeacherError unless the teacher knows the same classes in the same order."
    if theirs == ours:
        return
    if sorted(theirs) == sorted(ours):
        first = next(i for i, pair in enumerate(zip(theirs, ours, strict=True)) if pair[0] != pair[1])
        raise TeacherError(f"distill={name} knows the same classes in another order: its class {first} is "
                           f"{theirs[first]}, here it is {ours[first]}; train a teacher on these data")
    odd = sorted({*theirs} ^ {*ours})
    counts = "" if len(theirs) == len(ours) else f"{len(theirs)}, here there are {len(ours)}; "
    raise TeacherError(f"distill={name} knows other classes than these data ({counts}{names(odd)} "
                       f"{'is' if len(odd) == 1 else 'are'} known to one of the two alone); train a teacher on these "
                       f"data")


@dataclass
class TeacherModel:
    """A teacher for a student's batches: folded, in eval mode, in the precision that the student trains in.

    It takes batches that are normalised for the student, of any size, and brings them to its own normalisation and, by
    linear interpolation, to its own size. It uses no RNG.
    """

    weights: Init
    model: torch.nn.Module
    params: int
    dtype: torch.dtype
    format: torch.memory_format
    settings: Recipe
    saw_held_out: bool
    scale: torch.Tensor | None = field(default=None, repr=False)  # (3, 1, 1), None where both are normalised alike
    shift: torch.Tensor | None = field(default=None, repr=False)

    @torch.no_grad()
    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        "Logits (B, C) float32 of images (B, 3, H, W)."
        size = self.weights.size
        if x.shape[-2:] != (size, size):
            x = F.interpolate(x, (size, size), mode="bilinear", antialias=True)
        if self.scale is not None:
            x = x * self.scale + self.shift
        return self.model(x.to(self.dtype, memory_format=self.format)).float()

    def normalized_by(self, mean, std) -> TeacherModel:
        "The same for batches of this mean and std."
        theirs, device = self.weights.normalize, next(self.model.parameters()).device
        if theirs != Normalization(mean=[float(v) for v in mean], std=[float(v) for v in std]):
            mean, std, their_mean, their_std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1)
                                                for v in (mean, std, theirs.mean, theirs.std))
            self.scale, self.shift = ((std / their_std).float().to(device),
                                      ((mean - their_mean) / their_std).float().to(device))
        return self

    def entry(self) -> Teacher:
        "Its part of the card."
        card = self.weights.card
        return Teacher(name=printable(self.weights.name), sha256=self.weights.sha256, size=card.size, arch=card.arch,
                       params=self.params, seconds=card.seconds.training if card.seconds else None,
                       data=card.data.name, split=card.split,
                       accuracy=card.metrics.accuracy if card.metrics else None, saw_held_out=self.saw_held_out,
                       alpha=self.settings.distill_alpha, temperature=self.settings.distill_temperature)


@dataclass(frozen=True)
class Teachers:
    "The teachers of a run, one or several."

    members: list[TeacherModel]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        "The mean of their logits (B, C), float32 rounded to float16 as in the cache, of images (B, 3, H, W)."
        return (sum(teacher(x) for teacher in self.members) / len(self.members)).half().float()

    def normalized_by(self, mean, std) -> Teachers:
        return Teachers([teacher.normalized_by(mean, std) for teacher in self.members])

    def entries(self) -> list[Teacher]:
        "Their part of the card."
        return [teacher.entry() for teacher in self.members]


def open_teacher(weights: Init, recipe: Recipe, source: Source, device: torch.device, precision: str) -> TeacherModel:
    "The teacher of a run on `source`. Raises TeacherError where its classes are not those of the images."
    card = weights.card
    require_classes(weights.name, card.vocab, list(source.vocab))
    with rng_restored():
        model = create_model(card.arch, len(card.vocab), card.size, card.widths)
    model.load_state_dict(weights.state)
    params = count_params(model)
    dtype = DTYPES.get(precision, torch.float32)
    memory_format = TORCH_FORMATS.get(card.machine.memory_format, torch.channels_last)
    model = fold(model).requires_grad_(False).to(device, dtype).to(memory_format=memory_format)
    return TeacherModel(weights, model, params, dtype, memory_format, recipe, saw_held_out(weights, recipe, source))


class Distillation(Callback):
    "Adds the teacher's term to the loss of each training batch; validation, and all accuracies, are of the labels."

    order = 8.5  # after BatchTransforms (8) has made the view that the student sees; Autocast (9) begins after it
    run_valid = False

    def __init__(self, teacher: Teachers, alpha: float, temperature: float, cache: LogitsCache | None = None):
        self.teacher, self.alpha, self.temperature, self.cache = teacher, alpha, temperature, cache
        self.part = None  # the teacher's term of the batch at hand

    def before_fit(self):
        if self.cache:
            self.cache.open()

    def undo(self):
        "Also called after an error."
        if self.cache:
            self.cache.close()

    after_fit = undo

    def before_batch(self):
        self.targets = self.y
        self.logits = (self.cache.get(self.seeding.seeded_epoch, self.iter, self.x, self.teacher) if self.cache else
                       self.teacher(self.x))

    def after_loss(self):
        weight = getattr(self.loss_func, "weight", None)  # of each class, with balance=loss
        if weight is not None:
            weight = weight[self.targets] if self.targets.ndim == 1 else (self.targets * weight).sum(1)
        part = teacher_loss(self.pred, self.logits, self.temperature, weight)
        self.learn.loss_grad = (1 - self.alpha) * self.loss_grad + self.alpha * part
        self.learn.loss, self.part = self.loss_grad.clone(), part.detach()


def teacher_loss(
    logits: torch.Tensor,  # (B, C) of the student
    theirs: torch.Tensor,  # (B, C) of the teacher
    temperature: float,
    weight: torch.Tensor | None = None,  # (B,) of each image
) -> torch.Tensor:
    "T² times the mean over a batch of KL(teacher ‖ student), both softmaxes at temperature T."
    ours, theirs = ((z / temperature).log_softmax(1) for z in (logits, theirs))
    each = F.kl_div(ours, theirs, reduction="none", log_target=True).sum(1)
    return temperature**2 * (each if weight is None else each * weight).mean()


class TeacherLoss(Metric):
    "The mean of the teacher's term over an epoch's training: the column `train_teacher_loss` of the history."

    name = "teacher_loss"

    def __init__(self):
        self.reset()

    def reset(self):
        self.total, self.count = 0.0, 0

    def accumulate(self, learn):
        if learn.training:
            self.total += float(learn.distillation.part) * len(learn.y)
            self.count += len(learn.y)

    @property
    def value(self) -> float | None:
        return self.total / self.count if self.count else None


def distillation_cbs(run, keeps: bool = False) -> list[Callback]:
    "The callback that makes a prepared run learn from its teacher; none without one. `keeps`: it may use the cache."
    if not run.teachers:
        return []
    r = run.recipe
    cache = logits_cache_of(run) if keeps and r.distill_cache else None
    return [Distillation(run.teachers, r.distill_alpha, r.distill_temperature, cache)]
