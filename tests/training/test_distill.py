"""A teacher: what it sees, how its logits enter the loss, which are refused, and a run that says and repeats it."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from breaking import resume
from fastai.callback.core import Callback
from kills import NAME, RUN, bytes_that_differ, history, weights
from starts import STATS, exported
from tiny import MIXED, tiny, trained
from toys import state

from cifar_fast.cli.main import main
from cifar_fast.export.card import Card
from cifar_fast.export.card_file import read_card
from cifar_fast.export.card_format import validated
from cifar_fast.export.card_parts import Data
from cifar_fast.export.files import WEIGHTS, file_sha256
from cifar_fast.models import create_model
from cifar_fast.recipe import RecipeError, check, describe
from cifar_fast.reporting.results import read, recipe_id
from cifar_fast.training.callbacks.checkpoint import Checkpoint
from cifar_fast.training.distill import TeacherError, read_teachers, teacher_loss
from cifar_fast.training.fit import fit
from cifar_fast.training.logits_cache import logits_cache_of
from cifar_fast.training.prepare import prepare
from cifar_fast.utils.ranks import Ranks

DIGITS = [str(i) for i in range(10)]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    "An export of another architecture and other statistics than the student's."
    folder = tmp_path_factory.mktemp("teachers") / "wise"
    exported(folder, arch="cifar_final", vocab=DIGITS)
    return folder


# ---------------------------------------------------------------- the loss


def test_the_loss_is_zero_for_the_teachers_logits_and_its_gradient_keeps_its_size():
    torch.manual_seed(0)
    theirs = torch.randn(64, 10)
    assert float(teacher_loss(theirs + 3, theirs, 4.0)) == pytest.approx(0, abs=1e-5)  # the softmax is the same
    norms = []
    for temperature in (20.0, 40.0):
        ours = torch.randn(64, 10, generator=torch.Generator().manual_seed(1)).requires_grad_()
        teacher_loss(ours, theirs, temperature).backward()
        norms.append(float(ours.grad.norm()))
    assert norms[0] == pytest.approx(norms[1], rel=0.05)


class Watch(Callback):
    "Each training batch as the model gets it, and what comes of it."
    order = 95

    def __init__(self):
        self.batches = []

    def before_batch(self):
        if self.training:
            self.view, self.target = self.x.clone(), self.y

    def after_loss(self):
        if self.training:
            self.batches.append((self.view, self.target, self.pred.detach(), float(self.loss)))


def expected(run, folders, batch, alpha, temperature, smoothing=0.1, class_weights=None):
    "The loss of a batch, from the formula in words and teachers that are opened anew."
    x, target, ours, _ = batch
    (mean, std), (their_mean, their_std) = ((torch.tensor(v).view(3, 1, 1) for v in s) for s in (run.stats, STATS))
    logits = []
    for folder, teacher in zip(folders, run.teachers.members, strict=True):
        card = read_card(folder)
        model = create_model(card.arch, 10, card.size).eval()
        model.load_state_dict(teacher.weights.state)
        with torch.no_grad():
            logits.append(model((x * std + mean - their_mean) / their_std))
    theirs = torch.stack(logits).mean(0)
    p, q = ((z / temperature).softmax(1) for z in (theirs, ours))
    kl = (p * (p / q).log()).sum(1) * temperature**2
    ce = F.cross_entropy(ours, target, label_smoothing=smoothing, reduction="none")
    each = 1.0
    if class_weights is not None:
        each = class_weights[target] if target.ndim == 1 else (target * class_weights).sum(1)
    return float((each * ((1 - alpha) * ce + alpha * kl)).mean())


@pytest.mark.parametrize("changes", [MIXED, (*MIXED, "balance=loss")], ids=["mixed", "balanced"])
def test_teacher_and_student_see_the_same_mixed_view(digits, teacher, changes):
    watch = Watch()
    result = trained(tiny(f"distill={teacher}", "distill.alpha=0.7", "distill.temperature=3", "resize=none", *changes),
                     watch)
    weight = getattr(result.run.learn.loss_func, "weight", None)
    assert {batch[1].ndim for batch in watch.batches} == {1, 2} and (weight is not None) is (changes != MIXED)
    for batch in watch.batches[::3]:
        loss = expected(result.run, [teacher], batch, 0.7, 3.0, class_weights=weight)
        assert batch[3] == pytest.approx(loss, rel=1e-4)
    # The accuracy shown is that of the plain labels, and validation knows no teacher.
    first = result.frame.iloc[0]
    assert first["train_teacher_loss"] > 0 and "valid_teacher_loss" not in result.frame
    assert 0 < first["train_accuracy"] < 1


def test_several_teachers_are_one_with_their_mean_logits(digits, teacher, tmp_path, cache):
    exported(tmp_path / "other", vocab=DIGITS, seed=3)
    watch, asked = Watch(), []
    run = prepare(tiny(f"distill={teacher}, {tmp_path / 'other'}", "distill.cache=yes", "epochs=1", "valid=1200",
                       "resize=none"))
    for member in run.teachers.members:
        member.model.register_forward_pre_hook(lambda *_: asked.append(1))
    run.learn.add_cb(watch)
    fit(run, folder=tmp_path)
    for batch in watch.batches:
        assert batch[3] == pytest.approx(expected(run, [teacher, tmp_path / "other"], batch, 0.9, 4.0), rel=1e-3)
    assert len(asked) == 2 * len(run.learn.dls.train)
    assert run.recipe.distill_sha256 == ",".join(file_sha256(f / WEIGHTS) for f in (teacher, tmp_path / "other"))
    # The cache is of both together.
    paths = {logits_cache_of(prepare(replace(run.recipe, distill=d, distill_sha256=""))).path
             for d in (run.recipe.distill, str(teacher), str(tmp_path / "other"))}
    assert len(paths) == 3


def test_a_student_learns_from_a_teacher_alone(digits, tmp_path):
    "Who is taught by a trained teacher only agrees with it, whatever the labels are."
    from cifar_fast.export.measure import make_card
    from cifar_fast.export.save import save_export

    wise = trained(tiny("epochs=4", "resize=none", "ema=none"))
    card, _ = make_card(wise.run.recipe, wise.run, wise.fitted)
    save_export(tmp_path / "wise", wise.run.learn.model, card, pickle=False)
    student = trained(tiny("epochs=4", "resize=none", "ema=none", f"distill={tmp_path / 'wise'}", "distill.alpha=1",
                           "seed=5"))
    assert student.frame["train_teacher_loss"].iloc[-1] < 0.3 * student.frame["train_teacher_loss"].iloc[0]
    assert student.frame["valid_accuracy"].iloc[-1] > 0.8


def test_a_view_of_another_size_is_brought_to_the_teachers(digits, tmp_path):
    exported(tmp_path / "large", vocab=DIGITS, size=48)
    run = trained(tiny(f"distill={tmp_path / 'large'}", "epochs=1", "valid=1200", "resize.size=24")).run
    sizes = []
    run.teachers.members[0].model.register_forward_pre_hook(lambda _, args: sizes.append(args[0].shape[-1]))
    assert run.teachers(torch.zeros(2, 3, 24, 24)).shape == run.teachers(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert sizes == [48, 48]


def test_a_second_student_takes_the_logits_that_the_first_one_cached(digits, teacher, tmp_path, cache):
    "The weights are those without a cache, bit for bit; damaged logits and those of other images are not taken."
    recipe = tiny(*recipe_changes(teacher))
    kept = logits_cache_of(prepare(recipe))
    without = trained(tiny(*recipe_changes(teacher), "distill.cache=no"), folder=tmp_path).weights
    asked = []
    for _ in range(2):
        run = prepare(recipe)
        run.teachers.members[0].model.register_forward_pre_hook(lambda *_: asked.append(1))
        fit(run, folder=tmp_path)
        assert bytes_that_differ(state(run.learn.model), without) == 0
        assert kept.path.stat().st_size <= kept.size(1)
    assert len(asked) == len(run.learn.dls.train)  # by the first of both alone
    with kept.path.open("r+b") as file:
        file.seek(20)
        file.write(b"damage")
    assert bytes_that_differ(trained(recipe, folder=tmp_path).weights, without) == 0
    assert logits_cache_of(prepare(tiny(*recipe_changes(teacher), "lr=0.01"))).path == kept.path
    for other in ("seed=1", "mix.cutmix=0.1", "drop_last=no", "epochs=3"):
        assert logits_cache_of(prepare(tiny(*recipe_changes(teacher), other))).path != kept.path


def test_repeated_images_need_the_teacher_once(digits, teacher, tmp_path, cache):
    changes = recipe_changes(teacher), ("epochs=5", "distill.repeat=2", "mix.until=1", "resize=none")
    recipe = tiny(*(c for part in changes for c in part))
    asked, watch = [], Watch()
    run = prepare(recipe)
    kept = logits_cache_of(run)
    run.teachers.members[0].model.register_forward_pre_hook(lambda *_: asked.append(1))
    run.learn.add_cb(watch)
    fit(run, folder=tmp_path)
    steps = len(run.learn.dls.train)
    assert len(asked) == 2 * steps and kept.size(1) < kept.path.stat().st_size <= kept.size(2)
    epochs = [watch.batches[i * steps:(i + 1) * steps] for i in range(5)]
    for epoch, again in ((0, 2), (1, 3), (0, 4)):
        assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])
                   for a, b in zip(epochs[epoch], epochs[again], strict=True))
    assert not torch.equal(epochs[0][0][0], epochs[1][0][0])


def test_each_process_caches_what_it_sees(digits, teacher, cache, tmp_path, monkeypatch):
    "Those without a folder of their own, too."
    run = prepare(tiny(*recipe_changes(teacher), "seed=3"))
    fit(run, checkpoint=Checkpoint(tmp_path / "checkpoint.pt", {}))
    alone = logits_cache_of(run)
    assert alone.path.stat().st_size > 0
    monkeypatch.setattr("cifar_fast.training.logits_cache.here", lambda: Ranks(rank=1, count=2))
    other = logits_cache_of(run)
    assert other.path.name.endswith("-1") and not other.path.name.startswith(alone.path.name)
    assert other.size(1) < 0.6 * alone.size(1)


def recipe_changes(teacher):
    return f"distill={teacher}", "distill.cache=yes", "valid=1200", "epochs=1", *MIXED


# ---------------------------------------------------------------- what is refused


def named_file(folder):
    (folder / "model.onnx").write_bytes(b"")
    return folder / "model.onnx", "model.onnx.*card"


def nowhere(folder):
    return folder.parent / "gone", "gone"


def no_run(folder):
    (folder / "card.json").unlink()
    return folder, "no run"


def other_classes(folder):
    exported(folder, vocab=[*DIGITS[:9], "dog"])
    return folder, r"other classes than these data \(9 and dog are known to one of the two alone\)"


def other_order(folder):
    exported(folder, vocab=[*DIGITS[:8], "9", "8"])
    return folder, "another order.*class 8 is 9, here it is 8"


@pytest.mark.parametrize("make", [named_file, nowhere, no_run, other_classes, other_order])
def test_teachers_that_are_refused(digits, tmp_path, make):
    exported(tmp_path / "wise", vocab=DIGITS)
    path, said = make(tmp_path / "wise")
    with pytest.raises(TeacherError, match=said):
        prepare(tiny(f"distill={path}"))


def test_another_teacher_than_the_one_that_was_named_by_its_checksum(teacher):
    recipe = tiny(f"distill={teacher}")
    right = file_sha256(teacher / WEIGHTS)
    assert read_teachers(replace(recipe, distill_sha256=right))[0].sha256 == right
    with pytest.raises(TeacherError, match=right):
        read_teachers(replace(recipe, distill_sha256="0" * 64))
    with pytest.raises(TeacherError, match="1, checksums in distill_sha256: 2"):
        read_teachers(replace(recipe, distill_sha256=f"{right},{right}"))


@pytest.mark.parametrize("names, said", [("{0},", "missing beside a comma"), ("{0},{0}", "twice"),
                                         ("{0},{0}-gone", "-gone")])
def test_several_teachers_that_are_refused(teacher, names, said):
    with pytest.raises(TeacherError, match=said):
        read_teachers(tiny(f"distill={names.format(teacher)}"))


def test_a_folder_with_a_comma_in_its_name_is_one_teacher(tmp_path):
    exported(tmp_path / "a,b", vocab=DIGITS)
    assert [t.name for t in read_teachers(tiny(f"distill={tmp_path / 'a,b'}"))] == [str(tmp_path / "a,b")]


def test_a_card_of_an_earlier_version_names_its_one_teacher(taught):
    content = json.loads((taught / NAME / "card.json").read_text())
    content["teacher"] = content.pop("teachers")[0]
    assert validated(Card, json.dumps(content), "card.json").taught_by == read_card(taught / NAME).taught_by != ""


@pytest.mark.parametrize("changes, said", [
    (["distill=x", "distill.alpha=0"], "distill.alpha=0"), (["distill=x", "distill.alpha=1.5"], "distill.alpha=1.5"),
    (["distill=x", "distill.temperature=0"], "distill.temperature=0"),
    (["distill=x", "distill.repeat=1.5"], "distill.repeat=1.5: expected a whole number"),
    (["distill=x", "distill.alpha=half"], "distill.alpha=half: expected a number"),
    (["distill=x", "distill.repeat=2"], "add distill.cache=yes"), (["distill.repeat=2"], "add distill=exports/NAME"),
    (["distill.alpha=0.5"], "add distill=exports/NAME"), (["distill=x", "distill_sha256=12"], "64 hex digits"),
])
def test_settings_that_cannot_work(changes, said):
    with pytest.raises(RecipeError, match=said):
        check(tiny(*changes))


def test_a_teacher_that_knows_the_held_out_images_is_pointed_out(digits, tmp_path):
    exported(tmp_path / "wise", vocab=DIGITS)
    card = read_card(tmp_path / "wise")
    for seed, seen in ((1, False), (2, True)):
        recipe = tiny(f"distill={tmp_path / 'wise'}", "seed=1")
        replace(card, data=Data(name="digits", fingerprint=digits.fingerprint),
                recipe=describe(replace(recipe, seed=seed))).write(tmp_path / "wise")
        entry = prepare(recipe).teachers.entries()[0]
        assert entry.saw_held_out is seen and ("accuracy is too high" in str(entry)) is seen


# ---------------------------------------------------------------- a saved run


@pytest.fixture(scope="module")
def taught(teacher, tmp_path_factory, digits):
    "The exports of a run that nothing interrupts."
    exports = tmp_path_factory.mktemp("taught")
    assert main([*RUN, f"exports={exports}", f"distill={teacher}", "report=yes"]) == 0
    return exports


def test_it_resumes_to_the_same_weights(taught, teacher, broken):
    exports = broken(5, f"distill={teacher}")
    assert resume(exports) == 0
    assert bytes_that_differ(weights(taught), weights(exports)) == 0
    assert history(exports).equals(history(taught))


def test_several_seeds_have_one_teacher(teacher, tmp_path, capsys, digits):
    seeds = ["recipe", "sprint", "data=digits", "epochs=1", "report=no", "tta=no", f"exports={tmp_path}",
             f"distill={teacher}", "seeds=1,2"]
    assert main(seeds) == 0 and "n = 2 seeds" in capsys.readouterr().out
    assert main(seeds) == 0 and "n = 2 seeds" in capsys.readouterr().out  # nothing is trained anew
    assert len(read(tmp_path / "runs.csv")) == 2


def test_it_does_not_resume_with_another_teacher(teacher, broken, tmp_path, capsys):
    copy = shutil.copytree(teacher, tmp_path / "copy")
    exports = broken(3, f"distill={copy}")
    first = file_sha256(copy / WEIGHTS)
    shutil.rmtree(copy)
    exported(copy, arch="cifar_final", vocab=DIGITS, seed=8)
    assert main([*RUN, f"distill={copy}", f"exports={exports}", "--resume", "--allow-changes"]) == 2
    err = capsys.readouterr().err
    assert first in err and file_sha256(copy / WEIGHTS) in err


def test_the_run_says_who_taught_it(taught, teacher, capsys):
    folder, sha256 = taught / NAME, file_sha256(teacher / WEIGHTS)
    card = read_card(folder)
    (entry,) = card.teachers
    assert (entry.sha256, entry.accuracy, entry.arch) == (sha256, 0.75, "cifar_final")
    assert (entry.alpha, entry.temperature, entry.params) == (0.9, 4.0, 192_642)
    assert json.loads((folder / "recipe.json").read_text())["distill_sha256"] == sha256
    assert f"distill={teacher}" in read(taught / "runs.csv").iloc[0]["settings"]
    assert "train_teacher_loss" in history(taught)
    for name in ("README.md", "report.html"):
        text = (folder / name).read_text("utf-8")
        assert str(teacher) in text and sha256[:12] in text and "alpha 0.9, temperature 4" in text, name
    assert recipe_id({**card.recipe, "distill": "elsewhere"}) == recipe_id(card.recipe)
    assert recipe_id({**card.recipe, "distill_sha256": "0" * 64}) != recipe_id(card.recipe)
    assert main([*RUN, f"distill={teacher}", "--dry-run"]) == 0
    assert f"learns from {teacher} (75.00% test accuracy on farm" in capsys.readouterr().out
