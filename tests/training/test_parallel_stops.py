"""Data-parallel runs that are killed, stopped and resumed, with processes on a CPU."""

import os
import signal
import time

import pytest
from kills import NAME, RUN, bytes_that_differ, history, strays, weights
from processes import start, wait

from cifar_fast.cli.main import main
from cifar_fast.export.card_file import read_card


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


@pytest.mark.parametrize("dies", [0, pytest.param(1, marks=pytest.mark.slow)])
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


@pytest.mark.slow  # another number of threads is told by the tests of a single process
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
    assert "interrupted" in (tmp_path / "log0").read_text() and "interrupted" not in (tmp_path / "log1").read_text()
    assert wait(start(2, command(f"exports={tmp_path}", "--resume"), tmp_path / "log")) == [0, 0]
    assert "resumes in epoch 1 of 2, after 4 batches" in (tmp_path / "log0").read_text()
    assert bytes_that_differ(weights(undisturbed), weights(tmp_path)) == 0


@pytest.mark.slow  # three starts of two processes; a search by one is tested elsewhere
def test_learning_rate_finder_and_dry_run(digits, tmp_path):
    short = ["recipe", "final", "data=digits", "arch=cifar_sprint", "epochs=1", "bs=128", "valid=0.2", "report=no"]
    assert wait(start(2, lambda: main([*short, "--dry-run"]), tmp_path / "log")) == [0, 0]
    assert "timed steps" in (tmp_path / "log0").read_text() and not (tmp_path / "log1").read_text()
    assert wait(start(2, lambda: main([*short, "lr=find", f"exports={tmp_path}"]), tmp_path / "log")) == [0, 0]
    rate = float((tmp_path / "log0").read_text().partition("lr_find: valley ")[2].split(",")[0])
    assert read_card(tmp_path / NAME).recipe["lr"] == pytest.approx(rate, rel=0.01)
