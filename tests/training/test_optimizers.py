"""Optimizers and torch.compile: the same steps as torch's own, Muon's orthogonal ones, and what is compiled where."""

from copy import deepcopy
from functools import partial

import pytest
import torch
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from toys import Watch, equal, state, toy

from cifar_fast.recipe import RecipeError, check, load_recipe, override
from cifar_fast.training import optimizers
from cifar_fast.training.callbacks import compiling

# ---------------------------------------------------------------- optimizers

OPTIMIZERS = [
    ("adam", torch.optim.Adam, dict(weight_decay=1e-2)),
    ("adam", torch.optim.Adam, dict(betas=(0.8, 0.95), eps=1e-6)),
    ("adamw", torch.optim.AdamW, dict(weight_decay=1e-1)),
    ("adamw", torch.optim.AdamW, dict()),
    ("sgd", torch.optim.SGD, dict(momentum=0.9, weight_decay=1e-2)),
    ("sgd", torch.optim.SGD, dict(momentum=0.8, nesterov=True)),
    ("sgd", torch.optim.SGD, dict(momentum=0.0)),
]


@pytest.mark.parametrize("name, theirs, kw", OPTIMIZERS)
def test_optimizers_are_torchs_step_for_step(name, theirs, kw):
    "Through fastai's training loop, against a loop in plain torch."
    learn, batches = toy(opt=partial(getattr(optimizers, name), **kw))
    net = deepcopy(learn.model)
    opt = theirs(net.parameters(), lr=0.03, **kw)
    ours, plain = [], []
    learn.fit(3, 0.03, cbs=[Watch(100, after_batch=lambda at: at.training and ours.append(state(at.model)))])
    for _ in range(3):
        for x, y in batches:
            opt.zero_grad()
            nn.functional.mse_loss(net(x), y).backward()
            opt.step()
            plain.append(state(net))
    assert len(ours) == 12
    for step, (one, other) in enumerate(zip(ours, plain, strict=True)):
        assert equal(one, other), step


@pytest.mark.parametrize("betas", [(0.9,), (0.9, 0.99, 0.5)])
@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_betas_are_two(name, betas):
    with pytest.raises(RecipeError, match="opt: betas=.*two numbers"):
        check(override(load_recipe("sprint"), [f"opt={name}", f"opt.betas={betas}"]))


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_norms_and_biases_may_go_without_decay(name):
    make = partial(getattr(optimizers, name), weight_decay=0.1)
    net = toy()[0].model
    one, two = make(net.parameters(), lr=0.1).opt, make(net.parameters(), lr=0.1, decay_norms=False).opt
    assert [g["weight_decay"] for g in one.param_groups] == [0.1]
    assert [g["weight_decay"] for g in two.param_groups] == [0.1, 0.0]
    assert all(p.ndim == 2 for p in two.param_groups[0]["params"])
    assert all(p.ndim == 1 for p in two.param_groups[1]["params"])
    assert sum(len(g["params"]) for g in two.param_groups) == len(list(net.parameters()))
    # Without a gradient, decay is all that moves a weight.
    before = state(net)
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    two.step()
    for k, v in net.named_parameters():
        assert torch.equal(v, before[k]) is (v.ndim == 1), k


def test_all_groups_follow_the_schedule():
    learn, _ = toy(opt=partial(optimizers.sgd, weight_decay=0.1, decay_norms=False))
    rates = []
    learn.fit_one_cycle(2, 0.5, cbs=[Watch(1, before_step=lambda at: rates.append(of_torch(at, "lr")))])
    assert len(rates) == 8 and all(a == b for a, b in rates) and max(a for a, _ in rates) == pytest.approx(0.5)
    assert of_torch(learn, "weight_decay") == [0.1, 0.0]  # fastai sets none of its own
    learn.opt.set_hyper("wd", 0.3)
    assert of_torch(learn, "weight_decay") == [0.3, 0.0]


def of_torch(learn, key):
    return [group[key] for group in learn.opt.opt.param_groups]


# ---------------------------------------------------------------- a splitter's groups

ALL = {"sgd": dict(decay_norms=False, weight_decay=0.1), "adam": dict(decay_norms=False, weight_decay=0.1),
       "adamw": dict(decay_norms=False), "muon": {}}


def split_learner(name):
    "Convolutions, norm and classifier in two groups of a splitter; images of noise."
    torch.manual_seed(0)
    net = nn.Sequential(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3)),
                        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)))
    batches = [(torch.randn(4, 3, 8, 8), torch.randint(0, 2, (4,))) for _ in range(3)]
    learn = Learner(DataLoaders(batches, batches[:1]), net, loss_func=nn.CrossEntropyLoss(), lr=0.1,
                    opt_func=partial(getattr(optimizers, name), **ALL[name]), train_bn=False,
                    splitter=lambda m: [list(part.parameters()) for part in m])
    learn.remove_cbs([cb for cb in learn.cbs if type(cb).__name__ == "ProgressCallback"])
    learn.logger = lambda *_: None
    return learn


def test_all_optimizers_are_split():
    assert set(ALL) == set(optimizers.__all__)


@pytest.mark.parametrize("name", ALL)
def test_frozen_groups_do_not_move_and_thawed_ones_do(name):
    learn = split_learner(name)
    learn.freeze()
    assert len(learn.opt.param_lists) == len(learn.opt.hypers) == 2 and learn.opt.frozen_idx == 1
    before = {k: p.detach().clone() for k, p in learn.model.named_parameters()}
    learn.fit(1)
    assert {k[0] for k, p in learn.model.named_parameters() if not torch.equal(p, before[k])} == {"1"}
    learn.unfreeze()
    learn.fit(1)
    assert all(not torch.equal(p, before[k]) for k, p in learn.model.named_parameters())


@pytest.mark.parametrize("name", ALL)
def test_a_slice_gives_each_group_of_the_splitter_its_rate(name):
    learn, peaks = split_learner(name), []
    learn.fit_one_cycle(2, slice(0.01, 0.1), cbs=[Watch(1, before_step=lambda at: peaks.append(of_torch(at, "lr")))])
    first = set(map(id, learn.model[0].parameters()))
    rates = {id(group["params"][0]) in first: max(step[i] for step in peaks)
             for i, group in enumerate(learn.opt.opt.param_groups)}
    assert len(learn.opt.opt.param_groups) > 2
    assert rates[True] == pytest.approx(rates[False] / 10, rel=1e-6)
    assert [h["lr"] for h in split_learner(name).opt_func(learn.splitter(learn.model), lr=slice(0.01, 0.1)).hypers
            ] == pytest.approx([0.01, 0.1])


def convolutions():
    "A dense kernel that is wide, one that is tall, a depthwise one, a norm and a classifier, with gradients."
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.Conv2d(8, 32, 1, bias=False),
                        nn.Conv2d(32, 32, 3, groups=32, bias=False), nn.BatchNorm2d(32), nn.Linear(32, 4))
    for p in net.parameters():
        p.grad = torch.randn_like(p)
    return net


def test_muon_moves_dense_kernels_by_orthogonal_steps():
    net = convolutions()
    before = state(net)
    optimizers.muon(net.parameters(), lr=0.5, weight_decay=0.0).opt.step()
    for name, tall in (("0.weight", 1), ("1.weight", (32 / 8) ** 0.5)):
        moved = (before[name] - net.state_dict()[name]).flatten(1) / (0.5 * tall)
        values = torch.linalg.svdvals(moved)
        assert 0.6 < float(values.min()) and float(values.max()) < 1.3, name
        # The same singular vectors as the gradient's: the step is its nearest (semi-)orthogonal matrix, roughly.
        u, _, v = torch.linalg.svd(net.get_parameter(name).grad.flatten(1), full_matrices=False)
        assert float((u.T @ moved @ v.T).diagonal().min()) > 0.6, name


def test_muon_leaves_everything_else_to_sgd():
    net, other = convolutions(), convolutions()
    rest = [k for k, p in net.named_parameters() if not (p.ndim == 4 and p.shape[1] > 1)]
    assert rest == ["2.weight", "3.weight", "3.bias", "4.weight", "4.bias"]
    ours = optimizers.muon(net.parameters(), lr=0.1, momentum=0.8, sgd_scale=3.0, sgd_decay=0.01).opt
    named = dict(other.named_parameters())
    sgd = torch.optim.SGD([dict(params=[named[k] for k in rest if named[k].ndim > 1], weight_decay=0.01),
                           dict(params=[named[k] for k in rest if named[k].ndim == 1])], lr=0.1 * 3, momentum=0.8,
                          nesterov=True)
    for _ in range(3):
        ours.step()
        sgd.step()
    for k in rest:
        torch.testing.assert_close(net.get_parameter(k), named[k], rtol=1e-6, atol=1e-7)


def test_muons_decay_is_decoupled():
    net = convolutions()
    before = state(net)
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    optimizers.muon(net.parameters(), lr=0.1, weight_decay=0.2).opt.step()
    torch.testing.assert_close(net.get_parameter("0.weight"), before["0.weight"] * (1 - 0.1 * 0.2))
    assert torch.equal(net.get_parameter("3.weight"), before["3.weight"])


def test_muon_resumes_from_its_state():
    one, two = convolutions(), convolutions()
    first = optimizers.muon(one.parameters(), lr=0.1).opt
    first.step()
    two.load_state_dict(one.state_dict())
    second = optimizers.muon(two.parameters(), lr=0.1).opt
    second.load_state_dict(deepcopy(first.state_dict()))
    first.step()
    second.step()
    assert equal(state(one), state(two))


@pytest.mark.parametrize("native", [True, False])
def test_muon_iterates_in_bf16_where_the_gpu_has_it(monkeypatch, native):
    "Asked of fake tensors: no GPU is needed."
    seen = []
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native or including_emulation)
    monkeypatch.setattr(optimizers, "zeropower_via_newtonschulz",
                        lambda g, steps, coefficients, dtype: seen.append(dtype) or g)
    optimizers.iterated_in.cache_clear()
    try:
        with FakeTensorMode():
            weight = nn.Parameter(torch.empty(4, 4, 3, 3, device="cuda"))
            weight.grad = torch.empty_like(weight)
            optimizers.muon([weight], lr=0.1).opt.step()
    finally:
        optimizers.iterated_in.cache_clear()
    assert seen == [torch.bfloat16 if native else torch.float32]


# ---------------------------------------------------------------- torch.compile


DENSE = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 4, 1))
DEPTHWISE = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 8, 3, groups=4))


@pytest.mark.parametrize("compile, device, steps, net, chosen", [
    ("off", "cuda", 10**6, DEPTHWISE, False), ("on", "cuda", 1, DENSE, True), ("on", "cpu", 1, DENSE, True),
    ("auto", "cuda", 10**6, DENSE, True), ("auto", "cuda", 10, DEPTHWISE, False),
    ("auto", "cpu", 10**6, DENSE, False), ("auto", "cpu", 10**6, DEPTHWISE, True),
    ("auto", "cpu", 10, DEPTHWISE, False), ("auto", "mps", 10**6, DEPTHWISE, False), ("on", "mps", 1, DENSE, True),
])
def test_what_is_compiled_where_it_can_be(monkeypatch, compile, device, steps, net, chosen):
    monkeypatch.setattr(compiling, "why_not", lambda device: None)
    assert compiling.choose_compile(compile, torch.device(device), steps, net) is chosen


def test_what_cannot_be_compiled_is_said(monkeypatch):
    monkeypatch.setattr(compiling, "why_not", lambda device: "no triton")
    with pytest.raises(ValueError, match="compile=on: torch.compile does not work here .no triton.; compile=auto"):
        compiling.choose_compile("on", torch.device("cuda"), 10**6, DENSE)
    with pytest.warns(UserWarning, match="not compiled, which is slower.*no triton"):
        assert compiling.choose_compile("auto", torch.device("cuda"), 10**6, DENSE) is False
