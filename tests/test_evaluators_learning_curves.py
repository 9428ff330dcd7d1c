"""Learning curves: the phase rule on made-up scores, the definitions, and episodes that are frozen by their seed."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalearn import datasets, lookup
from metalearn.evaluators import learning_curves
from metalearn.types import Episodes, EpisodeSpec, TaskDist
from metalearn.validate import ConfigError

CHANCE = 0.2


def scores(ci=0.0, **sets):
    """{set: (first, last)} as the evaluator keeps them."""
    return {name: {"learner": dict(first=a, first_ci95=ci, last=b, last_ci95=ci, learning=b - a, learning_ci95=ci)}
            for name, (a, b) in sets.items()}


@pytest.mark.parametrize("phase, ci, sets", [
    ("not trained", 0.0, dict(seen=(0.2, 0.24), unseen=(0.2, 0.2))),
    ("memorise", 0.0, dict(seen=(0.9, 0.92), unseen=(0.2, 0.22))),
    ("identify", 0.0, dict(seen=(0.3, 0.9), unseen=(0.2, 0.22))),
    ("general", 0.0, dict(seen=(0.2, 0.9), unseen=(0.2, 0.8))),
    ("general", 0.0, dict(seen=(0.2, 0.9), unseen=(0.2, 0.8), new=(0.2, 0.22))),
    ("dataset-general", 0.0, dict(seen=(0.2, 0.9), unseen=(0.2, 0.8), new=(0.2, 0.5))),
    ("identify", 0.1, dict(seen=(0.3, 0.9), unseen=(0.2, 0.3))),  # .10 - .084 is below tau, the point estimate above
    ("general", 0.05, dict(seen=(0.3, 0.9), unseen=(0.2, 0.3))),  # .10 - .042 is not
    ("not trained", 0.1, dict(seen=(0.2, 0.3), unseen=(0.2, 0.2))),
    ("dataset-general, recalls", 0.0,
     dict(seen=(0.2, 0.9), unseen=(0.2, 0.8), new=(0.2, 0.5), seen_random_labels=(0.6, 0.6))),
    ("general, recalls", 0.0, dict(seen=(0.2, 0.9), unseen=(0.2, 0.8), seen_random_labels=(0.26, 0.26))),
    ("general", 0.0, dict(seen=(0.2, 0.9), unseen=(0.2, 0.8), seen_random_labels=(0.24, 0.24))),
    ("general", 0.02, dict(seen=(0.2, 0.9), unseen=(0.2, 0.8), seen_random_labels=(0.26, 0.26))),  # .26 - .017
    ("memorise", 0.0, dict(seen=(0.9, 0.92), unseen=(0.2, 0.22), seen_random_labels=(0.9, 0.9))),
    (None, 0.0, dict(seen=(0.2, 0.9), new=(0.2, 0.9)))])
def test_the_phase_rule(phase, ci, sets):
    assert learning_curves.phase(scores(ci, **sets), CHANCE) == phase


def test_headline_definitions():
    head = learning_curves._headline(scores(0.01, seen=(0.6, 0.9), unseen=(0.2, 0.5), new=(0.2, 0.4)), CHANCE)
    expected = dict(seen_first=0.6, learning_seen=0.3, gap=0.4, memorisation=0.5, generalisation_unseen=0.3,
                    generalisation_newclass=0.2, newclass_last=0.4, unseen_ci95=0.01, phase="dataset-general")
    for name, value in expected.items():
        assert head[name] == (value if isinstance(value, str) else pytest.approx(value)), name


def test_first_last_and_their_intervals():
    hit_ET = np.array([[0, 0, 1, 1, 1, 1], [1, 0, 0, 0, 0, 1], [0, 1, 1, 1, 1, 1]])
    got = learning_curves.summaries({"learner": hit_ET}, np.full(hit_ET.shape, np.nan))["learner"]
    last = np.array([0.8, 0.2, 1.0])
    assert got["first"] == pytest.approx(1 / 3) and got["last"] == pytest.approx(last.mean()) and got["final"] == 1
    assert got["last_ci95"] == pytest.approx(4.302653 * last.std(ddof=1) / 3**0.5)
    assert got["learning"] == pytest.approx(last.mean() - 1 / 3)
    assert got["learning_ci95"] == pytest.approx(4.302653 * (last - [0, 1, 0]).std(ddof=1) / 3**0.5)
    assert "fresh" not in got and "ahead" not in got  # which examples it shows was not said; no baseline


def test_repeats_and_accuracy_without_them():
    again = learning_curves.repeats(np.array([[4, 4, 5, 4], [1, 2, 3, 1], [7, 7, 7, 7], [0, -1, -1, -1]]))
    np.testing.assert_array_equal(again[:3], [[0, 1, 0, 1], [0, 0, 0, 1], [0, 1, 1, 1]])
    assert np.isnan(again[3]).all()
    hit_ET = np.array([[0, 1, 0, 1], [1, 0, 1, 1], [1, 1, 1, 1]])
    got = learning_curves.summaries({"learner": hit_ET}, again[:3])["learner"]
    assert got["last"] == pytest.approx((0.5 + 0.75 + 1) / 3) and got["fresh"] == pytest.approx((0 + 2 / 3 + 1) / 3)
    none = learning_curves.summaries({"learner": hit_ET[:, 1:]}, np.array([[1, 1, 1], [0, 0, 1], [1, 1, 1]]))
    assert none["learner"]["fresh"] == 0.5  # episodes with nothing fresh at the end do not count


def test_the_learner_against_the_best_baseline_on_the_same_episodes():
    rng = np.random.default_rng(0)
    rows = {name: rng.random((40, 7)) < p for name, p in (("learner", 0.95), ("weak", 0.3), ("strong", 0.7))}
    again_ET = (rng.random((40, 7)) < 0.3).astype(float)
    found = learning_curves.summaries(rows, again_ET)
    gap_E = rows["learner"][:, -5:].mean(1) - rows["strong"][:, -5:].mean(1)
    s = found["learner"]
    assert s["ahead"] == pytest.approx(gap_E.mean()) and s["ahead_of"] == s["ahead_fresh_of"] == "strong"
    assert s["ahead_ci95"] == pytest.approx(2.022691 * gap_E.std(ddof=1) / 40**0.5)
    assert s["ahead_fresh"] == pytest.approx(s["fresh"] - found["strong"]["fresh"])
    assert learning_curves._headline({"unseen": found}, CHANCE)["unseen_ahead"] == s["ahead"]

    def starred(rows):
        table, fresh = learning_curves.tables({"unseen": learning_curves.summaries(rows, again_ET)})
        assert len(table["columns"]) == len(table["rows"][0]) == len(fresh["rows"][0])
        return [c for c, cell in zip(table["columns"], table["rows"][0], strict=True) if cell.endswith("*")]

    assert starred(rows) == ["learner, last"]
    assert starred(rows | {"learner": rows["weak"]}) == ["strong"]
    assert starred(rows | {"learner": rows["strong"] ^ (np.arange(40)[:, None] < 1)}) == []  # too close to call


def evaluate(seed=1, chunk=8, block=8, sets=("seen", "unseen_random_labels")):
    """On a small task whose labels are drawn from the key, and a learner that knows those above zero."""
    def sample(data, key, split, num):
        y_BT = jax.random.randint(key, (num, 6), 0, 4)
        mask_BT = jnp.ones((num, 6))
        mask_BT = mask_BT.at[:, :-1].set(0.0) if split.endswith("random_labels") else mask_BT
        return Episodes(jax.nn.one_hot(y_BT, 4), y_BT, mask_BT, jnp.zeros(num, jnp.int32), y_BT)

    def pool(name):  # one dataset is here, the others are not
        if name != "blobs":
            raise datasets.Absent("dataset", name, "is not here")
        return dataclasses.replace(task, facts=dict(new_dataset=name), splits=(*task.splits, "new"))

    task = TaskDist((), sample, ("seen", "unseen_random_labels"),
                    EpisodeSpec(length=1, features=1, targets="classes", outputs=4), dict(num_tasks=3), pool=pool)
    learner = types.SimpleNamespace(predict=lambda params, carry, batch: batch.x_BTX.at[..., 0].set(0.5 * params))
    evaluator = lookup.build("evaluators", "learning_curves", task, learner, sets=sets, baselines=("1nn",),
                             episodes=16, block=block, chunk=chunk, seed=seed)
    return evaluator.run


def test_episodes_are_frozen_by_the_seed():
    run = evaluate()
    a, again, b = run(1.0, ()), run(1.0, ()), evaluate(seed=2)(1.0, ())
    assert a["headline"] == again["headline"] == evaluate()(1.0, ())["headline"]
    assert a["headline"]["episodes_sha256"] != b["headline"]["episodes_sha256"]
    assert len(set(a["facts"]["set_sha256"].values())) == 2  # each set has its own episodes
    other = run(3.0, ())  # another learner meets the same episodes and baselines
    assert other["headline"]["episodes_sha256"] == a["headline"]["episodes_sha256"]
    assert other["headline"]["seen_1nn"] == a["headline"]["seen_1nn"]
    assert a["headline"]["seen_last"] == 1.0 and other["headline"]["seen_last"] < 0.6  # class 0 always


@pytest.mark.parametrize("chunk", [2, 16])
def test_the_chunk_is_memory_and_nothing_else(chunk):
    """With a learner that is right about half of the time, so that other episodes would give other numbers."""
    found, again = (evaluate(chunk=c)(3.0, ()) for c in (chunk, 8))
    assert found["headline"] == again["headline"] and found["facts"]["set_sha256"] == again["facts"]["set_sha256"]
    assert evaluate(block=16, chunk=chunk)(3.0, ())["headline"] != found["headline"], "the block is of the protocol"


def test_only_scored_positions_make_curves():
    got = evaluate()(1.0, ())
    assert [c["title"] for c in got["curves"]] == ["seen"]
    assert [s["name"] for s in got["curves"][0]["series"]] == ["learner", "1nn"]
    assert len(got["curves"][0]["x"]) == 6 and got["curves"][0]["levels"] == {"chance": 0.25}
    assert len(got["tables"][0]["rows"]) == 2 and len(got["tables"][1]["rows"]) == 1
    assert "unseen_random_labels_first" not in got["headline"]


def test_pools_are_scored_as_new_classes_where_they_are_here():
    got = evaluate(sets=("seen", "pool:blobs", "pool:mnist"))(1.0, ())
    assert got["facts"]["absent"] == ["pool:mnist"] and "not on this machine: pool:mnist" in got["tables"][0]["title"]
    assert [row[0] for row in got["tables"][0]["rows"]] == ["seen", "pool:blobs"]
    head = got["headline"]
    assert head["pool_blobs_last"] == 1.0 and "pool_blobs_ahead" in head and "pool_mnist_last" not in head
    alone = evaluate(sets=("seen",))(1.0, ())["headline"]
    assert head["episodes_sha256"] == alone["episodes_sha256"], "which pools are here does not count"
    nothing = evaluate(sets=("pool:mnist",))(1.0, ())
    assert nothing["tables"][0]["rows"] == [] and "pool:mnist" in nothing["tables"][0]["title"]


@pytest.mark.parametrize("changes, text", [(dict(chunk=5), "episodes=16: must be a multiple of chunk=5"),
                                           (dict(chunk=4, block=6), "must divide block=6"),
                                           (dict(sets=()), "sets"), (dict(sets=("sen",)), "nearest: seen"),
                                           (dict(sets=("pool:mnst",)), "nearest: pool:mnist")])
def test_refusals(changes, text):
    with pytest.raises(ConfigError, match=text):
        evaluate(**changes)
