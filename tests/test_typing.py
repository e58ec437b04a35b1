"""What type checkers and editors see of the package: every public name, and what can be called."""

import ast
import dataclasses
import importlib
import inspect
import json
import pathlib
import re
import subprocess
import sys

import pytest

import jaxgen as jg

STARS = inspect.Parameter
HERE = pathlib.Path(__file__).parent
SCRIPTS = {name: HERE / f"{name}.py" for name in ("typed_user", "typed_errors")}


def lines_of_pyright() -> dict[str, set[int]]:
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson"]
    command += map(str, SCRIPTS.values())
    ran = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, timeout=110)
    found = [d for d in json.loads(ran.stdout)["generalDiagnostics"] if d["severity"] == "error"]
    lines = [(pathlib.Path(d["file"]).stem, d["range"]["start"]["line"] + 1) for d in found]
    return {name: {line for file, line in lines if file == name} for name in SCRIPTS}


def lines_of_mypy() -> dict[str, set[int]]:
    command = [sys.executable, "-m", "mypy", *map(str, SCRIPTS.values())]
    ran = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, timeout=110)
    found = re.findall(r"(\w+)\.py:(\d+): error", ran.stdout)
    assert found or "no issues" in ran.stdout, ran.stdout + ran.stderr
    return {name: {int(line) for file, line in found if file == name} for name in SCRIPTS}


@pytest.mark.parametrize("checker", [lines_of_pyright, lines_of_mypy])
def test_type_checkers_find_what_is_wrong_and_nothing_else(checker):
    found = checker()
    assert found["typed_user"] == set()
    text = SCRIPTS["typed_errors"].read_text().splitlines()
    wanted = {i for i, line in enumerate(text, start=1) if line.endswith("# refused")}
    assert found["typed_errors"] == wanted and wanted


def test_the_typed_script_runs(capsys):
    importlib.import_module("typed_user").main()
    assert "nats per event" in capsys.readouterr().out


def test_every_public_name_is_exported_under_its_own_name():
    """Type checkers take `import name as name` in a stub for a promise, and `import name` for a private detail."""
    stub = ast.parse((HERE.parent / "jaxgen" / "__init__.pyi").read_text())
    names = [alias for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert [alias.name for alias in names if alias.asname != alias.name] == []


def public_methods():
    """Every public method of the public models, as `(class, name, function)`."""
    for room in (jg, jg.units, jg.bijections):
        for cls in (getattr(room, name) for name in room.__all__):
            if inspect.isclass(cls) and hasattr(cls, "event_shape") and not getattr(cls, "_is_protocol", False):
                for name, function in vars(cls).items():
                    if inspect.isfunction(function) and not name.startswith("_"):
                        yield cls, name, function


#: calls as the protocols document them: what is given by position, and by keyword
CALLS = {
    "log_prob": [("x", ()), ("x", ("context",))],
    "elbo": [("key x", ()), ("key x", ("context",))],
    "energy": [("x", ())],
    "kernel": [("key x", ())],
    "sample": [("key", ()), ("key shape", ("context",)), ("", ("key", "shape"))],
    "e_step": [("x", ()), ("x weight", ())],
    "viterbi": [("x", ("best", "context"))],
    "smooth_lag": [("x", ("lag",))],
}


def test_signatures_show_what_can_be_called():
    seen = set()
    for cls, name, function in public_methods():
        signature, where = inspect.signature(function), f"{cls.__name__}.{name}"
        assert not {p.kind for p in signature.parameters.values()} & {STARS.VAR_POSITIONAL, STARS.VAR_KEYWORD}, where
        # what is written is what can be called, so that a type checker, which reads what is written, is right
        assert signature == inspect.signature(getattr(function, "__wrapped__", function)), where
        for position, keywords in CALLS.get(name, ()):
            signature.bind(cls, *position.split(), **dict.fromkeys(keywords))
            seen.add(name)
    assert seen == CALLS.keys()
    assert "length" in inspect.signature(jg.HMM.sample).parameters
    assert "length" not in inspect.signature(jg.Gaussian.sample).parameters
    assert str(inspect.signature(jg.HMM.viterbi)) == "(self, x, *, context=None, best=None) -> 'chains.Decoded'"


ROOMS = ("bijections", "data", "likelihoods", "losses", "metrics", "nn", "ops", "plot", "posteriors", "recipes",
         "samplers", "tasks", "units", "watch")  # fmt: skip


@pytest.mark.parametrize("name", ROOMS)
def test_a_namespace_shows_its_own_names_alone(name):
    room = importlib.import_module(f"jaxgen.{name}")
    assert getattr(jg, name) is room
    assert dir(room) == sorted(room.__all__)
    for public in room.__all__:
        found = getattr(room, public)
        assert not inspect.ismodule(found) or found.__name__.startswith("jaxgen.")
        own = not (inspect.isfunction(found) or inspect.isclass(found)) or found.__module__.startswith("jaxgen.")
        assert own, public


def test_tab_completion_of_a_model_leaves_out_what_core_calls():
    mixture = jg.Mixture.from_components(jg.Poisson.from_values([1.0, 2.0]))
    inner = {"log_prob_components", "e_step_components", "maximize", "recentre", "freeze", "check_data", "ready"}
    for model in (mixture, mixture.components, jg.StandardNormal((2,))):
        assert not inner & set(dir(model))
        assert {"log_prob", "sample", "event_shape"} <= set(dir(model))
        fields = {f.name for f in dataclasses.fields(model)}
        assert fields <= set(dir(model))
    assert {"m_step", "e_step", "responsibilities", "weights", "logits"} <= set(dir(mixture))


def test_what_the_readme_writes_is_reachable_as_written():
    names = set()
    for section in re.split("^## ", (HERE.parent / "README.md").read_text(), flags=re.M):
        # a section that imports from the estimators writes all of them bare
        rooms = (jg, importlib.import_module("jaxgen.sklearn")) if "from jaxgen.sklearn import" in section else (jg,)
        for span in re.findall(r"`([^`\n]+)`", section):
            try:
                tree = ast.parse(span, mode="eval")
            except SyntaxError:
                continue
            for node in ast.walk(tree):
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ROOMS:
                    assert hasattr(getattr(jg, node.value.id), node.attr), span
                if isinstance(node, ast.Name) and node.id[0].isupper() and not node.id.isupper():
                    names.add((node.id, any(hasattr(room, node.id) for room in rooms)))
    foreign = {"SummaryWriter", "Pipeline", "GridSearchCV", "Cls"}  # TensorBoard's, scikit-learn's, and any class
    assert len(names) > 30 and {name for name, found in names if not found} <= foreign
