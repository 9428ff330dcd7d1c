"""Who collected the data: behaviours that fill (tasks x episodes) of trajectories, all at once under vmap.

  history   the scripted stand-in for learning histories: an episode of skill q acts as the expert of a *wrong* task,
            the further off the lower q, and in a part of the episodes turns to the right one on the way. On data that
            always head for the goal a sequence model takes its own first action for evidence and runs away
  explore   an expert that pursues a task drawn from the prior for some steps, then the right one
  search    half `history`, half `explore`             scripted  `history` by Meta-World's own experts
  expert    the right task, with little noise          random    uniform actions
  gaits     sine gaits out of a library, refined by hill climbing (see `gaits`)
  sac       an agent per task that learns by soft actor-critic (see `sac`)

Those in SKILLED have qualities: `mixed` has skill rise over a task's episodes from nothing to all, `medium` holds it
halfway, `expert` at its best. Every draw is a function of (seed, task id, episode).
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from metalearn.rl import gaits, rollout, sac
from metalearn.types import Array, Env, HostArray, Trajectories
from metalearn.validate import call, one_of, require, within

FIRST_EVAL_ID = 2**20  # training tasks count from 0, test tasks from here, so they share none
VERSION = 2  # of what is collected: raise it when a change here, in `gaits` or in `sac` changes the logs
NAMES = ("history", "explore", "search", "expert", "random", "scripted", "gaits", "sac")
QUALITIES = ("mixed", "medium", "expert")
SKILLED = ("history", "scripted", "gaits", "sac")  # behaviours that have them
LIBRARY, CLIMBS = 1500, 20  # of `gaits`
AT_ONCE = 50  # simulators outside JAX that run side by side
SWITCH_FRAC = 0.3  # of `history` episodes that turn to the right task
PROBE_FRAC = 0.3  # of the episode that `explore` spends on the wrong one, at most


def check(env: Env, behaviour: str, quality: str, agent: dict | None) -> None:
    """ConfigError where these cannot go together; `agent` is what `sac.learn` takes, and read by `sac` alone."""
    one_of(NAMES, behaviour=behaviour)
    one_of(QUALITIES, quality=quality)
    require(quality == "mixed" or behaviour in SKILLED, "quality", quality,
            f"must be mixed with behaviour={behaviour}: of these only {', '.join(SKILLED)} have skill")
    require(env.expert is not None or behaviour in ("random", "gaits", "sac"), "behaviour", behaviour,
            f"needs an environment with an expert; {env.facts['name']} has none, so random, gaits or sac")
    require(behaviour != "gaits" or "targets" in env.facts, "behaviour", behaviour,
            f"{env.facts['name']} has no targets that gaits could be climbed for")
    if behaviour == "sac":
        with within("sac"):
            call(sac.check, **agent or {})


def task_ids(train: int, test: int) -> np.ndarray:
    """Ids of `train` training tasks, then of `test` test tasks."""
    return np.concatenate([np.arange(train), FIRST_EVAL_ID + np.arange(test)]).astype(np.int32)


def draw_tasks(env: Env, task_seed: int, ids: HostArray) -> Array:
    """param_BX of integer task ids, each a function of (task seed, id) alone."""
    key = jax.random.key(task_seed, impl="threefry2x32")
    return jax.vmap(lambda i: env.draw(jax.random.fold_in(key, i)))(ids)


def skills(quality: str, episodes: int) -> np.ndarray:
    """skill_E in [0, 1] of a task's episodes."""
    order_E = (np.arange(episodes) + 0.5) / episodes
    return {"mixed": order_E, "medium": np.full(episodes, 0.5), "expert": np.ones(episodes)}[quality]


def collect(env: Env, behaviour: str, ids: np.ndarray, episodes: int, task_seed: int, seed: int,
            quality: str = "mixed", agent: dict | None = None) -> tuple[np.ndarray, Trajectories]:
    """(param_BX, Trajectories with axes (B, E, T, ...)) as numpy arrays; episode e of E has skill rank e."""
    check(env, behaviour, quality, agent)
    param_BX, skill_E = np.asarray(draw_tasks(env, task_seed, ids)), skills(quality, episodes)
    if behaviour == "gaits":
        flat = gaits.collect(env, param_BX, ids, skill_E, seed, LIBRARY, CLIMBS)
    elif behaviour == "sac":
        flat = sac.collect(env, param_BX, ids, episodes, seed, quality, agent or {})
    elif env.host is None:
        flat = jax.jit(functools.partial(_collect, env, behaviour))(ids, param_BX, skill_E, seed)
    else:
        flat = _collect(env, behaviour, ids, param_BX, skill_E, seed)
    shape = lambda a: np.asarray(a).reshape(len(ids), episodes, *a.shape[1:])
    return param_BX, jax.tree.map(shape, flat)


def _collect(env: Env, behaviour: str, ids, param_BX, skill_E, seed) -> Trajectories:
    episodes = len(skill_E)
    many_NX = jnp.repeat(param_BX, episodes, 0)  # N = tasks x episodes, a task's episodes side by side
    key_script, key_run = jax.random.split(jax.random.key(seed, impl="threefry2x32"))
    task_N, episode_N = jnp.repeat(jnp.asarray(ids), episodes), jnp.tile(jnp.arange(episodes), len(ids))
    keys_script_N, keys_run_N = (rollout.episode_keys(k, task_N, episode_N) for k in (key_script, key_run))
    script = jax.vmap(functools.partial(_script, env, behaviour))(keys_script_N, many_NX, jnp.tile(skill_E, len(ids)))

    def policy(memory, time, obs_BS, rew_B, keys_B):
        if behaviour == "random":
            return rollout.uniform(env)(memory, time, obs_BS, rew_B, keys_B)
        right_NX, script = memory
        pursued_NX = jnp.where((time >= script["turn"])[:, None], right_NX, script["wrong_X"])
        act_BA = rollout.expert_action(env, obs_BS, time, pursued_NX)
        noise_BA = rollout.normal(keys_B, act_BA.shape[1])
        return memory, jnp.clip(script["gain"][:, None] * act_BA + script["noise"][:, None] * noise_BA, -1, 1)

    if env.host is None:
        return rollout.run(env, policy, (many_NX, script), many_NX, keys_run_N)
    runs = []
    for i in range(0, len(many_NX), AT_ONCE):  # every simulator holds a model in memory
        many, part, keys = jax.tree.map(lambda a, i=i: a[i:i + AT_ONCE], (many_NX, script, keys_run_N))
        runs.append(rollout.run(env, policy, (many, part), many, keys))
    return jax.tree.map(lambda *a: np.concatenate(a), *runs)


def _script(env: Env, behaviour: str, key: Array, param_X: Array, level: Array) -> dict[str, Array]:
    """What one episode does: pursue wrong_X until step `turn`, then the right task, with a gain and noise."""
    key_kind, key_skill, key_wrong, key_turns, key_turn, key_prior, key_probe = jax.random.split(key, 7)
    T, never = env.length, env.length + 1
    skill = jnp.clip(level + 0.01 * jax.random.normal(key_skill), 0, 1)
    turns = jax.random.uniform(key_turns) < SWITCH_FRAC
    history = {
        "wrong_X": param_X + (1 - skill) * jnp.asarray(env.spread_X) * jax.random.normal(key_wrong, param_X.shape),
        "turn": jnp.where(turns, jax.random.randint(key_turn, (), T // 10, (2 * T) // 3), never),
        "gain": 0.4 + 0.6 * skill, "noise": 0.2 + 0.6 * (1 - skill)}
    explore = {
        "wrong_X": env.draw(key_prior),
        "turn": jax.random.randint(key_probe, (), 1, max(2, round(PROBE_FRAC * T)) + 1),
        "gain": jnp.ones(()), "noise": jnp.full((), 0.2)}
    sure = {"wrong_X": param_X, "turn": jnp.zeros((), jnp.int32), "gain": jnp.ones(()), "noise": jnp.full((), 0.1)}
    if behaviour == "search":
        which = jax.random.uniform(key_kind) < 0.5
        return jax.tree.map(lambda a, b: jnp.where(which, a, b), history, explore)
    return {"history": history, "scripted": history, "explore": explore, "expert": sure, "random": sure}[behaviour]
