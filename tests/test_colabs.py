"""Notebooks teach and call the library; they hold no code of their own, and they run."""

import ast
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


@pytest.fixture(scope="module")
def kernel(repository, tmp_path_factory):
    """A real kernel, this very interpreter, started in an empty folder; importing JAX takes longer than most cells."""
    import jupyter_client

    home = tmp_path_factory.mktemp("kernel")
    specs = jupyter_client.kernelspec.KernelSpecManager(kernel_dirs=[], ensure_native_kernel=True)
    assert specs.get_kernel_spec("python3").argv[0] == sys.executable
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {
        "METALEARN_SMOKE": "1", "TMPDIR": str(home), "METALEARN_REPOSITORY": repository,
        "PIP_NO_INDEX": "1"}  # an attempt to install would fail
    manager = jupyter_client.KernelManager(kernel_name="python3", kernel_spec_manager=specs)
    manager.start_kernel(cwd=str(home), env=environment)
    yield manager
    manager.shutdown_kernel(now=True)


@every_notebook
def test_runs_in_its_smoke_form(path, tmp_path, kernel):
    """In an empty folder, as on Colab: it fetches what it needs. Names of the notebook before are gone."""
    import nbclient
    import nbformat

    notebook, _ = read(path)
    assert any("METALEARN_SMOKE" in cell.source for cell in notebook.cells)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(f"%reset -f\nimport os; os.chdir({str(tmp_path)!r})"))
    nbclient.NotebookClient(notebook, km=kernel, timeout=300).execute()
    assert os.listdir(tmp_path) == ["metalearn"]
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    shown = [output for output in outputs if "image/png" in output.get("data", {})]
    assert shown, "a notebook shows figures"
    mute = [output for output in outputs if "Figure" in output.get("data", {}).get("text/plain", "")
            and "image/png" not in output.data]
    assert not mute, "a figure came out as text: %matplotlib inline is missing"
