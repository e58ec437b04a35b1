"""What type checkers and editors see of the package: every public name, and what can be called."""

import ast
import json
import pathlib
import re
import subprocess
import sys

import pytest

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


def test_every_public_name_is_exported_under_its_own_name():
    """Type checkers take `import name as name` in a stub for a promise, and `import name` for a private detail."""
    stub = ast.parse((HERE.parent / "jaxgen" / "__init__.pyi").read_text())
    names = [alias for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert [alias.name for alias in names if alias.asname != alias.name] == []
