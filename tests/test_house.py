"""The house's rules that a machine can check (docs/house.md): floors, doors, sizes, mirrored tests."""

from __future__ import annotations

import ast
import pathlib
import re
import sys
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
FILES = sorted((ROOT / "metalearn").rglob("*.py"))
name = lambda path: str(path.relative_to(ROOT))

# The floor of every module, by the longest name that it begins with: what is listed nowhere fails. Imports go down, or
# stay inside one room; a room is a folder of metalearn/, and the files beside the folders are one room for each floor.
FLOORS = {
    "types": 0, "validate": 0, "lookup": 0, "cli": 0,
    "nn": 1, "measure": 1, "datasets": 1, "rl": 1, "rl.rollout": 1, "rl.store": 1,
    "learning": 2, "rl.behaviours": 2, "rl.gaits": 2, "rl.sac": 2, "rl.recipe": 2, "envs": 2,
    "networks": 2, "backbones": 2,
    "tasks": 3, "learners": 3, "evaluators": 3,
    "runtime": 4,
    "reporting": 5,
    "train": 6, "eval": 6, "api": 6, "collect": 6, "sweep": 6, "report": 6, "export": 6,
    "checkpoint": 6, "listing": 6, "doctor": 6, "__main__": 6,
}
ENTRIES = ("tasks", "envs", "networks", "backbones", "learners", "evaluators")


def listed(module: str) -> str:
    """The entry of FLOORS that `module`, dotted below metalearn, falls under."""
    parts = module.split(".")
    names = [".".join(parts[:i]) for i in range(len(parts), 0, -1)]
    found = next((n for n in names if n in FLOORS), None)
    assert found, f"{module} stands on no floor: list it in FLOORS"
    return found


def floor(module: str) -> int:
    return FLOORS[listed(module)]


def room(module: str) -> str:
    first = module.split(".")[0]
    return first if (ROOT / "metalearn" / first).is_dir() else f"floor {floor(module)}"


def imports(path: pathlib.Path) -> set[str]:
    """Dotted names that a file imports, `from a import b` as a.b."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


dotted = lambda file: ".".join(file.relative_to(ROOT / "metalearn").with_suffix("").parts)
MODULES = {dotted(file).removesuffix(".__init__"): file for file in FILES}


def targets(path: pathlib.Path) -> set[str]:
    """Modules of ours that a file imports, dotted below metalearn, whether whole or a name out of them."""
    found = {i.removeprefix("metalearn.") for i in imports(path) if i.startswith("metalearn.")}
    return {name if name in MODULES else name.rpartition(".")[0] for name in found} & set(MODULES)


def within(path: pathlib.Path, *allowed: str) -> bool:
    return any(name(path).startswith(f"metalearn/{part}") for part in allowed)


@pytest.mark.parametrize("path", FILES, ids=name)
def test_imports_go_down(path):
    own = next(module for module, file in MODULES.items() if file == path)
    if own == "__init__":
        return
    for target in targets(path):
        below = floor(target) < floor(own) if room(target) != room(own) else floor(target) <= floor(own)
        assert below, f"{own} (floor {floor(own)}) imports {target} (floor {floor(target)})"
        if room(own) in ENTRIES and not target.split(".")[-1].startswith("_"):
            assert room(target) not in ENTRIES, f"{own} imports the entry {target}: entries come as values, by lookup"
        if floor(own) == 6:
            assert room(target) not in ENTRIES, f"{own} imports {target}: programs reach entries through lookup"


def test_the_wheel_has_every_room():
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    rooms = [f"metalearn.{m.removesuffix('.__init__')}" for m, path in MODULES.items() if path.name == "__init__.py"]
    beside = [f"metalearn.configs.{p.name}" for p in (ROOT / "configs").iterdir() if list(p.glob("*.py"))]
    configs = ["metalearn.configs", *beside]
    assert sorted(packages) == sorted(["metalearn", *configs, *set(rooms) - {"metalearn.__init__"}])


def test_floors_list_nothing_that_is_gone():
    assert {listed(module) for module in MODULES if module != "__init__"} == set(FLOORS)


@pytest.mark.parametrize("path", FILES, ids=name)
def test_doors(path):
    used = {i.split(".")[0] if not i.startswith("flax.") else ".".join(i.split(".")[:2]) for i in imports(path)}
    rooms = ("nn/", "networks/", "backbones/")
    assert "flax.linen" not in used or within(path, *rooms), f"flax.linen is imported in {rooms} alone"
    assert not used & {"orbax", "tensorstore"} or within(path,
                                         "runtime/checkpoint.py"), "Orbax belongs in runtime/checkpoint.py alone"
    assert "tensorflow_datasets" not in used or within(path, "datasets/"), "TFDS is imported under datasets/ alone"
    assert "torch" not in used, "torch is tests/torch_reference.py's alone"
    assert "matplotlib" not in used or within(path, "reporting/"), "matplotlib is imported under reporting/ alone"
    assert not used & {"pickle", "dill", "cloudpickle", "marshal"}, "nothing that unpickles"


@pytest.mark.parametrize("path", [*FILES, *sorted((ROOT / "configs").glob("*/*.py"))], ids=name)
def test_habits(path):
    text = path.read_text()
    lines = text.count("\n")
    assert lines <= 400, f"{lines} lines: split it"
    assert not re.search(r"np\.random\.(?!default_rng|Generator|SeedSequence)", text), "no global numpy generator"
    assert "config.get(" not in text, "a config holds every knob: no second default"
    assert not re.search(r"allow_pickle=True|yaml\.load\(|joblib\.load|jax\.pmap", text)
    tree = ast.parse(text)
    assert ast.get_docstring(tree) or not tree.body, "every module says what it is"
    assert path.stem not in ("utils", "base", "helpers", "common")


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.py")), ids=name)
def test_configs_are_short(path):
    text = path.read_text()
    assert text.count("\n") <= 400, "split it: what tabulates a sweep belongs in configs/tables"
    header = ast.get_docstring(ast.parse(text)) or ""
    assert header.count("\n") < 15, "a header says what, command, minutes, headline: the rest is for docs/notes"


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.py")), ids=name)
def test_configs_import_nothing_but_configs(path):
    """A config is data: what reads runs and makes tables is named by its SUMMARY. common.py refuses with one line."""
    standard = {i for i in imports(path) if i.split(".")[0] in sys.stdlib_module_names}
    used = {i for i in imports(path) - standard if not i.startswith(("ml_collections.", "configs."))}
    allowed = {"metalearn.validate.ConfigError", "metalearn.validate.nearest"} if path.stem == "common" else set()
    assert used <= allowed, f"{name(path)} imports {used - allowed}"
    assert standard <= {"__future__.annotations", "functools", "os"}, standard


def test_everything_is_reached_by_a_test_or_a_config():
    """A file counts when a test or a config imports it, runs it (`-m metalearn.x`) or, of entries, names it in a
    string; or when a file that counts imports it."""
    readers = [*(ROOT / "tests").glob("*.py"), *(ROOT / "configs").glob("*.py")]
    trees = [ast.parse(p.read_text()) for p in readers if p.name != "test_house.py"]
    strings = {n.value for tree in trees for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value,
                                                                                                               str)}
    named = {m for m in MODULES if m.split(".")[0] in ENTRIES and m.split(".")[-1] in strings}
    run = {m for m in MODULES if f"metalearn.{m.removesuffix('.__main__')}" in strings}
    reached = named | run | {module for p in readers for module in targets(p)}
    while grown := {i for m in reached for i in targets(MODULES[m])} - reached:
        reached |= grown
    rooms = {m for m, path in MODULES.items() if path.name == "__init__.py"}
    assert sorted(set(MODULES) - reached - rooms) == [], "reached by no test and no config"


def test_entries_have_make_with_documented_keywords():
    """Folders reached by lookup hold nothing but entries, each with a make(...) whose configuration is keyword-only."""
    for folder in ENTRIES:
        for path in sorted(p for root in ("metalearn", "configs") for p in (ROOT / root / folder).glob("*.py")):
            if path.name.startswith("_"):  # the package itself, or what two of its entries share
                continue
            makes = [n for n in ast.parse(path.read_text()).body if isinstance(n, ast.FunctionDef) and n.name == "make"]
            assert makes, f"{name(path)} has no make()"
            assert not makes[0].args.defaults, f"{name(path)}: configuration is keyword-only, without defaults"


def test_nothing_committed_names_a_machine_or_a_registry():
    pattern = re.compile(r"/(?:work|root)/\w|files\.pythonhosted|pypi\.org|--index-url", re.I)
    hidden = (".git", ".venv", "runs", "__pycache__", "metalearn.egg-info")
    for path in ROOT.rglob("*"):
        skip = any(part in hidden for part in path.parts)
        if path.is_file() and not skip and path.suffix in (".py", ".md", ".txt", ".toml", ".sh", ".ipynb", ".json"):
            found = pattern.search(path.read_text(errors="ignore")) if path != pathlib.Path(__file__) else None
            assert not found, f"{name(path)}: {found and found.group()}"



def test_every_learner_has_a_golden_update():
    golden = [p.stem for p in (ROOT / "tests" / "golden").glob("*.json")]
    learners = [p.stem for p in (ROOT / "metalearn" / "learners").glob("*.py") if p.stem != "__init__"]
    assert not set(learners) - set(golden), "record one: see the fixture `golden` of tests/conftest.py"
