"""The house: a file imports only from floors below its own, and never inside a function to dodge that."""

import ast
import pathlib
import statistics
import subprocess
import sys

import pytest

import jaxgen

ROOT = pathlib.Path(jaxgen.__file__).parent
FLOORS = {
    "core": 0, "ops": 1, "nn": 2, "samplers": 2, "likelihoods": 2,
    "annealing": 2, "imputation": 2, "units": 3, "bijections": 3, "models": 4,
    "losses": 4, "posteriors": 5, "fit": 5, "metrics": 5, "data": 5, "recipes": 6, "selection": 6, "plot": 6,
    "tasks": 6, "report": 6, "watch": 6, "games": 6, "sklearn": 7, "tour": 7, "cli": 8, "__main__": 9, "_version": 0,
}  # fmt: skip
#: folders whose files build on each other; a file of `models` is one family and imports no other but a chain, a density
#: and the product, which is what a table of several kinds of columns has for a model
LAYERED = {
    "core", "ops", "nn", "units", "bijections", "losses", "fit", "metrics", "data", "plot", "recipes", "selection",
    "tasks", "sklearn", "tour", "cli",
}  # fmt: skip
PARTS = ("jaxgen.models.chains.", "jaxgen.models.densities.", "jaxgen.models.latent.product")
FILES = sorted(p for p in ROOT.rglob("*.py") if p.name != "__init__.py")


def _top(module: str) -> str:
    return module.split(".")[1] if "." in module else "jaxgen"


def _imports(tree: ast.AST):
    """(module, name, line) of every import of the package, and whether it stands inside a function."""
    inside = {id(n) for f in ast.walk(tree) if isinstance(f, (ast.FunctionDef, ast.Lambda)) for n in ast.walk(f)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "jaxgen":
            for alias in node.names:
                module = f"jaxgen.{alias.name}" if node.module == "jaxgen" else node.module
                yield module, node.lineno, id(node) in inside
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "jaxgen":
                    yield alias.name, node.lineno, id(node) in inside
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"


def _name(path: pathlib.Path) -> str:
    return ".".join(["jaxgen", *path.relative_to(ROOT).with_suffix("").parts])


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_imports_go_down(path):
    own = _top(_name(path))
    for module, line, inside in _imports(ast.parse(path.read_text())):
        where = f"{path.name}:{line} imports {module}"
        assert not inside, f"{where} inside a function"
        if module == "jaxgen":  # the top of the tower may be entered through the front door
            assert FLOORS[own] >= 6, where
        elif _top(module) == own:
            below = own in LAYERED or module.startswith(PARTS)
            assert below, f"{where}: files of {own} do not import each other"
        else:
            assert FLOORS[_top(module)] < FLOORS[own], f"{where}: floor {FLOORS[own]} from {FLOORS[_top(module)]}"


def test_no_cycles():
    graph = {_name(p): {m for m, _, _ in _imports(ast.parse(p.read_text()))} for p in FILES}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"cycle: {' -> '.join((*path, name))}"
        if name not in done:
            for child in graph.get(name, ()):
                visit(child, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("folder", ["jaxgen", "tests", "benchmarks"])
def test_files_are_short(folder):
    """What is longer than 500 lines is more than one thing; half of the package's files are below 200."""
    lines = {str(p): len(p.read_text().splitlines()) for p in (ROOT.parent / folder).rglob("*.py")}
    assert {name: n for name, n in lines.items() if n > 500} == {}
    assert folder != "jaxgen" or statistics.median(lines.values()) < 200


def test_every_file_is_on_a_floor():
    assert {_top(_name(p)) for p in FILES} <= set(FLOORS)


def test_front_door_opens():
    """Every name that the package promises is there."""
    for name in jaxgen.__all__:
        assert getattr(jaxgen, name) is not None


@pytest.mark.parametrize("name", ["units", "samplers", "likelihoods", "posteriors", "watch", "games"])
def test_modules_are_there_before_anything_else_was_imported(name):
    """A module that only some other import brings along would be missing for who asks for it first."""
    subprocess.run([sys.executable, "-c", f"from jaxgen import {name}"], check=True, cwd=ROOT.parent)


#: what may be looked up by a literal name, since it is no model's and no algorithm's: of arrays, tables, functions
FOREIGN = {
    "__dict__", "__name__", "__qualname__", "__getitem__", "_fields", "_mmap", "_is_protocol", "checked", "consts",
    "dtype", "dtypes", "eqns", "high", "init", "items", "jaxpr", "kind", "low", "message", "mode", "shape", "step_size",
    "sum", "to_numpy", "update", "value", "MADV_DONTNEED", "data_free", "get_ipython",
    "kernel", "support", "takes_field",
}  # fmt: skip


def test_models_are_asked_by_capability():
    """No `getattr` or `hasattr` by a literal name but of foreign things: the page is `core/protocols.py`."""
    looked, unknown = 0, []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) > 1
            if called and node.func.id in ("getattr", "hasattr") and isinstance(node.args[1], ast.Constant):
                looked += 1
                if node.args[1].value not in FOREIGN:
                    unknown.append(f"{_name(path)}:{node.lineno}: {node.args[1].value}")
    assert not unknown
    assert looked <= 40


#: a docstring that begins with one of these is half a sentence to who reads it alone
HALF_SENTENCES = ("What", "Of", "Whether", "Where", "How")


def test_docstrings_begin_with_a_whole_sentence():
    """Every first line tells its story alone: "Return the ...", "True if ...", "A mixture of ..."."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    bad = [
        f"{path.relative_to(ROOT)}: {text.splitlines()[0]}"
        for path in sorted(ROOT.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, documented) and (text := ast.get_docstring(node)) and text.split()[0] in HALF_SENTENCES
    ]
    assert not bad
