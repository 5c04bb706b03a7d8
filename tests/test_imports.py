"""The direction of imports: downwards only, and recipes import the table of contents alone."""

import ast
from pathlib import Path

import cifar_fast
from cifar_fast.recipe import recipes_dir

PACKAGE = Path(cifar_fast.__file__).parent


# Who may import whom: a package only those of the levels below its own, and itself.
LEVELS = (
    {"utils"},
    {"recipe", "data", "models", "audit"},
    {"training", "export"},
    {"reporting"},
    {"runs"},
    {"sweep"},
    {"serve", "bench"},
    {"all"},
    {"cli"},
    {"__main__"},
)


def imports(path):
    "(line, module) of every import of this package in a file, those inside functions too."
    room = path.relative_to(PACKAGE).parent.parts
    nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
    # Names for annotations alone are not imported when the program runs.
    unread = {id(n) for i in nodes if isinstance(i, ast.If) and ast.unparse(i.test) == "TYPE_CHECKING"
              for n in ast.walk(i)}
    for node in nodes:
        if id(node) in unread:
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, a.name) for a in node.names if a.name.split(".")[0] == "cifar_fast")
        elif isinstance(node, ast.ImportFrom):
            base = ["cifar_fast", *room][:len(room) + 2 - node.level] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            if module == "cifar_fast":
                yield from ((node.lineno, f"cifar_fast.{a.name}") for a in node.names if a.name[0] != "_")
            elif module.split(".")[0] == "cifar_fast":
                yield node.lineno, module


def test_imports_go_downwards_only():
    level = {name: i for i, names in enumerate(LEVELS) for name in names}
    wrong, seen = [], 0
    for path in PACKAGE.rglob("*.py"):
        place = path.relative_to(PACKAGE)
        room = place.parts[0].removesuffix(".py")
        if room in ("__init__", "recipes"):  # the recipes stand in the package in a wheel, and have a test below
            continue
        assert room in level, f"{place} has no level yet: give it one in LEVELS"
        for line, module in imports(path):
            target, seen = module.split(".")[1], seen + 1
            if target != room and level[target] > level[room]:
                wrong.append(f"{place}:{line} imports {module}")
    assert not wrong and seen > 60


def test_the_package_itself_imports_nothing():
    assert list(imports(PACKAGE / "__init__.py")) == []
    nodes = ast.walk(ast.parse((PACKAGE / "__init__.py").read_text("utf-8")))
    found = [ast.unparse(n) for n in nodes if isinstance(n, ast.Import | ast.ImportFrom)]
    assert found == ["import os"]  # which Python itself has imported already


def test_recipes_import_the_table_of_contents_alone():
    for path in recipes_dir().glob("*.py"):
        found = [n for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, ast.Import | ast.ImportFrom)]
        assert [ast.unparse(n) for n in found] in ([], ["from cifar_fast.all import *"]), path


def test_the_walk_would_see_a_wrong_import(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path)
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "x.py"
    path.write_text("from ..runs.run import fit\nfrom .tree import a\nfrom cifar_fast import plots, __version__\n"
                    "def f():\n    import cifar_fast.cli.main\nimport torch\nfrom . import errors\n"
                    "if TYPE_CHECKING:\n    from cifar_fast.runs.run import Run\n")
    assert sorted(imports(path)) == [(1, "cifar_fast.runs.run"), (2, "cifar_fast.data.tree"),
                                     (3, "cifar_fast.plots"),
                                     (5, "cifar_fast.cli.main"), (7, "cifar_fast.data")]
