"""Notebooks teach and call the library; they hold no code of their own, and they run."""

import ast
import asyncio
import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys
import tomllib

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


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """The address of a repository that holds what notebooks need, as this working tree has it now."""
    folder = tmp_path_factory.mktemp("origin") / "metalearn"
    for room in ("metalearn", "configs"):
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / file, folder)
    for words in (["init", "-q"], ["add", "."], ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "all"]):
        subprocess.run(["git", "-C", str(folder), *words], check=True)
    return f"file://{folder}"


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
        assert not found or path.stem == "from_scratch", f"move into the library: {found}"
    lines = lines_of_code(cells[1:])  # the first is the same everywhere
    assert len(lines) <= 80
    assert max(map(len, lines)) <= 120


@every_notebook
def test_committed_without_outputs(path):
    _, cells = read(path)
    for cell in cells:
        assert not cell.outputs and cell.execution_count is None, f"clear the outputs of {path.name}"


@every_notebook
def test_explains_then_fetches_and_installs_what_is_missing(path):
    """By the address of pyproject.toml; the first cell is the same in all of them."""
    notebook, cells = read(path)
    assert notebook.cells[0].cell_type == "markdown" and notebook.cells[0].source.startswith("# ")
    address = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
    assert f'"{address}"' in cells[0].source
    badge = f"(https://colab.research.google.com/github/{address.removeprefix('https://github.com/')}/blob/main/colabs/"
    assert f"{badge}{path.name})" in notebook.cells[0].source
    same = read(NOTEBOOKS[0])[1][0].source
    assert cells[0].source.startswith(same) or same.startswith(cells[0].source)  # one adds flags to it
    top = [ast.unparse(node) for node in parse(cells[0].source).body if not isinstance(node, ast.If)]
    assert "'pip', 'install'" in ast.unparse(parse(cells[0].source))
    assert not any("pip" in statement for statement in top), "install only where something is missing"


@every_notebook
def test_runs_in_its_smoke_form(path, tmp_path, monkeypatch, repository):
    """With a real kernel, this very interpreter, in an empty folder, as on Colab: it fetches what it needs."""
    import jupyter_client
    import nbclient

    notebook, _ = read(path)
    assert any("METALEARN_SMOKE" in cell.source for cell in notebook.cells)
    monkeypatch.setenv("METALEARN_SMOKE", "1")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # an attempt to install would fail
    monkeypatch.setenv("METALEARN_REPOSITORY", repository)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    empty = tmp_path / "empty"
    empty.mkdir()
    specs = jupyter_client.kernelspec.KernelSpecManager(kernel_dirs=[], ensure_native_kernel=True)
    assert specs.get_kernel_spec("python3").argv[0] == sys.executable
    manager = jupyter_client.AsyncKernelManager(kernel_name="python3", kernel_spec_manager=specs)
    client = nbclient.NotebookClient(notebook, km=manager, timeout=300, resources={"metadata": {"path": empty}})
    try:
        client.execute()
    finally:
        asyncio.run(manager.shutdown_kernel(now=True))  # whose manager was given, nbclient leaves its kernel running
    assert os.listdir(empty) == ["metalearn"]
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    shown = [output for output in outputs if "image/png" in output.get("data", {})]
    assert shown, "a notebook shows figures"
    mute = [output for output in outputs if "Figure" in output.get("data", {}).get("text/plain", "")
            and "image/png" not in output.data]
    assert not mute, "a figure came out as text: %matplotlib inline is missing"
