"""The house's rules that a machine can check (docs/house.md): floors, doors, sizes, mirrored tests."""

from __future__ import annotations

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parent.parent
FILES = sorted((ROOT / "metalearn").rglob("*.py"))
name = lambda path: str(path.relative_to(ROOT))

ENTRIES = {"learners": 2, "evaluators": 3}
PROGRAMS = {"train", "eval", "collect", "report", "experiment", "benchmark"}


def floor(module: str) -> int:
    """0 types; 1 parts; 2 learners; 3 evaluators; 4 programs. `module` is dotted, below metalearn."""
    parts = module.split(".")
    if parts[0] in ENTRIES:
        return ENTRIES[parts[0]]
    if parts[0] in PROGRAMS:
        return 4
    return 0 if parts[0] == "types" else 1


def imports(path: pathlib.Path) -> set[str]:
    """Dotted names that a file imports, `from a import b` as a.b."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def within(path: pathlib.Path, *allowed: str) -> bool:
    return any(name(path).startswith(f"metalearn/{part}") for part in allowed)


@pytest.mark.parametrize("path", FILES, ids=name)
def test_imports_go_down(path):
    own = ".".join(path.relative_to(ROOT / "metalearn").with_suffix("").parts)
    for target in (i.removeprefix("metalearn.") for i in imports(path) if i.startswith("metalearn.")):
        if target.startswith("__"):
            continue
        assert floor(target) <= floor(own), f"{own} (floor {floor(own)}) imports {target} (floor {floor(target)})"
        if floor(own) in (2, 3) and floor(target) == floor(own):
            pytest.fail(f"{own} imports its neighbour {target}: what they share belongs below")
        if floor(own) == 4:
            assert floor(target) not in (2, 3), f"{own} imports {target}: programs reach entries through lookup"
        assert not (own.startswith("learners") and target.startswith("envs")), f"{own}: learners know no environment"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_doors(path):
    used = {i.split(".")[0] if not i.startswith("flax.") else ".".join(i.split(".")[:2]) for i in imports(path)}
    assert "flax.linen" not in used or within(path, "nn/"), "flax.linen is imported under nn/ alone"
    assert "orbax" not in used or within(path, "checkpoint.py"), "Orbax is imported in checkpoint.py alone"
    assert "tensorflow_datasets" not in used or within(path, "pools/"), "TFDS is imported under pools/ alone"
    assert "torch" not in used or within(path, "torch_arm.py"), "torch is the benchmark's optional other arm alone"
    assert not used & {"pickle", "dill", "cloudpickle", "marshal"}, "nothing that unpickles"


@pytest.mark.parametrize("path", FILES, ids=name)
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


def test_everything_is_reached_by_a_test_or_a_config():
    """A file counts when a test or a config names it, or when a file that counts imports it."""
    readers = [*(ROOT / "tests").glob("*.py"), *(ROOT / "configs").glob("*.py")]
    words = set(re.findall(r"\w+", "\n".join(p.read_text() for p in readers if p.name != "test_house.py")))
    dotted = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in FILES if not p.stem.startswith("__")}
    reached = {module for module, path in dotted.items() if path.stem in words}
    while grown := {i for m in reached for i in imports(dotted[m]) if i in dotted} - reached:
        reached |= grown
    assert not dotted.keys() - reached, "reached by no test and no config"


def test_entries_have_make_with_documented_keywords():
    """Folders reached by lookup hold nothing but entries, each with a make(...) whose configuration is keyword-only."""
    for folder in ("tasks", "learners", "evaluators", "envs"):
        for path in sorted((ROOT / "metalearn" / folder).glob("*.py")):
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
