"""Offline meta-reinforcement learning: windows, prompts and returns-to-go out of logged episodes of many tasks.

The logs come from a file (`metalearn collect`), of which the first `train_tasks` and the last `test_tasks` are taken,
or, with `data=""`, from a recipe: then building checks it and no more, and `TaskDist.collect(directory)` gives the
distribution with its data. Splits: `train` (training tasks), `validation` (every tenth of their episodes, to select a
world model on), `test` (the other tasks, whose ids are their own).

A window is `history` steps of context, then `window` steps; what lies outside the episode is zero and masked.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metalearn.rl import recipe as recipe_lib, store
from metalearn.types import Array, Prompted, TaskDist, Trajectories, TrajectorySpec, TrajectoryStatistics
from metalearn.validate import fraction, nonnegative, one_of, positive, require

SPLITS = ("train", "validation", "test")


def make(*, env: dict, data: str, cache: str, behaviour: str, quality: str, sac: dict, train_tasks: int,
         test_tasks: int, episodes: int, task_seed: int, data_seed: int, history: int, window: int, start_frac: float,
         prompt_span: int, prompt_top: int, conditioning: str, scale: float) -> TaskDist:
    """The distribution.

    env           {"name": ..., its fields}: which environment the data are (to be) from
    data          a trajectory file; "": `episodes` per task, collected by `behaviour` and the two seeds
    cache         directory of collected data, read by whoever wants the same; "": the one that `collect` is given
    quality       mixed | medium | expert: how skilled the behaviour is (see `behaviours`)
    sac           settings of the agents of behaviour `sac` (see `sac.learn`); read by no other
    history       h, context steps that a code is read from
    window        K, steps that the policy sees
    start_frac    fraction of windows that begin at the episode's first step; the others anywhere
    prompt_span   steps of another episode of the task to choose a prompt from; 0: no prompt
    prompt_top    prompts come from the task's best so many episodes; 0: from all
    conditioning  return: the return-to-go; rank: the episode's place among its task's returns, in [0, 1]
    scale         what returns-to-go are divided by before they enter a network
    """
    one_of(("return", "rank"), conditioning=conditioning)
    recipe = recipe_lib.Recipe(env=dict(env), behaviour=behaviour, quality=quality, sac=dict(sac), episodes=episodes,
                               train_tasks=train_tasks, test_tasks=test_tasks, task_seed=task_seed, data_seed=data_seed)
    positive(history=history, window=window, scale=scale)
    nonnegative(prompt_span=prompt_span, prompt_top=prompt_top)
    fraction(start_frac=start_frac)
    built, T = recipe.built, recipe.built.length
    sizes = built.facts["obs_size"], built.facts["act_size"], len(built.spread_X)
    spec = TrajectorySpec(built, dict(env), *sizes, T, history, window, prompt_span, conditioning, scale,
                          _no_statistics(sizes[0], train_tasks))
    _check_lengths(spec, T, None if data else episodes, prompt_top)
    sample = _sampler(spec, start_frac)

    def with_data(param_BX, logs: Trajectories, header: dict[str, Any]) -> TaskDist:
        """The distribution over these logs."""
        _check_lengths(spec, int(logs.mask_BT.sum(-1).min()), logs.rew_BT.shape[1], prompt_top)
        parts = _parts(param_BX, logs, np.asarray(header["task_ids"], np.int32), train_tasks, test_tasks, prompt_top)
        facts = {name: header.get(name) for name in ("behaviour", "quality", "sha256")}
        found = dataclasses.replace(spec, statistics=_statistics(parts["train"]))
        return TaskDist(parts, sample, SPLITS, found, facts)

    if data:
        return with_data(*_read(data, recipe))
    collect = lambda directory: with_data(*recipe.cached(cache or directory))
    return TaskDist(None, sample, SPLITS, spec, {}, collect=collect)


def _check_lengths(spec: TrajectorySpec, shortest: int, episodes: int | None, prompt_top: int) -> None:
    """What is drawn must fit into the shortest trajectory, and into the episodes of a task, where they are known."""
    for name, steps in (("window", spec.window), ("prompt_span", spec.prompt_span)):
        require(steps <= shortest, name, steps, f"must be at most {shortest}, the shortest trajectory")
    if episodes is not None:
        require(episodes >= 2, "episodes", episodes, "must be at least 2: one in ten is for validation")
        require(prompt_top <= episodes, "prompt_top", prompt_top, f"must be at most {episodes}, the episodes per task")


def _read(path: str, recipe: recipe_lib.Recipe) -> tuple[np.ndarray, Trajectories, dict[str, Any]]:
    """A file of the recipe's environment with enough tasks; by whom it was collected is the file's to say."""
    param_BX, logs, header = store.load(path)
    have, want = header.get("env", {}), recipe.header()["env"]
    require(have == want, "data", path, f"was collected in {have}, not in {want}")
    num = recipe.train_tasks + recipe.test_tasks
    require(len(param_BX) >= num, "data", path, f"holds {len(param_BX)} tasks; train_tasks + test_tasks = {num}")
    return param_BX, logs, header


def _sampler(spec: TrajectorySpec, start_frac: float):
    """sample(data, key, split, num) -> Prompted."""
    T, window, before, span = spec.episode, spec.window, spec.history, spec.prompt_span

    def sample(data, key: Array, split: str, num: int) -> Prompted:
        part = jax.tree.map(jnp.asarray, data[split])
        tasks, total = part["rank_BE"].shape
        best = part["best_BP"].shape[1]
        key_task, key_episode, key_start, key_whole, key_prompt, key_span = jax.random.split(key, 6)
        task_N = jax.random.randint(key_task, (num,), 0, tasks)
        episode_N = jax.random.randint(key_episode, (num,), 0, total)
        last = T - (1 if window == 1 else 2)  # a window of one step may be the last, a longer one has two at least
        start_N = jax.random.randint(key_start, (num,), 0, max(last, 0) + 1)
        start_N = jnp.where(jax.random.uniform(key_whole, (num,)) < start_frac, 0, start_N)
        stretch = jax.vmap(lambda t, e, s, steps: _stretch(part["logs"], t, e, s - before, steps),
                           in_axes=(0, 0, 0, None))
        body = stretch(task_N, episode_N, start_N, before + window)
        rank_N = part["rank_BE"][task_N, episode_N]
        conditioning_BT = rank_N[:, None] * body.mask_BT if spec.conditioning == "rank" else body.rtg_BT
        other_N = part["best_BP"][task_N, jax.random.randint(key_prompt, (num,), 0, best)]
        span_N = jax.random.randint(key_span, (num,), 0, T - span + 1)
        prompt = stretch(task_N, other_N, span_N, before + span)
        return Prompted(prompt, body, conditioning_BT, part["id_B"][task_N], part["param_BX"][task_N])

    return sample


def _statistics(part: dict[str, Any]) -> TrajectoryStatistics:
    logs = part["logs"]
    on = logs.mask_BT > 0
    obs, rew = logs.obs_BTS[on], logs.rew_BT[on]
    change = logs.next_BTS[on] - obs
    return TrajectoryStatistics(obs.mean(0), obs.std(0) + 1e-3, change.std(0) + 1e-6, float(rew.std()),
                                np.quantile(rew, np.linspace(0, 1, 11)[1:-1]), logs.rtg_BT[..., 0].max(1))


def _no_statistics(obs_size: int, tasks: int) -> TrajectoryStatistics:
    zero_S, one_S = np.zeros(obs_size, np.float32), np.ones(obs_size, np.float32)
    return TrajectoryStatistics(zero_S, one_S, one_S, 1.0, np.zeros(9), np.zeros(tasks, np.float32))


def _parts(param_BX, logs: Trajectories, ids_B, train_tasks: int, test_tasks: int, prompt_top: int) -> dict[str, Any]:
    """{split: its arrays}."""
    E = logs.rew_BT.shape[1]
    validation_E = np.arange(E) % 10 == 9 if E >= 10 else np.arange(E) == E - 1
    first, last = slice(0, train_tasks), slice(len(param_BX) - test_tasks, None)
    return {"train": _part(logs, param_BX, ids_B, first, ~validation_E, prompt_top),
            "validation": _part(logs, param_BX, ids_B, first, validation_E, 0),
            "test": _part(logs, param_BX, ids_B, last, np.ones(E, bool), prompt_top)}


def _part(logs: Trajectories, param_BX, ids_B, tasks: slice, episodes_E, prompt_top: int) -> dict[str, Any]:
    """One split's arrays, as data for the jitted program."""
    logs = jax.tree.map(lambda a: np.ascontiguousarray(np.asarray(a)[tasks][:, episodes_E]), logs)
    return_BE = logs.rtg_BT[..., 0]
    order_BE = np.argsort(return_BE, axis=1, kind="stable")
    E = return_BE.shape[1]
    rank_BE = np.argsort(order_BE, axis=1).astype(np.float32) / max(E - 1, 1)
    best_BP = order_BE[:, ::-1][:, : prompt_top or E].astype(np.int32)
    return {"logs": logs, "rank_BE": rank_BE, "best_BP": np.ascontiguousarray(best_BP),
            "id_B": ids_B[tasks], "param_BX": param_BX[tasks]}


def _stretch(logs: Trajectories, task, episode, start, steps: int) -> Trajectories:
    """`steps` steps of one episode from `start` on, which may be negative; what is outside is zero."""
    total = logs.rew_BT.shape[2]
    at_T = start + jnp.arange(steps)
    inside_T = (at_T >= 0) & (at_T < total)
    safe_T = jnp.clip(at_T, 0, total - 1)
    inside_T = inside_T & (logs.mask_BT[task, episode, safe_T] > 0)

    def take(a):
        piece = a[task, episode, safe_T]
        return jnp.where(inside_T.reshape(-1, *[1] * (piece.ndim - 1)), piece, jnp.zeros_like(piece))

    return Trajectories(**{f.name: take(getattr(logs, f.name)) for f in dataclasses.fields(Trajectories)})
