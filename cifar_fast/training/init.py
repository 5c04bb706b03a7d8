"""A trained start: the weights of an export, or of a model in timm's format, and what of them a model takes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import timm
import torch
from timm.models import load_model_config_from_hf, parse_model_name

from cifar_fast.data.block import split_rows
from cifar_fast.data.sources import Source, same_data
from cifar_fast.export.card import Card
from cifar_fast.export.card_file import read_card
from cifar_fast.export.card_format import NAME as CARD
from cifar_fast.export.card_format import ExportError
from cifar_fast.export.card_parts import Normalization, Start
from cifar_fast.export.files import CONFIG, EXPORTED, WEIGHTS, file_sha256, run_folder, short
from cifar_fast.export.trained import read_trained
from cifar_fast.export.weights import read_weights
from cifar_fast.models.parts import head_names
from cifar_fast.recipe import Recipe
from cifar_fast.utils.errors import CifarFastError
from cifar_fast.utils.files import expand_path
from cifar_fast.utils.seeds import rng_restored
from cifar_fast.utils.text import printable

PREFIXES = ("hf-hub:", "local-dir:")
"Of names that timm resolves."


class InitError(CifarFastError):
    "Weights that a run cannot start from; the message names them and the next step."


@dataclass(frozen=True)
class Init:
    "Trained weights, and the input that they were trained for."

    name: str  # as the recipe names them
    sha256: str  # of an export's file, else of the tensors in the order of their names
    state: dict[str, torch.Tensor]
    normalize: Normalization
    size: int  # pixels of a side of the images
    card: Card | None = None  # of an export
    widths: Sequence[int] | None = None  # of a model that has others than its architecture's own
    pruned: float = 0.0  # fraction of their channels that was removed
    theirs: Sequence[int] = ()  # the widths before that
    trained: np.ndarray | None = None  # of an export, what `read_trained` says


def read_init(recipe: Recipe) -> Init:
    "The weights that `recipe.init` names, for its `arch`. Raises InitError."
    init = (from_timm if recipe.init.startswith(PREFIXES) else from_export)(recipe)
    if recipe.init_sha256 not in ("", init.sha256):
        raise InitError(f"init={recipe.init} holds other weights (sha256 {init.sha256}) than those of "
                        f"init_sha256={recipe.init_sha256}; restore them, or leave out init_sha256")
    return init


def from_export(recipe: Recipe) -> Init:
    path, folder = expand_path(recipe.init), run_folder(recipe.init)
    if path.suffix in EXPORTED:
        raise InitError(f"init={recipe.init} is an exported file, which cannot be trained further; name its run: "
                        f"init={folder if folder != path else path.parent}")
    try:
        card = read_card(folder)
        require_arch(recipe, card.arch)
        state, trained = read_weights(folder, card), read_trained(folder)
    except ExportError as e:
        raise InitError(f"init={recipe.init}: {e}{place_hint('init', recipe, folder)}") from None
    return Init(recipe.init, card.sha256 or file_sha256(folder / WEIGHTS), state, card.normalize, card.size, card,
                card.widths, trained=trained)


def place_hint(key: str, recipe: Recipe, folder: Path) -> str:
    "What to write where a run was named without the folder that it is in."
    inside = Path(recipe.exports) / folder.name
    return f"; write {key}={inside}" if folder.parent == Path(".") and (inside / CARD).is_file() else ""


def from_timm(recipe: Recipe) -> Init:
    "By timm's own functions, which convert older formats of its weights and read pickles as tensors only."
    try:
        with rng_restored():
            model = timm.create_model(recipe.init, pretrained=True)
        widths = widths_in_timm(recipe.init)
    except Exception as e:  # timm, the Hub and the network raise whatever they like
        raise InitError(f"init={recipe.init} cannot be opened: {short(e)}; check the name "
                        f"({parse_model_name(recipe.init)[1]}), its config.json and its weights") from None
    cfg, state = model.pretrained_cfg, model.state_dict()
    require_arch(recipe, cfg["architecture"])
    if odd := [name for name, t in state.items() if t.is_floating_point() and not torch.isfinite(t).all()]:
        raise InitError(f"init={recipe.init}: {odd[0]} holds non-finite values (NaN or inf); restore the file")
    return Init(recipe.init, state_sha256(state), state,
                Normalization(mean=list(map(float, cfg["mean"])), std=list(map(float, cfg["std"]))),
                cfg["input_size"][-1], widths=widths)


def widths_in_timm(name: str) -> list[int] | None:
    "Of a model that was saved with others than its architecture's own, as a run that was made narrower is."
    source, where = parse_model_name(name)
    config = json.loads((Path(where) / CONFIG).read_text("utf-8")) if source == "local-dir" else None
    args = config.get("model_args") if config else load_model_config_from_hf(where)[2]
    return (args or {}).get("widths")


def require_arch(recipe: Recipe, arch: str) -> None:
    if arch != recipe.arch:
        raise InitError(f"init={recipe.init} holds weights of {arch}, and recipe {recipe.name} trains {recipe.arch}, "
                        f"which they do not fit; add arch={arch}, or start from weights of {recipe.arch}")


def state_sha256(state: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def saw_held_out(init: Init, recipe: Recipe, source: Source) -> bool:
    "Whether the weights of a run were trained on images that this run is measured on."
    card = init.card
    if not card:
        return False
    measured = measured_digests(recipe, source)
    if init.trained is not None and measured is not None and seen_alike(card, source):
        return bool(np.isin(measured, init.trained).any())
    # Otherwise by what both were told.
    if card.data.fingerprint != source.fingerprint and not same_data(str(card.recipe.get("data", "")), recipe.data):
        return False
    if source.seeded and card.recipe.get("seed") != recipe.seed:  # another test set of the same images
        return True
    split = ("valid", "seed", "validate_on")
    return bool(recipe.valid and not source.valid) and (
        [card.recipe.get(key) for key in split] != [getattr(recipe, key) for key in split])


def seen_alike(card: Card, source: Source) -> bool:
    "Whether the run saw its images in the size that these have, so that equal images have equal pixels."
    return (card.size, card.resize_mode) == (source.size, source.resize_mode)


def measured_digests(recipe: Recipe, source: Source) -> np.ndarray | None:
    "Of the images that a run is measured on, (N,) uint64; None where there are none, or they were no files."
    _, rows = split_rows(source, recipe.valid, recipe.validate_on, recipe.seed)
    if recipe.validate_on == "test" or not len(rows) or source.valid and source.test:
        rows = source.rows("test")
    if not len(rows):
        return None
    part, places = source.locate(rows)
    return None if part.digests is None else part.digests[places]


def take_weights(
    model: torch.nn.Module,
    init: Init,
    vocab: Sequence[str] = (),  # of the model; pruned weights of the same classes keep their head
) -> Start:
    "Load all tensors that fit, but for the head, which stays as it is. Raises InitError where none does."
    keeps_head = init.pruned and init.card.vocab == list(vocab)
    own, heads = model.state_dict(), set() if keeps_head else head_names(model)
    fitting = {name: t for name, t in init.state.items()
               if name not in heads and name in own and own[name].shape == t.shape}
    if not any(name in fitting for name, _ in model.named_parameters()):
        raise InitError(f"init={init.name}: none of its {len(init.state)} tensors has the name and shape of one of "
                        f"this model's; start from weights that were made with the same arch and size")
    model.load_state_dict(fitting, strict=False)
    card = init.card
    metrics = card.metrics if card else None
    return Start(
        name=printable(init.name), sha256=init.sha256, size=init.size, tensors=len(own), taken=len(fitting),
        new=[name for name in own if name in heads],
        unfit=[name for name in own if name not in heads and name not in fitting],
        unused=[name for name in init.state if name not in own],
        pruned=init.pruned, widths=list(init.theirs) if init.pruned else [],
        data=card.data.name if card else "", split=card.split if card else None,
        accuracy=metrics.accuracy if metrics else None)
