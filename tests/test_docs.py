"""What the documents show runs: the README's Python, and every notebook."""

import pathlib
import re

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = pathlib.Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def test_readme_blocks_run():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.S)
    assert blocks
    scope: dict = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), scope)


def test_readme_commands_are_near_the_top():
    top = (ROOT / "README.md").read_text().splitlines()[:30]
    assert any(line.startswith("make tour") for line in top)
    assert any(line.startswith("make test") for line in top)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path):
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=90, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}).execute()


def test_there_is_a_notebook():
    assert NOTEBOOKS
