"""What the documents show runs: the README's Python, and every notebook."""

import itertools
import pathlib
import re

import matplotlib.pyplot as plt
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


#: what cells say of the length of fits, chains and pictures, and what is said here: `.key(2), 2000` are draws of a key
SHORTER = (
    (r"\b(steps|sweeps)=\d{3,}\b", r"\1=20"),
    (r"\bsimulations=[\d_]{3,}\b", "simulations=100"),
    (r"\bsamples=\d{2,}\b", "samples=10"),
    (r"(\.key\(\d+\), )\d{4,}\b", r"\g<1>300"),
)


def short(path):
    """A notebook whose fits and chains are cut short: whether its cells run is seen then too, and no number is read."""
    notebook = nbformat.read(path, as_version=4)
    for cell, (pattern, less) in itertools.product(notebook.cells, SHORTER):
        cell.source = re.sub(pattern, less, cell.source)
    return notebook


#: one to see that a kernel runs it, and one that sets how many devices there are before JAX is imported
IN_KERNELS = ("quickstart", "devices")


@pytest.mark.parametrize("name", IN_KERNELS)
def test_a_kernel_runs_a_notebook(name):
    notebook = short(ROOT / "notebooks" / f"{name}.ipynb")
    NotebookClient(notebook, timeout=90, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}).execute()


# chains and draws of flows are slow without the compiler's optimiser
@pytest.mark.timeout(400)
# a flow of 20 steps is rightly warned of
@pytest.mark.filterwarnings("ignore::jaxgen.core.errors.JaxgenWarning")
@pytest.mark.parametrize("path", [p for p in NOTEBOOKS if p.stem not in IN_KERNELS], ids=lambda path: path.stem)
def test_notebook_runs(path, monkeypatch):
    """The others in this process: a kernel for each would import and compile everything anew."""
    monkeypatch.chdir(ROOT)
    scope: dict = {"__name__": path.stem}
    try:
        for cell in short(path).cells:
            if cell.cell_type == "code":
                exec(compile(cell.source.replace("%matplotlib inline", ""), path.name, "exec"), scope)
    finally:
        plt.close("all")


def test_there_is_a_notebook():
    assert NOTEBOOKS
