"""Tables over memories: by length, by learning rate, by split with what each has above its host."""

import json

import pytest

from configs.tables import memories
from metalearn.reporting.runs import Run


def run(name: str, tmp_path, *rows: dict) -> Run:
    """A finished run of as many replicas."""
    (tmp_path / name / "eval").mkdir(parents=True)
    (tmp_path / name / "eval" / "history.jsonl").write_text(json.dumps({"step": 5, "replicas": list(rows)}) + "\n")
    return Run(name, {}, {"replicas": list(rows), "parameters": 5, "state_size": 7}, str(tmp_path / name))


def recalled(lr: float, *right: float) -> dict:
    return {"setting": {"optim.lr": lr, "seed": 0}, "length_generalisation": {
        "right_by_length": dict(zip(("2", "4"), right, strict=True))}}


def test_lengths_have_intervals_over_seeds_and_rates_stand_apart(tmp_path):
    runs = [run("delta", tmp_path, recalled(0.1, 1.0, 0.5), recalled(0.2, 0.8, 0.4))]
    made = memories.by_length(runs)
    assert made["headline"]["delta"]["4"] == [0.5, 0.4] and made["curves"][0]["x"] == [2, 4]
    (row,), columns = made["tables"][0]["rows"], made["tables"][0]["columns"]
    assert row[:4] == ["delta", 2, 5, 7] and row[4].startswith("0.900 ± 1.27") and len(row) == len(columns)
    made = memories.by_rate(runs)
    assert made["headline"]["delta"]["0.2"] == {"2": 0.8, "4": 0.4}
    assert made["tables"][0]["rows"] == [["delta", 0.1, "1.000", "0.500"], ["delta", 0.2, "0.800", "0.400"]]


def test_a_network_is_compared_with_its_host_seed_by_seed(tmp_path):
    def split(one: float, other: float) -> dict:
        return {"setting": {"seed": 0}, "by_split": {"accuracy": {"a": one, "b": other}, "nats": {"a": 1.0, "b": 2.0},
                                                     "mean_accuracy": (one + other) / 2}}

    made = memories.by_split([run("host", tmp_path, split(0.4, 0.6), split(0.2, 0.4)),
                              run("pmi", tmp_path, split(0.6, 0.6), split(0.4, 0.4))])
    head, rows = made["headline"], made["tables"][0]["rows"]
    assert head["above"]["pmi"] == pytest.approx([0.1, 0.1]) and head["host"]["mean"] == pytest.approx([0.5, 0.3])
    assert head["pmi"]["nats"] == [1.5, 1.5] and [row[0] for row in rows[:3]] == ["a", "b", "mean"]
    assert rows[3] == ["above host", "", "0.100 ± 0.000"] and {len(row) for row in rows} == {3}
