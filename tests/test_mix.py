"""MixUp, CutMix and RICAP: the labels' weights are exactly the shares of the pixels, in training alone."""

import pytest
import torch
import torch.nn.functional as F
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.metrics import accuracy
from torch import nn

from cifar_fast.all import MixedLabels, cross_entropy, mixing, sgd
from cifar_fast.training.callbacks import mix

SIDE, N = 32, 24


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def coloured():
    "Image i in the colour i with label i; the other two channels say the row and the column of each pixel."
    x = torch.zeros(N, 3, SIDE, SIDE)
    x[:, 0] = torch.arange(N)[:, None, None]
    x[:, 1], x[:, 2] = torch.arange(SIDE)[:, None], torch.arange(SIDE)
    return x, torch.arange(N)


def shares_by_label(y: MixedLabels, i: int) -> dict[int, float]:
    "Label → sum of its weights in image i."
    found = {}
    for label, weight in zip(y.labels, y.weights, strict=True):
        weight = float(weight[i] if isinstance(weight, torch.Tensor) else weight)
        if weight:
            found[int(label[i])] = found.get(int(label[i]), 0) + weight
    return found


def shares_by_colour(image) -> dict[int, float]:
    colours, counts = image[0].unique(return_counts=True)
    return {int(c): int(n) / SIDE**2 for c, n in zip(colours, counts, strict=True)}


# ---------------------------------------------------------------- the loss


@pytest.mark.parametrize("smoothing", [0, 0.1])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("each", [False, True], ids=["one weight a batch", "one weight an image"])
def test_mixed_loss_is_the_weighted_sum_of_plain_losses(smoothing, reduction, each):
    pred, labels = torch.randn(8, 10), torch.randint(0, 10, (4, 8))
    weights = torch.rand(4, 8).softmax(0) if each else torch.tensor([0.4, 0.3, 0.2, 0.1])
    loss = cross_entropy(label_smoothing=smoothing)
    loss.reduction = reduction
    plain = torch.stack([F.cross_entropy(pred, y, reduction="none", label_smoothing=smoothing) for y in labels])
    expected = (plain * (weights if each else weights[:, None])).sum(0)
    expected = {"none": expected, "sum": expected.sum(), "mean": expected.mean()}[reduction]
    found = loss(pred, MixedLabels(list(labels), list(weights)))
    assert found.shape == expected.shape and torch.allclose(found, expected, atol=1e-6)
    assert loss.reduction == reduction


def test_one_label_of_full_weight_is_the_plain_loss():
    pred, y = torch.randn(8, 10, requires_grad=True), torch.randint(0, 10, (8,))
    loss = cross_entropy(label_smoothing=0.1)
    plain, mixed = loss(pred, y), loss(pred, MixedLabels([y], [1.0]))
    assert torch.allclose(plain, mixed) and torch.allclose(plain, F.cross_entropy(pred, y, label_smoothing=0.1))
    for one, other in zip(torch.autograd.grad(plain, pred), torch.autograd.grad(mixed, pred), strict=True):
        assert torch.allclose(one, other, atol=1e-7)


def test_the_loss_is_unchanged_after_a_failure():
    loss = cross_entropy()
    with pytest.raises(IndexError):
        loss(torch.randn(2, 10), MixedLabels([torch.tensor([3, 11])], [1.0]))
    assert loss.reduction == "mean"
    with pytest.raises(ValueError, match="label_smoothing=1"):
        cross_entropy(label_smoothing=1)


# ---------------------------------------------------------------- the three mixings


def test_mixup_blends_with_the_weights_of_its_labels(coloured):
    x, y = coloured
    mixed, (labels, weights) = mix.mixup(x, y, 0.4)
    assert mixed.shape == x.shape and labels[0].equal(y) and sorted(labels[1].tolist()) == list(range(N))
    assert all(w.shape == (N,) for w in weights) and torch.allclose(weights[0] + weights[1], torch.ones(N))
    assert len(weights[0].unique()) == N and weights[0].min() >= 0.5  # each its own; the first label is heavier
    colour = sum(w * x[label, 0, 0, 0] for label, w in zip(labels, weights, strict=True))
    assert torch.allclose(mixed[:, 0], colour[:, None, None].expand(N, SIDE, SIDE), atol=1e-4)
    assert torch.allclose(mixed[:, 1:], x[:, 1:], atol=1e-4)  # pixels stay where they were


def test_cutmix_weights_are_the_areas(coloured):
    x, y = coloured
    seen = set()
    for _ in range(50):
        mixed, labels = mix.cutmix(x, y, 1.0)
        assert mixed.shape == x.shape and sum(labels.weights) == 1 and labels.labels[0].equal(y)
        for i in range(N):
            assert shares_by_colour(mixed[i]) == shares_by_label(labels, i)
        assert mixed[:, 1:].equal(x[:, 1:])  # the box comes from the same place of the other image
        changed = mixed[:, 0] != x[:, 0]
        rows, cols = changed.any(0).any(1).sum(), changed.any(0).any(0).sum()
        moved = changed[labels.labels[1] != y]
        assert (moved.sum((1, 2)) == rows * cols).all()  # one box a batch, a rectangle
        seen.add(labels.weights[1])
    assert len(seen) > 30 and min(seen) < 0.2 and max(seen) > 0.7


def test_ricap_weights_are_the_areas(coloured):
    x, y = coloured
    seen = set()
    for _ in range(50):
        mixed, labels = mix.ricap(x, y, 0.3)
        assert mixed.shape == x.shape and len(labels.labels) == len(labels.weights) == 4 and sum(labels.weights) == 1
        for i in range(N):
            assert shares_by_colour(mixed[i]) == shares_by_label(labels, i)
        # A patch is one whole crop: rows and columns go up by one, except across the boundary.
        assert ((mixed[:, 1].diff(dim=1) != 1).any(2).sum(1) <= 1).all()
        assert ((mixed[:, 2].diff(dim=2) != 1).any(1).sum(1) <= 1).all()
        assert 0 <= mixed[:, 1:].min() and mixed[:, 1:].max() < SIDE
        seen.add(tuple(labels.weights))
    assert len(seen) > 25


def test_ricap_crops_from_anywhere(coloured):
    x, y = coloured
    corners = torch.cat([mix.ricap(x, y, 5.0)[0][:1, 1:, 0, 0] for _ in range(50)])
    assert len(corners.unique(dim=0)) > 25  # not always the same corner of the other image


def test_all_weight_may_go_to_one_image(coloured):
    x, y = coloured
    # A Beta with tiny parameters draws 0 or 1: boxes and patches of no area, and of the whole image.
    for mixed, labels in (mix.cutmix(x, y, 1e-4), mix.ricap(x, y, 1e-4)):
        for i in range(N):
            assert shares_by_colour(mixed[i]) == shares_by_label(labels, i)


# ---------------------------------------------------------------- the callback


class Look(Callback):
    "Calls with the Learner just before the model does."

    order = 200

    def __init__(self, call):
        self.call = call

    def before_batch(self):
        self.call(self.learn)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 10)

    def forward(self, x):
        return self.fc(x.mean((2, 3)))


def learner(steps=10, **kw):
    "A Learner on `steps` batches of noise, the same ones to validate on."
    generator = torch.Generator().manual_seed(1)
    batches = [(torch.rand(6, 3, 8, 8, generator=generator), torch.randint(0, 10, (6,), generator=generator))
               for _ in range(steps)]
    learn = Learner(DataLoaders(batches, batches), Net(), loss_func=cross_entropy(), opt_func=sgd, lr=0.1, **kw)
    learn.recorder.train_metrics = True
    learn.remove_cbs([cb for cb in learn.cbs if type(cb).__name__ == "ProgressCallback"])
    learn.logger = lambda *_: None
    return learn, batches


def test_the_chooser_draws_by_shares():
    chooser = mixing(mixup=0.3, cutmix=0.3, ricap=0.2)
    drawn = [chooser.draw((i + 0.5) / 1000) for i in range(1000)]
    assert {name: drawn.count(name) for name in set(drawn)} == {"mixup": 300, "cutmix": 300, "ricap": 200, "none": 200}
    assert [mixing(mixup=1, cutmix=0).draw(u) for u in (0, 0.999999)] == ["mixup"] * 2
    assert [mixing(mixup=0, cutmix=0).draw(u) for u in (0, 0.999999)] == ["none"] * 2


def test_batches_are_mixed_in_those_shares():
    learn, _ = learner(400)
    chooser, arrived = mixing(mixup=0.3, cutmix=0.3, ricap=0.2), []
    learn.fit(1, cbs=[chooser, Look(lambda at: at.training and arrived.append(
        len(at.y.labels) if isinstance(at.y, MixedLabels) else 1))])
    assert sum(chooser.drawn.values()) == 400
    for name, share in {"mixup": 0.3, "cutmix": 0.3, "ricap": 0.2, "none": 0.2}.items():
        assert abs(chooser.drawn[name] - 400 * share) < 4.5 * (400 * share * (1 - share)) ** 0.5
    # What arrives at the net is what was counted.
    assert arrived.count(1) == chooser.drawn["none"] and arrived.count(4) == chooser.drawn["ricap"]
    assert arrived.count(2) == chooser.drawn["mixup"] + chooser.drawn["cutmix"]


def test_until_ends_the_mixing():
    learn, _ = learner(10)
    chooser, mixed = mixing(mixup=1, cutmix=0, until=0.75), []
    learn.fit(2, cbs=[chooser, Look(lambda at: at.training and mixed.append(isinstance(at.y, MixedLabels)))])
    assert mixed == [True] * 15 + [False] * 5
    assert chooser.drawn == {"mixup": 15, "none": 5}
    learn.fit(1, cbs=[chooser := mixing(mixup=1, cutmix=0, until=0)])
    assert chooser.drawn == {"none": 10}


def test_validation_is_never_mixed():
    learn, batches = learner(5)
    seen = []
    learn.fit(2, cbs=[mixing(mixup=0.5, cutmix=0.5), Look(lambda at: at.training or seen.append((at.x, at.y)))])
    assert len(seen) == 10
    for (x, y), (own_x, own_y) in zip(seen, batches * 2, strict=True):
        assert torch.equal(x, own_x) and torch.equal(y, own_y)


def test_training_accuracy_is_against_the_plain_labels():
    learn, batches = learner(20, metrics=accuracy)
    preds = []

    class Preds(Callback):
        run_valid = False

        def after_pred(self):
            preds.append(self.pred.argmax(1))

    learn.fit(1, cbs=[mixing(mixup=0.4, cutmix=0.3, ricap=0.3), Preds()])
    plain = torch.cat([y for _, y in batches])
    shown = learn.recorder.values[0][list(learn.recorder.metric_names[1:]).index("train_accuracy")]
    assert shown == pytest.approx(float((torch.cat(preds) == plain).float().mean()))


def test_the_net_learns_from_the_mixed_labels():
    "One step from a mixed batch is the step of torch with the weighted loss."
    learn, batches = learner(1)
    before = [p.detach().clone() for p in learn.model.parameters()]
    caught = []
    learn.fit(1, cbs=[mixing(mixup=0, cutmix=1), Look(lambda at: at.training and caught.append((at.x.clone(), at.y)))])
    x, y = caught[0]
    assert not torch.equal(x, batches[0][0])
    w, b = (p.requires_grad_() for p in before)
    pred = F.linear(x.mean((2, 3)), w, b)
    loss = sum(share * F.cross_entropy(pred, label) for label, share in zip(y.labels, y.weights, strict=True))
    for p, own, grad in zip(learn.model.parameters(), before, torch.autograd.grad(loss, (w, b)), strict=True):
        assert torch.allclose(p, own - 0.1 * grad, atol=1e-6)


@pytest.mark.parametrize("event", ["before_batch", "after_pred", "after_loss"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_stays_patched_when_a_batch_breaks(event, error):
    class Break(Callback):
        order = 100

    def broken(self):
        if self.train_iter == 3:
            raise error("in the middle of a batch")

    setattr(Break, event, broken)
    learn, batches = learner(5)
    loss = learn.loss_func
    names = set(vars(learn))
    with pytest.raises(error):
        learn.fit(1, cbs=[mixing(mixup=1, cutmix=0), Break()])
    assert learn.loss_func is loss and loss.reduction == "mean"
    for cb in [cb for cb in learn.cbs if type(cb) is Break or hasattr(cb, "drawn")]:
        learn.remove_cb(cb)
    pred, y = torch.randn(4, 10), torch.tensor([1, 2, 3, 4])
    assert torch.equal(loss(pred, y), F.cross_entropy(pred, y))
    assert learn.validate()[0] == pytest.approx(sum(
        float(F.cross_entropy(learn.model(x), y)) for x, y in batches) / 5, rel=1e-5)
    learn.fit(1)
    assert not {n for n in set(vars(learn)) - names if "mix" in n.lower()}


@pytest.mark.parametrize("given, message", [
    (dict(mixup=0.6, cutmix=0.6), "add up to at most 1"),
    (dict(mixup=-0.1), "0 or more"),
    (dict(ricap=1.1, mixup=0, cutmix=0), "at most 1"),
    (dict(mixup_alpha=0), "above 0"),
    (dict(cutmix_alpha=-1.0), "above 0"),
    (dict(ricap_beta=0), "above 0"),
    (dict(until=1.5), "until=1.5"),
    (dict(until=-0.1), "until=-0.1"),
])
def test_bad_shares_and_parameters(given, message):
    with pytest.raises(ValueError, match=message):
        mixing(**given)


def test_shares_that_add_up_to_one_by_rounding():
    assert mixing(mixup=0.7, cutmix=0.2, ricap=0.1).draw(0.95) == "ricap"
