"""What the tests share: one torch thread, one cache of their own, digits decoded once."""

import os

# Before torch is imported: small nets on small batches lose more to a second thread than they win, and results
# must not depend on the machine's cores. Subprocesses inherit it.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # a thread that waits leaves its core to the other processes
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("MPLBACKEND", "agg")

import pytest

FORKING = ("test_parallel.py", "test_parallel_stops.py", "test_processes.py")
"Tests whose processes are forks of the one that runs the tests."


def pytest_collection_modifyitems(items):
    "Forks come first: a process in which other tests have started threads (autograd, ONNX Runtime) has unsafe forks."
    items.sort(key=lambda item: item.path.name not in FORKING)


CACHE = "CIFAR_FAST_CACHE"
USERS_CACHE = os.environ.get(CACHE)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    "No test reads or fills the user's cache (but for those marked `real`, below)."
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv(CACHE, str(folder))
        patch.setenv("CIFAR_FAST_TRUST", str(folder / "trusted"))
        yield folder


@pytest.fixture(autouse=True)
def users_cache_for_real_data(request, monkeypatch):
    "CIFAR-10 is decoded once for all runs, not once a test session."
    if request.node.get_closest_marker("real"):
        if USERS_CACHE is None:
            monkeypatch.delenv(CACHE)
        else:
            monkeypatch.setenv(CACHE, USERS_CACHE)


@pytest.fixture(scope="session")
def plain(tmp_path_factory, digits):
    "The exports of the run that is broken off, killed and resumed elsewhere, with nobody to disturb it."
    from kills import RUN

    from cifar_fast.cli.main import main

    exports = tmp_path_factory.mktemp("plain")
    assert main([*RUN, f"exports={exports}"]) == 0
    return exports


@pytest.fixture
def broken(tmp_path, monkeypatch, digits):
    "Breaks a run off after so many checkpoints, one a step and one an epoch; returns its exports."
    from breaking import Broken
    from kills import RUN

    from cifar_fast.cli.main import main
    from cifar_fast.training.callbacks.checkpoint import Checkpoint

    def run(saves, *changes):
        save, made = Checkpoint.save, []

        def breaking(self, epoch, batch):
            save(self, epoch, batch)
            made.append((epoch, batch))
            if len(made) == saves:
                raise Broken

        with monkeypatch.context() as patch:
            patch.setattr(Checkpoint, "save", breaking)
            with pytest.raises(Broken):
                main([*RUN, f"exports={tmp_path}", *changes])
        return tmp_path
    return run


@pytest.fixture(scope="module")
def base(digits):
    "The short run that others are held against."
    from tiny import MIXED, tiny, trained

    return trained(tiny(*MIXED))


@pytest.fixture(scope="session")
def digits(cache):
    "scikit-learn's digits as a `Source`: 1,438 + 359 real images, 32×32 RGB, ten classes."
    from cifar_fast.data.sources import load_source

    return load_source("digits", cache=cache)
