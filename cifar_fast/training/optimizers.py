"""torch's own optimizers, and Muon, inside fastai's `OptimWrapper`, by the names that `opt=` takes.

fastai's optimizers differ from torch's (decoupled decay, none on norms and biases, Adam's eps 1e-5 and sqr_mom 0.99,
no Nesterov), and the published systems used torch's.
"""

from __future__ import annotations

from functools import cache

import torch
from fastai.optimizer import OptimWrapper, detuplify_pg, set_item_pg
from timm.optim.muon import zeropower_via_newtonschulz

from cifar_fast.utils.errors import SettingError

__all__ = ["adam", "adamw", "muon", "sgd"]


class GroupedOptimWrapper(OptimWrapper):
    """fastai's wrapper of a torch optimizer that has several groups for each group of a Learner's splitter.

    `freeze`, `freeze_to` and `lr=slice(…)` count the splitter's groups, which the optimizer divides into weights that
    decay and weights that do not, or by Muon's rules. Setting `wd` does not affect groups without decay.
    """

    def __init__(self, opt: torch.optim.Optimizer, sizes: list[int], lr: float | slice):
        super().__init__(opt=opt)
        self.sizes = sizes  # how many of the optimizer's groups each of the splitter's has
        self.set_hyper("lr", lr)

    def subgroups(self) -> list[list[dict]]:
        "The optimizer's groups, by those of the splitter."
        groups = iter(self.opt.param_groups)
        return [[next(groups) for _ in range(size)] for size in self.sizes]

    @property
    def param_lists(self):
        return [[p for group in groups for p in group["params"]] for groups in self.subgroups()]

    @property
    def hypers(self):
        return [{self.fwd_map.get(k, k): v for k, v in detuplify_pg(first).items() if k != "params"}
                for first, *_ in self.subgroups()]

    def _set_hyper(self, k, v):
        for value, groups in zip(v, self.subgroups(), strict=True):
            for group in groups:
                if k != "wd" or group.get("decays", True):
                    set_item_pg(group, self.bwd_map[k], value)


def splitter_groups(params) -> list[list[torch.Tensor]]:
    "A Learner hands over its parameters, or groups of them where it was made with a splitter."
    params = list(params)
    return [params] if isinstance(params[0], torch.Tensor) else [list(group) for group in params]


def wrapped(make, params, divide, lr: float | slice, **kw) -> GroupedOptimWrapper:
    "The optimizer `make(groups, lr=, **kw)`, each group of the splitter divided into torch's by `divide(parameters)`."
    divided = [[g for g in divide(group) if g["params"]] for group in splitter_groups(params)]
    divided = [groups for groups in divided if groups]
    opt = make([g for groups in divided for g in groups], lr=lr.stop if isinstance(lr, slice) else lr, **kw)
    return GroupedOptimWrapper(opt, [len(groups) for groups in divided], lr)


def by_decay(weight_decay: float, decay_norms: bool):
    "Divides parameters into those that decay and, without `decay_norms`, scales and biases, which do not."
    at_least_0("weight_decay", weight_decay)

    def divide(params):
        if decay_norms:
            return [{"params": params, "weight_decay": weight_decay}]
        return [{"params": [p for p in params if p.ndim > 1], "weight_decay": weight_decay},
                {"params": [p for p in params if p.ndim <= 1], "weight_decay": 0.0, "decays": False}]
    return divide


def at_least_0(name: str, value: float) -> None:
    if not 0 <= value < float("inf"):  # torch looks at its defaults alone, not at a group's own
        raise SettingError(f"{name}={value}: expected a number of at least 0")


def two_betas(betas: tuple) -> tuple:
    if len(betas) != 2:
        raise SettingError(f"betas={betas}: expected two numbers, for example (0.9, 0.999)")
    return betas


def sgd(params, lr: float, *, momentum: float = 0.9, weight_decay: float = 0.0, nesterov: bool = False,
        decay_norms: bool = True):
    "torch.optim.SGD; `weight_decay` is L2, on norms and biases too unless `decay_norms=False`."
    return wrapped(torch.optim.SGD, params, by_decay(weight_decay, decay_norms), lr, momentum=momentum,
                   nesterov=nesterov)


def adam(params, lr: float, *, betas: tuple = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.0,
         decay_norms: bool = True):
    "torch.optim.Adam; `weight_decay` is L2 added to the gradient."
    return wrapped(torch.optim.Adam, params, by_decay(weight_decay, decay_norms), lr, betas=two_betas(betas), eps=eps)


def adamw(params, lr: float, *, betas: tuple = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.01,
          decay_norms: bool = True):
    "torch.optim.AdamW; `weight_decay` is decoupled from the gradient and times the learning rate."
    return wrapped(torch.optim.AdamW, params, by_decay(weight_decay, decay_norms), lr, betas=two_betas(betas), eps=eps)


QUINTIC = [(3.4445, -4.7750, 2.0315)]
"Jordan's coefficients: singular values end up between about 0.7 and 1.2 after five iterations."


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al., 2024) for groups with `dense=True`, torch's SGD with Nesterov momentum for the others.

    `weight_decay` is decoupled (times the learning rate) in dense groups and L2 in the others. timm's and torch's own
    Muon iterate in bfloat16, which CPUs without instructions for it emulate at a tenth of float32's speed. Here timm's
    iteration runs in float32 outside of CUDA.
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
        result = zeropower_via_newtonschulz(matrix, self.steps, QUINTIC, dtype=iterated_in(g.device)).to(g.dtype)
        result = result.view(g.shape).mul_(max(1, matrix.shape[0] / matrix.shape[1]) ** 0.5)
        # In channels_last too as the gradient is in memory: of other strides the weights are changed one by one.
        return result if result.stride() == g.stride() else torch.empty_like(g).copy_(result)


@cache  # asked for every weight of every step
def iterated_in(device: torch.device) -> torch.dtype:
    "What Newton–Schulz computes in: bf16 on a GPU that has it, where it is faster; elsewhere fp32."
    native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if native else torch.float32


def is_dense(p: torch.Tensor) -> bool:
    "Whether Muon is meant for this weight: kernels that mix channels. Depthwise ones, norms and biases are not."
    return p.ndim == 4 and p.shape[1] > 1


def muon(params, lr: float, *, momentum: float = 0.9, weight_decay: float = 0.01, steps: int = 5,
         sgd_scale: float = 2.0, sgd_decay: float = 5e-4):
    """Muon at `lr` for convolutions that mix channels, SGD (Nesterov) at `lr`·`sgd_scale` for everything else.

    `weight_decay` is decoupled; `sgd_decay` is L2, on the SGD weights of more than one dimension. `steps` of
    Newton–Schulz an update. Raises SettingError for values out of range.
    """
    if not 0 <= momentum < 1:
        raise SettingError(f"momentum={momentum}: expected a number from 0 to below 1")
    if steps < 1:
        raise SettingError(f"steps={steps}: expected at least 1, 5 are usual")
    for name, value in (("weight_decay", weight_decay), ("sgd_scale", sgd_scale), ("sgd_decay", sgd_decay)):
        at_least_0(name, value)

    def divide(params):
        rest = [p for p in params if not is_dense(p)]
        return [{"params": [p for p in params if is_dense(p)], "weight_decay": weight_decay, "dense": True},
                {"params": [p for p in rest if p.ndim > 1], "weight_decay": sgd_decay, "scale": sgd_scale},
                {"params": [p for p in rest if p.ndim <= 1], "scale": sgd_scale, "decays": False}]
    return wrapped(Muon, params, divide, lr, momentum=momentum, steps=steps)
