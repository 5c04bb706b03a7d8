"""`track=`: the curves go to TensorBoard or W&B as well, and a run trains on whatever becomes of them."""

import errno
import struct
import warnings

import pytest
from breaking import STEPS, resume
from kills import NAME, RUN, bytes_that_differ, history, weights

from cifar_fast.cli.main import main
from cifar_fast.export.card_file import read_card
from cifar_fast.recipe import RecipeError, check, checks, load_recipe, override
from cifar_fast.runs import track
from cifar_fast.utils.ranks import Ranks

AVERAGED = ("ema=ema", "ema.decay=0.99")


@pytest.fixture
def offline(monkeypatch, tmp_path):
    "W&B writes files, and finds no settings and no login of the user's."
    import wandb

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    wandb.teardown()  # it reads the environment once a process
    yield
    wandb.teardown()


def scalars(folder):
    "{tag: [(step, value)]} of a TensorBoard folder, as TensorBoard itself reads it; and its tags of other kinds."
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    tags = events.Tags()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in tags["scalars"]}, tags


def records(folder):
    "The records of all offline runs in a `wandb` folder, in the order in which they were written."
    from wandb.proto.wandb_internal_pb2 import Record

    for file in sorted(folder.glob("offline-run-*/run-*.wandb")):
        for data in chunks(file.read_bytes()):
            record = Record()
            record.ParseFromString(data)
            yield record


def chunks(log, at=7, block=2**15):
    "The entries of a log in LevelDB's format: in blocks, each part after its checksum, length and kind."
    entry = b""
    while at + 7 <= len(log):
        if (left := block - at % block) < 7:
            at += left
            continue
        length, kind = struct.unpack("<HB", log[at + 4:at + 7])
        entry, at = entry + log[at + 7:at + 7 + length], at + 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield entry
            entry = b""


def rows_of(records):
    "[{key: JSON text}] of what was logged."
    return [{item.key or ".".join(item.nested_key): item.value_json for item in record.history.item}
            for record in records if record.WhichOneof("record_type") == "history"]


def test_tensorboard_has_every_step_once_and_weights_stay_what_they_are(plain, broken, capsys):
    exports = broken(5, "track=tensorboard")  # after 5 of 8 steps, of which all were logged
    assert resume(exports) == 0
    folder = exports / NAME
    assert bytes_that_differ(weights(plain), weights(exports)) == 0 and history(exports).equals(history(plain))
    assert f"tensorboard --logdir {folder / 'tensorboard'}" in capsys.readouterr().out
    assert read_card(folder).tracked == {"tensorboard": "tensorboard"}
    assert len(list((folder / "tensorboard").iterdir())) == 2
    values, tags = scalars(folder / "tensorboard")
    assert [step for step, _ in values["lr_0"]] == [step for step, _ in values["train_loss"]] \
        == list(range(1, 2 * STEPS + 1))
    for name in ("valid_ema_accuracy", "valid_loss", "train_loss", "lr"):
        assert [value for _, value in values[f"epoch/{name}"]] == pytest.approx(list(history(exports)[name]), rel=1e-5)
    assert {"figures/history", "figures/confusion", "figures/learning_rate"} <= set(tags["images"])
    assert tags["tensors"] == ["card/text_summary"] and not tags["graph"]


def test_wandb_goes_on_in_the_same_run_offline(plain, broken, offline, capsys):
    exports = broken(5, "track=wandb")
    assert resume(exports) == 0
    folder = exports / NAME / "wandb"
    assert bytes_that_differ(weights(plain), weights(exports)) == 0
    assert f"wandb sync {folder}/offline-run-*" in capsys.readouterr().out
    assert read_card(exports / NAME).tracked == {"wandb": "wandb"}
    written = list(records(folder))
    runs = [r.run for r in written if r.WhichOneof("record_type") == "run"]
    assert len({r.run_id for r in runs}) == 1 and {r.display_name for r in runs} == {NAME}
    assert {r.project for r in runs} == {"cifar_fast"}
    rows = rows_of(written)
    assert [int(row["_step"]) for row in rows if "lr_0" in row] == [*range(5), *range(5, 2 * STEPS)]
    measured = [float(row["valid_ema_accuracy"]) for row in rows if "valid_ema_accuracy" in row]
    assert measured == pytest.approx(list(history(exports)["valid_ema_accuracy"]), rel=1e-5)
    assert any(key.startswith("figures/history.") for key in rows[-1])
    assert list(folder.glob("offline-run-*/files/card.json"))


def test_a_full_disk_ends_the_log_alone(plain, tmp_path, monkeypatch, capsys):
    from tensorboard.summary.writer.record_writer import RecordWriter

    calls = []

    def full(self, data, write=RecordWriter.write):
        calls.append(1)
        if len(calls) > 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, data)

    monkeypatch.setattr(RecordWriter, "write", full)
    assert main([*RUN, f"exports={tmp_path}", "track=tensorboard"]) == 0
    assert bytes_that_differ(weights(plain), weights(tmp_path)) == 0
    assert read_card(tmp_path / NAME).tracked == {}
    out, err = capsys.readouterr()
    assert err.count("track=tensorboard stops here") == err.count("No space left") == 1 and "Traceback" not in err
    assert not [line for line in out.splitlines()[-3:] if "--logdir" in line]


@pytest.mark.parametrize("env, reason", [({}, "login"), ({"WANDB_API_KEY": 40 * "a",
                                                           "WANDB_BASE_URL": "http://127.0.0.1:9"}, "refused")])
def test_without_login_or_network_wandb_records_offline_and_says_so(tmp_path, monkeypatch, offline, env, reason):
    from cifar_fast.training.callbacks import track_wandb

    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setitem(track_wandb.PATIENCE, "init_timeout", 1)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    recipe = override(load_recipe("sprint"), ["track=wandb"])
    with pytest.warns(UserWarning, match=rf"(?s)cannot reach W&B.*{reason}.*offline"):
        with track.tracking(recipe, tmp_path, {}, None) as tracker:
            assert tracker.place == "wandb" and not tracker.failed
    assert list(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))


def test_an_error_is_one_warning_and_the_last_call(tmp_path, monkeypatch, offline):
    import wandb

    recipe = override(load_recipe("sprint"), ["track=wandb"])
    with track.tracking(recipe, tmp_path, {}, None) as tracker, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        monkeypatch.setattr(wandb, "log", lambda *_, **__: 1 / 0)
        for _ in range(2):
            tracker.after_fit()
    assert tracker.failed and len(caught) == 1 and "ZeroDivisionError" in str(caught[0].message)


def test_one_process_of_several_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(track, "here", lambda: Ranks(rank=1, count=2))
    with track.tracking(override(load_recipe("sprint"), ["track=tensorboard"]), tmp_path, {}, None) as tracker:
        assert tracker is None
    assert not list(tmp_path.iterdir())


def test_an_unknown_tracker_or_one_that_is_not_installed_is_refused(tmp_path, monkeypatch, capsys):
    with pytest.raises(RecipeError, match="track=tensorbord.*did you mean tensorboard"):
        override(load_recipe("sprint"), ["track=tensorbord"])
    mine = tmp_path / "mine.py"
    mine.write_text("from cifar_fast.all import *\n\n" + "from dataclasses import replace\n"
                    "recipe = replace(load_recipe('sprint'), name='mine', track='mlflow')\n")
    with pytest.raises(RecipeError, match="track=mlflow"):
        check(load_recipe(str(mine)))

    def absent(name):
        raise checks.PackageNotFoundError(name)

    monkeypatch.setattr(checks, "version", absent)
    assert main(["recipe", "sprint", "data=digits", "track=wandb", f"exports={tmp_path}"]) == 2
    assert "\npython -m pip install wandb\n" in capsys.readouterr().err
