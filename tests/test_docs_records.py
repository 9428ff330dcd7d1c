"""docs/records.py: documents agree with the records, and a finished run becomes a record."""

from __future__ import annotations

import ast
import json
import pathlib
import re
import sys

import pytest
from test_docs_results import CLAIM, changed, run_directory

from docs import fields, records as program
from metalearn import cli

ROOT = pathlib.Path(__file__).parent.parent


def test_committed_documents_agree_with_the_records():
    assert program.generate(str(ROOT), write=False) == [], "run python docs/records.py"


def test_numbers_in_config_headers_are_those_of_the_records():
    """Lines `results/ID: CLAIM NUMBER`, one at least per family."""
    records = fields.load(str(ROOT))
    for family in ("gpicl", "fewshot", "memnet", "metadt"):
        header = ast.get_docstring(ast.parse((ROOT / "configs" / f"{family}.py").read_text()))
        lines = re.findall(r"results/(\w+): (.+)", header)
        for name, text in lines:
            claims = [f"{c['name']} {program.claim_text(records[name], c['name'])}" for c in records[name]["claims"]]
            assert text in claims, f"configs/{family}.py says {text}; results/{name}.json has {claims}"
        assert lines, family
        assert (ROOT / "docs" / "notes" / f"{family}.md").is_file()


def house(tmp_path) -> pathlib.Path:
    program.save(str(tmp_path), changed(claims=[CLAIM | dict(over="episodes", interval=0.5)]))
    (tmp_path / "README.md").write_text("<!-- results:tiny/accuracy -->?<!-- /results -->\n")
    return tmp_path


@pytest.fixture
def call(monkeypatch, capsys):
    """call(*words) -> (exit code, standard output, standard error) of the program."""
    def run(*words: str):
        monkeypatch.setattr(sys, "argv", ["records.py", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main(program.main)
        return ended.value.code, *capsys.readouterr()
    return run


def test_a_document_that_differs_fails_the_check_until_it_is_generated(tmp_path, call):
    root = house(tmp_path)
    code, _, error = call("--check", f"--root={root}")
    assert code == 1 and "differs from results/: README.md" in error
    assert not (root / "RESULTS.md").exists(), "a check writes nothing"
    assert call(f"--root={root}")[0] == 0
    assert (root / "README.md").read_text() == "<!-- results:tiny/accuracy -->60.0 ± 0.5<!-- /results -->\n"
    assert call("--check", f"--root={root}")[0] == 0


def test_a_finished_run_is_stored_and_shown(tmp_path, call):
    root, run = house(tmp_path), run_directory(tmp_path / "run", 0, 0.7)
    code, output, _ = call("store", f"--root={root}", "--id=tiny", f"--workdir={run}")
    assert code == 0 and json.loads(output.split("RESULT ")[1]) == {"id": "tiny", "accuracy": 70.0}
    stored = fields.load(str(root))["tiny"]
    assert stored["provenance"] == "made" and stored["claims"][0]["value"] == 70.0
    assert "70.0 ± 1.0" in (root / "README.md").read_text()
    code, _, error = call("store", f"--root={root}", "--id=tiny")
    assert code == 2 and "--workdir" in error


def test_a_new_record_is_stored_by_one_command(tmp_path, call):
    root, run = house(tmp_path), run_directory(tmp_path / "run", 0, 0.7)
    new = ["--id=fewshot_new", f"--workdir={run}", "--title=New", "--claim=accuracy=fewshot/accuracy", "--scale=100",
           "--command=train --config=configs/fewshot.py:smoke --workdir={out}"]
    code, _, error = call("store", f"--root={root}", *new)
    assert code == 2 and "--tolerance" in error
    assert call("store", f"--root={root}", *new, "--tolerance=2")[0] == 0
    stored = fields.load(str(root))["fewshot_new"]
    assert (stored["family"], stored["claims"][0]["value"], stored["claims"][0]["tolerance"]) == ("fewshot", 70.0, 2.0)
