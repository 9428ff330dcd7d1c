"""A network that acts: from an episode so far to what it is shown of it, and to its next action.

The network sees the episode's last K steps, the window, and the h before them, its history; beside each what that step
was conditioned on. Evaluators play whole batches by it, `metalearn.load(...).act` one step of somebody else's loop.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metalearn.types import Array, HostArray, Learner, Prompted, PyTree, Record, Trajectories, TrajectorySpec, record
from metalearn.validate import require


@record
class History(Record):
    """B episodes so far, in arrays that hold whole ones: zero where nothing has happened yet.

    obs_BTS           observations, the newest at the step that is next
    act_BTA, rew_BT   of the steps before it
    target_B          what the first step is conditioned on: a return, or a rank
    cached            what the network keeps of the steps before, see `cache`; None: it reads them anew
    """

    obs_BTS: Array
    act_BTA: Array
    rew_BT: Array
    target_B: Array
    cached: PyTree


def begin(spec: TrajectorySpec, target_B: HostArray) -> History:
    """Nothing seen yet."""
    shape = len(target_B), max(spec.episode, spec.window)
    return History(jnp.zeros((*shape, spec.obs_size)), jnp.zeros((*shape, spec.act_size)), jnp.zeros(shape),
                   jnp.asarray(target_B, jnp.float32), None)


def observe(history: History, time: Array, obs_BS: Array, rew_B: Array) -> History:
    """With what the environment said before step `time`; rew_B, of the step before, is zero at the first."""
    return history.replace(obs_BTS=_put(history.obs_BTS, time, obs_BS),
                           rew_BT=_put(history.rew_BT, jnp.maximum(time - 1, 0), rew_B))


def acted(history: History, time: Array, act_BA: Array) -> History:
    """With the action of step `time`."""
    return history.replace(act_BTA=_put(history.act_BTA, time, act_BA))


def cache(spec: TrajectorySpec, learner: Learner, params: PyTree, prompt: Trajectories, history: History,
          task_B: Array, param_BX: Array) -> History:
    """The history that keeps what `decide` need not read again at every step; as it is where windows move."""
    if learner.extend is None or spec.window < spec.episode:
        return history
    batch = Prompted(prompt, *_record(spec, history, jnp.int32(0)), task_B, param_BX)
    return history.replace(cached=learner.begin(params, batch))


def decide(spec: TrajectorySpec, learner: Learner, params: PyTree, carry: PyTree, prompt: Trajectories,
           history: History, time: Array, task_B: Array, param_BX: Array) -> tuple[Array, Array, History]:
    """(act_BA, std_BA, history) of step `time`: the action, not clipped; how far a sample would spread; what is kept.

    prompt   earlier episodes of the same tasks as `as_prompt` gives them, or `no_prompt`
    task_B, param_BX   as in `Prompted`; parameters are read by oracles alone

    ConfigError: the learner gives no actions.
    """
    h, record = spec.history, _record(spec, history, time)
    cut = lambda record, first, size: jax.tree.map(
        lambda a: jax.lax.dynamic_slice_in_dim(a, first, h + size, 1), record)
    if history.cached is not None:  # of the step before the action is news; before the first lies nothing
        record = jax.tree.map(lambda a: jnp.pad(a, ((0, 0), (1, 0)) + ((0, 0),) * (a.ndim - 2)), record)
        window, conditioning_BT = cut(record, time, 2)
        batch = Prompted(prompt, window, conditioning_BT, task_B, param_BX)
        out, cached = learner.extend(params, history.cached, batch, time)
        return out["act_BTA"][:, -1], out["std_BTA"][:, -1], history.replace(cached=cached)
    first = jnp.maximum(time - spec.window + 1, 0)
    window, conditioning_BT = cut(record, first, spec.window)
    out = learner.predict(params, carry, Prompted(prompt, window, conditioning_BT, task_B, param_BX))
    require("act_BTA" in out, "learner", ", ".join(out), "predicts no act_BTA: it is no policy")
    act_BA, std_BA = (jnp.take(out[name], time - first, axis=1) for name in ("act_BTA", "std_BTA"))
    return act_BA, std_BA, history


def no_prompt(spec: TrajectorySpec, num: int) -> Trajectories:
    """The prompt of `num` episodes before which nothing is known."""
    T, S, A = spec.history + spec.episode, spec.obs_size, spec.act_size
    zeros: Callable[..., Any] = lambda *tail, dtype=np.float32: np.zeros((num, T, *tail), dtype)
    return Trajectories(zeros(S), zeros(A), zeros(), zeros(S), zeros(), zeros(dtype=np.int32), zeros(dtype=bool),
                        zeros(dtype=bool), zeros())


def as_prompt(spec: TrajectorySpec, episodes: Any) -> Any:
    """Whole episodes (`Trajectories`, or a tree of such arrays) with empty history before their first step."""
    return jax.tree.map(lambda a: jnp.pad(a, ((0, 0), (spec.history, 0)) + ((0, 0),) * (a.ndim - 2)), episodes)


def _record(spec: TrajectorySpec, history: History, time: Array) -> tuple[Trajectories, Array]:
    """(the episode so far, what each step of it was conditioned on), with empty history before the first step."""
    (B, T), at_T = history.rew_BT.shape, jnp.arange(history.rew_BT.shape[1])
    on_BT = jnp.broadcast_to(at_T <= time, (B, T))
    earned_BT = jnp.pad(jnp.cumsum(history.rew_BT, 1)[:, :-1], ((0, 0), (1, 0)))
    left_BT = history.target_B[:, None] - (0.0 if spec.conditioning == "rank" else earned_BT)
    never_BT, nothing_BT = jnp.zeros((B, T), bool), jnp.zeros((B, T))
    steps = Trajectories(
        obs_BTS=history.obs_BTS, act_BTA=history.act_BTA, rew_BT=history.rew_BT,
        next_BTS=jnp.pad(history.obs_BTS[:, 1:], ((0, 0), (0, 1), (0, 0))), rtg_BT=nothing_BT,
        time_BT=at_T * on_BT, terminated_BT=never_BT, truncated_BT=never_BT, mask_BT=on_BT.astype(jnp.float32))
    return as_prompt(spec, (steps, left_BT * on_BT))


def _put(a_BT: Array, time: Array, value_B: Array) -> Array:
    return jax.lax.dynamic_update_slice_in_dim(a_BT, value_B[:, None].astype(a_BT.dtype), time, 1)
