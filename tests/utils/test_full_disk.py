"""A disk that is full: whole runs keep what was there and go on later, and commands say the file and the next step."""

import errno
import os
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
import torch
from kills import NAME, RUN, bytes_that_differ, strays, weights, working
from PIL import Image
from write_faults import CARD, WRITERS, contents, no_flush, no_room

from cifar_fast.cli.main import main
from cifar_fast.export.predictor import load_export
from cifar_fast.export.save import save_export
from cifar_fast.models import create_model
from cifar_fast.reporting.results.store import ResultsError
from cifar_fast.utils import files


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
