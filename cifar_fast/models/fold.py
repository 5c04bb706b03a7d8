"""A trained model as plain convolutions: the same function in fewer operations, for use, not for training.

Batch norms are merged into the convolutions before them, and one after anything else becomes a depthwise 1×1
convolution. Layers of the project's own that are convolutions in disguise have a method `plain()`, which gives one.
"""

import copy
from collections import Counter

import torch
from timm.layers import BatchNormAct2d, Conv2dSame
from timm.models import get_notrace_functions, get_notrace_modules
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

CONVOLUTIONS = (nn.Conv2d, Conv2dSame)  # exactly: one that computes its kernels has others than its weights


def fold(model: nn.Module) -> nn.Module:
    """A folded copy of `model`, in eval mode.

    A model that torch.fx cannot trace keeps its batch norms.
    """
    model = plain(copy.deepcopy(model).eval())
    if not any(map(is_constant_norm, model.modules())):
        return model
    try:
        traced = fx.GraphModule(model, Tracer().trace(model))
    except Exception:  # a forward that depends on its values raises whatever Python raises there
        return model
    for node in list(traced.graph.nodes):
        if node.op == "call_module" and is_constant_norm(traced.get_submodule(node.target)):
            fold_norm(traced, node)
    traced.graph.lint()
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced.eval()


class Tracer(fx.Tracer):
    "Goes into all modules but those that are folded, and those that timm wants kept whole."

    def __init__(self):
        super().__init__(autowrap_functions=tuple(get_notrace_functions()))
        self.whole = (*CONVOLUTIONS, *get_notrace_modules())

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) in self.whole or super().is_leaf_module(m, module_qualified_name)


def plain(module: nn.Module) -> nn.Module:
    "`module` with its layers replaced by what they compute in eval mode, where they can say it."
    if hasattr(module, "plain"):
        return module.plain()
    if type(module) is BatchNormAct2d:
        return nn.Sequential(norm_of(module), module.drop, module.act).eval()
    if isinstance(module, nn.Dropout | nn.Dropout2d):
        return nn.Identity()
    if type(module) is nn.AdaptiveAvgPool2d and module.output_size in (1, (1, 1)):
        return GlobalMean()
    for name, child in module.named_children():
        if (new := plain(child)) is not child:
            setattr(module, name, new)
    return module


class GlobalMean(nn.Module):
    "nn.AdaptiveAvgPool2d(1), of which torch.export makes a mean, and then a gather for the sake of strides."

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3), keepdim=True)


def norm_of(module: nn.BatchNorm2d) -> nn.BatchNorm2d:
    "The batch norm of a class that does more."
    norm = nn.BatchNorm2d(module.num_features, module.eps, affine=module.affine,
                          track_running_stats=module.track_running_stats)
    norm.load_state_dict(module.state_dict(), assign=True)  # they stay on their device
    return norm.eval()


def is_constant_norm(module: nn.Module) -> bool:
    "Whether this is a batch norm that is the same for all batches."
    return type(module) is nn.BatchNorm2d and module.running_mean is not None


def fold_norm(traced: fx.GraphModule, node: fx.Node) -> None:
    "Merge a batch norm into the convolution before it, or replace it."
    norm, before = traced.get_submodule(node.target), node.args[0] if node.args else node.kwargs["input"]
    if is_convolution_for(traced, before):
        merge(traced.get_submodule(before.target), norm)
        node.replace_all_uses_with(before)
        traced.graph.erase_node(node)
        return
    parent, _, name = node.target.rpartition(".")
    setattr(traced.get_submodule(parent), name, depthwise(norm))


def is_convolution_for(traced: fx.GraphModule, node: fx.Node) -> bool:
    "Whether a convolution gives this value to one reader alone, and its weights are used nowhere else."
    if node.op != "call_module" or type(conv := traced.get_submodule(node.target)) not in CONVOLUTIONS:
        return False
    uses = Counter(id(traced.get_submodule(n.target)) for n in traced.graph.nodes if n.op == "call_module")
    owners = sum(any(p is conv.weight for p in m._parameters.values()) for m in traced.modules())
    return len(node.users) == 1 and uses[id(conv)] == 1 and owners == 1


@torch.no_grad()
def merge(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    "Make `conv` compute `norm(conv(x))`; in float64, as a small variance magnifies what is rounded off."
    def double(t):
        return None if t is None else t.cpu().double()  # MPS has no float64

    values = (conv.weight, conv.bias, norm.running_mean, norm.running_var)
    weight, bias = fuse_conv_bn_weights(*map(double, values), norm.eps, double(norm.weight), double(norm.bias))
    conv.weight = nn.Parameter(weight.to(conv.weight), requires_grad=False)
    conv.bias = nn.Parameter(bias.to(conv.weight), requires_grad=False)


def depthwise(norm: nn.BatchNorm2d) -> nn.Conv2d:
    "The batch norm as a convolution that scales and shifts each channel."
    n, like = norm.num_features, norm.running_mean
    conv = nn.Conv2d(n, n, 1, groups=n, bias=False, device=like.device, dtype=like.dtype)
    nn.init.ones_(conv.weight)
    merge(conv, norm)
    return conv.eval()
