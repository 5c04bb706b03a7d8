"""The parts of a model: stem, stages and head. For a trained start, and for learning rates that differ by depth."""

from collections.abc import Collection

from timm.models import group_parameters
from torch import nn


def head_names(model: nn.Module) -> set[str]:
    "Names of the classifier's tensors: timm's `get_classifier()`, else the last child that has weights."
    find = getattr(model, "get_classifier", None)
    heads = find() if find else [child for child in model.children() if list(child.parameters())][-1:]
    heads = heads if isinstance(heads, list | tuple) else [heads]  # a distilled model has two
    return {f"{path}.{name}" for path, module in model.named_modules() if any(module is head for head in heads)
            for name in module.state_dict()}


def stem_stages_head(model: nn.Module, new: Collection[str] = ()) -> list[list[nn.Parameter]]:
    """A splitter for `Learner`: the parameters of the stem, of each stage, and of the head.

    Stages are those of timm's `group_matcher`; a model without one has the two groups body and head. `new`: names of
    further parameters that have no trained weights; they train with the head.
    """
    own = head_names(model) | set(new)
    head = [p for name, p in model.named_parameters() if name in own]
    body = {name: p for name, p in model.named_parameters() if name not in own}
    matcher = getattr(model, "group_matcher", None)
    stages: dict[int, list[nn.Parameter]] = {}
    for stage, names in (group_parameters(model, matcher(coarse=True)) if matcher else {0: list(body)}).items():
        stages[stage] = [body[name] for name in names if name in body]
    return [group for _, group in sorted(stages.items()) if group] + [head]
