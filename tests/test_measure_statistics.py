"""Comparing methods: numbers by hand, pairs task by task, and an interval over seeds that knows its seeds."""

import json

import numpy as np
import pytest

from configs.tables import metadt
from metalearn.measure import statistics


def test_summary_by_hand():
    found = metadt.summary([[1.0, 2.0, 3.0, 100.0], [3.0, 4.0, 5.0, 102.0]])
    assert found["seeds"] == [26.5, 28.5] and found["mean"] == 27.5
    task_B = np.array([2.0, 3.0, 4.0, 101.0])
    assert found["ci95"] == pytest.approx(3.182446 * task_B.std(ddof=1) / 2)
    assert found["iqm"] == 3.75  # 3, 3, 4, 5: the hundred does not count
    low, high = found["iqm_ci95"]
    assert low < found["iqm"] < high and high - found["iqm"] > 6  # two seeds say little: Student's factor is 12.7
    assert np.isnan(metadt.summary([[1.0, 2.0]])["iqm_ci95"]).all()  # and one says nothing
    same = metadt.summary([[1.0, 2.0, 3.0]] * 3)
    assert same["iqm_ci95"] == [2.0, 2.0]  # seeds that agree leave nothing to draw


def test_pairs_are_of_the_same_tasks():
    """A constant gap under huge differences between tasks: paired, its interval is zero."""
    task_B = np.array([-100.0, 0.0, 70.0])
    found = {"ours": {"few": [task_B + 2, task_B + 4], "demo": [task_B]}, "theirs": {"few": [task_B, task_B + 2]}}
    result = metadt.compare(found, "ours", task_B, "t")
    gaps = result["headline"]["differences"]
    assert gaps["ours-theirs, few"] == dict(mean=2.0, ci95=0.0)
    assert gaps["ours-behaviour, few"]["mean"] == 3.0 and "ours-theirs, demo" not in gaps
    assert result["headline"]["returns"]["theirs"]["few"]["mean"] == pytest.approx(-9.0)
    assert len(result["tables"][0]["rows"]) == 3 and result["tables"][0]["rows"][0][:2] == ["ours", "few"]
    assert not any("behaviour" in k for k in metadt.compare(found, "ours", None, "t")["headline"]["differences"])


def test_gather(tmp_path):
    """Rows in the order of the runs, protocols of all evaluators side by side, what has no such fact left out."""
    for run, value in (("a", 1.0), ("b", 2.0)):
        (tmp_path / run / "eval").mkdir(parents=True)
        few = {"facts": {"returns": {"zero": [value, value]}, "behaviour_returns": [value]}}
        (tmp_path / run / "eval" / "few.json").write_text(json.dumps(few))
        (tmp_path / run / "eval" / "demo.json").write_text(json.dumps({"facts": {"returns": {"demo": [value + 5]}}}))
        (tmp_path / run / "eval" / "other.json").write_text("{}")
        (tmp_path / run / "eval" / "few@step=2.json").write_text(json.dumps(few))  # not what training evaluated
    named = [("ours", str(tmp_path / "b")), ("ours", str(tmp_path / "a")), ("theirs", str(tmp_path / "a"))]
    assert metadt.gather(named, "returns") == {"ours": {"zero": [[2.0, 2.0], [1.0, 1.0]], "demo": [[7.0], [6.0]]},
                                                   "theirs": {"zero": [[1.0, 1.0]], "demo": [[6.0]]}}
    assert metadt.gather(named, "behaviour_returns")["ours"] == {"": [[2.0], [1.0]]}
    assert metadt.gather(named, "successes") == {}


def test_few_values_have_students_interval():
    mean, half = statistics.interval([1.0, 2.0, 3.0])
    assert mean == 2.0 and half == pytest.approx(4.302653 / 3**0.5, rel=1e-6)  # two degrees of freedom, spread 1
    mean, half = statistics.interval([0.7])
    assert mean == 0.7 and np.isnan(half)


def test_text_has_an_interval_where_there_is_one():
    assert statistics.text(0.61, 0.0456, 3) == "0.610 ± 0.046" and statistics.text(0.61, float("nan"), 2) == "0.61"


def test_an_interval_is_along_its_axis_and_leaves_out_what_was_not_measured():
    values = np.array([[1.0, 2.0, 3.0, np.nan], [5.0, np.nan, np.nan, np.nan]])
    mean, half = statistics.interval(values, 1)
    np.testing.assert_allclose(mean, [2.0, 5.0])
    np.testing.assert_allclose(half, [4.302653 / 3**0.5, np.nan], rtol=1e-6)
    np.testing.assert_array_equal(statistics.interval(values.T)[0], mean)
    many = np.arange(1024.0)  # of as many, the factor is the 1.96 that papers use
    assert statistics.interval(many)[1] == pytest.approx(1.96 * many.std(ddof=1) / 32, rel=1e-12)


def coverage(draw, interval, truth, trials=1500) -> float:
    """How often the interval (mean, half) of what `draw(rng)` gives has `truth` inside."""
    rng = np.random.default_rng(1)
    inside = [abs(mean - truth) <= half for mean, half in (interval(draw(rng)) for _ in range(trials))]
    return float(np.mean(inside))


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_intervals_over_few_seeds_cover(seeds):
    draw = lambda rng: 0.7 + 0.05 * rng.normal(size=seeds)
    assert 0.92 < coverage(draw, statistics.interval, 0.7) < 0.98


def test_intervals_over_tasks_cover_because_a_task_is_one_value():
    """Eight tasks of twenty repeats each: a task's repeats share its difficulty."""
    draw = lambda rng: rng.normal(size=(8, 1)) + 0.5 * rng.normal(size=(8, 20))
    assert 0.92 < coverage(draw, lambda a_BE: statistics.interval(a_BE.mean(1)), 0.0) < 0.98
    assert coverage(draw, lambda a_BE: statistics.interval(a_BE.ravel()), 0.0) < 0.6  # repeats taken for tasks


def test_intervals_over_episodes_cover():
    draw = lambda rng: rng.binomial(5, 0.8, 100) / 5  # accuracies of five queries: skewed, and no more than six values
    assert 0.92 < coverage(draw, statistics.interval, 0.8) < 0.98


@pytest.mark.parametrize("seeds, trials", [(3, 300), (5, 300), (10, 300)])
def test_the_bootstrap_of_whole_rows_covers(seeds, trials):
    """Ten tasks of their own difficulty, networks that are good or bad at all of them, and noise."""
    task_B = np.linspace(-1, 1, 10)
    draw = lambda rng: task_B + 0.3 * rng.normal(size=(seeds, 1)) + 0.1 * rng.normal(size=(seeds, 10))
    found = lambda a_RB: (statistics.interquartile(a_RB.ravel()), metadt.rows_half_width(a_RB))
    assert coverage(draw, found, 0.0, trials) > 0.92

    def redrawn(a_RB):  # seeds anew within every task
        rng = np.random.default_rng(0)
        drawn = np.take_along_axis(a_RB[None], rng.integers(0, seeds, (200, seeds, 10)), 1)
        iqm = statistics.interquartile(a_RB.ravel())
        return iqm, 1.96 * np.std([statistics.interquartile(d.ravel()) for d in drawn])
    assert coverage(draw, redrawn, 0.0, 100) < 0.75
