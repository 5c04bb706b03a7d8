"""README's tables on small datasets: the program in recipes/README.md that makes these, and the figures."""

import re
from pathlib import Path

import pandas as pd
import pytest

import cifar_fast
from cifar_fast.data.sources import load_source

README = Path(cifar_fast.__file__).parents[1] / "recipes" / "README.md"
TRAIN = {"cat": 120, "dog": 120, "automobile": 2010, "truck": 110, "frog": 3}


@pytest.fixture
def made(tmp_path, monkeypatch):
    "In a folder with a tree of CIFAR-10's names; the files are empty, as the tables only list them."
    for split, counts in (("train", TRAIN), ("test", dict.fromkeys(TRAIN, 4))):
        for label, count in counts.items():
            (tmp_path / "cifar10" / split / label).mkdir(parents=True)
            for i in range(count):
                (tmp_path / "cifar10" / split / label / f"{i:04}.png").touch()
    monkeypatch.chdir(tmp_path)
    (program,) = (block for block in re.findall("```python\n(.*?)```", README.read_text("utf-8"), re.S)
                  if "few-{n}-{seed}" in block)
    exec(compile(program, str(README), "exec"), {})
    return tmp_path


def counts(path):
    frame = pd.read_csv(path)
    assert not frame.file.duplicated().any() and all(Path(file).is_file() for file in frame.file)
    return frame.groupby(["split", "label"]).size().to_dict()


def test_the_tables_of_few_images_of_the_others_and_of_unequal_classes(made):
    for n in (10, 30, 100):
        assert counts(f"few-{n}-43.csv") == {("test", "cat"): 4, ("test", "dog"): 4, ("train", "cat"): n,
                                             ("train", "dog"): n}
    files = [set(pd.read_csv(f"few-10-{seed}.csv").query("split == 'train'").file) for seed in (42, 43, 44)]
    assert files[0] != files[1] != files[2]
    assert {label for _, label in counts("others.csv")} == {"automobile", "truck", "frog"}
    assert counts("unequal.csv") == {("test", "automobile"): 4, ("test", "truck"): 4, ("train", "automobile"): 2000,
                                     ("train", "truck"): 100}


def test_the_drawings_are_four_classes(made):
    source = load_source("shapes", size=32)
    assert list(source.vocab) == ["circle", "cross", "square", "triangle"]
    assert len(source.train) + len(source.test) == 300


def measured(name):
    "`mean ± standard deviation` of the rows of this name with a seed in it."
    rows = pd.read_csv(README.parents[1] / "exports" / "small-data.csv")
    found = 100 * rows["accuracy"][rows["recipe"].str.fullmatch(name.replace("SEED", "4[234]"))]
    assert len(found) == 3
    return f"{found.mean():.1f} ± {found.std():.1f}"


def test_the_figures_of_readme_are_those_of_the_rows():
    text = (README.parents[1] / "README.md").read_text("utf-8")
    for n in (10, 30, 100):
        assert f"| {n} | {' | '.join(measured(f'few-{n}-SEED{end}') for end in ('', '-init', '-tuned'))} |" in text
    for size in (32, 64, 96):
        modes = [measured(f"shapes-{mode}-{size}-SEED") for mode in ("crop", "squash")]
        assert f"| {size} | {' | '.join(modes)} |" in text
    said = " ".join(text.split())
    assert all(f"{measured(f'unequal-SEED{end}')} % with" in said for end in ("-loss", "-sample"))
    assert f"accuracy is {measured('unequal-SEED')} % without balancing" in said
