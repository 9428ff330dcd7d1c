"""The curve along inner steps, on a made-up learner whose error halves with each step."""

from __future__ import annotations

import jax.numpy as jnp
import pytest

from metalearn import lookup
from metalearn.types import Learner
from metalearn.validate import ConfigError


def _task():
    return lookup.build("tasks", "linear", features=2, shots=3, queries=4, noise=0.0, num_tasks=0, task_seed=0)


def _evaluator(learner, **changes):
    fields = dict(split="test", steps=3, episodes=8, chunk=4, seed=1) | changes
    return lookup.build("evaluators", "adaptation", _task(), learner, **fields)


def test_errors_by_step():
    path = lambda params, carry, batch, steps: jnp.stack([batch.y_BT + 2.0**-n for n in range(steps + 1)])
    result = _evaluator(Learner(None, None, None, lambda length: 0, path=path)).run({}, ())
    assert result["facts"]["mean"] == pytest.approx([1, 1 / 4, 1 / 16, 1 / 64])
    head = result["headline"]
    assert (head["mse_0"], head["mse_1"], head["mse_3"]) == pytest.approx((1, 1 / 4, 1 / 64))
    assert head["mse_3_ci95"] == pytest.approx(0, abs=1e-6) and head["mse_nearest_neighbour"] > 0.1


def test_one_episode_that_diverges_moves_the_mean_and_not_the_median():
    def path(params, carry, batch, steps):
        """The first episode of a chunk of four ends at an error of 1e6, the others at 1/4."""
        off_B = jnp.where(jnp.arange(len(batch.y_BT)) == 0, 1e3, 0.5)[:, None, None]
        return jnp.stack([batch.y_BT + (off_B if n == steps else 0.5) for n in range(steps + 1)])

    result = _evaluator(Learner(None, None, None, lambda length: 0, path=path)).run({}, ())
    head = result["headline"]
    assert head["mse_3"] == pytest.approx(250_000, rel=1e-3) and head["mse_3_worst"] == pytest.approx(1e6, rel=1e-3)
    assert head["mse_3_median"] == pytest.approx(0.25, rel=1e-3)
    assert result["tables"][0]["rows"][3][2] == "0.2500"


def test_a_learner_without_steps_is_refused():
    with pytest.raises(ConfigError, match="does not adapt by steps"):
        _evaluator(Learner(None, None, None, lambda length: 0))
