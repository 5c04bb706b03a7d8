"""The executed graph of one image, counted: costs, operations and the receptive field by the rule."""

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from cifar_fast.audit.feature_maps import Map
from cifar_fast.audit.op_recorder import Layer, OpRecorder, eval_copy
from cifar_fast.audit.params import count_params, weights


@dataclass(frozen=True, kw_only=True)
class Profile:
    "What one image costs and which operations it meets."

    input_size: tuple[int, int, int]
    layers: tuple[Layer, ...]
    params: int
    macs: int  # multiply-adds of one image: convolutions and matrix products only
    param_bytes: int  # all weights in the type they are stored in; no gradients, no optimizer state
    activation_bytes: int  # all outputs for one image in float32; views and in-place operations cost none
    receptive_field: int  # by the rule: average pools inside count, the global one at the end does not
    downsampling: dict[str, int]  # operation → how many were executed
    max_pools: int  # any maximum over positions, the global one too
    depthwise: int
    depthwise_separable: int  # depthwise, then (norm and activation between them or not) pointwise
    dilated: int
    global_average_pool: bool  # the output follows from one
    notes: tuple[str, ...] = ()  # where the rule cannot tell the whole truth


def profile(model: nn.Module, input_size: tuple[int, int, int] = (3, 32, 32)) -> Profile:
    "Run a copy of the network on one black image and count what it executes."
    with eval_copy(model, torch.float32) as twin, torch.no_grad():
        image = torch.zeros(1, *input_size)
        census = OpRecorder(twin, image)
        with census.watching():
            output = twin(image)
        output = next(t for t in tree_leaves(output) if isinstance(t, Tensor))
    kinds = Counter(layer.kind for layer in census.layers)
    followed = census.follower
    end = followed.maps.get(id(output)) or Map(input_size[1:], ())
    return Profile(
        input_size=tuple(input_size),
        layers=tuple(census.layers),
        params=count_params(model),
        macs=sum(layer.macs for layer in census.layers),
        param_bytes=sum(w.numel() * w.element_size() for _, w in weights(model)),
        activation_bytes=census.bytes,
        receptive_field=max(end.field),
        downsampling=dict(followed.downsampling),
        max_pools=kinds["max pool"] + kinds["global max pool"],
        depthwise=kinds["depthwise conv"],
        depthwise_separable=len(followed.separated),
        dilated=sum(any(k > 1 and d > 1 for k, d in zip(layer.kernel, layer.dilation, strict=True))
                    for layer in census.layers if layer.kind.endswith("conv")),
        global_average_pool="average" in end.pooled,
        notes=tuple(followed.notes),
    )
