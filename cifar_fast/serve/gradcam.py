"""Grad-CAM (Selvaraju et al., 2017, arXiv:1610.02391): which places of the last feature map spoke for a class."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LastMap:
    "The last feature map that a forward pass makes before it is pooled to a point; watched inside the `with` only."

    def __init__(self, model: nn.Module):
        self.model, self.map = model, None

    def __enter__(self):
        self.hooks = [m.register_forward_hook(self.keep) for m in self.model.modules()]
        return self

    def __exit__(self, *exc):
        for hook in self.hooks:
            hook.remove()

    def keep(self, module, inputs, output):
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] * output.shape[3] > 1:
            self.map = output


def grad_cam(
    model: nn.Module,  # nobody else may run it meanwhile: its modules are hooked
    x: Tensor,  # (N, 3, H, W), normalised
    classes: Tensor | None = None,  # (N,) int64: what to ask for; default what the net predicts
) -> Tensor:  # (N, h, w) of the map's size, 0..1, the strongest place of each image 1; all 0 where none spoke for it
    "The map's channels summed, each weighted by how much the class's logit rises with it; leaves no gradients."
    was_training = model.training
    model.eval()
    try:
        with torch.enable_grad(), LastMap(model) as last:
            logits = model(x.detach().requires_grad_())  # so that there is a graph for frozen nets too
            if last.map is None:
                return torch.zeros(len(x), 1, 1)
            classes = logits.argmax(1) if classes is None else classes
            asked = logits.gather(1, classes[:, None]).sum()
            (slopes,) = torch.autograd.grad(asked, last.map)
    finally:
        model.train(was_training)
    weights = slopes.mean((2, 3), keepdim=True)
    cam = (weights * last.map.detach()).sum(1).relu().float()
    return (cam / cam.amax((1, 2), keepdim=True).clamp_min(1e-12)).cpu()
