"""The tour is executed as it stands, and what is committed of it is what an execution left.

`python tests/runs/test_tour.py` executes it and stores the outputs.
"""

import ast
import os
import re
import sys
import tempfile
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from cifar_fast.recipe import list_recipes, recipes_dir

TOUR = recipes_dir() / "tour.ipynb"
TOP = Path(__file__).parents[2]
MOST_BYTES = 700_000
PATH = re.compile(r"(?<![\w.:/<])/(?!(?:\d|>))[\w.~-]+/[\w.~/-]+|\b[A-Za-z]:\\\w|~/\w")
"An absolute path, of any machine; 7/9 and </td> are none."
INSTALLED = "raise AssertionError('it would install')"


def executed(folder: Path):
    "The tour run from `folder`, with the outputs of that run, and without what differs from one run to the next."
    book = nbformat.read(TOUR, as_version=4)
    NotebookClient(book, timeout=600, kernel_name="python3", coalesce_streams=True,
                   resources={"metadata": {"path": str(folder)}}).execute()
    for cell in book.cells:
        cell.metadata.clear()  # when it ran
    for out in outputs(book):
        out.get("data", {}).pop("image/jpeg", None)  # a PIL image comes as PNG as well
    book.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
                     "language_info": {"name": "python"}}
    return book


def code(book) -> list:
    return [cell for cell in book.cells if cell.cell_type == "code"]


def outputs(book) -> list:
    return [out for cell in code(book) for out in cell.outputs]


def said(cell) -> str:
    "What its outputs say in words."
    return "\n".join(out.get("text") or "\n".join(str(v) for kind, v in out.get("data", {}).items()
                                                  if kind != "image/png") for out in cell.outputs)


def images(book) -> list:
    return [out.data["image/png"] for out in outputs(book) if "image/png" in out.get("data", {})]


def python(source: str, magic: str = "pass") -> str:
    "A cell as a program: without the line that writes it to a file, and with `magic` for what IPython alone knows."
    return re.sub(r"(?m)^(\s*)%\w.*$", rf"\1{magic}", re.sub(r"^%%writefile .*\n", "", source))


def require_good(book) -> None:
    "What holds of an execution and of the committed one."
    assert not [out for out in outputs(book) if out.output_type == "error"]
    assert not [out for out in outputs(book) if out.get("name") == "stderr"], "a warning"
    assert len(images(book)) >= 6
    assert not [path for cell in code(book) for path in PATH.findall(said(cell))]


@pytest.fixture(scope="module")
def committed():
    return nbformat.read(TOUR, as_version=4)


@pytest.fixture
def reachable(monkeypatch):
    "The kernel finds this package, wherever the notebook is started."
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TOP), *filter(None, [os.environ.get("PYTHONPATH")])]))


def test_the_tour_runs_from_anywhere_and_writes_only_into_a_folder_of_its_own(tmp_path, reachable, committed):
    before = listing(TOP)
    book = executed(tmp_path)
    require_good(book)
    assert not list(tmp_path.iterdir()) and listing(TOP) == before
    assert len(images(book)) == len(images(committed))
    for now, then in zip(code(book), code(committed), strict=True):
        if now.id in ("batch", "audit", "write", "folder"):  # the same on any machine
            assert said(now) == said(then), f"{now.id} says something else now: python tests/runs/test_tour.py"


def listing(folder: Path) -> set:
    ours = {"cifar_fast", "recipes", "exports", "tests"}
    return {p for p in folder.rglob("*") if p.relative_to(folder).parts[0] in ours and "__pycache__" not in p.parts}


def test_the_committed_tour_is_whole_and_was_run_from_its_start(committed):
    nbformat.validate(committed)
    require_good(committed)
    assert TOUR.stat().st_size < MOST_BYTES
    assert [cell.execution_count for cell in code(committed)] == [*range(1, len(code(committed)) + 1)]
    # The cells that set up say nothing where all is well, and all others show something.
    silent = [cell.id for cell in code(committed) if not cell.outputs]
    assert silent == ["install", "names"]
    assert not any(cell.metadata for cell in committed.cells) and set(committed.metadata) == {
        "kernelspec", "language_info"}


def test_the_tour_imports_public_names_only(committed):
    found = set()
    for cell in code(committed):
        for node in ast.walk(ast.parse(python(cell.source))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(node.module)
    others = {name for name in found if name.split(".")[0] not in sys.stdlib_module_names}
    assert others == {"cifar_fast.all", "fastai.vision.all"}


def test_without_the_package_it_says_what_to_do(tmp_path, committed, monkeypatch):
    "As in Colab: the first cell names the one thing to fill in, and installs nothing of its own accord."
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="REPO"):
        exec(python(code(committed)[0].source, INSTALLED), {})


@pytest.mark.parametrize("place", [".", "recipes"])
def test_the_first_cell_finds_the_checkout_it_is_started_in(place, committed, monkeypatch):
    monkeypatch.chdir(TOP / place)
    monkeypatch.setattr(sys, "path", [])
    exec(python(code(committed)[0].source, INSTALLED), {})
    assert sys.path == [str(TOP)]


def test_a_notebook_among_the_recipes_is_no_recipe():
    assert "tour" not in list_recipes()


if __name__ == "__main__":
    os.environ.update(OMP_NUM_THREADS="1", PYTHONPATH=str(TOP))
    with tempfile.TemporaryDirectory() as folder:
        book = executed(Path(folder))
    require_good(book)
    nbformat.write(book, TOUR)
    print(f"{TOUR.name}: {len(code(book))} cells, {len(images(book))} images, {TOUR.stat().st_size:,} bytes")
