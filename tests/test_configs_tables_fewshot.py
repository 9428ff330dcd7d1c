"""The table of few-shot learners: rows by name, means over seeds, each set beside its own nearest neighbour."""

import pytest

from configs.tables import fewshot
from metalearn.reporting.runs import Run


def test_rows_are_learners_and_a_run_that_failed_shifts_nobodys_name():
    head = lambda a: dict(fewshot=dict(accuracy=a, nearest_neighbour=0.3), seconds=1.0)
    runs = [Run(f"{name}, seed {seed}", {}, head(a), "") for name, seed, a in (
        ("maml", 0, 0.5), ("anil", 0, 0.6), ("maml", 1, 0.7), ("pretrained", 1, 0.4))]  # no anil of seed 1
    made = fewshot.learners(runs)
    assert [row[:3] for row in made["tables"][0]["rows"]] == [
        ["maml", 2, "0.6000 ± 1.2706"], ["anil", 1, "0.6000"], ["pretrained", 1, "0.4000"]]
    assert made["headline"]["maml_accuracy"] == pytest.approx(0.6) and made["headline"]["nearest_neighbour"] == 0.3


def test_each_set_stands_beside_its_own_neighbour():
    numbers = dict(accuracy=0.5, nearest_neighbour=0.3, accuracy_new=0.4, nearest_neighbour_new=0.2)
    (table,) = fewshot.learners([Run("maml, seed 0", {}, dict(fewshot=numbers, seconds=1.0), "")])["tables"]
    assert table["columns"] == ["learner", "seeds", "accuracy", "nearest neighbour", "accuracy new",
                                "nearest neighbour new", "seconds"]
    assert table["rows"] == [["maml", 1, "0.5000", "0.3000", "0.4000", "0.2000", "1"]]
