"""predict --out: every image once and in order, whatever happens to processes, files and disk on the way."""

import csv
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from bulk import IMAGES, SHARD, Disasters, expected, make_images, make_run, rows

from cifar_fast.cli.bulk import default_procs
from cifar_fast.cli.main import main
from cifar_fast.export.bulk.job import engine_of
from cifar_fast.export.bulk.pool import Pool
from cifar_fast.export.bulk.sources import list_sources
from cifar_fast.export.bulk.worker import Task
from cifar_fast.utils.cores import PLACE
from cifar_fast.utils.files import TEMPORARY


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    "A run, images, and the table that nobody disturbed."
    folder = tmp_path_factory.mktemp("bulk")
    run, images = make_run(folder / "net"), make_images(folder / "images")
    assert main(command(run, images, folder / "plain.parquet")) == 1
    return run, images, folder / "plain.parquet"


def command(run, images, out, *more):
    return ["predict", *map(str, (run, images)), "--out", str(out), "--shard", str(SHARD), "--procs", "2", "--topk",
            "2", *more]


@pytest.fixture
def disasters(tmp_path, monkeypatch):
    found = Disasters(tmp_path / "disasters")
    monkeypatch.setenv("PYTHONPATH", found.path)
    return found


def strays(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if p.name.startswith(".") or p.name.endswith(".shards")]


def killed(argv: list[str]) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "cifar_fast", *argv], capture_output=True, text=True, timeout=300,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join([os.environ["PYTHONPATH"], os.getcwd()])})


def test_every_image_is_a_row_in_order_and_a_bad_one_has_its_reason(made):
    run, images, plain = made
    found, should = rows(plain), expected(run, images)
    assert [row["file"] for row in found] == [row["file"] for row in should] and len(found) == IMAGES
    for row, right in zip(found, should, strict=True):
        assert (row["label"], row["label_2"]) == (right["label"], right["label_2"])
        if right["label"]:
            assert row["error"] is None and row["probability"] == pytest.approx(right["probability"], abs=1e-6)
        else:
            assert row["file"].endswith("bad.jpg") and row["probability"] is None
            assert row["error"].startswith("is not an image")
    assert not strays(plain.parent)


def test_csv_with_all_classes_and_images_from_a_list_once_each(made, tmp_path, monkeypatch):
    run, images, plain = made
    monkeypatch.chdir(images)
    # With the mark that Windows' Notepad puts before UTF-8.
    (tmp_path / "list.txt").write_text("00.png\n\nbad.jpg\n00.png\nsub/01.png\n", encoding="utf-8-sig")
    out = tmp_path / "new" / "out.csv"
    assert main(["predict", str(run), str(tmp_path / "list.txt"), "02.png", "--out", str(out), "--all"]) == 1
    with open(out, encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    assert [row["file"] for row in found] == ["00.png", "bad.jpg", "sub/01.png", "02.png"]
    classes = [f"probability_{name}" for name in ("ant", "bee", "cow")]
    assert list(found[0]) == ["file", "label", "probability", *classes, "error"]
    assert sum(float(found[0][name]) for name in classes) == pytest.approx(1, abs=1e-5)
    assert found[1]["label"] == "" and "not an image" in found[1]["error"]


@pytest.mark.parametrize("signum, code", [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_a_stopped_run_goes_on_and_gives_identical_bytes(made, disasters, tmp_path, signum, code, capsys):
    run, images, plain = made
    out = tmp_path / "out.parquet"
    disasters.strike("19.png", signum, "parent")  # in the last shard but one
    ended = killed(command(run, images, out))
    assert ended.returncode == code, ended.stderr
    shards = out.with_name("out.parquet.shards")
    done = {p.name: p.stat().st_mtime_ns for p in shards.glob("*.parquet")}
    assert 2 <= len(done) < IMAGES / SHARD and not out.exists()
    if signum == signal.SIGINT:
        assert "--restart" in ended.stderr and "Traceback" not in ended.stderr
        assert not list(shards.glob(".*"))
    assert main(command(run, images, out)) == 1
    assert "going on" in capsys.readouterr().err
    assert out.read_bytes() == plain.read_bytes() and not strays(tmp_path)


def test_workers_end_with_their_parent(made, disasters, tmp_path):
    run, images, _ = made
    disasters.strike("05.png", signal.SIGKILL, "parent")
    killed(command(run, images, tmp_path / "out.parquet"))
    deadline = time.monotonic() + 20
    while (alive := workers(disasters.folder)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive


def workers(folder: Path) -> list[str]:
    "Processes that have the folder in their PYTHONPATH."
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if str(folder).encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                found.append(path.parent.name)
        except OSError:
            continue
    return found


def test_a_killed_worker_is_replaced_and_its_images_are_done_again(made, disasters, tmp_path, monkeypatch):
    run, images, plain = made
    disasters.strike("06.png", signal.SIGKILL, times=2)
    disasters.strike("13.png", signal.SIGSEGV)
    start, places = subprocess.Popen, []

    def started(*args, env=None, **kwargs):
        places.extend([env[PLACE]] if PLACE in (env or {}) else [])
        return start(*args, env=env, **kwargs)

    monkeypatch.setattr(subprocess, "Popen", started)
    assert main(command(run, images, tmp_path / "out.parquet")) == 1
    assert places[:2] == ["0", "1"] and len(places) == 5 and set(places) == {"0", "1"}  # by which they share out GPUs
    assert disasters.left("06.png") == disasters.left("13.png") == 0
    assert (tmp_path / "out.parquet").read_bytes() == plain.read_bytes()


def test_an_image_that_always_kills_is_a_row_with_its_reason(made, disasters, tmp_path):
    run, images, plain = made
    disasters.strike("07.png", signal.SIGKILL, times=99)
    assert main(command(run, images, tmp_path / "out.parquet")) == 1
    assert disasters.left("07.png") == 99 - 3
    found, should = rows(tmp_path / "out.parquet"), rows(plain)
    assert [row["file"] for row in found] == [row["file"] for row in should]
    for row, right in zip(found, should, strict=True):
        if row["file"].endswith("07.png"):
            assert row["label"] is None and "3 times" in row["error"] and "SIGKILL" in row["error"]
        else:
            assert row["label"] == right["label"] and row["error"] == right["error"]


def test_workers_that_die_with_no_image_to_blame_end_it(made, tmp_path, monkeypatch, capsys):
    run, images, _ = made
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text("import os; os._exit(9)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "hook"))
    assert main(command(run, images, tmp_path / "out.parquet")) == 2
    assert "exit code 9" in capsys.readouterr().err and not (tmp_path / "out.parquet").exists()


# ---------------------------------------------------------------- what does not fit


@pytest.fixture
def begun(made, tmp_path, disasters):
    "A run of its own, images of its own, and a table that was begun."
    run, images = shutil.copytree(made[0], tmp_path / "net"), shutil.copytree(made[1], tmp_path / "images")
    disasters.strike("19.png", signal.SIGKILL, "parent")
    assert killed(command(run, images, tmp_path / "out.parquet")).returncode == -signal.SIGKILL
    return run, images, tmp_path / "out.parquet"


def test_other_weights_settings_or_images_are_refused_and_can_restart(begun, capsys):
    run, images, out = begun

    (unfinished := out.with_name("out.parquet.shards") / f".000009.parquet.x{TEMPORARY}").write_bytes(b"")

    def written():  # but not what a killed worker left unfinished: the next command removes that
        files = [p for p in out.with_name("out.parquet.shards").iterdir() if not p.name.endswith(TEMPORARY)]
        return sorted((p.name, p.stat().st_mtime_ns) for p in files)

    def refused(*more):
        before = written()
        assert main([*command(run, images, out), *more]) == 2
        assert written() == before
        return capsys.readouterr().err

    assert "tta: False then, True now" in refused("--tta") and not unfinished.exists()
    (images / "more.png").write_bytes((images / "00.png").read_bytes())
    assert f"images: {IMAGES} then, {IMAGES + 1} now" in refused()
    (images / "more.png").unlink()
    (images / "00.png").rename(images / "01.png")
    assert "other names" in refused()
    (images / "01.png").rename(images / "00.png")
    shutil.rmtree(run)
    make_other(run)
    assert "other weights: sha256" in refused() and not out.exists()
    assert main(command(run, images, out, "--restart")) == 1
    assert len(rows(out)) == IMAGES


def make_other(folder):
    from starts import exported

    from cifar_fast.export.card_file import read_card
    from cifar_fast.export.predictor import load_export
    from cifar_fast.export.targets import onnx

    exported(folder, seed=8)
    onnx.make(folder, read_card(folder), load_export(folder).model)


def test_a_table_that_exists_is_left_alone(made, tmp_path, capsys):
    run, images, plain = made
    shutil.copy(plain, out := tmp_path / "out.parquet")
    assert main(command(run, images, out, "--tta")) == 2
    assert "exists already" in capsys.readouterr().err and out.read_bytes() == plain.read_bytes()
    assert main(command(run, images, out, "--tta", "--restart")) == 1
    assert out.read_bytes() != plain.read_bytes() and not strays(tmp_path)


def test_two_at_once_do_not_mix(made, tmp_path, capsys):
    from filelock import FileLock

    with FileLock(tmp_path / ".out.parquet.lock"):
        assert main(command(*made[:2], tmp_path / "out.parquet")) == 2
    assert "another process" in capsys.readouterr().err


@pytest.mark.parametrize("room", ["shard", "table"])
def test_a_full_disk_leaves_no_half_file_and_the_same_command_goes_on(made, tmp_path, capsys, room):
    run, images, plain = made
    out, before = tmp_path / "out.parquet", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ({"shard": 1500, "table": plain.stat().st_size - 1}[room], before[1]))
    try:
        assert main(command(run, images, out)) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "make room" in capsys.readouterr().err
    assert not out.exists() and not list(tmp_path.rglob("*.part"))
    assert main(command(run, images, out)) == 1 and out.read_bytes() == plain.read_bytes()


@pytest.mark.parametrize("more, named", [
    (["--out", "x.json"], "--out x.json"), (["--out", "x.csv", "--procs", "0"], "--procs 0"),
    (["--out", "x.csv", "--json"], "--json"), (["--restart"], "--restart"), (["--engine", "ray"], "--engine ray"),
    (["--out", "x.csv", "--address", "auto"], "--address"), (["--out", "file/x.csv"], "file"),
    (["--out", "folder.csv"], "folder.csv is a folder")])
def test_what_cannot_be_is_said_before_anything_is_done(made, tmp_path, monkeypatch, capsys, more, named):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "folder.csv").mkdir()
    assert main(["predict", str(made[0]), str(made[1]), *more]) == 2
    assert named in capsys.readouterr().err and not list(tmp_path.glob("*.shards"))


@pytest.mark.parametrize("cores, engine, asked, procs", [
    (16, "OnnxPredictor", None, 16), (16, "Predictor on cpu", "cpu", 16), (16, "Predictor on cuda", "cuda:1", 4),
    (16, "Predictor on cuda", None, 8), (16, "Predictor on cuda", "cuda", 8), (2, "Predictor on mps", "auto", 2)])
def test_few_processes_share_a_gpu(monkeypatch, cores, engine, asked, procs):
    monkeypatch.setattr("cifar_fast.utils.cores.CORES", cores)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert default_procs(engine, asked) == procs


def test_a_gpu_of_any_number_goes_on_with_the_job():
    engines = {engine_of(type("Predictor", (), {"device": torch.device(name)})()) for name in ("cuda", "cuda:1")}
    assert engines == {"Predictor on cuda"}


def test_no_image_makes_no_table(made, tmp_path, capsys):
    assert main(["predict", str(made[0]), str(tmp_path / "none"), "--out", str(tmp_path / "out.parquet")]) == 1
    assert "none: no image there" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_uris_are_listed_and_read(made, tmp_path):
    run, images, plain = made
    found = [str(uri) for uri in list_sources([f"file://{images}"], [], [])]
    assert found == [f"file://{row['file']}" for row in rows(plain)]
    assert [str(uri) for uri in list_sources([f"file://{images}/sub", f"file://{images}", str(images / "00.png"),
                                              str(images)], [], [])] == [
        *(uri for uri in found if "/sub/" in uri), *(uri for uri in found if "/sub/" not in uri),
        *sorted((row["file"] for row in rows(plain)), key=lambda file: not file.endswith("/00.png"))]
    assert main(command(run, f"file://{images}", tmp_path / "out.parquet")) == 1
    for row, right in zip(rows(tmp_path / "out.parquet"), rows(plain), strict=True):
        assert row == {**right, "file": f"file://{right['file']}"}


def test_a_single_uri_may_have_escaped_characters(made, tmp_path):
    image = tmp_path / "my photo.png"
    image.write_bytes((made[1] / "00.png").read_bytes())
    out = tmp_path / "out.parquet"
    assert main(command(made[0], image.as_uri(), out)) == 0  # file:///…/my%20photo.png
    assert [row["file"] for row in rows(out)] == [f"file://{image}"]


def test_a_line_that_nothing_can_read_is_a_row_with_its_reason(made, tmp_path, monkeypatch):
    monkeypatch.chdir(made[1])
    (tmp_path / "list.txt").write_text("00.png\nhttps://example.com/cat.jpg\nno-scheme://a/b.png\n02.png\n")
    assert main(command(made[0], tmp_path / "list.txt", tmp_path / "out.parquet")) == 1
    found = rows(tmp_path / "out.parquet")
    assert [bool(row["label"]) for row in found] == [True, False, False, True]
    assert "cannot be opened" in found[1]["error"] and "no-scheme" in found[2]["file"] and found[2]["error"]


def test_a_list_that_is_not_utf8_is_refused(made, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(made[1])
    (tmp_path / "list.txt").write_text("00.png\nhouse.png\n", encoding="utf-16")  # as PowerShell 5 writes it
    for more in (["--out", str(tmp_path / "out.csv")], []):
        assert main(["predict", str(made[0]), str(tmp_path / "list.txt"), *more]) == 1
        assert "list.txt: is not UTF-8" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["list.txt"]


def test_a_uri_without_a_table_says_what_reads_it(made, capsys):
    assert main(["predict", str(made[0]), "s3://bucket/photos"]) == 2
    assert "s3://bucket/photos is a URI" in (said := capsys.readouterr().err) and "--out" in said


def test_a_worker_needs_no_torch(made, tmp_path, monkeypatch):
    from cifar_fast.export.bulk.job import job_of
    from cifar_fast.export.load import load_model

    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "torch.py").write_text("raise SystemExit('torch was imported')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "hook"))
    job = job_of(load_model(made[0]), str(made[0]))
    with Pool(job, 1) as pool:
        assert list(pool.run([Task(5, [made[1] / "00.png"], tmp_path / "shard")])) == [5]
    assert len(rows(tmp_path / "shard")) == 1
