"""torch's own optimizers, and Muon, inside fastai's `OptimWrapper`, by the names that `opt=` takes.

fastai's optimizers differ from torch's (decoupled decay, none on norms and biases, Adam's eps 1e-5 and sqr_mom 0.99,
no Nesterov), and the published systems used torch's.
"""

from __future__ import annotations

import torch
from fastai.optimizer import OptimWrapper
from timm.optim.muon import zeropower_via_newtonschulz

__all__ = ["adam", "adamw", "muon", "sgd"]


def _flat(params) -> list[torch.Tensor]:
    "A Learner hands over its parameters, or groups of them where it was made with a splitter."
    return [p for group in params for p in ([group] if isinstance(group, torch.Tensor) else group)]


def _wrapped(make, params, decay_norms, weight_decay, **kw):
    at_least_0("weight_decay", weight_decay)
    flat = _flat(params)
    if decay_norms:
        groups = [{"params": flat, "weight_decay": weight_decay}]
    else:  # scales and biases (one dimension) carry no capacity worth shrinking
        groups = [{"params": [p for p in flat if p.ndim > 1], "weight_decay": weight_decay},
                  {"params": [p for p in flat if p.ndim <= 1], "weight_decay": 0.0}]
    return OptimWrapper(opt=make([g for g in groups if g["params"]], **kw))


def at_least_0(name: str, value: float) -> None:
    if not 0 <= value < float("inf"):  # torch looks at its defaults alone, not at a group's own
        raise ValueError(f"{name}={value}: expected a number of at least 0")


def sgd(params, lr: float, *, momentum: float = 0.9, weight_decay: float = 0.0, nesterov: bool = False,
        decay_norms: bool = True):
    "torch.optim.SGD; `weight_decay` is L2, on norms and biases too unless `decay_norms=False`."
    return _wrapped(torch.optim.SGD, params, decay_norms, weight_decay, lr=lr, momentum=momentum,
                    nesterov=nesterov)


def adam(params, lr: float, *, betas: tuple = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.0,
         decay_norms: bool = True):
    "torch.optim.Adam; `weight_decay` is L2 added to the gradient."
    return _wrapped(torch.optim.Adam, params, decay_norms, weight_decay, lr=lr, betas=betas, eps=eps)


def adamw(params, lr: float, *, betas: tuple = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.01,
          decay_norms: bool = True):
    "torch.optim.AdamW; `weight_decay` is decoupled from the gradient and times the learning rate."
    return _wrapped(torch.optim.AdamW, params, decay_norms, weight_decay, lr=lr, betas=betas, eps=eps)


QUINTIC = [(3.4445, -4.7750, 2.0315)]
"Jordan's coefficients: singular values end up between about 0.7 and 1.2 after five iterations."


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al., 2024) for groups with `dense=True`, torch's SGD with Nesterov momentum for the others.

    `weight_decay` is decoupled (times the learning rate) in dense groups and L2 in the others. timm's and torch's own
    Muon iterate in bfloat16, which CPUs without instructions for it emulate: 110 ms a step for a net of 190,000
    parameters where float32 takes 8 (one AVX2 core). Here timm's iteration runs in float32 outside of CUDA.
    """

    def __init__(self, groups, lr: float, momentum: float, steps: int):
        super().__init__(groups, dict(lr=lr, momentum=momentum, weight_decay=0.0, dense=False, scale=1.0))
        self.steps = steps

    @torch.no_grad()
    def step(self, closure=None):
        loss = torch.enable_grad()(closure)() if closure else None
        for group in self.param_groups:
            lr, mom, decay = group["lr"] * group["scale"], group["momentum"], group["weight_decay"]
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            for p in params:
                if "momentum_buffer" not in self.state[p]:
                    self.state[p]["momentum_buffer"] = torch.zeros_like(p.grad)
            grads, buffers = [p.grad for p in params], [self.state[p]["momentum_buffer"] for p in params]
            # All weights of a group in one call, as torch's own optimizers do it (but for Newton–Schulz): on a GPU
            # small calls cost the most.
            if decay and not group["dense"]:
                grads = torch._foreach_add(grads, params, alpha=decay)
            torch._foreach_mul_(buffers, mom)
            torch._foreach_add_(buffers, grads)
            grads = torch._foreach_add(grads, buffers, alpha=mom)
            if group["dense"]:
                torch._foreach_mul_(params, 1 - lr * decay)
                grads = [self.orthogonal(g) for g in grads]
            torch._foreach_add_(params, grads, alpha=-lr)
        return loss

    def orthogonal(self, g: torch.Tensor) -> torch.Tensor:
        "(O, I, …) → the same shape, the singular values of (O, I·…) brought near 1, or √(O/I·…) where it is tall."
        matrix = g.flatten(1)
        near = torch.bfloat16 if g.is_cuda else torch.float32
        found = zeropower_via_newtonschulz(matrix, self.steps, QUINTIC, dtype=near).to(g.dtype)
        return found.view(g.shape).mul_(max(1, matrix.shape[0] / matrix.shape[1]) ** 0.5)


def is_dense(p: torch.Tensor) -> bool:
    "Whether Muon is meant for this weight: kernels that mix channels. Depthwise ones, norms and biases are not."
    return p.ndim == 4 and p.shape[1] > 1


def muon(params, lr: float, *, momentum: float = 0.9, weight_decay: float = 0.01, steps: int = 5,
         sgd_scale: float = 2.0, sgd_decay: float = 5e-4):
    """Muon at `lr` for convolutions that mix channels, SGD (Nesterov) at `lr`·`sgd_scale` for everything else.

    `weight_decay` is decoupled; `sgd_decay` is L2, on the SGD weights of more than one dimension. `steps` of
    Newton–Schulz an update. Raises ValueError for values out of range.
    """
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum={momentum}: expected a number from 0 to below 1")
    if steps < 1:
        raise ValueError(f"steps={steps}: expected at least 1, 5 are usual")
    for name, value in (("weight_decay", weight_decay), ("sgd_scale", sgd_scale), ("sgd_decay", sgd_decay)):
        at_least_0(name, value)
    flat = _flat(params)
    rest = [p for p in flat if not is_dense(p)]
    groups = [
        {"params": [p for p in flat if is_dense(p)], "weight_decay": weight_decay, "dense": True},
        {"params": [p for p in rest if p.ndim > 1], "weight_decay": sgd_decay, "scale": sgd_scale},
        {"params": [p for p in rest if p.ndim <= 1], "scale": sgd_scale},
    ]
    return OptimWrapper(opt=Muon([g for g in groups if g["params"]], lr=lr, momentum=momentum, steps=steps))
