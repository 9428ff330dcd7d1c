"""Offline meta-reinforcement learning: windows, prompts and returns-to-go out of logged episodes of many tasks.

The logs come from a file (`python -m metalearn.collect`) or, with `data=""`, are collected here: a function of the
seeds. Test tasks have ids of their own, so they stay the same whatever the number of training tasks; of a file the
first `train_tasks` and the last `test_tasks` are taken. Splits:

  train   training tasks, their training episodes
  held    training tasks, every tenth episode: what to select a world model on
  test    the other tasks

A window is `horizon` steps of context before it, then `window` steps; what lies outside the episode is zero and masked.
"""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metalearn import lookup
from metalearn.rl import behaviours, store
from metalearn.types import Array, Prompted, TaskDist, Trajectories
from metalearn.validate import fraction, nonnegative, one_of, positive, require, within

SPLITS = ("train", "held", "test")
WISHES = ("return", "rank")


def make(
    *,
    env: dict,
    data: str,
    keep: str,
    behaviour: str,
    quality: str,
    sac: dict,
    train_tasks: int,
    test_tasks: int,
    episodes: int,
    task_seed: int,
    data_seed: int,
    horizon: int,
    window: int,
    start_frac: float,
    prompt_span: int,
    prompt_top: int,
    wish: str,
    scale: float,
) -> TaskDist:
    """The distribution.

    env          {"name": ..., its fields}: which environment the data are (to be) from
    data         a trajectory file or minari:NAME; "" collects `episodes` per task by `behaviour` and the two seeds
    quality      mixed | medium | expert: how skilled the behaviour is (see `behaviours`)
    sac          settings of the agents of behaviour `sac` (see `sac.learn`); read by no other
    keep         where to keep what is collected here, and to find it again; "": nowhere
    horizon      h, context steps that a code is read from
    window       K, steps that the policy sees
    start_frac   fraction of windows that begin at the episode's first step; the others anywhere
    prompt_span  steps of another episode of the task to choose a prompt from; 0: no prompt
    prompt_top   prompts come from the task's best so many episodes; 0: from all
    wish         return: rtg is the return-to-go; rank: the episode's place among its task's returns, in [0, 1]
    scale        what returns-to-go are divided by before they enter a network
    """
    one_of(WISHES, wish=wish)
    behaviours.check(behaviour, quality, sac)
    positive(train_tasks=train_tasks, test_tasks=test_tasks, episodes=episodes, horizon=horizon, window=window,
             scale=scale)
    nonnegative(task_seed=task_seed, data_seed=data_seed, prompt_span=prompt_span, prompt_top=prompt_top)
    fraction(start_frac=start_frac)
    with within("env"):
        require("name" in env, "name", "(missing)", "this field must be given")
        world = lookup.build("envs", env["name"], **{k: v for k, v in env.items() if k != "name"})
    num = train_tasks + test_tasks
    ids = behaviours.task_ids(train_tasks, test_tasks)
    fields = json.loads(json.dumps(dict(env)))  # as a header gives it back: lists, not tuples
    want = {"env": fields, "behaviour": behaviour, "quality": quality, "task_seed": task_seed,
            "data_seed": data_seed, "task_ids": ids.tolist(), "episodes": episodes}
    want |= {"sac": dict(sac)} if behaviour == "sac" else {}
    if data:
        param_BX, logs, header = store.load(data)
        have = header.get("env", {})
        require(have == fields, "data", data, f"was collected in {have}, not in {fields}")
        require(len(param_BX) >= num, "data", data, f"holds {len(param_BX)} tasks; train_tasks + test_tasks = {num}")
        sha, ids = header["sha256"], np.asarray(header["task_ids"], np.int32)
    elif keep and os.path.exists(keep):
        param_BX, logs, header = store.load(keep, "keep")
        other = [k for k in want if header.get(k) != want[k]]
        require(not other, "keep", keep, f"holds data collected with another {', '.join(other)}")
        sha = header["sha256"]
    else:
        param_BX, logs = behaviours.collect(world, behaviour, ids, episodes, task_seed, data_seed, quality, sac)
        sha = store.save(keep, param_BX, logs, want) if keep else store.digest(
            {"rew": logs.rew_BT, "act": logs.act_BTA, "param": param_BX})
    E, T = logs.rew_BT.shape[1:]
    require(E >= 2, "episodes", E, "must be at least 2: one in ten is held out")
    shortest = int(logs.mask_BT.sum(-1).min())
    for name, steps in (("window", window), ("prompt_span", prompt_span)):
        require(steps <= shortest, name, steps, f"must be at most {shortest}, the shortest trajectory")
    require(prompt_top <= E, "prompt_top", prompt_top, f"must be at most {E}, the episodes per task")

    held_E = np.arange(E) % 10 == 9 if E >= 10 else np.arange(E) == E - 1
    first, last_ones = slice(0, train_tasks), slice(len(param_BX) - test_tasks, None)
    parts = {"train": _part(logs, param_BX, ids, first, ~held_E, prompt_top),
             "held": _part(logs, param_BX, ids, first, held_E, 0),
             "test": _part(logs, param_BX, ids, last_ones, np.ones(E, bool), prompt_top)}

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
        cut = jax.vmap(lambda t, e, s, steps: _cut(part["logs"], t, e, s - horizon, steps), in_axes=(0, 0, 0, None))
        body = cut(task_N, episode_N, start_N, horizon + window)
        if wish == "rank":
            rank_N = part["rank_BE"][task_N, episode_N]
            body = body.replace(rtg_BT=rank_N[:, None] * body.mask_BT)
        other_N = part["best_BP"][task_N, jax.random.randint(key_prompt, (num,), 0, best)]
        span_N = jax.random.randint(key_span, (num,), 0, T - prompt_span + 1)
        prompt = cut(task_N, other_N, span_N, horizon + prompt_span)
        return Prompted(prompt, body, part["id_B"][task_N], part["param_BX"][task_N])

    train = parts["train"]["logs"]
    obs = train.obs_BTS[train.mask_BT > 0]
    change = train.next_BTS[train.mask_BT > 0] - obs
    best_B = {name: part["logs"].rtg_BT[..., 0].max(1) for name, part in parts.items()}
    facts: dict[str, Any] = {
        "length": window, "episode": T, "horizon": horizon, "window": window, "prompt_span": prompt_span,
        "obs_size": obs.shape[-1], "act_size": train.act_BTA.shape[-1], "param_size": param_BX.shape[-1],
        "obs_mean": obs.mean(0), "obs_std": obs.std(0) + 1e-3, "change_std": change.std(0) + 1e-6,
        "rew_std": float(train.rew_BT[train.mask_BT > 0].std()),
        "wish": wish, "scale": scale, "env": world,
        "env_fields": dict(env), "behaviour": behaviour if not data else header.get("behaviour"),
        "quality": quality if not data else header.get("quality"),
        "train_best": best_B["train"], "sha256": sha, "num_tasks": train_tasks,
        "rew_quantiles": np.quantile(train.rew_BT[train.mask_BT > 0], np.linspace(0, 1, 11)[1:-1])}
    return TaskDist(parts, sample, SPLITS, facts, facts)


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


def _cut(logs: Trajectories, task, episode, start, steps: int) -> Trajectories:
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
