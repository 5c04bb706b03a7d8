"""A write that fails leaves the former file and nothing half done, and the run it belongs to can go on."""

import errno
import os
import resource
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from kills import NAME, RUN, bytes_that_differ, strays, weights, working
from PIL import Image

from cifar_fast.cli.main import main
from cifar_fast.export.card import Card
from cifar_fast.export.card_parts import Normalization
from cifar_fast.export.predictor import load_export
from cifar_fast.export.save import save_export
from cifar_fast.export.trust import trust
from cifar_fast.models import create_model
from cifar_fast.reporting import plots
from cifar_fast.reporting.results.store import ResultsError, add_row, leave_row
from cifar_fast.training.callbacks.checkpoint import Checkpoint
from cifar_fast.training.callbacks.history import History
from cifar_fast.training.state import TrainState
from cifar_fast.utils import files

CARD = Card(arch="cifar_sprint", vocab=list("ab"), normalize=Normalization(mean=[0.5] * 3, std=[0.25] * 3))


def checkpoint(folder, version):
    cb = Checkpoint(folder / "checkpoint.pt", {"version": version, "padding": list(range(3000))})
    net = torch.nn.Linear(2, 2)
    recorder = SimpleNamespace(lrs=[], iters=[], losses=[], values=[], metrics=[],
                               smooth_loss=SimpleNamespace(count=0, val=torch.zeros(()), value=0.0))
    cb.learn = SimpleNamespace(model=net, opt=torch.optim.SGD(net.parameters(), 0.1), cbs=[], recorder=recorder,
                               train_iter=0, pct_train=0.0, dls=SimpleNamespace(train=[]))
    cb.history = History(TrainState())
    cb.save(1, 0)


def history(folder, version):
    state = TrainState(rows=[{"epoch": i, "version": version} for i in range(3000)])
    History(state, path=folder / "history.csv").write()


def export(folder, version):
    torch.manual_seed(version)
    save_export(folder / "net", create_model("cifar_sprint", 2), replace(CARD, epochs=version))


def plot(folder, version):
    plots.save(plots.learning_rate([(0.1 * version * i, None) for i in range(100)]), folder / "lr.png")


def spare_row(folder, version):
    leave_row(folder, {"recipe": "a", "seed": version, "date": "x" * 20_000})


WRITERS = {f.__name__: f for f in (checkpoint, history, export, plot, spare_row)}


@contextmanager
def no_rename():
    def refuse(source, target):
        raise PermissionError(errno.EACCES, "renaming is refused", str(target))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files.os, "replace", refuse)
        yield


@contextmanager
def no_flush(number=errno.EIO, says="the disk is gone"):
    def refuse(fd):
        raise OSError(number, says)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files.os, "fsync", refuse)
        yield


@contextmanager
def no_room():
    "Files end at 10 kB: what is written stops in the middle, as on a full disk (Python ignores SIGXFSZ)."
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def read_only():
    def refuse(*args, **kw):
        raise OSError(errno.EROFS, "Read-only file system")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files.tempfile, "mkstemp", refuse)
        yield


FAULTS = {f.__name__: f for f in (no_rename, no_flush, no_room, read_only)}


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("writer", WRITERS)
def test_the_former_file_survives(tmp_path, writer, fault):
    WRITERS[writer](tmp_path, 1)
    before = contents(tmp_path)
    with FAULTS[fault](), pytest.raises((OSError, ResultsError, RuntimeError)):
        WRITERS[writer](tmp_path, 2)
    assert contents(tmp_path) == before and len(list(tmp_path.iterdir())) == 1
    WRITERS[writer](tmp_path, 2)  # and the next one is whole
    assert set(contents(tmp_path)) == set(before)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_row_that_cannot_be_added_stays_in_its_run(tmp_path, fault):
    (tmp_path / "run").mkdir()
    (tmp_path / "runs.csv").write_text(f"recipe,seed,date\na,1,{'x' * 20_000}\n")
    (tmp_path / "run" / "row.csv").write_text("recipe,seed,date\na,2,today\n")
    before = contents(tmp_path)
    with FAULTS[fault](), pytest.raises(ResultsError, match="the next run here adds it"):
        add_row(tmp_path / "run")
    assert {k: v for k, v in contents(tmp_path).items() if not k.endswith(".lock")} == before
    add_row(tmp_path / "run")
    assert list(pd.read_csv(tmp_path / "runs.csv")["seed"]) == [1, 2] and not (tmp_path / "run" / "row.csv").exists()


@pytest.mark.parametrize("nth", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("former", [True, False])
def test_an_export_is_whole_whichever_rename_fails(tmp_path, monkeypatch, nth, former):
    "Weights, config, Learner and card are written, the former folder is moved away, the new one takes its place."
    if former:
        export(tmp_path, 1)
    before, os_replace, made = contents(tmp_path), os.replace, []

    def refuse(source, target):
        made.append(target)
        if len(made) == nth:
            raise PermissionError(errno.EACCES, "renaming is refused", str(target))
        os_replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", refuse)
        if nth == 6 and not former:
            export(tmp_path, 2)
            assert len(made) == 5
            return
        with pytest.raises(PermissionError):
            export(tmp_path, 2)
    assert contents(tmp_path) == before
    export(tmp_path, 2)
    assert load_export(tmp_path / "net").card.epochs == 2 and [p.name for p in tmp_path.iterdir()] == ["net"]


def test_equal_runs_have_equal_weights_byte_for_byte(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        export(tmp_path / name, 1)
    one, other = (tmp_path / name / "net" / "model.safetensors" for name in "ab")
    assert one.read_bytes() == other.read_bytes()


def test_a_link_stays_one_and_a_pipe_is_written_into(tmp_path):
    (tmp_path / "link").symlink_to("kept")
    files.write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "kept").read_text() == "new"
    os.mkfifo(tmp_path / "pipe")
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit((tmp_path / "pipe").read_text)
        files.write_text(tmp_path / "pipe", "through")
        assert read.result(10) == "through" and (tmp_path / "pipe").is_fifo()


def test_a_new_file_that_fails_is_not_there(tmp_path):
    for fault in FAULTS.values():
        with fault(), pytest.raises((OSError, RuntimeError)):
            export(tmp_path, 1)
        assert list(tmp_path.iterdir()) == []


def test_the_trust_list_survives(tmp_path, monkeypatch):
    monkeypatch.setenv("CIFAR_FAST_TRUST", str(tmp_path / "trusted"))
    (tmp_path / "a.pkl").write_bytes(b"a")
    (tmp_path / "b.pkl").write_bytes(b"b")
    trust(tmp_path / "a.pkl")
    before = (tmp_path / "trusted").read_text()
    with no_rename(), pytest.raises(OSError):
        trust(tmp_path / "b.pkl")
    assert (tmp_path / "trusted").read_text() == before


# ---------------------------------------------------------------- whole runs


@pytest.fixture
def small_disk(tmp_path):
    "A file system of 8 MB, where this process may mount one."
    place = tmp_path / "disk"
    place.mkdir()
    made = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", place], capture_output=True).returncode == 0
    if not made:
        pytest.skip("no file system can be mounted here")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_run_on_a_full_disk_keeps_the_former_export_and_goes_on_later(small_disk, tmp_path, capsys, digits):
    assert main([*RUN, f"exports={small_disk}"]) == 0
    before = contents(small_disk / NAME)
    fill(small_disk, leave=200_000)
    capsys.readouterr()
    assert main([*RUN, "seed=7", "--overwrite", f"exports={small_disk}"]) == 2
    err = capsys.readouterr().err
    assert "cannot be written (No space left on device)" in err and "make room" in err and "Traceback" not in err
    assert contents(small_disk / NAME) == before and load_export(small_disk / NAME)
    (small_disk / "ballast").unlink()
    how = "--resume" if (working(small_disk) / "checkpoint.pt").exists() else "--restart"
    assert main([*RUN, "seed=7", "--overwrite", f"exports={small_disk}", how]) == 0
    assert main([*RUN, "seed=7", f"exports={tmp_path / 'plain'}"]) == 0
    assert bytes_that_differ(weights(tmp_path / "plain"), weights(small_disk)) == 0
    assert not strays(small_disk) and pd.read_csv(small_disk / "runs.csv")["seed"].tolist() == [7]


def fill(folder, leave):
    free = os.statvfs(folder)
    (folder / "ballast").write_bytes(bytes(free.f_bavail * free.f_frsize - leave))


def test_a_run_whose_export_fails_has_not_to_train_again(tmp_path, monkeypatch, capsys, digits):
    from cifar_fast.runs import run as train

    def full(*args, **kw):
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "x"))

    monkeypatch.setattr(train, "write_model", full)
    assert main([*RUN, f"exports={tmp_path}"]) == 2
    err = capsys.readouterr().err
    assert "keeps the whole training" in err and "cannot be written" in err
    monkeypatch.undo()
    assert main([*RUN, f"exports={tmp_path}", "--resume"]) == 0
    out = capsys.readouterr().out
    assert "resumes after its last epoch" in out and "epoch   1/2" not in out and not strays(tmp_path)


def test_a_run_that_stopped_early_and_whose_export_fails_has_not_to_train_again(tmp_path, monkeypatch, capsys, digits):
    from cifar_fast.runs import run as train

    def full(*args, **kw):
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "x"))

    early = [*RUN, "epochs=6", "target=0.01", "checkpoint_epochs=0", "checkpoint_minutes=0"]
    with monkeypatch.context() as patch:
        patch.setattr(train, "write_model", full)
        assert main([*early, f"exports={tmp_path}"]) == 2
    assert "keeps the whole training" in capsys.readouterr().err
    assert main([*early, f"exports={tmp_path}", "--resume"]) == 0
    out = capsys.readouterr().out
    assert "resumes after its last epoch" in out and "1/6" not in out and not strays(tmp_path)
    assert len(pd.read_csv(tmp_path / NAME / "history.csv")) == 1


def test_a_run_whose_row_cannot_be_added_is_complete_and_the_next_one_adds_it(tmp_path, monkeypatch, capsys, digits):
    from cifar_fast.reporting.results import store

    def broken(path):
        raise ResultsError(f"{path} is spoilt")

    with monkeypatch.context() as patch:
        patch.setattr(store, "read", broken)
        assert main([*RUN, f"exports={tmp_path}"]) == 2
    assert "The run itself is complete" in capsys.readouterr().err
    assert load_export(tmp_path / NAME) and strays(tmp_path) == [str(tmp_path / NAME / "row.csv")]
    assert main([*RUN, f"exports={tmp_path}", "--resume"]) == 0
    assert "has finished already" in capsys.readouterr().out
    assert len(pd.read_csv(tmp_path / "runs.csv")) == 1 and not strays(tmp_path)


# ---------------------------------------------------------------- what is said of a full disk


@pytest.mark.parametrize("writer", sorted(WRITERS))
def test_a_full_disk_names_the_file(tmp_path, writer):
    with no_room(), pytest.raises(OSError) as failed:
        WRITERS[writer](tmp_path, 1)
    assert failed.value.errno == errno.EFBIG
    where = str(failed.value.filename)
    assert where.startswith(str(tmp_path)) and not any(part.startswith(".") for part in Path(where).parts)


def test_an_error_keeps_the_name_and_the_text_it_has(tmp_path):
    for error, told in ((OSError(errno.EIO, "gone", "elsewhere"), "elsewhere"), (OSError("encoder error"), "encoder")):
        with pytest.raises(OSError, match=told), files.atomic_write(tmp_path / "x"):
            raise error


@pytest.fixture
def untrained(tmp_path):
    torch.manual_seed(0)
    save_export(tmp_path / "net", create_model("cifar_sprint", 2), CARD, pickle=False)
    return tmp_path / "net"


@pytest.mark.parametrize("args, named", [
    (["predict", "net", "image.png", "--csv", "out.csv"], "out.csv"),
    (["export", "./net"], "net/learner.pkl"),
    (["recipe", *RUN[1:], "exports=runs"], f"runs/.{NAME}.running/run/recipe.json"),
    (["lr_find", "sprint", "data=digits", "bs=32", "exports=runs", "--steps", "100"], "lr_find.png"),
])
def test_a_command_on_a_full_disk_says_where_and_what_next(untrained, digits, tmp_path, monkeypatch, capsys, args,
                                                           named):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (32, 32)).save("image.png")
    with no_flush(errno.ENOSPC, "No space left on device"):
        assert main(args) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"{named} cannot be written (No space left on device): make room" in said


def test_export_says_of_a_full_disk_what_it_is(untrained, capsys):
    with no_room():
        assert main(["export", str(untrained)]) == 2
    assert "net/learner.pkl cannot be written (File too large)" in capsys.readouterr().err
    assert not (untrained / "learner.pkl").exists()


def test_a_copy_that_fails_is_not_there_and_nothing_is_overwritten(tmp_path, capsys):
    mine = tmp_path / "mine.py"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "open", lambda *args, **kw: Full(*args, **kw), raising=False)
        assert main(["copy", "final", str(mine)]) == 2
    assert f"{mine} cannot be written (No space left on device)" in capsys.readouterr().err and not mine.exists()
    assert main(["copy", "final", str(mine)]) == 0
    mine.write_text("mine")
    assert main(["copy", "sprint", str(mine)]) == 2
    assert "exists already" in capsys.readouterr().err and mine.read_text() == "mine"


class Full:
    "A new file on a disk that is full: it is there, and takes nothing."

    def __init__(self, path, mode, encoding):
        self.file = open(path, mode, encoding=encoding)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.file.close()

    def write(self, text):
        raise OSError(errno.ENOSPC, "No space left on device")
