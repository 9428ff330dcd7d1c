"""Table of offline meta-reinforcement learning: policies by label, world models apart."""

import json

from metalearn.reporting import metadt
from metalearn.reporting.runs import Run

REFERENCES = {"few": {"oracle": 3.0, "behaviour": 0.5}, "demo": {"oracle": 2.0}}


def run(folder, label, headline, returns=None):
    (folder / "eval").mkdir(parents=True)
    facts = {"returns": {"zero": returns}, "behaviour_returns": [0.0, 1.0]} if returns else {}
    (folder / "eval" / "few.json").write_text(json.dumps({"facts": facts}))
    return Run(label, {}, headline, str(folder))


def test_methods_keep_their_names_where_a_run_is_missing(tmp_path):
    runs = [run(tmp_path / "w", "world, seed 0", {"world": {"test_mse": 0.5, "probe_r2": 0.9}}),
            run(tmp_path / "a", "metadt, seed 0", REFERENCES, [1.0, 2.0]),
            run(tmp_path / "b", "metadt, seed 1", REFERENCES, [2.0, 3.0]),
            run(tmp_path / "c", "dt, seed 1", REFERENCES, [0.0, 1.0])]  # seed 0 failed
    head = metadt.returns(runs)["headline"]
    assert head["returns"]["metadt"]["zero"]["seeds"] == [1.5, 2.5] and head["returns"]["dt"]["zero"]["seeds"] == [0.5]
    assert head["differences"]["metadt-dt, zero"]["mean"] == 1.5
    assert head["differences"]["metadt-behaviour, zero"]["mean"] == 1.5
    assert head["references"] == {"oracle": 3.0, "behaviour": 0.5} and head["world_probe_r2"] == [0.9]
    assert head["seeds"] == 2
