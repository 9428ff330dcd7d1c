"""What a policy is shown of an episode: the last steps, nothing of what is to come, targets counted down."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalearn import lookup
from metalearn.rl import acting
from metalearn.types import Learner
from metalearn.validate import ConfigError

T, H, K = 6, 2, 3
SPEC = lookup.build(
    "tasks", "offline", env=dict(name="point_robot", length=T, goal_range=1.0), data="", cache="", behaviour="history",
    quality="mixed", sac={}, train_tasks=2, test_tasks=1, episodes=2, task_seed=0, data_seed=0, history=H, window=K,
    start_frac=0.5, prompt_span=T, prompt_top=0, conditioning="return", scale=1.0).spec
OBS, ACT, REW = (np.random.default_rng(0).normal(size=(2, T, *tail)).astype(np.float32) for tail in ((2,), (2,), ()))
SHOWN = Learner(None, None, lambda params, carry, batch: {"act_BTA": jnp.zeros((2, K, 2)), "std_BTA": jnp.zeros(
    (2, K, 2)), "batch": batch}, None)


def shown(spec, time):
    """The batch that the network is given at step `time`, after the steps before it one by one."""
    history, seen = acting.begin(spec, np.asarray([10.0, 20.0])), []
    for t in range(time + 1):
        history = acting.observe(history, t, OBS[:, t], REW[:, t - 1] if t else np.zeros(2))
        if t < time:
            history = acting.acted(history, t, ACT[:, t])
    spy = lambda *inputs: seen.append(inputs[2]) or SHOWN.predict(*inputs)
    acting.decide(spec, dataclasses.replace(SHOWN, predict=spy), (), (), acting.no_prompt(spec, 2), history, time,
                  jnp.arange(2), jnp.zeros((2, 2)))
    return seen[0]


@pytest.mark.parametrize("time", (0, 1, 4, 5))
def test_the_last_steps_stand_in_their_places(time):
    """Against the whole episode cut by hand: history and window end at the newest step, or begin with the episode."""
    batch = shown(SPEC, time)
    first = max(time - K + 1, 0)
    at = range(first - H, first + K)
    by_hand = lambda a, until: np.stack([a[:, t] if 0 <= t < until else 0 * a[:, 0] for t in at], 1)
    body = batch.body
    np.testing.assert_array_equal(body.obs_BTS, by_hand(OBS, time + 1))
    np.testing.assert_array_equal(body.act_BTA, by_hand(ACT, time))
    np.testing.assert_array_equal(body.rew_BT, by_hand(REW, time))
    np.testing.assert_array_equal(body.next_BTS, by_hand(np.roll(OBS, -1, 1), time))
    np.testing.assert_array_equal(body.mask_BT, by_hand(np.ones((2, T)), time + 1))
    np.testing.assert_array_equal(body.time_BT, by_hand(np.tile(np.arange(T), (2, 1)), time + 1))
    left = np.asarray([[10.0], [20.0]]) - np.cumsum(np.pad(REW, ((0, 0), (1, 0))), 1)[:, :T]
    np.testing.assert_allclose(batch.conditioning_BT, by_hand(left, time + 1), rtol=1e-5)


def test_a_rank_stays_what_it_is():
    batch = shown(dataclasses.replace(SPEC, conditioning="rank"), 4)
    np.testing.assert_array_equal(batch.conditioning_BT, [[10.0] * (H + K), [20.0] * (H + K)])


def test_a_prompt_begins_with_empty_history():
    episodes = jax.tree.map(lambda a: a[:, H:] + 1, acting.no_prompt(SPEC, 2))
    prompt = acting.as_prompt(SPEC, episodes)
    assert prompt.obs_BTS.shape == acting.no_prompt(SPEC, 2).obs_BTS.shape
    assert not prompt.mask_BT[:, :H].any() and prompt.mask_BT[:, H:].all()


def test_what_predicts_no_actions_is_no_policy():
    learner = Learner(None, None, lambda params, carry, batch: {"code_BTC": jnp.zeros(())}, None)
    with pytest.raises(ConfigError, match="learner=code_BTC: predicts no act_BTA"):
        acting.decide(SPEC, learner, (), (), acting.no_prompt(SPEC, 1), acting.begin(SPEC, np.zeros(1)), 0, None, None)
