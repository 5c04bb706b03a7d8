"""Structured pruning: the least important channels of trained weights are removed, the same fraction in every layer.

torch-pruning (Fang et al., 2023, arXiv:2301.12900) finds which channels can only be removed together, and ranks them
by the L2 norm of all weights that they own. As every layer loses the same fraction, the result is the same
architecture with smaller `widths`: it is built, saved and opened like any other.

Flip-equivariant layers are pruned as the ordinary convolutions that they compute, both mirror halves of a channel
together, and read back from them.
"""

from __future__ import annotations

import copy
import inspect
import warnings
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from cifar_fast.models import ModelError, create_model
from cifar_fast.models.flip_equivariant import FlipEquivariantConv2d, FlipEquivariantConvBnAct, GroupPooling
from cifar_fast.training.init import Init, InitError
from cifar_fast.utils.seeds import rng_restored


def narrowed(
    init: Init,
    fraction: float,  # of the channels to remove
) -> Init:
    "The weights without their least important channels, for the same architecture at smaller widths. InitError."
    card = init.card
    if card is None:
        raise InitError(f"init={init.name}: prune= takes an export of a run, which says what it was trained on")
    with rng_restored():
        model = create_model(card.arch, len(card.vocab), card.size, card.widths)
    model.load_state_dict(init.state)
    before = init.widths or own_widths(model)
    if not before:
        raise InitError(f"prune={fraction:g}: {card.arch} has no `widths` to be built at, so that a pruned one could "
                        f"not be opened again; take a model that has: final, micro, sprint, arch=cifar_final")
    halves = 2 if any(isinstance(m, GroupPooling) for m in model.modules()) else 1
    after = tuple(kept(width // halves, fraction) * halves for width in before)
    if not min(after):
        raise InitError(f"prune={fraction:g} leaves no channel of {min(before)}; prune less")
    pruned = without_channels(ordinary(model), fraction, card.size, halves)
    try:
        with rng_restored():
            narrow = create_model(card.arch, len(card.vocab), card.size, after)
        narrow.load_state_dict(read_back(pruned.state_dict(), narrow, halves))
    except (ModelError, RuntimeError) as e:
        raise InitError(f"prune={fraction:g}: {card.arch} at widths {after} is not what is left of init={init.name}: "
                        f"{' '.join(str(e).split())[:200]}; prune another fraction") from None
    return replace(init, state=narrow.state_dict(), widths=after, pruned=fraction, theirs=tuple(before))


def own_widths(model: nn.Module) -> Sequence[int]:
    "Those that its class has by default; empty for one without the argument."
    argument = inspect.signature(type(model).__init__).parameters.get("widths")
    return argument.default if argument else ()


def kept(channels: int, fraction: float) -> int:
    "How many torch-pruning leaves."
    return int(channels * (1 - fraction))


def without_channels(model: nn.Module, fraction: float, size: int, halves: int) -> nn.Module:
    "`model`, pruned in place: each group of coupled channels by the same fraction. Raises InitError."
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of torch, about how the library is written
            import torch_pruning as tp
    except ImportError as e:
        raise InitError(f"prune={fraction:g} needs torch-pruning ({e}): python -m pip install torch-pruning") from None

    dense = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m.groups == 1]
    with torch.enable_grad():
        tp.MagnitudePruner(
            model.eval(), torch.zeros(1, 3, size, size), tp.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=fraction, ignored_layers=[model.get_classifier()],
            # Given also where empty: the defaults are dicts that the library itself writes to.
            in_channel_groups={}, out_channel_groups={conv: halves for conv in dense} if halves > 1 else {},
        ).step()
    return model


def ordinary(model: nn.Module) -> nn.Module:
    "A copy in ordinary convolutions of the same names, if it has flip-equivariant ones; its classifier pools halves."
    model = copy.deepcopy(model)
    if replace_layers(model):
        classifier = model.get_classifier()
        weight = classifier.weight.detach()
        classifier.in_features *= 2
        classifier.weight = nn.Parameter(torch.cat([weight, weight], 1) / 2)
    return model


def replace_layers(module: nn.Module) -> bool:
    "Replace flip-equivariant layers in `module`; whether it has pooled their halves."
    pools = False
    for name, child in module.named_children():
        if isinstance(child, FlipEquivariantConvBnAct):
            setattr(module, name, nn.Sequential(OrderedDict(zip(("conv", "bn", "act"), child.plain(), strict=True))))
        elif isinstance(child, FlipEquivariantConv2d):
            setattr(module, name, child.plain())
        elif isinstance(child, GroupPooling):
            setattr(module, name, nn.Identity())
            pools = True
        else:
            pools |= replace_layers(child)
    return pools


def read_back(state: dict[str, torch.Tensor], model: nn.Module, halves: int) -> dict[str, torch.Tensor]:
    "The tensors of `model`, of which `state` holds the ordinary ones: those of the first halves, the rest follows."
    if halves == 1:
        return state
    heads = {f"{name}.weight" for name, module in model.named_modules() if module is model.get_classifier()}
    found = {}
    for name, own in model.state_dict().items():
        value = state[name]
        if name in heads:
            found[name] = 2 * value[:, :own.shape[1]]
        else:
            found[name] = value[:own.shape[0]] if value.ndim else value
    return found
