"""Tables of the memory networks' sweeps: the right run in the right cell."""

import json

import pytest

from metalearn.reporting import memnet


def run_at(folder, overrides, result, history):
    (folder / "eval").mkdir(parents=True)
    (folder / "eval" / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in history))
    return overrides, result, str(folder)


def test_overhead_of_synthetic_over_truncated():
    of = lambda rule, ms: ({"learner.rule": rule}, dict(temp_bytes=1, ms_per_update=9.0, cpu_ms_per_update=ms,
                                                        positions_per_second=1.0, compile_seconds=1.0), "")
    found = memnet.cost([of("tbptt", 2.0), of("synthetic", 2.5), of("synthetic", 9.0)], ["a", "a", "b"])
    assert found["headline"]["overhead_of_synthetic"] == {"a": 0.25}
    assert [row[:2] for row in found["tables"][0]["rows"]] == [["a", "tbptt"], ["a", "synthetic"], ["b", "synthetic"]]


def test_longest_solved_is_below_the_level_that_the_curriculum_stands_at():
    arms = {"plain": {}, "traced": {"learner.feedback.trace": 1.0}}
    results = [({"learner.segment": 2} | arms[name],
                {"replicas": [{"setting": {"seed": i}, "level": at} for i, at in enumerate(level)]}, "")
               for name, level in (("plain", [3, 4, 3]), ("traced", [5, 5, 5]))]
    found = memnet.copy(results, arms)["headline"]["longest_solved"]
    assert found == {"plain": {"2": [2, 3, 2]}, "traced": {"2": [4, 4, 4]}}


def test_distance_to_the_target_and_the_curve_over_training(tmp_path):
    at = ("1", "2", "5", "10")
    targets = {"MANN": dict.fromkeys(at, 0.9), "LSTM of others": dict.fromkeys(at, 0.6)}
    rest = {f"instance_{p}": 0.25 for p in (1, 5, 10)} | {f"instance_{p}_ci95": 0.01 for p in (1, 2, 5, 10)}
    results = [run_at(tmp_path / str(i), {}, rest | {"instance_2": second},
                      [{"step": 10, "instance_2": second - 0.1, "instance_10": second}])
               for i, second in enumerate((0.7, 0.65))]
    found = memnet.streams(results, targets)
    assert [row[0] for row in found["tables"][0]["rows"]] == ["LRUA memory", "MANN", "LSTM", "LSTM of others"]
    assert found["headline"]["LRUA memory"]["short_of_target"]["2"] == pytest.approx(0.2)
    assert found["headline"]["LSTM"]["short_of_target"]["2"] == pytest.approx(-0.05)
    assert [s["y"][0] for s in found["curves"][0]["series"]] == pytest.approx([0.6, 0.7, 0.55, 0.65])


def test_batches_until_learned_count_what_each_arm_saw(tmp_path):
    replicas = lambda common, rare: {"replicas": [
        {"setting": {"seed": i}, "common_accuracy": c, "rare_accuracy": r}
        for i, (c, r) in enumerate(zip(common, rare, strict=True))]}
    seen = replicas([1.0, 1.0, 1.0], [0.95, 0.2, 0.95])
    history = [{"step": 200} | replicas([0.5] * 3, [0.1] * 3), {"step": 400} | seen]
    overrides = {"learner.rule": "synthetic", "learner.feedback.context": "label", "task.length": 12}
    found = memnet.gated([run_at(tmp_path, overrides, seen, history)])["headline"]
    assert found["batches_to_90"] == {"cdni": {"12": 100}}  # four updates on each batch
    assert found["batches_to_90_by_seed"]["cdni"]["12"] == [100, None, 100]
    assert found["rare_accuracy"]["cdni"]["12"] == pytest.approx(0.7)
    spread = 4.30265273 * ((2 * 0.25**2 + 0.5**2) / 2 / 3) ** 0.5
    assert found["rare_ci95"]["cdni"]["12"] == pytest.approx(spread)
