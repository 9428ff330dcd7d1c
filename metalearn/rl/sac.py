"""Soft actor-critic for all tasks at once: one agent per task, advanced side by side, as behaviours of offline data.

Haarnoja et al. (2018) with a fixed temperature, as Meta-DT's data were made: two critics and their slow copies, a
tanh-Gaussian actor, one update per step of the environment. The agents share nothing but the program: all arrays have a
leading task axis, and one vmapped update serves every task. Environments in JAX are scanned with it; simulators outside
advance in lock-step while the updates stay one jitted call per step.

What comes back is the actors as they were after every `every` steps: a ladder of skill, from which behaviours choose.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metalearn.rl import rollout
from metalearn.types import Array, Env, HostArray, PyTree, Trajectories
from metalearn.validate import positive, require

DISCOUNT, SLOWNESS = 0.99, 0.995  # the second: what a slow copy keeps of itself per update
STD = (-5.0, 2.0)  # bounds of the actor's log standard deviation
TRIES = 4  # episodes per checkpoint by which `medium` is found


def collect(env: Env, param_BX: np.ndarray, ids_B: np.ndarray, episodes: int, seed: int, quality: str,
            agent: dict) -> Trajectories:
    """Trajectories (B x E, T, ...) of `episodes` per task by agents that learn on that very task.

    quality   mixed (every task's checkpoints in their order, spread evenly over its episodes) | medium (the first
              checkpoint whose return is halfway from the untrained to the last) | expert (the last)
    agent     what `learn` takes
    """
    ladder = learn(env, param_BX, ids_B, seed, **agent)
    B, last = len(param_BX), agent["steps"] // agent["every"]
    key_tries, key_runs = jax.random.split(jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), 1))
    policy = lambda actor, time, obs_BS, rew_B, keys_B: (actor, jax.vmap(sample)(actor, obs_BS, keys_B))
    if env.host is None:
        play = jax.jit(lambda actor, keys_B: rollout.run(env, policy, actor, jnp.asarray(param_BX), keys_B))
    else:
        once = jax.jit(policy)
        play = lambda actor, keys_B: rollout.run(env, once, actor, param_BX, keys_B)

    def at(rung_B, key, number: int) -> Trajectories:
        keys_B = rollout.episode_keys(key, ids_B, np.full(B, number))
        return play(jax.tree.map(lambda a: a[rung_B, jnp.arange(B)], ladder), keys_B)

    rung_BE = np.tile(np.round(np.linspace(0, last, episodes)).astype(int), (B, 1))
    if quality == "expert":
        rung_BE[:] = last
    if quality == "medium":
        score_KB = np.stack([np.mean([at(np.full(B, k), key_tries, k * TRIES + i).rtg_BT[:, 0]
                                      for i in range(TRIES)], 0) for k in range(last + 1)])
        rung_BE[:] = np.argmax(score_KB >= (score_KB[0] + score_KB[-1]) / 2, axis=0)[:, None]
    runs = [at(rung_BE[:, e], key_runs, e) for e in range(episodes)]
    return jax.tree.map(lambda *a: np.stack(a, 1).reshape(B * episodes, *a[0].shape[1:]), *runs)


def check(*, steps: int, random_steps: int, every: int, hidden: int, batch: int, lr: float, temperature: float) -> None:
    """ConfigError for settings that cannot be; the same keywords as `learn`."""
    positive(steps=steps, random_steps=random_steps, every=every, hidden=hidden, batch=batch, lr=lr,
             temperature=temperature)
    require(random_steps <= steps, "random_steps", random_steps, f"must be at most steps={steps}")
    require(steps % every == 0, "every", every, f"must divide steps={steps}")


def learn(env: Env, param_BX: HostArray, ids_B: HostArray, seed: int, *, steps: int, random_steps: int, every: int,
          hidden: int, batch: int, lr: float, temperature: float) -> PyTree:
    """Actors of every task with axes (checkpoints, B, ...): after 0, `every`, 2 `every`, ... `steps` steps.

    ids_B         task ids; all draws for a task are a function of (seed, its id)
    steps         of the environment per task, an update each once `random_steps` uniform actions are over
    every         steps between two checkpoints
    hidden        width of both hidden layers of actor and critics
    batch         transitions per update, out of all that the task has seen
    temperature   weight of the entropy, in units of reward
    """
    check(steps=steps, random_steps=random_steps, every=every, hidden=hidden, batch=batch, lr=lr,
          temperature=temperature)
    S, A, B = env.facts["obs_size"], env.facts["act_size"], len(param_BX)
    keys = {name: rollout.fold_each(key, ids_B) for name, key in zip(("init", "env", "act", "update"), jax.random.split(
        jax.random.key(seed, impl="threefry2x32"), 4), strict=True)}
    tx = optax.adam(lr)
    agents = jax.vmap(lambda key: _init(key, tx, S, A, hidden))(keys["init"])
    zeros = lambda *tail: jnp.zeros((B, steps, *tail))
    seen = {"obs": zeros(S), "act": zeros(A), "rew": zeros(), "next": zeros(S), "terminated": zeros()}

    def choose(agents, t, obs_BS, keys_B):
        """Uniform at first, then the actor's own draws."""
        now_B = rollout.fold_in(keys_B, t)
        act_BA = jax.vmap(sample)(agents["actor"], obs_BS, now_B)
        return jnp.where(t < random_steps, rollout.uniform_actions(now_B, A), act_BA)

    def absorb(agents, seen, t, step, keys_B):
        """Notes one step of every task; one update each."""
        seen = {k: a.at[:, t].set(step[k].astype(a.dtype)) for k, a in seen.items()}
        update = jax.vmap(lambda agent, seen, key: _update(agent, tx, _draw(seen, t, batch, key), key, temperature))
        agents = jax.lax.cond(t >= random_steps, lambda a: update(a, seen, rollout.fold_in(keys_B, t)), lambda a: a,
                              agents)
        return agents, seen

    first = jax.tree.map(jnp.copy, agents["actor"])  # lock-step `absorb` takes the agents' memory over
    advance = _scanned if env.host is None else _lock_step
    later = advance(env, param_BX, keys, choose, absorb, agents, seen, steps, every)
    return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, later)


def _scanned(env: Env, param_BX, keys, choose, absorb, agents, seen, steps: int, every: int) -> PyTree:
    """Actors after each `every` steps; environments in JAX: one program for all steps."""
    def whole(agents, seen, param_BX, keys):
        def step(carry, t):
            agents, seen, state, obs_BS = carry
            act_BA = choose(agents, t, obs_BS, keys["act"])
            both_BK = jax.vmap(jax.random.split)(rollout.fold_in(keys["env"], t))
            state, next_BS, rew_B, terminated_B = jax.vmap(env.step)(both_BK[:, 0], state, act_BA, param_BX)
            now = dict(obs=obs_BS, act=act_BA, rew=rew_B, next=next_BS, terminated=terminated_B)
            agents, seen = absorb(agents, seen, t, now, keys["update"])
            over_B = terminated_B | ((t + 1) % env.length == 0)
            first = jax.vmap(env.reset)(both_BK[:, 1], param_BX)
            pick = lambda new, old: jnp.where(over_B.reshape(-1, *[1] * (new.ndim - 1)), new, old)
            state, obs_BS = jax.tree.map(pick, first, (state, next_BS))
            return (agents, seen, state, obs_BS), None

        def stage(carry, number):
            carry, _ = jax.lax.scan(step, carry, number * every + jnp.arange(every))
            return carry, carry[0]["actor"]

        state, obs_BS = jax.vmap(env.reset)(keys["env"], param_BX)
        return jax.lax.scan(stage, (agents, seen, state, obs_BS), jnp.arange(steps // every))[1]

    # keys are arguments, not constants: other seeds are the same program
    return jax.jit(whole)(agents, seen, jnp.asarray(param_BX), keys)


def _lock_step(env: Env, param_BX, keys, choose, absorb, agents, seen, steps: int, every: int) -> PyTree:
    """The same with simulators outside JAX."""
    choose, absorb, ladder = jax.jit(choose), jax.jit(absorb, donate_argnums=(0, 1)), []
    for t in range(steps):
        if t % env.length == 0:
            obs_BS, advance = env.host(np.asarray(param_BX), rollout.seeds(rollout.fold_in(keys["env"], t)))
        act_BA = np.asarray(choose(agents, np.int32(t), obs_BS, keys["act"]))
        next_BS, rew_B, terminated_B, _ = advance(act_BA)
        now = dict(obs=obs_BS, act=act_BA, rew=rew_B, next=next_BS, terminated=terminated_B)
        agents, seen = absorb(agents, seen, np.int32(t), now, keys["update"])
        obs_BS = next_BS
        if (t + 1) % every == 0:
            ladder.append(jax.tree.map(np.asarray, agents["actor"]))
    return jax.tree.map(lambda *a: np.stack(a), *ladder)


def sample(actor: PyTree, obs_S: Array, key: Array) -> Array:
    """An action of one actor, drawn from its tanh-Gaussian."""
    return _draw_action(actor, obs_S, key)[0]


def _draw_action(actor, obs_S, key) -> tuple[Array, Array]:
    """(act_A, log density of it)."""
    mean_A, log_std_A = jnp.split(_forward(actor, obs_S), 2)
    log_std_A = jnp.clip(log_std_A, *STD)
    noise_A = jax.random.normal(key, mean_A.shape)
    raw_A = mean_A + jnp.exp(log_std_A) * noise_A
    log_density = -(0.5 * noise_A**2 + log_std_A + 0.5 * jnp.log(2 * jnp.pi))
    log_density -= 2 * (jnp.log(2.0) - raw_A - jax.nn.softplus(-2 * raw_A))  # d tanh, in its stable form
    return jnp.tanh(raw_A), log_density.sum()


def _forward(layers, x_X: Array) -> Array:
    for i, (w, b) in enumerate(layers):
        x_X = x_X @ w + b
        x_X = jax.nn.relu(x_X) if i + 1 < len(layers) else x_X
    return x_X


def _layers(key, *sizes: int) -> list:
    """Weights and biases uniform in +-1/sqrt(inputs)."""
    def one(key, m, n):
        key_w, key_b = jax.random.split(key)
        draw = lambda k, shape: jax.random.uniform(k, shape, minval=-(m**-0.5), maxval=m**-0.5)
        return draw(key_w, (m, n)), draw(key_b, (n,))
    return [one(k, m, n) for k, m, n in zip(jax.random.split(key, len(sizes) - 1), sizes[:-1], sizes[1:], strict=True)]


def _init(key, tx: optax.GradientTransformation, S: int, A: int, hidden: int) -> dict[str, Any]:
    key_actor, key_1, key_2 = jax.random.split(key, 3)
    actor = _layers(key_actor, S, hidden, hidden, 2 * A)
    critics = [_layers(k, S + A, hidden, hidden, 1) for k in (key_1, key_2)]
    return {"actor": actor, "critics": critics, "slow": jax.tree.map(jnp.copy, critics),
            "adam": {"actor": tx.init(actor), "critics": tx.init(critics)}}


def _draw(seen, t, batch: int, key) -> dict[str, Array]:
    at_N = jax.random.randint(jax.random.fold_in(key, 1), (batch,), 0, t + 1)
    return {k: a[at_N] for k, a in seen.items()}


def _update(agent, tx: optax.GradientTransformation, steps, key, temperature: float) -> dict[str, Any]:
    """Critics towards the soft target, then the actor up the lesser critic, then the slow copies."""
    N = len(steps["rew"])
    key_next, key_now = jax.random.split(key)
    value = lambda critic, obs_S, act_A: _forward(critic, jnp.concatenate([obs_S, act_A]))[0]
    lesser = lambda critics, obs_S, act_A: jnp.minimum(*(value(c, obs_S, act_A) for c in critics))

    def soft(critics, actor, obs_S, key):
        act_A, log_density = _draw_action(actor, obs_S, key)
        return lesser(critics, obs_S, act_A) - temperature * log_density

    ahead_N = jax.vmap(lambda o, k: soft(agent["slow"], agent["actor"], o, k))(
        steps["next"], jax.random.split(key_next, N))
    # an episode that is merely truncated goes on beyond its end
    want_N = steps["rew"] + DISCOUNT * (1.0 - steps["terminated"]) * ahead_N

    def critic_loss(critics):
        found = [jax.vmap(lambda o, a, c=c: value(c, o, a))(steps["obs"], steps["act"]) for c in critics]
        return sum(((f - want_N) ** 2).mean() for f in found)

    def actor_loss(actor, critics):
        keys = jax.random.split(key_now, N)
        return -jax.vmap(lambda o, k: soft(critics, actor, o, k))(steps["obs"], keys).mean()

    def descend(part: str, grads):
        updates, state = tx.update(grads, agent["adam"][part])
        return optax.apply_updates(agent[part], updates), state

    critics, critics_adam = descend("critics", jax.grad(critic_loss)(agent["critics"]))
    actor, actor_adam = descend("actor", jax.grad(actor_loss)(agent["actor"], critics))
    slow = jax.tree.map(lambda s, c: SLOWNESS * s + (1 - SLOWNESS) * c, agent["slow"], critics)
    return {"actor": actor, "critics": critics, "slow": slow, "adam": {"actor": actor_adam, "critics": critics_adam}}
