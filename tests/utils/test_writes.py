"""A write that fails leaves the former file and nothing half done, and the run it belongs to can go on."""

import errno
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest
from write_faults import FAULTS, WRITERS, contents, export, no_rename

from cifar_fast.export.predictor import load_export
from cifar_fast.export.trust import trust
from cifar_fast.reporting.results.store import ResultsError, add_row
from cifar_fast.utils import files


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


def test_a_file_in_memory_is_replaced_and_a_device_is_not(tmp_path):
    "/dev/shm is a folder like any other; what lies beside it is not."
    assert files.is_stream(Path("/dev/null")) and files.is_stream(Path("/dev/stdout"))
    if os.access("/dev/shm", os.W_OK):
        with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
            path = Path(folder) / "runs.csv"
            files.write_text(path, "one")
            before = path.stat().st_ino
            with open(path) as reader:  # it keeps the first, so that no later file can have its inode
                files.write_text(path, "two")
                assert reader.read() == "one" and path.read_text() == "two" and path.stat().st_ino != before


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
