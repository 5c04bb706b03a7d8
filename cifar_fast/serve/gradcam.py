"""Grad-CAM (Selvaraju et al., 2017, arXiv:1610.02391): which places of the last feature map support a class."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LastFeatureMap:
    "Records the last feature map of a forward pass that is larger than 1×1, inside the `with` only."

    def __init__(self, model: nn.Module):
        self.model, self.map = model, None

    def __enter__(self):
        self.hooks = [m.register_forward_hook(self.record) for m in self.model.modules()]
        return self

    def __exit__(self, *exc):
        for hook in self.hooks:
            hook.remove()

    def record(self, module, inputs, output):
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] * output.shape[3] > 1:
            self.map = output


def grad_cam(
    model: nn.Module,  # no other thread may run it meanwhile: its modules are hooked
    x: Tensor,  # (N, 3, H, W), normalised
    classes: Tensor | None = None,  # (N,) int64; default the predicted classes
) -> Tensor:  # (N, h, w) in [0, 1], each with maximum 1, or all 0 if no place supports the class
    "Sum of the map's channels, each weighted by its mean gradient of the class's logit; parameters get no gradients."
    was_training = model.training
    model.eval()
    try:
        with torch.enable_grad(), LastFeatureMap(model) as last:
            logits = model(x.detach().requires_grad_())  # so that frozen models have a graph too
            if last.map is None:
                return torch.zeros(len(x), 1, 1)
            classes = logits.argmax(1) if classes is None else classes.to(logits.device)
            score = logits.gather(1, classes[:, None]).sum()
            (gradients,) = torch.autograd.grad(score, last.map)
    finally:
        model.train(was_training)
    weights = gradients.mean((2, 3), keepdim=True)
    cam = (weights * last.map.detach()).sum(1).relu().float()
    return (cam / cam.amax((1, 2), keepdim=True).clamp_min(1e-12)).cpu()
