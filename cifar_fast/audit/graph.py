"""The operations for one image, counted: cost, kinds, and the receptive field by the rule."""

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from cifar_fast.audit.feature_maps import FeatureMapInfo
from cifar_fast.audit.int8 import buffer
from cifar_fast.audit.op_recorder import Layer, OpRecorder, eval_copy
from cifar_fast.audit.params import count_params, weights


@dataclass(frozen=True, kw_only=True)
class Profile:
    "What a model executes for one image, and what it costs."

    input_size: tuple[int, int, int]
    layers: tuple[Layer, ...]
    params: int  # weights, and what else was stored that convolutions and matrix products multiply the image by
    macs: int  # multiply-adds of one image: convolutions and matrix products only
    param_bytes: int  # all weights in their own type; no gradients, no optimizer state
    activation_bytes: int  # all outputs for one image in float32; views and in-place operations cost none
    flash_bytes: int  # all weights in int8 once folded; see `int8`
    ram_bytes: int  # the activations for one image in int8 that are needed at once, at most
    receptive_field: int  # pixels, by the rule: average pools count, the global one does not
    downsampling: dict[str, int]  # operation → how often
    max_pools: int  # every maximum over positions, global ones too
    depthwise: int
    # These two count where they look at positions (not behind the global pool) and the output depends on them.
    depthwise_separable: int  # depthwise, then pointwise; norm and activation may come between them
    dilated: int
    global_average_pool: bool  # the output is computed from one
    notes: tuple[str, ...] = ()  # what the rule does not count


def profile(model: nn.Module, input_size: tuple[int, int, int] = (3, 32, 32)) -> Profile:
    "Run a copy of the model on one black image and count what it executes."
    with eval_copy(model, torch.float32) as copied, torch.no_grad():
        image = torch.zeros(1, *input_size)
        recorder = OpRecorder(copied, image)
        recorder.listed |= {buffer(w) for _, w in weights(model)}  # closures over the model use those, not the copy's
        with recorder.recording():
            output = copied(image)
        output = next(t for t in tree_leaves(output) if isinstance(t, Tensor))
    used, unlisted = recorder.used(output), recorder.unlisted.values()
    kinds = Counter(layer.kind for layer in recorder.layers)
    tracker = recorder.tracker
    end = tracker.maps.get(id(output)) or FeatureMapInfo(input_size[1:], ())
    return Profile(
        input_size=tuple(input_size),
        layers=tuple(recorder.layers),
        params=count_params(model) + sum(map(Tensor.numel, unlisted)),
        macs=sum(layer.macs for layer in recorder.layers),
        param_bytes=sum(w.numel() * w.element_size() for w in (*(w for _, w in weights(model)), *unlisted)),
        activation_bytes=recorder.bytes,
        flash_bytes=recorder.int8.flash,
        ram_bytes=recorder.int8.ram(),
        receptive_field=max(end.receptive_field),
        downsampling=dict(tracker.downsampling),
        max_pools=kinds["max pool"] + kinds["global max pool"],
        depthwise=kinds["depthwise conv"],
        depthwise_separable=len({depthwise for depthwise, pointwise in tracker.separable if pointwise in used}),
        dilated=len(tracker.dilated & used),
        global_average_pool="average" in end.pooled,
        notes=tuple(tracker.notes),
    )
