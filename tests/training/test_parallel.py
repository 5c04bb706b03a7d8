"""Data-parallel training with processes on a CPU: the same step, every image once, equal weights, kills and resumes."""

import ast
import json
import os
import signal
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from fastai.callback.core import Callback, CancelFitException
from kills import NAME, RUN, bytes_that_differ, history, strays, weights
from processes import start, together, wait
from tiny import MIXED, tiny, trained
from torch import nn
from toys import state

import cifar_fast
from cifar_fast.bench import procs
from cifar_fast.cli.main import main
from cifar_fast.data.block import make_dls, test_dl
from cifar_fast.export.card_file import read_card
from cifar_fast.recipe import RecipeError, check, load_recipe, override
from cifar_fast.training.fit import fit
from cifar_fast.training.parallel import choose_procs, require_procs
from cifar_fast.training.prepare import prepare
from cifar_fast.utils import launch, ranks
from cifar_fast.utils.ranks import Ranks

# ---------------------------------------------------------------- one step


class Gradients(Callback):
    "Keeps the gradients of the first step, in float64 so that only mistakes show, and ends the fit."

    order = 95

    def __init__(self, frozen):
        self.frozen = frozen

    def before_batch(self):
        self.learn.xb = tuple(x.double() for x in self.xb)
        for module in self.learn.model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.train(not self.frozen)

    def before_step(self):
        self.found = torch.cat([p.grad.flatten() for p in self.learn.model.parameters()])
        raise CancelFitException


def gradient(sync_bn):
    "Of one step on 50 images, which two or three processes cannot share evenly, without augmentation."
    recipe = replace(tiny("bs=50", "epochs=1", "valid=0"), augment=(), resize=None, ema=None, sync_bn=sync_bn)
    run, gradients = prepare(recipe), Gradients(frozen=not sync_bn)
    run.learn.model.double()
    run.learn.add_cb(gradients)
    fit(run)
    return gradients.found


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("sync_bn", [False, True])  # False: with batch norm's statistics held, as each has its own
def test_gradient_of_a_step_is_that_of_one_process(digits, tmp_path, count, sync_bn):
    alone, several = gradient(sync_bn), together(count, partial(gradient, sync_bn), tmp_path)
    for found in several:
        assert torch.equal(found, several[0])
        assert (found - alone).norm() < 1e-7 * alone.norm()  # torch divides by 3 in float32
    assert alone.norm() > 0.1


# ---------------------------------------------------------------- data


@pytest.mark.parametrize("ranks_", [2, 3, 4])
@pytest.mark.parametrize("skip", [0, 3])
def test_every_image_once_an_epoch_in_the_order_of_one_process(digits, ranks_, skip):
    # 1438 images: the last batch of 11 has 8, that of 1437 has 1, which is less than there are processes.
    for bs in (11, 1437):
        whole, *parts = [dl_of(digits, bs) for _ in range(1 + ranks_)]
        skip = skip if bs == 11 else 0
        for rank, dl in enumerate(parts):
            dl.shard(rank, ranks_)
            assert len(dl) == len(whole)
        expected = read(whole, skip)
        found = [read(dl, skip) for dl in parts]
        for k, labels in enumerate(expected):
            shares = [dl.share(skip + k) for dl in parts]
            assert {n for _, n in shares} == {len(labels)} and sum(own for own, _ in shares) == len(labels)
            assert max(own for own, _ in shares) - min(own for own, _ in shares) <= 1 and shares[0][0] > 0
            joined = [found[rank][k][:own] for rank, (own, _) in enumerate(shares)]
            assert np.concatenate(joined).tolist() == labels.tolist()
            assert all(len(found[rank][k]) for rank in range(ranks_))  # everyone takes the step
    valid = dl_of(digits, 64, "valid")
    valid.shard(ranks_ - 1, ranks_)
    assert len(np.concatenate(read(valid, 0))) == sum(valid.share(k)[0] for k in range(len(valid)))
    assert len(np.concatenate(read(valid.whole(), 0))) == 103


def dl_of(digits, bs, which="train"):
    dls = make_dls(digits, bs=bs, drop_last=False, seed=1, device="cpu", valid=0 if which == "train" else 103)
    return getattr(dls, which)


def read(dl, skip):
    dl.set_epoch(2)
    dl.skip_batches(skip)
    return [np.asarray(y) for _, y in dl]


def test_processes_draw_their_own_augmentation(digits):
    run = prepare(tiny("bs=2", "valid=0"))
    dl, seen = run.learn.dls.train, []
    with torch.no_grad():
        for place in ((0, 1), (0, 2), (1, 2), (1, 2)):
            dl.shard(*place)
            dl.set_epoch(0)
            seen.append(next(iter(dl))[0][:1])
    alone, first, second, again = seen
    assert torch.equal(second, again) and not torch.equal(alone, first)


# ---------------------------------------------------------------- a fit


def fitted(*changes):
    result = trained(tiny(*changes))
    rows = [{k: v for k, v in row.items()} for row in result.state.rows]
    return {"weights": result.weights, "ema": state(result.ema), "rows": rows, "best": result.state.best,
            "mixed": result.state.mix_counts, "hypers": result.state.hypers,
            "losses": list(result.run.learn.recorder.losses), "model": type(result.run.learn.model).__name__}


def assert_same(one, other):
    for name in ("weights", "ema"):
        assert bytes_that_differ(one[name], other[name]) == 0
    assert {k: v for k, v in one.items() if k not in ("weights", "ema", "losses")} == {
        k: v for k, v in other.items() if k not in ("weights", "ema", "losses")}
    assert list(map(float, one["losses"])) == list(map(float, other["losses"]))


def test_all_processes_have_equal_weights_averages_and_history(digits, tmp_path):
    # 537 images to train on: a last batch of one; recomputed batch norm, mixing, the best epoch kept
    several = together(2, partial(fitted, *MIXED, "valid=901", "bs=67", "drop_last=false", "keep=best", "clip=1"),
                       tmp_path)
    assert_same(*several)
    one = several[0]
    assert sum(one["mixed"].values()) == 2 * (2 * 9 - 1)  # slices of 9 batches in 2 epochs, the last without a second
    assert all(torch.isfinite(v).all() for v in one["weights"].values() if v.is_floating_point())
    for row in one["rows"]:  # all 901 images were counted, and each once
        for column in ("valid_accuracy", "valid_ema_accuracy"):
            assert row[column] * 901 == pytest.approx(round(row[column] * 901), abs=1e-6)


def validated(target):
    recipe = tiny("epochs=6", f"target={target}", "sched=plateau", "fit=constant", "precision=bf16", "bs=64")
    result = trained(recipe)
    model, dl = result.run.learn.model.eval(), result.run.learn.dls.valid.whole()
    with torch.no_grad():
        right = sum(int((model(x.as_subclass(torch.Tensor)).argmax(1) == y).sum()) for x, y in dl)
    return len(result.state.rows), result.state.rows[-1], right / 900


def test_stopping_counts_the_images_of_all_processes(digits, tmp_path):
    one, other = together(2, partial(validated, 0.3), tmp_path)
    assert one[1] == other[1] and one[0] == other[0] < 6
    assert one[1]["valid_ema_accuracy"] >= 0.3
    assert one[1]["valid_accuracy"] == pytest.approx(one[2], abs=0.01)  # in bf16 against fp32


def test_accuracy_is_that_of_one_process(digits, tmp_path):
    settings = ("epochs=4", "valid=400", "seed=3")
    one, other = together(2, partial(fitted, *settings), tmp_path)
    alone = fitted(*settings)
    assert one["best"]["accuracy"] > 0.8 and abs(one["best"]["accuracy"] - alone["best"]["accuracy"]) < 0.08


def right_of_test(seed):
    "Test images that a model of ten epochs classifies rightly, of 359."
    run = prepare(override(load_recipe("digits"), ["epochs=10", f"seed={seed}", "device=cpu"]))
    fit(run)
    model = run.learn.model.eval()
    with torch.no_grad():
        return sum(int((model(x.as_subclass(torch.Tensor)).argmax(1) == y).sum())
                   for x, y in test_dl(run.learn.dls, run.source))


@pytest.mark.slow  # five seeds twice; one short run is compared above
def test_accuracy_of_five_seeds_is_that_of_one_process(digits, tmp_path, capsys):
    alone, several = [], []
    for seed in range(5):
        alone.append(right_of_test(seed))
        one, other = together(2, partial(right_of_test, seed), tmp_path)
        assert one == other
        several.append(one)
    with capsys.disabled():
        print(f"\nof 359: one process {alone}, two processes {several}")
    assert abs(np.mean(several) - np.mean(alone)) < 359 / 100


@pytest.mark.slow  # half a minute of compiling; eager steps are tested above
def test_compiled_steps(digits, tmp_path):
    one, other = together(2, partial(fitted, "compile=on", "epochs=1"), tmp_path)
    assert_same(one, other)
    eager = together(2, partial(fitted, "epochs=1"), tmp_path)[0]
    assert one["rows"][-1]["train_loss"] == pytest.approx(eager["rows"][-1]["train_loss"], abs=0.05)


# ---------------------------------------------------------------- a run that is killed


def command(*more, dies=None):
    "Work that runs the command line; the process number `dies` kills itself after its seventh checkpoint."
    def work():
        if dies is not None and os.environ["RANK"] == str(dies):
            from cifar_fast.training.callbacks.checkpoint import Checkpoint

            save, made = Checkpoint.save, []

            def dying(self, *position):
                save(self, *position)
                made.append(position)
                if len(made) == 7:
                    os.kill(os.getpid(), signal.SIGKILL)
            Checkpoint.save = dying
        return main([*RUN, *more])
    return work


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, digits):
    exports = tmp_path_factory.mktemp("two")
    assert wait(start(2, command(f"exports={exports}"), exports / "log")) == [0, 0]
    return exports


def test_one_process_writes_the_run(undisturbed):
    card = read_card(undisturbed / NAME)
    assert card.machine.procs == 2 and "slice" in card.machine.batch_norm and card.metrics.n == 288
    assert strays(undisturbed) == []
    assert "epoch" in (undisturbed / "log0").read_text() and (undisturbed / "log1").read_text() == ""
    rows = history(undisturbed)
    assert len(rows) == 2 and (rows["valid_accuracy"] * 288).round(6).mod(1).eq(0).all()


@pytest.mark.parametrize("dies", [0, 1])
def test_a_killed_process_ends_the_others_and_the_run_resumes_bit_for_bit(undisturbed, tmp_path, dies):
    pids = start(2, command(f"exports={tmp_path}", dies=dies), tmp_path / "log")
    wait([pids[dies]])
    begun = time.monotonic()
    code, = wait([pids[1 - dies]])
    assert code == 2 and time.monotonic() - begun < 30
    said = (tmp_path / f"log{1 - dies}").read_text()
    assert "resume with: torchrun --nproc-per-node 2 -m cifar_fast recipe final data=digits" in said
    assert "--resume" in said and "Traceback" not in said
    assert wait(start(2, command(f"exports={tmp_path}", "--resume"), tmp_path / "log")) == [0, 0]
    assert bytes_that_differ(weights(undisturbed), weights(tmp_path)) == 0
    assert history(undisturbed).equals(history(tmp_path))


def test_another_number_of_processes_is_told_and_allowed(undisturbed, tmp_path, capsys):
    wait(start(2, command(f"exports={tmp_path}", dies=1), tmp_path / "log"))
    resume = [*RUN, f"exports={tmp_path}", "--resume"]
    assert main(resume) == 2
    assert "machine.procs: 2 then, 1 now" in capsys.readouterr().err
    assert main([*resume, "--allow-changes"]) == 0
    rows = history(tmp_path)
    assert len(rows) == 2 and read_card(tmp_path / NAME).machine.procs == 1
    for column, images in (("valid_accuracy", 288), ("train_accuracy", 1024)):  # 8 whole batches, each image once
        counted = rows[column] * images
        assert (counted - counted.round()).abs().max() < 0.01  # added up in float32


def test_a_signal_to_one_process_stops_all_after_the_same_step(undisturbed, tmp_path):
    def work():
        if os.environ["RANK"] == "1":
            from cifar_fast.training.callbacks.checkpoint import Checkpoint

            flags = Checkpoint.flags

            def told(self):
                if self.history.state.step == 3 and not self.stop:
                    signal.raise_signal(signal.SIGTERM)
                return flags(self)
            Checkpoint.flags = told
        return main([*RUN, "checkpoint_minutes=0", f"exports={tmp_path}"])

    assert wait(start(2, work, tmp_path / "log")) == [143, 143]
    assert "resume with: torchrun" in (tmp_path / "log0").read_text()
    assert wait(start(2, command(f"exports={tmp_path}", "--resume"), tmp_path / "log")) == [0, 0]
    assert "resumes in epoch 1 of 2, after 4 batches" in (tmp_path / "log0").read_text()
    assert bytes_that_differ(weights(undisturbed), weights(tmp_path)) == 0


def test_learning_rate_finder_and_dry_run(digits, tmp_path):
    short = ["recipe", "final", "data=digits", "arch=cifar_sprint", "epochs=1", "bs=128", "valid=0.2", "report=no"]
    assert wait(start(2, lambda: main([*short, "--dry-run"]), tmp_path / "log")) == [0, 0]
    assert "timed steps" in (tmp_path / "log0").read_text() and not (tmp_path / "log1").read_text()
    assert wait(start(2, lambda: main([*short, "lr=find", f"exports={tmp_path}"]), tmp_path / "log")) == [0, 0]
    rate = float((tmp_path / "log0").read_text().partition("lr_find: valley ")[2].split(",")[0])
    assert read_card(tmp_path / NAME).recipe["lr"] == pytest.approx(rate, rel=0.01)


# ---------------------------------------------------------------- processes


@pytest.mark.parametrize("changes, names", [
    (["procs=0"], "procs=0"), (["procs=4", "bs=3"], "bs=3"), (["procs=-2"], "procs=-2"),
    (["sync_bn=true", "compile=on"], "sync_bn"),
])
def test_settings_that_cannot_work(changes, names):
    with pytest.raises(RecipeError, match=names):
        check(tiny(*changes))


def test_number_of_processes(monkeypatch):
    monkeypatch.setattr("cifar_fast.training.parallel.CORES", 2)
    assert choose_procs(1, "cpu") == 1 and choose_procs(2, "cpu") == 2
    with pytest.raises(RecipeError, match="procs=3.*2 cores"):
        choose_procs(3, "cpu")
    for gain, chosen in ((1.0, 1), (1.2, 2)):
        monkeypatch.setattr("cifar_fast.training.parallel.CPU_GAIN", gain)
        assert choose_procs(None, "cpu") == chosen
    require_procs(1, Ranks(0, 2))  # torchrun says how many
    with pytest.raises(RecipeError, match="procs=3.*2"):
        require_procs(3, Ranks(0, 2))
    with pytest.raises(RecipeError, match="procs=2"):
        require_procs(2, Ranks())


def test_only_recipe_runs_under_torchrun(monkeypatch, capsys):
    for name, value in (("TORCHELASTIC_RUN_ID", "x"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    assert main(["recipes"]) == 2 and "recipes" in capsys.readouterr().err


def test_variables_without_torchrun_are_ignored(monkeypatch, capsys, digits):
    for name, value in (("WORLD_SIZE", "4"), ("RANK", "3")):
        monkeypatch.setenv(name, value)
    with ranks.joined() as here:
        assert here == Ranks() and "WORLD_SIZE=4" in capsys.readouterr().err
        assert len(fitted("epochs=1")["rows"]) == 1  # fastai would wait for the others
    assert "WORLD_SIZE" not in os.environ


def test_torch_without_gloo_is_refused(monkeypatch):
    monkeypatch.setattr("torch.distributed.is_gloo_available", lambda: False)
    with pytest.raises(ranks.RanksError, match="gloo"):
        ranks.connect(0)


SCRIPT = """
import os, sys, time
rank = int(os.environ["RANK"])
open(os.path.join(sys.argv[1], f"{rank}-{os.environ['WORLD_SIZE']}-{os.environ['OMP_NUM_THREADS']}"), "w").close()
if rank == 1:
    end = sys.argv[2]
    sys.exit(int(end)) if end.isdigit() else os.kill(os.getpid(), 9)
time.sleep(60 if sys.argv[2] != "0" else 0)
"""


def test_launcher(tmp_path, monkeypatch):
    def run(end):
        return launch.launch(["-c", SCRIPT, str(tmp_path), end], 2, "THE COMMAND")

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = signal.getsignal(signal.SIGTERM)
    assert run("0") == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0-2-1", "1-2-1"]
    begun = time.monotonic()
    assert run("2") == 2  # the others are ended
    with pytest.raises(launch.LaunchError, match="process 1 of 2.*SIGKILL.*\n.*THE COMMAND") as e:
        run("killed")
    assert e.value.exit_code == 1 and time.monotonic() - begun < 30
    assert signal.getsignal(signal.SIGTERM) == before  # the launcher's own would stay


@pytest.mark.slow  # five starts of the program; the parts are tested above
def test_procs_starts_the_processes_and_a_kill_ends_them(tmp_path, capfd, digits):
    argv = ["recipe", "sprint", "data=digits", "epochs=2", "bs=128", "procs=2", "report=no", f"exports={tmp_path}"]
    pid = os.fork()
    if pid == 0:
        os._exit(main(argv))
    checkpoint = tmp_path / ".sprint-digits.running" / "checkpoint.pt"
    end = time.monotonic() + 300
    while not checkpoint.exists() and time.monotonic() < end:
        time.sleep(0.1)
    children = [int(p.parent.name) for p in Path("/proc").glob("[0-9]*/stat")
                if p.read_text().rpartition(")")[2].split()[1] == str(pid)]
    assert len(children) == 2
    begun = time.monotonic()
    os.kill(children[1], signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert time.monotonic() - begun < 30
    err = capfd.readouterr().err
    assert code == 1 and "was killed (SIGKILL)" in err and "procs=2" in err and "--resume" in err
    assert main([*argv[:2], f"exports={tmp_path}", "data=digits", "--resume"]) == 0
    assert read_card(tmp_path / "sprint-digits").machine.procs == 2


@pytest.mark.parametrize("count", [2, 4])
def test_bytes_of_a_step(tmp_path, monkeypatch, count):
    monkeypatch.setattr(procs, "STEPS", 2)
    monkeypatch.setattr(procs, "IMAGES", 1024)
    assert wait(start(count, lambda: procs.main(tmp_path / "figures", "sprint"), tmp_path / "log")) == [0] * count
    found = json.loads((tmp_path / "figures").read_text())
    expected = 2 * (count - 1) / count * 4 * (122_730 + 672)  # parameters and running statistics
    assert found["processes"] == count and found["bytes/step"] == pytest.approx(expected, rel=0.05)


# ---------------------------------------------------------------- a plain run


def test_a_plain_run_imports_nothing_of_it():
    "torch.distributed, and the modules with it at their top, are imported in functions alone."
    package, with_it, importers = Path(cifar_fast.__file__).parent, set(), {}
    for path in package.rglob("*.py"):
        top = [n for n in ast.parse(path.read_text("utf-8")).body if isinstance(n, ast.Import | ast.ImportFrom)]
        named = {a.name for n in top if isinstance(n, ast.Import) for a in n.names} | {
            n.module for n in top if isinstance(n, ast.ImportFrom)}
        module = ".".join(["cifar_fast", *path.relative_to(package).with_suffix("").parts])
        importers[module] = named
        if any(name.startswith(("torch.distributed", "torch.nn.parallel")) for name in named):
            with_it.add(module)
    assert with_it == {f"cifar_fast.training.callbacks.{name}" for name in ("parallel", "synced_batch_norm")}
    assert {m for m, named in importers.items() if named & with_it} == {"cifar_fast.training.callbacks.parallel"}
