"""The commands, end to end on digits: train, export, load in a fresh process, predict, evaluate."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fresh import fresh
from PIL import Image
from strangers import CARD

from cifar_fast.cli.main import main
from cifar_fast.cli.predict_commands import write_csv
from cifar_fast.export.card_file import read_card

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "exports" / "results.csv"


@pytest.fixture(scope="session")
def trained(tmp_path_factory, digits):
    "exports/final-digits as README's command leaves it, in batches of 64: 11 of 128 an epoch are few to learn from."
    folder = tmp_path_factory.mktemp("exports")
    assert main(["recipe", "final", "data=digits", "epochs=8", "bs=64", f"exports={folder}"]) == 0
    return folder / "final-digits"


@pytest.fixture(scope="session")
def images(tmp_path_factory, digits):
    "A folder of digits as files of several formats, sizes and modes, and one that is no image."
    folder = tmp_path_factory.mktemp("images")
    for i in range(10):
        Image.fromarray(np.array(digits.test.images[i])).save(folder / f"{i}.png")
    image = Image.fromarray(np.array(digits.test.images[0]))
    image.resize((200, 120)).save(folder / "wide.jpg")
    image.convert("L").save(folder / "grey.bmp")
    image.convert("P").save(folder / "palette.gif")
    (folder / "sub").mkdir()
    image.convert("RGBA").save(folder / "sub" / "ünï.webp")
    (folder / "broken.png").write_text("no image")
    return folder


def test_a_run_is_given_by_its_path_or_by_its_name_alone(trained, images, tmp_path, monkeypatch, capsys):
    (tmp_path / "exports").symlink_to(trained.parent)
    monkeypatch.chdir(tmp_path)
    printed = []
    for name in ("exports/final-digits", "final-digits", "exports/final-digits/model.onnx"):
        assert main(["predict", name, str(images / "0.png")]) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1] == printed[2]
    assert main(["predict", "final-digit", str(images / "0.png")]) == 2
    assert "no run exports/final-digit (did you mean final-digits?)" in capsys.readouterr().err
    assert main(["predict", "mushrooms-1.2", str(images / "0.png")]) == 2  # a dot in a name ends no file's
    assert "no run exports/mushrooms-1.2" in capsys.readouterr().err
    for words in (["data.label=kind"], [f"data={images}", "data.label=kind"]):
        assert main(["evaluate", "final-digits", *words]) == 2
        assert "data.label=kind names a column of a label table" in capsys.readouterr().err
    (tmp_path / "final-digits").mkdir()  # what is here comes first
    assert main(["predict", "final-digits", str(images / "0.png")]) == 2
    assert "there is no final-digits/card.json" in capsys.readouterr().err


def test_final_learns_digits(trained):
    card = read_card(trained)
    assert card.split == "test" and card.metrics.accuracy > 0.95 and not card.selected_on_test
    assert card.metrics.accuracy_tta == pytest.approx(card.metrics.accuracy, abs=0.003)  # one image at most
    assert card.metrics.n == sum(map(sum, card.metrics.confusion)) == 359
    assert card.audit.params < 200_000 and card.audit.receptive_field > 44
    assert card.seconds.training > 0 and card.versions["torch"] and card.mixed and card.recipe_name == "final"
    assert card.epochs == 8 and card.data.name == "digits" and len(card.data.fingerprint) == 64
    assert ("test accuracy", f"{card.metrics.accuracy:.2%}") == card.facts()[0]


def test_a_run_leaves_its_plots_and_history_and_no_stray_file(trained):
    assert len(pd.read_csv(trained / "history.csv")) == 8
    for name in ("history.png", "learning_rate.png", "confusion.png"):
        assert Image.open(trained / name).size[0] > 300
    assert json.loads((trained / "recipe.json").read_text())["arch"] == "cifar_mirror"
    assert not (trained / "published.png").exists()  # nobody published a curve of it
    everything = {p.name for p in trained.parent.rglob("*")}
    assert not [n for n in everything if n.startswith(".") and not n.endswith(".lock")]  # what keeps two runs apart
    assert {"learner.pkl", "card.json", "config.json", "model.safetensors"} <= {p.name for p in trained.iterdir()}


def test_a_run_adds_its_row(trained):
    card, row = read_card(trained), pd.read_csv(trained.parent / "runs.csv").iloc[0]
    assert row["recipe"] == "final-digits" and row["settings"] == "data=digits epochs=8 bs=64"
    assert row["accuracy"] == card.metrics.accuracy and row["accuracy_tta"] == card.metrics.accuracy_tta
    assert row["split"] == card.split == "test" and row["epochs"] == 8 and row["seed"] == 42
    assert row["parameters"] == card.audit.params and row["data"] == "digits" and row["images"] == 359
    assert row[["last_accuracy", "best_accuracy", "best_epoch", "seconds_to_85"]].isna().all()  # validates on nothing


def test_a_fresh_process_opens_the_learner_and_agrees_with_the_safetensors(trained, images):
    code = ("import sys, json, warnings; warnings.simplefilter('ignore')\n"
            "from fastai.learner import load_learner\n"
            "learn = load_learner(sys.argv[1])\n"
            "with learn.no_bar(): found = [learn.predict(f) for f in sys.argv[2:]]\n"
            "print(json.dumps([[str(label), p.tolist()] for label, _, p in found]))")
    files = [str(images / f"{i}.png") for i in range(5)] + [str(images / "wide.jpg")]
    done = fresh("-c", code, trained / "learner.pkl", *files, cwd=images)
    assert done.returncode == 0, done.stderr[-2000:]
    from_pickle = json.loads(done.stdout.splitlines()[-1])

    from cifar_fast.data.images import read_image
    from cifar_fast.export.predictor import load_export

    exported = load_export(trained)
    ours = exported.predict(np.stack([read_image(f) for f in files]))
    np.testing.assert_allclose(ours, [p for _, p in from_pickle], atol=1e-5)
    assert [label for label, _ in from_pickle] == [exported.vocab[i] for i in ours.argmax(1)]


def test_the_pickle_holds_no_images_and_no_training_callbacks(trained):
    from fastai.learner import load_learner

    pkl = trained / "learner.pkl"
    assert pkl.stat().st_size < 2_000_000
    names = {type(cb).__name__ for cb in load_learner(pkl).cbs}
    assert "Recorder" in names and not names & {"Mixing", "EMA", "History", "Autocast", "Seeding"}


def test_export_rebuilds_the_pickle(trained, capsys):
    from fastai.learner import load_learner

    pkl = trained / "learner.pkl"
    before = load_learner(pkl).model.state_dict()
    pkl.unlink()
    assert main(["export", str(trained)]) == 0
    after = load_learner(pkl).model.state_dict()
    assert all((before[k] == after[k]).all() for k in before)


def test_predict_takes_folders_and_globs_names_the_bad_one_and_goes_on(trained, images, capsys, tmp_path):
    csv = tmp_path / "out.csv"
    assert main(["predict", str(trained), str(images), "--csv", str(csv), "--topk", "2"]) == 1
    out, err = capsys.readouterr()
    assert "broken.png" in err and "14 predicted, 1 unreadable" in err
    assert len(out.splitlines()) == 14 and "ünï.webp" in out and "broken" not in out
    frame = pd.read_csv(csv)
    assert len(frame) == 14 and np.allclose(frame[[str(i) for i in range(10)]].sum(axis=1), 1, atol=1e-4)
    assert main(["predict", str(trained), str(images / "[0-9].png")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 10
    assert main(["predict", str(trained), str(images / "nothing*.png")]) == 1
    assert "no image there" in capsys.readouterr().err


def test_a_file_that_a_list_names_is_told_with_the_line(trained, images, capsys, tmp_path):
    notes = tmp_path / "notes.txt"  # as a glob of a folder finds it
    notes.write_text(f"{images / '0.png'}\n\nnice ones, mostly\n{images / 'broken.png'}\n")
    assert main(["predict", str(trained), str(images / "1.png"), str(notes)]) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2 and f"{notes}, line 3: nice ones, mostly: No such file" in err
    assert f"{notes}, line 4: {images / 'broken.png'}: is not an image" in err


def test_a_spreadsheet_runs_no_name_in_the_csv_of_predict(tmp_path):
    write_csv(str(tmp_path / "out.csv"), ["=cat()", "dog"], [{"file": "-rf.png", "prediction": "=cat()",
                                                              "probs": [0.75, 0.25]}])
    frame = pd.read_csv(tmp_path / "out.csv")
    assert list(frame) == ["file", "prediction", "'=cat()", "dog"]
    assert frame.iloc[0].tolist() == ["'-rf.png", "'=cat()", 0.75, 0.25]


def probabilities(capsys, *command) -> dict:
    assert main(["predict", *map(str, command), "--json", "--topk", "10"]) == 0
    return json.loads(capsys.readouterr().out)[0]["probabilities"]


def test_predict_as_json_and_with_tta(trained, images, tmp_path, capsys):
    "The flagship's net predicts the same for the mirror image, so TTA changes nothing; for another's it does."
    from cifar_fast.export.save import save_export
    from cifar_fast.models import create_model

    plain = probabilities(capsys, trained, images / "0.png")
    assert sum(plain.values()) == pytest.approx(1, abs=1e-4)
    assert probabilities(capsys, trained, images / "0.png", "--tta") == pytest.approx(plain, abs=1e-4)
    other = tmp_path / "other"
    save_export(other, create_model("cifar_sprint", 10), CARD, pickle=False)
    plain = probabilities(capsys, other, images / "0.png")
    assert probabilities(capsys, other, images / "0.png", "--tta") != pytest.approx(plain, abs=1e-4)


def test_tta_is_the_mean_of_the_image_and_its_mirror():
    import torch

    from cifar_fast.bench.synthetic import random_images, untrained

    net, images = untrained(torch.device("cpu"), "cifar_sprint"), random_images(6)
    plain, mirrored = net.predict(images), net.predict(images[:, :, ::-1].copy())
    assert np.abs(plain - mirrored).max() > 1e-4
    assert np.allclose(net.predict(images, tta=True), (plain + mirrored) / 2, atol=1e-7)


def test_evaluate_gives_the_accuracy_of_the_run(trained, capsys):
    card = read_card(trained)
    assert main(["evaluate", str(trained), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["accuracy"] == pytest.approx(card.metrics.accuracy, abs=1e-9)
    assert found["accuracy_tta"] == pytest.approx(card.metrics.accuracy_tta, abs=1e-9)
    assert found["data"]["fingerprint"] == card.data.fingerprint
    assert main(["evaluate", str(trained)]) == 0
    out = capsys.readouterr().out
    assert "rows true, columns predicted" in out and f"({card.metrics.interval})" in out and "TTA" in out


def test_evaluate_gives_no_tta_where_left_and_right_differ(trained, tmp_path, capsys):
    folder = Path(shutil.copytree(trained, tmp_path / "net"))
    card = read_card(folder)
    replace(card, recipe={**card.recipe, "tta": False}).write(folder)
    assert main(["evaluate", str(folder)]) == 0
    assert "TTA" not in (out := capsys.readouterr().out) and f"accuracy {card.metrics.accuracy:.2%}" in out
    assert main(["evaluate", str(folder), "--json"]) == 0
    assert "accuracy_tta" not in json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("damage", ["no json", "bad json", "other format", "no weights", "cut weights", "other arch"])
def test_a_damaged_export_is_refused_by_name(trained, tmp_path, capsys, damage):
    shutil.copytree(trained, tmp_path / "x")
    (tmp_path / "x" / "model.onnx").unlink(missing_ok=True)  # which predicts without the weights
    json_file, weights = tmp_path / "x" / "card.json", tmp_path / "x" / "model.safetensors"
    if damage == "no json":
        json_file.unlink()
    elif damage == "bad json":
        json_file.write_text(json_file.read_text()[:100])
    elif damage == "other format":
        json_file.write_text(json_file.read_text().replace('"format": 2', '"format": 99'))
    elif damage == "no weights":
        weights.unlink()
    elif damage == "cut weights":
        weights.write_bytes(weights.read_bytes()[:1000])
    else:
        json_file.write_text(json_file.read_text().replace('"arch": "cifar_mirror"', '"arch": "cifar_mobile"'))
    assert main(["predict", str(tmp_path / "x"), str(tmp_path)]) == 2
    assert str(tmp_path / "x") in capsys.readouterr().err


def test_a_run_that_is_nearly_named(trained, capsys):
    for command in (["report", str(trained)[:-1]], ["predict", str(trained)[:-1], "x.png"]):
        assert main(command) == 2
        assert f"no run {str(trained)[:-1]} (did you mean final-digits?)" in capsys.readouterr().err


def test_a_dataset_of_ones_own(tmp_path, capsys, digits):
    "Class folders of any images: names, count and normalisation follow; a folder without a test set still exports."
    for part, rows in (("train", range(0, 300)), ("valid", range(300, 400))):
        for i in rows:
            kind = "odd" if digits.train.labels[i] % 2 else "even"
            (tmp_path / "own" / part / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.array(digits.train.images[i])).resize((40, 50)).save(
                tmp_path / "own" / part / kind / f"{i}.jpg")
    assert main(["recipe", "sprint", f"data={tmp_path / 'own'}", "epochs=4", "bs=32", f"exports={tmp_path}"]) == 0
    card = read_card(tmp_path / "sprint-own")
    assert card.vocab == ["even", "odd"] and card.metrics.accuracy > 0.6
    assert main(["predict", str(tmp_path / "sprint-own"), str(tmp_path / "own" / "valid" / "odd")]) == 0
