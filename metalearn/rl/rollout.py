"""Run a policy in a batch of environments: one scan where the environment is JAX, lock-step on the host where not.

A policy is `policy(memory, time, obs_BS, rew_B, key) -> (memory, act_BA)`; rew_B is what the previous step paid (zero
at the first). It acts for the whole batch at once, so a network is called once per step.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from metalearn.types import Array, Env, PyTree, Trajectories


def run(env: Env, policy: Callable, memory: PyTree, param_BX: Array, key: Array) -> Trajectories:
    """One episode in each environment. Traceable for JAX environments; for host ones call it outside jit.

    In JAX environments every random number of environment b comes from key b of the split, so what happens there does
    not depend on its neighbours; `policy` gets a key of its own.
    """
    if env.host is not None:
        return _run_host(env, policy, memory, param_BX, key)
    num = param_BX.shape[0]
    key_reset, key_steps = jax.random.split(key)
    state, obs_BS = jax.vmap(env.reset)(jax.random.split(key_reset, num), param_BX)

    def step(carry, time):
        memory, state, obs_BS, rew_B, on_B = carry
        key_env, key_policy = jax.random.split(jax.random.fold_in(key_steps, time))
        memory, act_BA = policy(memory, time, obs_BS, rew_B, key_policy)
        state, next_BS, rew_B, done_B = jax.vmap(env.step)(jax.random.split(key_env, num), state, act_BA, param_BX)
        rew_B = rew_B * on_B
        out = (obs_BS, act_BA, rew_B, next_BS, done_B, on_B)
        return (memory, state, next_BS, rew_B, on_B * (1.0 - done_B)), out

    start = (memory, state, obs_BS, jnp.zeros(num), jnp.ones(num))
    _, out = jax.lax.scan(step, start, jnp.arange(env.length))
    return assemble(*(jnp.swapaxes(a, 0, 1) for a in out))


def _run_host(env: Env, policy, memory, param_BX, key) -> Trajectories:
    seed = int(jax.random.randint(key, (), 0, 2**31 - 1))
    obs_BS, advance = env.host(np.asarray(param_BX), seed)
    rew_B, on_B, steps = np.zeros(len(obs_BS), np.float32), np.ones(len(obs_BS), np.float32), []
    for time in range(env.length):
        # numpy scalars: a Python int would be another compilation per step
        memory, act_BA = policy(memory, np.int32(time), obs_BS, rew_B, jax.random.fold_in(key, time))
        next_BS, rew_B, done_B = advance(np.asarray(act_BA))
        rew_B = rew_B * on_B
        steps.append((obs_BS, np.asarray(act_BA), rew_B, next_BS, done_B, on_B))
        obs_BS, on_B = next_BS, on_B * (1.0 - done_B)
    return jax.tree.map(np.asarray, assemble(*(np.stack(a, 1) for a in zip(*steps, strict=True))))


def assemble(obs_BTS, act_BTA, rew_BT, next_BTS, done_BT, mask_BT) -> Trajectories:
    """Whole episodes from what was recorded; fills in time, returns-to-go and truncation, zeroes the padding."""
    B, T = rew_BT.shape
    mask_BT = jnp.asarray(mask_BT, jnp.float32)
    rew_BT = rew_BT * mask_BT
    done_BT = (done_BT * mask_BT) > 0
    last_BT = mask_BT * jnp.pad(1.0 - mask_BT[:, 1:], ((0, 0), (0, 1)), constant_values=1.0)
    time_BT = jnp.broadcast_to(jnp.arange(T, dtype=jnp.int32), (B, T)) * mask_BT.astype(jnp.int32)
    return Trajectories(
        obs_BTS=obs_BTS * mask_BT[..., None], act_BTA=act_BTA * mask_BT[..., None], rew_BT=rew_BT,
        next_BTS=next_BTS * mask_BT[..., None], rtg_BT=returns_to_go(rew_BT), time_BT=time_BT, done_BT=done_BT,
        cut_BT=(last_BT > 0) & ~done_BT, mask_BT=mask_BT)


def returns_to_go(rew_BT: Array) -> Array:
    """rtg_t = sum of rew_k over k >= t."""
    return jnp.flip(jnp.cumsum(jnp.flip(rew_BT, -1), -1), -1)


def expert(env: Env) -> Callable:
    """The policy that knows the parameters: they are its memory."""
    return lambda param_BX, time, obs_BS, rew_B, key: (param_BX, ask(env, obs_BS, time, param_BX))


def ask(env: Env, obs_BS: Array, time: Array, param_BX: Array) -> Array:
    """act_BA of the environment's expert, who takes these to be the parameters."""
    if env.host is not None:
        return env.expert(np.asarray(obs_BS), int(time), np.asarray(param_BX))
    return jax.vmap(env.expert, in_axes=(0, None, 0))(obs_BS, time, param_BX)


def still(env: Env) -> Callable:
    """Does nothing."""
    return lambda memory, time, obs_BS, rew_B, key: (memory, jnp.zeros((obs_BS.shape[0], env.facts["act_size"])))


def uniform(env: Env) -> Callable:
    """Uniform random actions."""
    def policy(memory, time, obs_BS, rew_B, key):
        return memory, jax.random.uniform(key, (obs_BS.shape[0], env.facts["act_size"]), minval=-1, maxval=1)
    return policy
