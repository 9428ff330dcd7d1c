"""A trained run on plain arrays answers what its evaluator counted, and refuses what it cannot take."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import metalearn
from metalearn import api, train
from metalearn.measure import frozen
from metalearn.runtime import config as config_lib
from metalearn.validate import ConfigError


def trained(tmp_path_factory, spec):
    workdir = str(tmp_path_factory.mktemp("api") / "run")
    numbers = train.run(config_lib.load(spec), workdir, quiet=True)
    return api.load(workdir), numbers


@pytest.fixture(scope="module")
def protonet(tmp_path_factory):
    return trained(tmp_path_factory, "configs/fewshot.py:smoke,protonet")


@pytest.fixture(scope="module")
def incontext(tmp_path_factory):
    return trained(tmp_path_factory, "configs/gpicl.py:smoke")


def one_episode(learner, split):
    task = learner.experiment.task
    batch = jax.device_get(next(iter(frozen.Frozen(task, split, 1, 1, 3))))
    return batch.x_BTX[0], batch.y_BT[0], batch


def test_support_and_query_are_the_episode(protonet):
    learner, _ = protonet
    x, y, batch = one_episode(learner, "test")
    S = batch.support
    together = np.asarray(learner.experiment.learner.predict(learner.params, learner.carry, batch))[0, S:]
    np.testing.assert_allclose(learner.predict(x[:S], y[:S], x[S:]), together, rtol=1e-5, atol=1e-5)


def test_any_number_of_shots_queries_and_classes(protonet):
    learner, _ = protonet
    x, y, batch = one_episode(learner, "test")
    S, order = batch.support, np.argsort(y[batch.support:], kind="stable")
    twice = np.concatenate([x[:S], x[:S]]), np.concatenate([y[:S], y[:S]])
    once = learner.predict(x[:S], y[:S], x[S:])
    np.testing.assert_allclose(learner.predict(*twice, x[S:][order]), once[order], rtol=1e-3, atol=1e-3)
    two = y[:S] < 2
    assert learner.predict(x[:S][two], y[:S][two], x[S:S + 1]).shape == (1, 2)


def test_in_context_a_query_after_the_support_is_the_last_position(incontext):
    learner, _ = incontext
    x, y, batch = one_episode(learner, "unseen")
    whole = np.asarray(learner.experiment.learner.predict(learner.params, learner.carry, batch))[0]
    found = learner.predict(x[:-1], y[:-1], x[-1:])
    np.testing.assert_allclose(found[0], whole[-1], rtol=1e-4, atol=1e-5)


def test_what_cannot_be_is_refused(protonet, incontext, tmp_path):
    learner, _ = protonet
    x, y, batch = one_episode(learner, "test")
    S = batch.support
    for arguments, words in [((x[:S], y[:S - 1], x[S:]), "y_support"), ((x[:S], y[:S], x[:0]), "x_query"),
                             ((x[:S], y[:S] + 1, x[S:]), "labels 0..V-1"), ((x[:S], y[:S] * 0.5, x[S:]), "integers"),
                             ((x[:S], y[:S], x[S:, :3]), "must have shape")]:
        with pytest.raises(ConfigError, match=words):
            learner.predict(*arguments)
    classes = np.arange(7, dtype=np.int32)
    with pytest.raises(ConfigError, match="knows 5 classes"):
        incontext[0].predict(np.zeros((7, 8)), classes, np.zeros((1, 8)))
    with pytest.raises(ConfigError, match="workdir"):
        metalearn.load(str(tmp_path))


def test_pixels_are_normalised_as_the_task_did(protonet):
    learner, _ = protonet
    facts = learner.experiment.task.facts
    assert learner.normalise(np.full((1, 2, 2, 1), facts["mean"])) == pytest.approx(0.0, abs=1e-6)
