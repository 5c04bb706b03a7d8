"""predict --out --engine ray: the same table as here, on a cluster of two nodes that lose processes and one of them."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pyarrow as pa
import pytest
from bulk import IMAGES, Disasters, make_images, make_run, rows

from cifar_fast.cli.main import main
from cifar_fast.export.bulk import ray_engine
from cifar_fast.export.bulk.job import BulkError, job_of
from cifar_fast.export.bulk.pool import Pool
from cifar_fast.export.bulk.worker import Task
from cifar_fast.export.load import load_model

MANY = 240


def command(run, images, out, *more):
    return ["predict", *map(str, (run, images)), "--out", str(out), "--shard", "4", "--topk", "2", *more]


def test_without_ray_the_command_to_install_it_is_given(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(command("exports/final", tmp_path, tmp_path / "x.parquet", "--engine", "ray")) == 2
    assert "pip install 'cifar_fast[ray]'" in capsys.readouterr().err


def test_what_an_actor_makes_is_what_a_process_here_makes(tmp_path, capfd):
    run, images = make_run(tmp_path / "net"), make_images(tmp_path / "images", 5)
    paths = [*sorted(images.glob("*.*")), tmp_path / "gone.png"]
    job = job_of(load_model(run), str(run))
    with Pool(job, 1) as pool:
        assert list(pool.run([Task(3, paths, tmp_path / "here")])) == [3]
    batch = pa.table({"index": [3], "sources": [[os.fsencode(path) for path in paths]]})
    model = ray_engine.for_nodes(job)
    made = ray_engine.ShardMaker(*model)
    (row,) = made(batch).to_pylist()
    made.pool.__exit__()
    assert row == {"index": 3, "content": (tmp_path / "here").read_bytes(), "error": ""}
    broken = ray_engine.ShardMaker(model[0], b"no model", model[2])
    (row,) = broken(batch).to_pylist()
    assert row["content"] == b"" and "model.onnx" in row["error"]
    assert "Fatal" not in capfd.readouterr().err


def test_relative_paths_start_from_the_folder_of_the_command(tmp_path, monkeypatch):
    run, images = make_run(tmp_path / "net"), make_images(tmp_path / "images", 3)
    monkeypatch.chdir(images)
    # A file of a recipe that a node need not have: model.onnx is run without it.
    job, content, cwd = ray_engine.for_nodes(replace(job_of(load_model(run), str(run)), recipe="mine.py"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")  # where Ray starts its actors
    batch = pa.table({"index": [0], "sources": [[b"00.png"]]})
    found = []
    for folder in (cwd, str(tmp_path / "gone")):
        maker = ray_engine.ShardMaker(job, content, folder)
        found += maker(batch).to_pylist()
        maker.pool.__exit__()
    (table := tmp_path / "table.parquet").write_bytes(found[0]["content"])
    (row,) = rows(table)
    assert row["file"] == "00.png" and row["label"] and not row["error"] and found[0]["error"] == ""
    assert "there is no folder" in found[1]["error"] and "gone" in found[1]["error"]


def test_what_ray_gives_twice_or_loses_is_written_once(tmp_path, monkeypatch):
    asked, replies = [], iter([[(0, b"a", ""), (0, b"a", "")], [(2, b"c", "")], []])
    monkeypatch.setattr(ray_engine, "one_round", lambda job, tasks, procs: asked.append([t.index for t in tasks])
                        or next(replies))
    tasks = [Task(i, [], tmp_path / str(i)) for i in range(3)]
    assert list(ray_engine.rounds(None, tasks, 2)) == [0, 2]  # the third is missing, and `predict_bulk` says so
    assert asked == [[0, 1, 2], [1, 2], [1]] and sorted(os.listdir(tmp_path)) == ["0", "2"]
    monkeypatch.setattr(ray_engine, "one_round", lambda *args: [(1, b"", "on a node: no memory")])
    with pytest.raises(BulkError, match="no memory"):
        list(ray_engine.rounds(None, tasks, 2))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    "Two nodes of two CPUs; disasters reach the processes of both."
    pytest.importorskip("ray", reason="ray is not installed: pip install 'cifar_fast[ray]'")
    import ray
    from ray.cluster_utils import Cluster

    disasters = Disasters(tmp_path_factory.mktemp("cluster") / "disasters")
    found = Cluster()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([disasters.path, os.getcwd()]))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        try:
            nodes = [started(found) for _ in range(2)]
            found.second, found.disasters = nodes[1], disasters
            found.wait_for_nodes(120)
            yield found
        finally:
            ray.shutdown()
            found.shutdown()


def started(cluster):
    "A node; Ray gives it thirty seconds, which a busy machine may exceed."
    for left in (2, 1, 0):
        try:
            return cluster.add_node(num_cpus=2, object_store_memory=10**8, include_dashboard=False)
        except Exception:
            if not left:
                raise


@pytest.fixture
def client_address(cluster):
    "ray://HOST:PORT of Ray Client's server on a node of the cluster."
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, "-m", "ray.util.client.server", "--mode=legacy", "--host=127.0.0.1",
                               f"--port={port}", f"--address={cluster.address}"], stderr=subprocess.DEVNULL)
    try:
        yield f"ray://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


@pytest.mark.slow
def test_a_machine_outside_the_cluster_predicts_through_ray_client(client_address, tmp_path):
    run, images = make_run(tmp_path / "net"), make_images(tmp_path / "images")
    assert main(command(run, images, tmp_path / "plain.parquet")) == 1
    assert main(command(run, images, tmp_path / "out.parquet", "--engine", "ray", "--address", client_address)) == 1
    assert (tmp_path / "out.parquet").read_bytes() == (tmp_path / "plain.parquet").read_bytes()


@pytest.mark.slow
def test_images_that_kill_are_rows_on_a_cluster_too(cluster, tmp_path):
    run, images = make_run(tmp_path / "net"), make_images(tmp_path / "images")
    assert main(command(run, images, tmp_path / "plain.parquet")) == 1
    cluster.disasters.strike("07.png", signal.SIGKILL, times=99)
    assert main(command(run, images, tmp_path / "out.parquet", "--engine", "ray", "--address", cluster.address)) == 1
    assert cluster.disasters.left("07.png") == 99 - 3
    found, should = rows(tmp_path / "out.parquet"), rows(tmp_path / "plain.parquet")
    assert len(found) == IMAGES and [row["file"] for row in found] == [row["file"] for row in should]
    assert [row["label"] for row in found if "07.png" not in row["file"]] == [
        row["label"] for row in should if "07.png" not in row["file"]]
    assert next(row["error"] for row in found if "07.png" in row["file"]).startswith("reading it ended the process 3")


@pytest.mark.slow
def test_a_killed_actor_and_a_lost_node_cost_no_image(cluster, tmp_path):
    run, images = make_run(tmp_path / "net"), make_images(tmp_path / "images", MANY)
    assert main(command(run, images, tmp_path / "plain.parquet")) == 1
    cluster.disasters.seconds_an_image(0.1)
    cluster.disasters.strike("06.png", signal.SIGKILL, "parent")  # the parent of what reads is Ray's process
    seen = []

    def lose_a_node():
        shards = tmp_path / "out.parquet.shards"
        while len(done := list(shards.glob("[0-9]*.parquet"))) < 12:
            time.sleep(0.05)
        seen.append(len(done))
        cluster.remove_node(cluster.second, allow_graceful=False)

    thread = threading.Thread(target=lose_a_node, daemon=True)
    thread.start()
    assert main(command(run, images, tmp_path / "out.parquet", "--engine", "ray", "--address", cluster.address)) == 1
    thread.join(60)
    assert cluster.disasters.left("06.png") == 0 and seen and seen[0] < MANY / 4
    assert (tmp_path / "out.parquet").read_bytes() == (tmp_path / "plain.parquet").read_bytes()
