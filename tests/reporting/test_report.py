"""What a run leaves to be looked at: the figures, report.html in one file, the model card."""

import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cifar_fast.cli.main import main
from cifar_fast.cli.run_commands import unchanged
from cifar_fast.export.card_file import read_card
from cifar_fast.export.predictions import Predictions
from cifar_fast.recipe import describe, load_recipe, recipes_dir
from cifar_fast.reporting.report import figures, model_card, page, renew_model_card
from cifar_fast.reporting.report.page import cell

NAME = "final-digits"
FIGURES = {"history.png", "learning_rate.png", "confusion.png", "classes.png", "calibration.png", "mistakes.png",
           "augmented.png", "layers.png"}


@pytest.fixture(scope="module")
def left(tmp_path_factory, digits):
    "What a short run leaves; with every batch mixed one way or the other."
    exports = tmp_path_factory.mktemp("report")
    code = main(["recipe", "final", "data=digits", "arch=cifar_sprint", "epochs=2", "bs=128", f"exports={exports}",
                 "mix.mixup=0.5", "mix.cutmix=0.3", "mix.until=1"])
    assert code == 0
    return exports


class Reading(HTMLParser):
    "Every tag and attribute of a page, the text, and what is open at its end."

    VOID = {"meta", "img", "br", "link", "input", "hr"}

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_every_figure_is_there_and_is_a_image(left):
    made = {p.name for p in (left / NAME).glob("*.png")}
    assert made == FIGURES
    for name in made:
        with Image.open(left / NAME / name) as image:
            assert min(image.size) > 200 and len(np.unique(np.asarray(image.convert("L")))) > 5, name


def test_the_report_is_one_whole_file_that_loads_nothing(left):
    text = (left / NAME / "report.html").read_text("utf-8")
    read = Reading(text)
    assert read.open == [] and not any(tag in ("script", "link", "iframe", "object") for tag, _ in read.tags)
    loaded = [v for _, attrs in read.tags for k, v in attrs.items() if k in ("src", "srcset", "data", "poster")]
    assert len(loaded) == len(FIGURES) - 1 and all(v.startswith("data:image/png;base64,") for v in loaded)
    assert "url(" not in text and "@import" not in text
    assert text.startswith("<!doctype html>") and text.count("<!doctype") == 1
    links = [attrs["href"] for tag, attrs in read.tags if tag == "a"]
    ids = {attrs["id"] for _, attrs in read.tags if "id" in attrs}
    assert links and {link.removeprefix("#") for link in links} <= ids
    assert all(attrs.get("alt") for tag, attrs in read.tags if tag == "img")


def test_the_report_says_what_the_card_says(left):
    card, words = read_card(left / NAME), " ".join(Reading((left / NAME / "report.html").read_text("utf-8")).words)
    for said in (f"{card.metrics.accuracy:.2%}", f"{card.metrics.accuracy_tta:.2%}", card.metrics.interval,
                 f"{card.audit.params:,}", card.versions["torch"], "mixing(mixup=0.5", "met", "stem.conv",
                 "at most 199,999", "at least 45"):
        assert said in words, said


def test_a_stranger_s_names_stay_text(left):
    card = read_card(left / NAME)
    card = replace(card, name="<script>alert(1)</script>", vocab=["<b>a</b>", "`|x", *card.vocab[2:]],
                   commit="<script>", date="<b>", machine=replace(card.machine, device="<script>"))
    text = page(card, left / NAME, None, None, ["<img src=x onerror=alert(1)>"])
    assert not {"script", "b"} & {tag for tag, _ in Reading(text).tags} and "onerror=alert" not in str(
        [attrs for _, attrs in Reading(text).tags])
    words = model_card(card).split("---\n", 2)[2]
    assert "<script" not in words and "<b>" not in words


def test_the_model_card_begins_with_yaml_that_means_what_it_says(left):
    yaml = pytest.importorskip("yaml")
    text, card = (left / NAME / "README.md").read_text("utf-8"), read_card(left / NAME)
    front = yaml.safe_load(text.split("---")[1])
    plain, tta = front["model-index"][0]["results"][0]["metrics"]
    assert plain["value"] == round(card.metrics.accuracy, 4) and tta["value"] == round(
        card.metrics.accuracy_tta, 4)
    assert front["pipeline_tag"] == "image-classification" and front["model-index"][0]["name"] == NAME
    assert f"{card.metrics.accuracy:.2%} accuracy (n = 359, 95 % interval" in text.split("---")[2]


def test_the_model_card_of_a_folder_without_weights_offers_none(left, tmp_path):
    (tmp_path / "card.json").write_bytes((left / NAME / "card.json").read_bytes())
    renew_model_card(tmp_path)
    assert "weights are not in this folder" in (words := (tmp_path / "README.md").read_text("utf-8"))
    assert not any(word in words for word in ("learner.pkl", "load_export", "create_model"))
    assert "learner.pkl" in (left / NAME / "README.md").read_text("utf-8")


@pytest.mark.parametrize("name", ['a": b', "a\nb: c", "#x", "- y", "ünï"])
def test_no_name_breaks_out_of_the_yaml(left, name):
    yaml = pytest.importorskip("yaml")
    front = yaml.safe_load(model_card(replace(read_card(left / NAME), name=name)).split("---\n")[1])
    assert front["model-index"][0]["name"] == name and set(front) == {
        "library_name", "pipeline_tag", "tags", "metrics", "model-index"}


def test_it_is_rebuilt_from_what_is_on_disk(left, tmp_path, capsys):
    shutil.copytree(left, tmp_path, dirs_exist_ok=True)
    folder = tmp_path / NAME
    before = (folder / "report.html").read_text("utf-8")
    for name in ("report.html", "README.md", "classes.png", "calibration.png", "mistakes.png", "layers.png"):
        (folder / name).unlink()
    capsys.readouterr()
    assert main(["report", str(folder)]) == 0
    assert (folder / "report.html").read_text("utf-8") == before
    assert {"history.png", "confusion.png", "report.html"} <= set(re.findall(r"[\w.]+", capsys.readouterr().out))
    (folder / "predictions.npz").unlink()
    assert main(["report", str(folder)]) == 0  # predicts again
    made = Predictions.load(folder / "predictions.npz")
    kept = Predictions.load(left / NAME / "predictions.npz")
    assert (made.predicted == kept.predicted).all() and made.images == kept.images


def test_its_errors_are_laid_out(left, tmp_path, capsys):
    predicted = Predictions.load(left / NAME / "predictions.npz")
    assert main(["report", str(left / NAME), "--errors", str(tmp_path / "wrong")]) == 0
    wrong = int((~predicted.correct).sum())
    assert f"{wrong} of 359 images" in capsys.readouterr().out
    assert len(list((tmp_path / "wrong" / "images").iterdir())) == wrong
    text = (left / NAME / "report.html").read_text("utf-8")
    assert f"row {predicted.errors[0]} of test" in text  # digits are no files
    assert main(["report", str(left / NAME), "--errors", str(left)]) == 2  # somebody's folder
    assert NAME in capsys.readouterr().err and (left / NAME / "card.json").is_file()


def test_the_sheet_of_a_run_is_drawn_again_with_its_own_seed(left):
    card, recipe = read_card(left / NAME), describe(load_recipe("final"))
    assert card.recipe_name == "final"
    assert unchanged(replace(card, recipe={**recipe, "seed": 7})).seed == 7
    assert unchanged(replace(card, recipe={**recipe, "seed": 7, "bs": 3})) is None


def test_a_wide_figure_can_be_moved_on_a_phone(left, tmp_path):
    Image.new("RGB", (700, 300)).save(tmp_path / "history.png")
    Image.new("RGB", (300, 300)).save(tmp_path / "confusion.png")
    for name in ("mistakes.png", "classes.png"):
        (tmp_path / name).write_bytes(b"no image any more")
    text = page(read_card(left / NAME), tmp_path, None, None)
    assert [attrs.get("class") for tag, attrs in Reading(text).tags if tag == "figure"] == [None] * 4
    assert text.count('class="across"') == 1 and text.index('class="across"') < text.index("epoch; a dashed red line")


def test_what_cannot_be_rebuilt_is_said(left, tmp_path, capsys):
    shutil.copytree(left, tmp_path, dirs_exist_ok=True)
    folder = tmp_path / NAME
    for name in ("history.csv", "augmented.png"):
        (folder / name).unlink()
    capsys.readouterr()
    assert main(["report", str(folder)]) == 0
    err = capsys.readouterr().err
    assert "left out: curves (no " in err and "a training batch" in err
    assert "Not in this report" in (folder / "report.html").read_text("utf-8")


@pytest.mark.parametrize("spoil, told", [
    (lambda f: (f / "history.csv").write_text("epoch\n1\n"), "history.csv is no history"),
    (lambda f: (f / "card.json").write_text("{"), f"{NAME}/card.json")])
def test_a_broken_run_is_named(left, tmp_path, capsys, spoil, told):
    shutil.copytree(left, tmp_path, dirs_exist_ok=True)
    spoil(tmp_path / NAME)
    capsys.readouterr()
    assert main(["report", str(tmp_path / NAME)]) == 2
    assert told in capsys.readouterr().err


def test_a_run_whose_images_are_gone_has_its_report_all_the_same(tmp_path, capsys, digits):
    data = tmp_path / "own"
    for part, rows in (("train", range(0, 80)), ("test", range(80, 120))):
        for i in rows:
            folder = data / part / ("odd" if digits.train.labels[i] % 2 else "even")
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.array(digits.train.images[i])).save(folder / f"{i}.png")
    assert main(["recipe", "sprint", f"data={data}", "epochs=1", "bs=16", f"exports={tmp_path}"]) == 0
    run = tmp_path / "sprint-own"
    shutil.rmtree(data)
    for name in ("report.html", "classes.png", "augmented.png"):
        (run / name).unlink()
    capsys.readouterr()
    assert main(["report", str(run)]) == 0
    out, err = capsys.readouterr()
    assert str(data) in err and "report.html" in out and (run / "classes.png").is_file()
    assert f"{read_card(run).metrics.accuracy:.2%}" in (run / "report.html").read_text("utf-8")


def test_no_such_run(capsys):
    assert main(["report", "nobody"]) == 2
    assert "exports/nobody" in capsys.readouterr().err


def test_held_out_images_are_the_ones_that_were_predicted(tmp_path, digits):
    from cifar_fast.data.sources import load_source
    from cifar_fast.export.predictor import load_export
    from cifar_fast.reporting.report.build import images_of

    assert main(["recipe", "sprint", "data=digits", "epochs=1", "bs=128", "valid=0.1", f"exports={tmp_path}"]) == 0
    stem = tmp_path / "sprint-digits"
    said, source = Predictions.load(stem / "predictions.npz"), load_source("digits")
    images = images_of(said, source)
    assert (source.train.labels[said.items] == said.labels).all() and len(images) == len(said.labels)
    assert (load_export(stem).predict(images).argmax(1) == said.predicted).all()
    assert main(["report", str(stem)]) == 0


def test_a_report_that_fails_costs_no_run(tmp_path, monkeypatch, capsys, digits):
    from cifar_fast.reporting.report import figures

    monkeypatch.setattr(figures, "calibration", lambda *args: 1 / 0)
    assert main(["recipe", "sprint", "data=digits", "epochs=1", "bs=256", f"exports={tmp_path}"]) == 0
    assert "report.html could not be made (ZeroDivisionError" in capsys.readouterr().err
    assert (tmp_path / "runs.csv").exists() and (tmp_path / "sprint-digits" / "model.safetensors").exists()


def test_without_a_report(tmp_path, digits):
    assert main(["recipe", "sprint", "data=digits", "epochs=1", "bs=256", "report=no", f"exports={tmp_path}"]) == 0
    left = {p.name for p in (tmp_path / "sprint-digits").iterdir()}
    assert not {"report.html", "README.md", "augmented.png"} & left and "history.png" in left


# ---------------------------------------------------------------- figures and figures in numbers


def said(n=30, right=0):
    labels = np.arange(n) % 3
    predicted = np.where(np.arange(n) < right, labels, (labels + 1) % 3)
    probs = np.full((n, 3), 0.1)
    probs[np.arange(n), predicted] = np.linspace(0.5, 0.8, n)
    return Predictions(labels, predicted, probs / probs.sum(1, keepdims=True), ("a", "b", "c" * 40), "x/test", "test")


def test_the_most_confident_errors_come_first():
    fig = figures.most_confident_errors(said(right=10), np.zeros((30, 32, 32, 3), np.uint8), "t")
    titles = [ax.get_title() for band in fig.subfigs for ax in band.axes if ax.get_title()]
    shares = [int(re.search(r"(\d+)%", t)[1]) for t in titles]
    assert len(titles) == 20 and shares == sorted(shares, reverse=True)


def test_a_model_without_errors_has_no_such_figure():
    assert figures.most_confident_errors(said(right=30), np.zeros((30, 32, 32, 3), np.uint8), "t") is None


def test_many_classes_show_the_worst():
    fig = figures.classes({f"class {i}": i / 100 for i in range(100)} | {"empty": None}, "t")
    names = [t.get_text() for t in fig.axes[0].get_yticklabels()]
    assert len(names) == figures.MOST_CLASSES and names[-1] == "class 0"


def test_the_sheet_shows_what_the_net_is_given(left, digits):
    "Undone, the normalisation gives back the images; captions of mixed ones hold their shares."
    import torch

    from cifar_fast.data.block import make_dls
    from cifar_fast.data.sources import load_source
    from cifar_fast.training.callbacks.augmented_batch import Sample, captions

    source = load_source("digits")
    dls = make_dls(source, valid=0, bs=16)
    dls.train.set_epoch(0)
    x, y = dls.train.one_batch()
    sample = Sample(dls)
    sample.add(x, y, "none")
    (_, images, labels), = sample.rows()
    shown = np.stack(images)
    assert labels == [source.vocab[int(i)] for i in y]
    known = {image.tobytes() for image in source.train.images}
    assert all(image.tobytes() in known for image in shown)
    mixed = torch.tensor([[0.1, 0.7, 0.2], [0.0, 0.0, 1.0]])
    assert captions(mixed, ["w", "x", "y"]) == ["x 70%\ny 20%", "y 100%"]


def test_the_readme_s_figures_are_of_committed_runs():
    root = Path(__file__).parents[2]
    for name in re.findall(r"\]\((exports/[^)]+)\)", (root / "README.md").read_text("utf-8")):
        assert (root / name).is_file(), name


@pytest.mark.parametrize("name", ["final", "micro", "mobile", "net", "netv2", "optimized200k", "sprint", "strided"])
def test_the_published_model_cards_are_those_of_their_cards(name):
    folder = recipes_dir().parent / "exports" / name
    weights = (folder / "model.safetensors").is_file()
    assert read_card(folder).recipe["exports"] == "exports"  # no folder of the machine that trained it
    assert (folder / "README.md").read_text("utf-8") == model_card(read_card(folder), weights)


@pytest.mark.parametrize("column, value, shown", [
    ("images_per_second", 10258.3, "10,258"), ("images_per_second", 99.87, "99.87"),
    ("train_accuracy", 0.7621, "76.21%"), ("lr", 2.1e-05, "2.1e-05"), ("epoch", 4.0, "4"),
    ("valid_loss", float("nan"), "–")])
def test_figures_of_an_epoch_are_written_to_be_read(column, value, shown):
    assert cell(column, value) == shown
