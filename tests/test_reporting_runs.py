"""Replicas read as the single runs that they are."""

import json

from metalearn.reporting import runs


def test_a_program_of_replicas_reads_as_its_runs(tmp_path):
    lines = {"one": {"step": 5, "a": 1.0}, "two": {"step": 5, "a": 9, "replicas": [{"a": 2.0}, {"a": 3.0}]}}
    for name, line in lines.items():
        (tmp_path / name / "eval").mkdir(parents=True)
        (tmp_path / name / "eval" / "history.jsonl").write_text(json.dumps(line) + "\n")
    rows = [{"setting": {"seed": s, "task.num_tasks": 8}, "a": a} for s, a in ((4, 2.5), (5, 3.5))]
    found = list(runs.single([
        runs.Run("one", {"seed": 0}, {"a": 1.5}, str(tmp_path / "one")),
        runs.Run("two", {"replicas.num": 2}, {"a": 3.0, "replicas": rows}, str(tmp_path / "two"))]))
    assert [(o.get("seed"), o.get("task.num_tasks"), h["a"], line) for o, h, (line,) in found] == [
        (0, None, 1.5, {"step": 5, "a": 1.0}), (4, 8, 2.5, {"step": 5, "a": 2.0}), (5, 8, 3.5, {"step": 5, "a": 3.0})]
