"""Notebooks teach and call the library; they hold no code of their own, and they run."""

import ast
import asyncio
import importlib.util
import os
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "colabs").glob("*.ipynb"))
MISSING = [name for name in ("nbformat", "nbclient", "ipykernel") if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (extra `notebook`)")
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path):
    import nbformat

    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    return notebook, [cell for cell in notebook.cells if cell.cell_type == "code"]


def parse(source):
    """The cell without its magics (%matplotlib inline), which are not Python."""
    return ast.parse("\n".join(line for line in source.splitlines() if not line.lstrip().startswith("%")))


def lines_of_code(cells):
    lines = [line.strip() for cell in cells for line in cell.source.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def test_there_are_notebooks():
    assert NOTEBOOKS


@every_notebook
def test_thin(path):
    _, cells = read(path)
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    for cell in cells:
        found = [node.name for node in ast.walk(parse(cell.source)) if isinstance(node, definitions)]
        assert not found, f"move into the library: {found}"
    lines = lines_of_code(cells)
    assert len(lines) <= 80
    assert max(map(len, lines)) <= 120


@every_notebook
def test_committed_without_outputs(path):
    _, cells = read(path)
    for cell in cells:
        assert not cell.outputs and cell.execution_count is None, f"clear the outputs of {path.name}"


@every_notebook
def test_explains_then_installs_unless_inside_the_repository(path):
    notebook, cells = read(path)
    assert notebook.cells[0].cell_type == "markdown" and notebook.cells[0].source.startswith("# ")
    calls = [ast.unparse(node) for node in ast.walk(parse(cells[0].source)) if isinstance(node, ast.Call)]
    assert any("'pip', 'install'" in call for call in calls)
    top = [ast.unparse(node) for node in parse(cells[0].source).body if not isinstance(node, ast.If)]
    assert not any("pip" in statement for statement in top), "install only where something is missing"


@every_notebook
def test_runs_in_its_smoke_form(path, tmp_path, monkeypatch):
    """With a real kernel, this very interpreter, from the notebook's own folder; nothing may be written there."""
    import jupyter_client
    import nbclient

    notebook, _ = read(path)
    assert any("METALEARN_SMOKE" in cell.source for cell in notebook.cells)
    monkeypatch.setenv("METALEARN_SMOKE", "1")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # an attempt to install would fail
    specs = jupyter_client.kernelspec.KernelSpecManager(kernel_dirs=[], ensure_native_kernel=True)
    assert specs.get_kernel_spec("python3").argv[0] == sys.executable
    manager = jupyter_client.AsyncKernelManager(kernel_name="python3", kernel_spec_manager=specs)
    before = set(os.listdir(path.parent))
    client = nbclient.NotebookClient(notebook, km=manager, timeout=300, resources={"metadata": {"path": path.parent}})
    try:
        client.execute()
    finally:
        asyncio.run(manager.shutdown_kernel(now=True))  # whose manager was given, nbclient leaves its kernel running
    assert set(os.listdir(path.parent)) == before
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    shown = [output for output in outputs if "image/png" in output.get("data", {})]
    assert shown, "a notebook shows figures"
    mute = [output for output in outputs if "Figure" in output.get("data", {}).get("text/plain", "")
            and "image/png" not in output.data]
    assert not mute, "a figure came out as text: %matplotlib inline is missing"
