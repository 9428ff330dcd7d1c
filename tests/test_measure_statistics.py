"""Comparing methods: numbers by hand, pairs task by task, and an interval over seeds that knows its seeds."""

import json

import numpy as np
import pytest

from metalearn.measure import statistics


def test_summary_by_hand():
    found = statistics.summary([[1.0, 2.0, 3.0, 100.0], [3.0, 4.0, 5.0, 102.0]])
    assert found["seeds"] == [26.5, 28.5] and found["mean"] == 27.5
    task_B = np.array([2.0, 3.0, 4.0, 101.0])
    assert found["ci95"] == pytest.approx(1.96 * task_B.std(ddof=1) / 2)
    assert found["iqm"] == 3.75  # 3, 3, 4, 5: the hundred does not count
    low, high = found["iqm_ci95"]
    assert low < found["iqm"] < high and low >= 2.75 and high <= 4.75  # never beyond the worse or better seed alone
    same = statistics.summary([[1.0, 2.0, 3.0]] * 3)
    assert same["iqm_ci95"] == [2.0, 2.0]  # seeds that agree leave nothing to draw


def test_pairs_are_of_the_same_tasks():
    """A constant gap under huge differences between tasks: paired, its interval is zero."""
    task_B = np.array([-100.0, 0.0, 70.0])
    found = {"ours": {"few": [task_B + 2, task_B + 4], "demo": [task_B]}, "theirs": {"few": [task_B, task_B + 2]}}
    result = statistics.compare(found, "ours", task_B, "t")
    gaps = result["headline"]["differences"]
    assert gaps["ours-theirs, few"] == dict(mean=2.0, ci95=0.0)
    assert gaps["ours-behaviour, few"]["mean"] == 3.0 and "ours-theirs, demo" not in gaps
    assert result["headline"]["returns"]["theirs"]["few"]["mean"] == pytest.approx(-9.0)
    assert len(result["tables"][0]["rows"]) == 3 and result["tables"][0]["rows"][0][:2] == ["ours", "few"]
    assert not any("behaviour" in k for k in statistics.compare(found, "ours", None, "t")["headline"]["differences"])


def test_gather(tmp_path):
    """Rows in the order of the runs, protocols of all evaluators side by side, what has no such fact left out."""
    for run, value in (("a", 1.0), ("b", 2.0)):
        (tmp_path / run / "eval").mkdir(parents=True)
        few = {"facts": {"returns": {"zero": [value, value]}, "behaviour_returns": [value]}}
        (tmp_path / run / "eval" / "few.json").write_text(json.dumps(few))
        (tmp_path / run / "eval" / "demo.json").write_text(json.dumps({"facts": {"returns": {"demo": [value + 5]}}}))
        (tmp_path / run / "eval" / "other.json").write_text("{}")
    named = [("ours", str(tmp_path / "b")), ("ours", str(tmp_path / "a")), ("theirs", str(tmp_path / "a"))]
    assert statistics.gather(named, "returns") == {"ours": {"zero": [[2.0, 2.0], [1.0, 1.0]], "demo": [[7.0], [6.0]]},
                                                   "theirs": {"zero": [[1.0, 1.0]], "demo": [[6.0]]}}
    assert statistics.gather(named, "behaviour_returns")["ours"] == {"": [[2.0], [1.0]]}
    assert statistics.gather(named, "successes") == {}


def test_over_seeds_is_students():
    mean, half = statistics.over_seeds([1.0, 2.0, 3.0])
    assert mean == 2.0 and half == pytest.approx(4.302653 / 3**0.5, rel=1e-6)  # two degrees of freedom, spread 1
    mean, half = statistics.over_seeds([0.7])
    assert mean == 0.7 and np.isnan(half)


def test_text_has_an_interval_where_there_is_one():
    assert statistics.text(0.61, 0.0456, 3) == "0.610 ± 0.046" and statistics.text(0.61, float("nan"), 2) == "0.61"
