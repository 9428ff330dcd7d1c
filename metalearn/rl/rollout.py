"""Run a policy in a batch of environments: one scan where the environment is JAX, lock-step on the host where not.

A policy is `policy(memory, time, obs_BS, rew_B, keys_B) -> (memory, act_BA)`; rew_B is what the previous step paid
(zero at the first). It acts for the whole batch at once, so a network is called once per step.

Episode b has a key of its own, keys_B[b], and every random number in it comes from that key: what happens in an episode
is a function of its key, its environment and its policy, not of the other episodes that are run beside it.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from metalearn.types import Array, Env, HostArray, PyTree, Trajectories


def run(env: Env, policy: Callable, memory: PyTree, param_BX: HostArray, keys_B: Array) -> Trajectories:
    """One episode in each environment. Traceable for JAX environments; for host ones call it outside jit."""
    if env.host is not None:
        return run_host(env, policy, memory, param_BX, keys_B)[0]
    num = param_BX.shape[0]
    state, obs_BS = jax.vmap(env.reset)(fold_in(keys_B, env.length), param_BX)

    def step(carry, time):
        memory, state, obs_BS, rew_B, on_B = carry
        keys_env_B, keys_policy_B = _two(fold_in(keys_B, time))
        memory, act_BA = policy(memory, time, obs_BS, rew_B, keys_policy_B)
        state, next_BS, rew_B, terminated_B = jax.vmap(env.step)(keys_env_B, state, act_BA, param_BX)
        rew_B = rew_B * on_B
        out = (obs_BS, act_BA, rew_B, next_BS, terminated_B, on_B)
        return (memory, state, next_BS, rew_B, on_B * (1.0 - terminated_B)), out

    first = (memory, state, obs_BS, jnp.zeros(num), jnp.ones(num))
    _, out = jax.lax.scan(step, first, jnp.arange(env.length))
    return assemble(*(jnp.swapaxes(a, 0, 1) for a in out))


def run_host(env: Env, policy: Callable, memory: PyTree, param_BX: HostArray,
             keys_B: Array) -> tuple[Trajectories, np.ndarray]:
    """`run` in simulators outside JAX, and whether each episode succeeded at some step, bool (B,)."""
    obs_BS, advance = env.host(np.asarray(param_BX), seeds(keys_B))
    rew_B, on_B, steps = np.zeros(len(obs_BS), np.float32), np.ones(len(obs_BS), np.float32), []
    won_B = np.zeros(len(obs_BS), bool)
    for time in range(env.length):
        # numpy scalars: a Python int would be another compilation per step
        memory, act_BA = policy(memory, np.int32(time), obs_BS, rew_B, _policy_keys(keys_B, np.int32(time)))
        next_BS, rew_B, terminated_B, success_B = advance(np.asarray(act_BA))
        rew_B, won_B = rew_B * on_B, won_B | (success_B & (on_B > 0))
        steps.append((obs_BS, np.asarray(act_BA), rew_B, next_BS, terminated_B, on_B))
        obs_BS, on_B = next_BS, on_B * (1.0 - terminated_B)
    return jax.tree.map(np.asarray, assemble(*(np.stack(a, 1) for a in zip(*steps, strict=True)))), won_B


def episode_keys(key: Array, task_B: HostArray, episode_B: HostArray) -> Array:
    """keys_B of episodes, each by its (task id, episode number) alone."""
    return jax.vmap(lambda t, e: jax.random.fold_in(jax.random.fold_in(key, t), e))(
        jnp.asarray(task_B), jnp.asarray(episode_B))


def fold_each(key: Array, number_B: HostArray) -> Array:
    """keys_B: one key with each number folded in."""
    return jax.vmap(lambda n: jax.random.fold_in(key, n))(jnp.asarray(number_B))


def fold_in(keys_B: Array, number: HostArray | int) -> Array:
    """keys_B with one number folded into each."""
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys_B, number)


def seeds(keys_B: Array) -> np.ndarray:
    """int64 seeds, (B,), of simulators outside JAX."""
    return np.asarray(jax.vmap(lambda k: jax.random.randint(k, (), 0, 2**31 - 1))(keys_B), np.int64)


@functools.partial(jax.jit, static_argnums=1)
def normal(keys_B: Array, size: int) -> Array:
    """Standard normal draws (B, size), row b by key b."""
    return jax.vmap(lambda k: jax.random.normal(k, (size,)))(keys_B)


@functools.partial(jax.jit, static_argnums=1)
def uniform_actions(keys_B: Array, size: int) -> Array:
    """Draws (B, size) uniform in -1 to 1, row b by key b."""
    return jax.vmap(lambda k: jax.random.uniform(k, (size,), minval=-1, maxval=1))(keys_B)


def _two(keys_B: Array) -> tuple[Array, Array]:
    pair_BK = jax.vmap(jax.random.split)(keys_B)
    return pair_BK[:, 0], pair_BK[:, 1]


@jax.jit
def _policy_keys(keys_B: Array, time: Array) -> Array:
    return _two(fold_in(keys_B, time))[1]


def assemble(obs_BTS, act_BTA, rew_BT, next_BTS, terminated_BT, mask_BT) -> Trajectories:
    """Whole episodes from what was recorded; fills in time, returns-to-go and truncation, zeroes the padding."""
    B, T = rew_BT.shape
    mask_BT = jnp.asarray(mask_BT, jnp.float32)
    rew_BT = rew_BT * mask_BT
    terminated_BT = (terminated_BT * mask_BT) > 0
    last_BT = mask_BT * jnp.pad(1.0 - mask_BT[:, 1:], ((0, 0), (0, 1)), constant_values=1.0)
    time_BT = jnp.broadcast_to(jnp.arange(T, dtype=jnp.int32), (B, T)) * mask_BT.astype(jnp.int32)
    return Trajectories(
        obs_BTS=obs_BTS * mask_BT[..., None], act_BTA=act_BTA * mask_BT[..., None], rew_BT=rew_BT,
        next_BTS=next_BTS * mask_BT[..., None], rtg_BT=returns_to_go(rew_BT), time_BT=time_BT,
        terminated_BT=terminated_BT, truncated_BT=(last_BT > 0) & ~terminated_BT, mask_BT=mask_BT)


def returns_to_go(rew_BT: Array) -> Array:
    """rtg_t = sum of rew_k over k >= t."""
    return jnp.flip(jnp.cumsum(jnp.flip(rew_BT, -1), -1), -1)


def expert(env: Env) -> Callable:
    """The policy that knows the parameters: they are its memory."""
    return lambda param_BX, time, obs_BS, rew_B, keys_B: (param_BX, expert_action(env, obs_BS, time, param_BX))


def expert_action(env: Env, obs_BS: Array, time: Array, param_BX: Array) -> Array:
    """act_BA of the environment's expert, who takes these to be the parameters."""
    if env.host is not None:
        return env.expert(np.asarray(obs_BS), int(time), np.asarray(param_BX))
    return jax.vmap(env.expert, in_axes=(0, None, 0))(obs_BS, time, param_BX)


def zero_action(env: Env) -> Callable:
    """The policy whose actions are all zero."""
    return lambda memory, time, obs_BS, rew_B, keys_B: (memory, jnp.zeros((obs_BS.shape[0], env.facts["act_size"])))


def uniform(env: Env) -> Callable:
    """Uniform random actions."""
    return lambda memory, time, obs_BS, rew_B, keys_B: (memory, uniform_actions(keys_B, env.facts["act_size"]))
