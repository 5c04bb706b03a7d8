"""Pickles are opened only where they are trusted by name, and the list of those that are."""

import os

import numpy as np
import pytest
import torch
from strangers import CLASSES, Payload, weights

from cifar_fast.cli.main import main
from cifar_fast.export.card_format import ExportError
from cifar_fast.export.files import file_sha256
from cifar_fast.export.load import load_model
from cifar_fast.export.trust import trust, trust_list, trusted_sums


def test_a_pickle_is_opened_only_where_it_is_trusted(export, executed, capsys):
    pkl = (export / "learner.pkl")
    with pytest.raises(ExportError, match="would run whatever code it holds"):
        load_model(pkl)
    assert load_model(pkl, trust_pickle=True).vocab == CLASSES
    assert not trust_list().exists()  # this once
    assert main(["trust", str(pkl)]) == 0
    assert file_sha256(pkl) in capsys.readouterr().out and trusted_sums() == {file_sha256(pkl)}
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    assert np.allclose(load_model(pkl).predict(images), load_model(export).predict(images), atol=1e-5)


def test_a_trusted_file_that_changes_is_trusted_no_more(export):
    pkl = (export / "learner.pkl")
    trust(pkl)
    trust(pkl)
    assert len(trust_list().read_text().splitlines()) == 1
    pkl.write_bytes(pkl.read_bytes() + b"\0")
    with pytest.raises(ExportError, match="would run"):
        load_model(pkl)


def test_a_payload_runs_only_by_name(tmp_path, executed, capsys):
    pkl = tmp_path / "stranger.pkl"
    torch.save(Payload(), pkl)
    assert main(["predict", str(pkl), "x.png"]) == 2 and not executed.exists()
    assert "trust" in capsys.readouterr().err
    assert main(["predict", str(pkl), "x.png", "--trust-pickle"]) == 2 and executed.exists()
    assert "cannot be opened as a Learner" in capsys.readouterr().err


def test_a_pickle_never_stands_in_for_the_others(export):
    weights(export).unlink()
    trust(export / "learner.pkl")
    with pytest.raises(ExportError, match="is missing"):
        load_model(export)


def test_a_run_trusts_its_own_pickle(tmp_path, digits):
    assert main(["recipe", "sprint", "data=digits", "epochs=1", "bs=256", "report=no", f"exports={tmp_path}"]) == 0
    assert load_model(tmp_path / "sprint-digits" / "learner.pkl").vocab == [str(i) for i in range(10)]


def test_a_trust_list_that_cannot_be_written_costs_no_run(tmp_path, monkeypatch, capsys, digits):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CIFAR_FAST_TRUST", str(tmp_path / "file" / "trusted"))
    assert main(["recipe", "sprint", "data=digits", "epochs=1", "bs=256", "report=no", f"exports={tmp_path}"]) == 0
    assert "could not be added to your list" in capsys.readouterr().err
    assert (tmp_path / "sprint-digits").exists()


SUM = "ab" * 32


@pytest.mark.parametrize("content", [
    b"\xff\xfe\n", b"\xff" * 100, b"no sum\n\n   \n", SUM.upper().encode() + b"  x\n", SUM.encode() + b"cd  x\n",
    b"  " + SUM.encode(), b"\0" * 1000])
def test_a_trust_list_of_any_bytes_is_read(export, capsys, content):
    pkl = (export / "learner.pkl")
    trust_list().parent.mkdir(parents=True)
    trust_list().write_bytes(content)
    assert trusted_sums() == set()
    assert main(["predict", str(pkl), "x.png"]) == 2
    assert "would run whatever code it holds" in capsys.readouterr().err
    assert main(["trust", str(pkl)]) == 0
    assert trusted_sums() == {file_sha256(pkl)} and trust_list().read_bytes().startswith(content)


def test_a_line_without_its_end_takes_no_other_one_in(export):
    trust_list().parent.mkdir(parents=True)
    trust_list().write_text(f"{SUM}  x.pkl")
    trust(export / "learner.pkl")
    assert trusted_sums() == {SUM, file_sha256(export / "learner.pkl")}


@pytest.mark.parametrize("folder", [f"a\n{SUM}  b", f"a\r{SUM}  b", f"a\x0b{SUM}  b", f"a\u2028{SUM}  b",
                                    os.fsdecode(b"a\xff")])
def test_the_name_of_a_folder_trusts_nothing(tmp_path, capsys, folder):
    pkl = tmp_path / folder / "x.pkl"
    pkl.parent.mkdir()
    pkl.write_bytes(b"x")
    assert main(["trust", str(pkl)]) == 0
    assert trusted_sums() == {file_sha256(pkl)} and len(trust_list().read_text("utf-8").splitlines()) == 1
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_a_trust_list_of_other_bytes_costs_no_run(tmp_path, digits):
    trust_list().parent.mkdir(parents=True)
    trust_list().write_bytes(b"\xff\n")
    assert main(["recipe", "sprint", "data=digits", "epochs=1", "bs=256", f"exports={tmp_path}"]) == 0
    assert load_model(tmp_path / "sprint-digits" / "learner.pkl").vocab == [str(i) for i in range(10)]


def test_a_pickle_that_never_ends_is_not_read(tmp_path, capsys):
    (tmp_path / "x.pkl").symlink_to("/dev/zero")
    (tmp_path / "y.pkl").touch()
    os.truncate(tmp_path / "y.pkl", 2**40)
    for name in ("x", "y"):
        assert main(["predict", str(tmp_path / f"{name}.pkl"), "x.png", "--trust-pickle"]) == 2
        assert "cannot be read" in capsys.readouterr().err
