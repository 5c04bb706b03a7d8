"""MixUp, CutMix and RICAP: soft targets are exactly the fractions of the pixels, in training alone."""

from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.metrics import accuracy
from torch import nn

from cifar_fast.all import cross_entropy, mixing, sgd
from cifar_fast.training import mix
from cifar_fast.training.batch_transforms import BatchTransforms, MemoryFormat
from cifar_fast.training.callbacks.history import History
from cifar_fast.training.state import TrainState

SIDE, N = 32, 24


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def coloured():
    "Image i in the colour i with the one-hot target i; the other channels are the row and the column of each pixel."
    x = torch.zeros(N, 3, SIDE, SIDE)
    x[:, 0] = torch.arange(N)[:, None, None]
    x[:, 1], x[:, 2] = torch.arange(SIDE)[:, None], torch.arange(SIDE)
    return x, torch.eye(N)


def by_label(y, i: int) -> dict[int, float]:
    "Label → its fraction in image i."
    return {label: value for label, value in enumerate(y[i].tolist()) if value}


def by_colour(image) -> dict[int, float]:
    colours, counts = image[0].unique(return_counts=True)
    return {int(c): int(n) / SIDE**2 for c, n in zip(colours, counts, strict=True)}


# ---------------------------------------------------------------- the loss


@pytest.mark.parametrize("smoothing", [0, 0.1])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_the_loss_of_soft_targets_is_the_weighted_sum_of_those_of_their_labels(smoothing, reduction):
    pred, labels, weights = torch.randn(8, 10), torch.randint(0, 10, (4, 8)), torch.rand(4, 8).softmax(0)
    loss = cross_entropy(label_smoothing=smoothing)
    loss.reduction = reduction
    each = torch.stack([F.cross_entropy(pred, y, reduction="none", label_smoothing=smoothing) for y in labels])
    expected = (each * weights).sum(0)
    expected = {"none": expected, "sum": expected.sum(), "mean": expected.mean()}[reduction]
    result = loss(pred, sum(w[:, None] * F.one_hot(y, 10) for w, y in zip(weights, labels, strict=True)))
    assert result.shape == expected.shape and torch.allclose(result, expected, atol=1e-6)


def test_one_hot_targets_give_the_loss_and_gradient_of_labels():
    pred, y = torch.randn(8, 10, requires_grad=True), torch.randint(0, 10, (8,))
    loss = cross_entropy(label_smoothing=0.1)
    hard, soft = loss(pred, y), loss(pred, F.one_hot(y, 10).float())
    assert torch.allclose(hard, soft) and torch.allclose(hard, F.cross_entropy(pred, y, label_smoothing=0.1))
    for one, other in zip(torch.autograd.grad(hard, pred), torch.autograd.grad(soft, pred), strict=True):
        assert torch.allclose(one, other, atol=1e-7)
    with pytest.raises(ValueError, match="label_smoothing=1"):
        cross_entropy(label_smoothing=1)


# ---------------------------------------------------------------- the three mixings


def test_mixup_blends_with_the_weights_of_its_labels(coloured):
    x, y = coloured
    mixed, targets = mix.mixup(x, y, 0.4)
    assert mixed.shape == x.shape and torch.allclose(targets.sum(1), torch.ones(N))
    own = targets.diagonal()
    assert len(own.unique()) >= N - 2 and own.min() >= 0.5  # each its own weight; the image's label is the heavier one
    assert torch.allclose(mixed[:, 0], (targets @ x[:, 0, 0, 0])[:, None, None].expand(N, SIDE, SIDE), atol=1e-4)
    assert torch.allclose(mixed[:, 1:], x[:, 1:], atol=1e-4)  # pixels stay where they were


def test_cutmix_weights_are_the_areas(coloured):
    x, y = coloured
    seen = set()
    for _ in range(50):
        mixed, targets = mix.cutmix(x, y, 1.0)
        assert mixed.shape == x.shape
        for i in range(N):
            assert by_colour(mixed[i]) == pytest.approx(by_label(targets, i))
        assert mixed[:, 1:].equal(x[:, 1:])  # the box comes from the same place of the other image
        changed = mixed[:, 0] != x[:, 0]
        rows, cols = changed.any(0).any(1).sum(), changed.any(0).any(0).sum()
        moved = changed[changed.any(2).any(1)]
        assert (moved.sum((1, 2)) == rows * cols).all()  # one box per batch, a rectangle
        seen.add(int(rows * cols) / SIDE**2)
    assert len(seen) > 30 and min(seen) < 0.2 and max(seen) > 0.7


def test_ricap_weights_are_the_areas(coloured):
    x, y = coloured
    seen = set()
    for _ in range(50):
        mixed, targets = mix.ricap(x, y, 0.3)
        assert mixed.shape == x.shape
        for i in range(N):
            assert by_colour(mixed[i]) == pytest.approx(by_label(targets, i))
        # A patch is one whole crop: rows and columns go up by one, except across the boundary.
        assert ((mixed[:, 1].diff(dim=1) != 1).any(2).sum(1) <= 1).all()
        assert ((mixed[:, 2].diff(dim=2) != 1).any(1).sum(1) <= 1).all()
        assert 0 <= mixed[:, 1:].min() and mixed[:, 1:].max() < SIDE
        seen.add(tuple(targets[0].unique().tolist()))
    assert len(seen) > 25


def test_ricap_crops_from_anywhere(coloured):
    x, y = coloured
    corners = torch.cat([mix.ricap(x, y, 5.0)[0][:1, 1:, 0, 0] for _ in range(50)])
    assert len(corners.unique(dim=0)) > 25  # not always the same corner of the other image


def test_all_weight_may_go_to_one_image(coloured):
    x, y = coloured
    # A Beta with tiny parameters draws 0 or 1: boxes and patches of no area, and of the whole image.
    for mixed, targets in (mix.cutmix(x, y, 1e-4), mix.ricap(x, y, 1e-4)):
        for i in range(N):
            assert by_colour(mixed[i]) == pytest.approx(by_label(targets, i))


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


def test_the_chooser_draws_by_fractions():
    chooser = mixing(mixup=0.3, cutmix=0.3, ricap=0.2)
    chosen = [chooser.choose((i + 0.5) / 1000) for i in range(1000)]
    assert Counter(chosen) == {"mixup": 300, "cutmix": 300, "ricap": 200, "none": 200}
    assert [mixing(mixup=1, cutmix=0).choose(u) for u in (0, 0.999999)] == ["mixup"] * 2
    assert [mixing(mixup=0, cutmix=0).choose(u) for u in (0, 0.999999)] == ["none"] * 2


def transforms(**kw):
    return BatchTransforms([mixing(**kw), MemoryFormat("contiguous")], classes=10)


def is_mixed(at):
    return at.y.ndim == 2


def test_batches_are_mixed_in_those_fractions():
    learn, _ = learner(400)
    state, chosen, arrived = TrainState(), transforms(mixup=0.3, cutmix=0.3, ricap=0.2), []
    learn.fit(1, cbs=[chosen, History(state, chosen), Look(lambda at: at.training and arrived.append(is_mixed(at)))])
    assert sum(state.mix_counts.values()) == 400
    for name, part in {"mixup": 0.3, "cutmix": 0.3, "ricap": 0.2, "none": 0.2}.items():
        assert abs(state.mix_counts[name] - 400 * part) < 4.5 * (400 * part * (1 - part)) ** 0.5
    assert arrived.count(False) == state.mix_counts["none"]  # what arrives at the model is what was counted


def test_until_ends_the_mixing():
    learn, _ = learner(10)
    state, mixed, chosen = TrainState(), [], transforms(mixup=1, cutmix=0, until=0.75)
    learn.fit(2, cbs=[chosen, History(state, chosen), Look(lambda at: at.training and mixed.append(is_mixed(at)))])
    assert mixed == [True] * 15 + [False] * 5
    assert state.mix_counts == {"mixup": 15, "none": 5}
    learn.fit(1, cbs=[chosen := transforms(mixup=1, cutmix=0, until=0), History(state := TrainState(), chosen)])
    assert state.mix_counts == {"none": 10}


def test_mixing_fades_in_a_straight_line_and_in_proportion():
    fading = mixing(mixup=0.2, cutmix=0.6, fade=0.5, until=0.9)
    fading.setup(None, 2)
    x, y = torch.zeros(2, 3, 4, 4), torch.tensor([0, 1])

    def counts(fraction, n=1000):
        return Counter(kind for _ in range(n) if fading(x, y, fraction) and (kind := fading.kind))

    for fraction, left in ((0.0, 1), (0.5, 1), (0.7, 0.5), (0.8, 0.25)):
        found = counts(fraction)
        for name, part in {"mixup": 0.2 * left, "cutmix": 0.6 * left, "none": 1 - 0.8 * left}.items():
            assert abs(found[name] - 1000 * part) < 4.5 * (1000 * part * (1 - part)) ** 0.5
    assert counts(0.9, 50) == counts(1.0, 50) == {"none": 50}


def test_validation_is_never_mixed():
    learn, batches = learner(5)
    seen = []
    learn.fit(2, cbs=[transforms(mixup=0.5, cutmix=0.5), Look(lambda at: at.training or seen.append((at.x, at.y)))])
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

    learn.fit(1, cbs=[transforms(mixup=0.4, cutmix=0.3, ricap=0.3), Preds()])
    plain = torch.cat([y for _, y in batches])
    shown = learn.recorder.values[0][list(learn.recorder.metric_names[1:]).index("train_accuracy")]
    assert shown == pytest.approx(float((torch.cat(preds) == plain).float().mean()))


def test_the_net_learns_from_the_mixed_labels():
    "One step from a mixed batch is the step of torch with the loss of its soft targets."
    learn, batches = learner(1)
    before = [p.detach().clone() for p in learn.model.parameters()]
    caught = []
    look = Look(lambda at: at.training and caught.append((at.x.clone(), at.y)))
    learn.fit(1, cbs=[transforms(mixup=0, cutmix=1), look])
    x, y = caught[0]
    assert not torch.equal(x, batches[0][0])
    w, b = (p.requires_grad_() for p in before)
    pred = F.linear(x.mean((2, 3)), w, b)
    loss = -(y * pred.log_softmax(1)).sum(1).mean()
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
    learn.fit(1)
    names, callbacks = set(vars(learn)), list(learn.cbs)
    with pytest.raises(error):
        learn.fit(1, cbs=[transforms(mixup=1, cutmix=0), Break()])
    assert learn.loss_func is loss and loss.reduction == "mean"
    for cb in [cb for cb in learn.cbs if type(cb) in (Break, BatchTransforms)]:
        learn.remove_cb(cb)
    assert list(learn.cbs) == callbacks
    pred, y = torch.randn(4, 10), torch.tensor([1, 2, 3, 4])
    assert torch.equal(loss(pred, y), F.cross_entropy(pred, y))
    assert learn.validate()[0] == pytest.approx(sum(
        float(F.cross_entropy(learn.model(x), y)) for x, y in batches) / 5, rel=1e-5)
    learn.fit(1)
    assert set(vars(learn)) == names


@pytest.mark.parametrize("given, message", [
    (dict(mixup=0.6, cutmix=0.6), "add up to at most 1"),
    (dict(mixup=-0.1), "0 or more"),
    (dict(ricap=1.1, mixup=0, cutmix=0), "at most 1"),
    (dict(mixup_alpha=0), "above 0"),
    (dict(cutmix_alpha=-1.0), "above 0"),
    (dict(ricap_beta=0), "above 0"),
    (dict(until=1.5), "until=1.5"),
    (dict(until=-0.1), "until=-0.1"),
    (dict(fade=1.5), "fade=1.5"),
])
def test_bad_fractions_and_parameters(given, message):
    with pytest.raises(ValueError, match=message):
        mixing(**given)


def test_fractions_that_add_up_to_one_by_rounding():
    assert mixing(mixup=0.7, cutmix=0.2, ricap=0.1).choose(0.95) == "ricap"
