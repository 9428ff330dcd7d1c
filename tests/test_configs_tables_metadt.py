"""Table of offline meta-reinforcement learning: policies by label, world models apart, sets of tasks together."""

import json

from configs.tables import metadt
from metalearn.reporting.runs import Run

REFERENCES = {"few": {"oracle": 3.0, "behaviour": 0.5}, "demo": {"oracle": 2.0}}
WORLD = {"world": {"test_mse": 0.5, "test_mse_informed": 0.25, "probe_r2": 0.9}}


def run(folder, label, headline, returns=None, **overrides):
    (folder / "eval").mkdir(parents=True)
    facts = {"returns": {"zero": returns}, "behaviour_returns": [0.0, 1.0]} if returns else {}
    (folder / "eval" / "few.json").write_text(json.dumps({"facts": facts}))
    return Run(label, overrides, headline, str(folder))


def test_methods_keep_their_names_where_a_run_is_missing(tmp_path):
    runs = [run(tmp_path / "w", "world, seed 0", WORLD),
            run(tmp_path / "a", "metadt, seed 0", REFERENCES, [1.0, 2.0]),
            run(tmp_path / "b", "metadt, seed 1", REFERENCES, [2.0, 3.0]),
            run(tmp_path / "c", "dt, seed 1", REFERENCES, [0.0, 1.0])]  # seed 0 failed
    result = metadt.returns(runs)
    head = result["headline"]
    assert head["returns"]["metadt"]["zero"]["seeds"] == [1.5, 2.5] and head["returns"]["dt"]["zero"]["seeds"] == [0.5]
    assert head["differences"]["metadt-dt, zero"]["mean"] == 1.5
    assert head["differences"]["metadt-behaviour, zero"]["mean"] == 1.5
    assert head["references"] == {"oracle": 3.0, "behaviour": 0.5} and head["world_probe_r2"] == [0.9]
    assert head["seeds"] == 2 and head["left_out"] == []
    assert head["world_test_mse_informed"] == [0.25] and "0.25000" in result["tables"][-1]["rows"][0]


def test_tasks_of_all_sets_are_units(tmp_path):
    """Two sets of two tasks, two seeds: a mean over four tasks, a row for each seed; what one set lacks is left out."""
    new = lambda name, tasks, returns, line: run(
        tmp_path / f"{name} {tasks}", f"{name}, tasks {tasks}", {"few": {"oracle": line}}, returns,
        **{"task.task_seed": tasks})
    runs = [new("metadt", 2, [1.0, 2.0], 3.0), new("metadt", 3, [5.0, 8.0], 4.0), new("dt", 2, [0.0, 0.0], 3.0),
            new("dt", 3, [1.0, 3.0], 4.0), new("bc", 2, [0.0, 0.0], 3.0),
            run(tmp_path / "again", "metadt, tasks 2, seed 1", REFERENCES, [3.0, 4.0], **{"task.task_seed": 2}),
            run(tmp_path / "more", "metadt, tasks 3, seed 1", REFERENCES, [7.0, 10.0], **{"task.task_seed": 3})]
    head = metadt.returns(runs)["headline"]
    assert head["returns"]["metadt"]["zero"]["seeds"] == [4.0, 6.0] and head["returns"]["dt"]["zero"]["seeds"] == [1.0]
    assert head["differences"]["metadt-dt, zero"]["mean"] == 4.0 and head["left_out"] == ["bc"]
    assert head["returns"]["metadt"]["zero"]["mean"] == 5.0 and head["task_sets"] == 2
    assert metadt.over_sets([{"a": {"x": [[1], [2]]}}, {"a": {"x": [[3]]}}]) == {"a": {"x": [[1, 3]]}}
