"""Tables of the memory networks' sweeps: the right run in the right cell."""

import json

import pytest

from configs.tables import memnet
from metalearn.measure.statistics import text
from metalearn.reporting.runs import Run


def run_at(folder, label, overrides, result, history, config="{}"):
    (folder / "eval").mkdir(parents=True)
    (folder / "eval" / "history.jsonl").write_text("\n".join(map(json.dumps, history)) + "\n")
    (folder / "config.json").write_text(config)
    return Run(label, overrides, result, str(folder))


def test_overhead_of_synthetic_over_truncated():
    def of(name, rule, ms):
        result = dict(temp_bytes=1, ms_per_update=9.0, cpu_ms_per_update=ms, positions_per_second=1.0,
                      compile_seconds=1.0)
        return Run(f"{name}, {rule}", {"learner.rule": rule}, {"cost": result}, "")
    found = memnet.cost([of("a", "tbptt", 2.0), of("a", "synthetic", 2.5), of("b", "synthetic", 9.0)])
    assert found["headline"]["overhead_of_synthetic"] == {"a": 0.25}
    assert [row[:2] for row in found["tables"][0]["rows"]] == [["a", "tbptt"], ["a", "synthetic"], ["b", "synthetic"]]


def test_longest_solved_is_below_the_difficulty_that_the_curriculum_stands_at():
    rows = lambda difficulty: {"replicas": [{"setting": {"seed": i}, "length_generalisation": {"difficulty": at}}
                                       for i, at in enumerate(difficulty)]}
    runs = [Run(f"{name}, T=2", {"learner.segment": 2}, rows(difficulty), "")
            for name, difficulty in (("plain", [3, 4, 3]), ("traced", [5, 5, 5]))]
    found = memnet.copy(runs)["headline"]["longest_solved"]
    assert found == {"plain": {"2": [2, 3, 2]}, "traced": {"2": [4, 4, 4]}}


def test_streams_are_means_over_seeds_and_a_lead_over_the_lstm_of_the_same_seed(tmp_path):
    at = ("1", "2", "5", "10")
    targets = {"MANN of others": dict.fromkeys(at, 0.9), "LSTM of others": dict.fromkeys(at, 0.6)}
    config = json.dumps({"evaluators": {"kth_presentation": {"targets": targets}}})
    rest = {f"instance_{p}": 0.25 for p in (1, 5, 10)}
    runs = [run_at(tmp_path / f"{name}{seed}", f"{name}, seed {seed}", {"seed": seed},
                   {"kth_presentation": rest | {"instance_2": second}}, [], config)
            for name, seed, second in (("MANN", 0, 0.7), ("LSTM", 0, 0.65), ("MANN", 1, 0.5), ("LSTM", 2, 0.6))]
    found = memnet.streams(runs)
    table = found["tables"][0]["rows"]
    assert [row[:2] for row in table] == [["MANN", 2], ["MANN of others", ""], ["LSTM", 2], ["LSTM of others", ""],
                                          ["MANN - LSTM", 1]]
    assert table[0][3] == text(0.6, 12.7062047 * 0.1, 3)  # Student's t of two seeds, standard error .1
    assert found["headline"]["MANN"]["ahead_of_lstm"]["2"] == pytest.approx([0.05])  # of seed 0, which both have
    alone = memnet.streams(runs[1:2])["tables"][0]["rows"]  # the memory's run failed: nobody else gets its name
    assert [row[0] for row in alone] == ["LSTM", "LSTM of others"]


@pytest.mark.parametrize("evaluator, names", [("kth_presentation", ("common_accuracy", "rare_accuracy")),
                                              ("squared_error", ("error", "error_of_zero"))])
def test_credit_is_by_seed_with_what_the_feedback_explained_last(tmp_path, evaluator, names):
    runs = []
    for rule, r2 in (("DNI", {"sg_r2": [-2.0, 0.25]}), ("TBPTT", {})):
        rows = [{"setting": {"seed": i}, evaluator: {names[0]: value, names[1]: 0.5}} for i, value in enumerate((1, 2))]
        run = run_at(tmp_path / rule, f"nse {rule}", {}, {"replicas": rows}, [])
        lines = [{"step": step, "by_replica": {name: [9.0] * (3 - step) for name in r2} | (r2 if step == 2 else {})}
                 for step in (1, 2)]
        (tmp_path / rule / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
        runs.append(run)
    found = memnet.credit(runs)
    assert found["headline"]["nse DNI"] == {names[0]: [1, 2], names[1]: [0.5, 0.5], "sg_r2": [-2.0, 0.25]}
    assert [row[0] for row in found["tables"][0]["rows"]] == ["nse DNI", "nse TBPTT"]
    assert found["tables"][0]["rows"][0][1:] == [text(1.5, 12.7062047 * 0.5, 3), text(0.5, 0.0, 3), "-2 0.25"]
    assert found["tables"][0]["rows"][1][-1] == ""
    alone = run_at(tmp_path / "alone", "nse DNI", {}, {evaluator: {names[0]: 1, names[1]: 0.5}}, [])
    (tmp_path / "alone" / "metrics.jsonl").write_text(json.dumps({"step": 2, "sg_r2": 0.25}) + "\n")
    assert memnet.credit([alone])["headline"]["nse DNI"] == {names[0]: [1], names[1]: [0.5], "sg_r2": [0.25]}


def test_feedback_and_basis_together_are_compared_with_either_alone_seed_by_seed(tmp_path):
    rare = {"source": (0.9, 0.9), "24: basis": (0.1, 0.2), "24: feedback": (0.0, 0.1), "24: basis and feedback":
            (0.5, 0.9), "24: basis, learned on": (0.8, 0.8), "24: basis and feedback, learned on": (0.7, 0.9)}
    runs = []
    for i, (label, values) in enumerate(rare.items()):
        rows = [{"setting": {"seed": j}, "rare": {"common_accuracy": 1.0, "rare_accuracy": v}}
                for j, v in enumerate(values)]
        half = [{"rare": {"common_accuracy": 1.0, "rare_accuracy": 0.0}}] * 2
        history = [{"step": 8, "replicas": half}, {"step": 16, "replicas": rows}]
        runs.append(run_at(tmp_path / str(i), label, {}, {"replicas": rows}, history))
    found = memnet.shared(runs)
    assert "source" not in found["headline"]["area_rare"]
    assert found["headline"]["area_rare"]["24: basis"] == pytest.approx([0.05, 0.1])  # the mean of both evaluations
    paired = found["headline"]["paired"]
    assert paired["24: basis and feedback - basis"] == pytest.approx([0.2, 0.35])
    assert paired["24: basis and feedback - feedback"] == pytest.approx([0.25, 0.4])
    assert paired["24: basis and feedback, learned on - basis"] == pytest.approx([-0.05, 0.05])
    assert len(paired) == 3 and len(found["tables"][0]["rows"]) == 5 + 3


def test_batches_until_learned_count_what_each_arm_saw(tmp_path):
    replicas = lambda common, rare: {"replicas": [
        {"setting": {"seed": i}, "rare": {"common_accuracy": c, "rare_accuracy": r}}
        for i, (c, r) in enumerate(zip(common, rare, strict=True))]}
    seen = replicas([1.0, 1.0, 1.0], [0.95, 0.2, 0.95])
    history = [{"step": 200} | replicas([0.5] * 3, [0.1] * 3), {"step": 400} | seen]
    run = run_at(tmp_path / "run", "cdni, L=12", {"task.length": 12}, seen, history)
    found = memnet.gated([run])["headline"]
    lstm = memnet.gated([run_at(tmp_path / "lstm", "lstm bptt, L=12", {"task.length": 12}, seen, history)])["headline"]
    assert lstm["batches_to_90"] == {"lstm bptt": {"12": 400}}  # one update on each batch
    assert found["batches_to_90"] == {"cdni": {"12": 100}}  # four updates on each batch
    assert found["batches_to_90_by_seed"]["cdni"]["12"] == [100, None, 100]
    assert found["rare_accuracy"]["cdni"]["12"] == pytest.approx(0.7)
    spread = 4.30265273 * ((2 * 0.25**2 + 0.5**2) / 2 / 3) ** 0.5
    assert found["rare_ci95"]["cdni"]["12"] == pytest.approx(spread)
