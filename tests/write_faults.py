"""Files that the project writes, and what can go wrong while it does."""

import errno
import resource
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from cifar_fast.export.card import Card
from cifar_fast.export.card_parts import Normalization
from cifar_fast.export.save import save_export
from cifar_fast.models import create_model
from cifar_fast.reporting import plots
from cifar_fast.reporting.results.store import leave_row
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
