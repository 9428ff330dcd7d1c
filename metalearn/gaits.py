"""Sine gaits: data for simulated runners without training a policy for every task.

a_t = clip(A_i sin(2 pi f t dt + phi_i) + b_i, +-1). A library of random gaits is simulated once and scored for every
task from its speeds and efforts; hill climbing on the real return refines the best of it. What climbing passed through
is the data: misdirected episodes first, corrected ones later, with action noise so that they are not open-loop copies.
"""

from __future__ import annotations

import numpy as np

from metalearn import rollout
from metalearn.types import Env, Trajectories
from metalearn.validate import ConfigError

SPREAD = {"f": 0.2, "A": 0.1, "phi": 0.3, "b": 0.05}  # proposal std of one climbing step
NOISE = 0.05


def collect(env: Env, param_BX: np.ndarray, episodes: int, seed: int, library: int, climbs: int) -> Trajectories:
    """Trajectories (B x E, T, ...) of `episodes` per task, from the library's worst third to the climbed gait.

    library   random gaits simulated for all tasks together
    climbs    accept-if-better steps per task, all tasks in lock-step
    """
    if "gait_score" not in env.facts:
        raise ConfigError("behaviour", "gaits", f"{env.facts['name']} has no forward speed to climb on")
    rng = np.random.default_rng(seed)
    B, A = len(param_BX), env.facts["act_size"]
    pool = _random(rng, library, A)
    speed_NT, effort_NT = [], []
    for start in range(0, library, 256):
        part = {k: v[start:start + 256] for k, v in pool.items()}
        obs_NTS, act_NTA, _ = _play(env, part, np.repeat(param_BX[:1], len(part["f"]), 0), seed)
        speed_NT.append(obs_NTS[..., env.facts["speed_at"]])
        effort_NT.append(np.square(act_NTA).sum(-1))
    speed_NT, effort_NT = np.concatenate(speed_NT), np.concatenate(effort_NT)
    score = env.facts["gait_score"]
    score_BN = np.array([[score(v, e, p) for v, e in zip(speed_NT, effort_NT, strict=True)] for p in param_BX])
    order_BN = np.argsort(score_BN, axis=1)

    stages = max(episodes // 2, 1)
    best = _take(pool, order_BN[:, -1])
    best_B = _play(env, best, param_BX, seed)[2]
    climbed = [best]
    for step in range(climbs):
        trial = _nudge(rng, best)
        got_B = _play(env, trial, param_BX, seed)[2]
        better = got_B > best_B
        best = {k: np.where(better.reshape(-1, *[1] * (v.ndim - 1)), trial[k], v) for k, v in best.items()}
        best_B = np.where(better, got_B, best_B)
        if (step + 1) % max(climbs // stages, 1) == 0:
            climbed.append(best)
    # the first half from the library, from a third of the way up to its best; the second half along the climb
    ranks = np.linspace(library / 3, library - 1, max(episodes - stages, 1)).astype(int)
    gaits = [_take(pool, order_BN[:, r]) for r in ranks] + [climbed[round(i)] for i in np.linspace(
        0, len(climbed) - 1, stages)]
    gaits = gaits[-episodes:]
    many = {k: np.stack([g[k] for g in gaits], 1).reshape(B * episodes, *best[k].shape[1:]) for k in best}
    chunks = [{k: v[i:i + 256] for k, v in many.items()} for i in range(0, B * episodes, 256)]
    params = np.repeat(param_BX, episodes, 0)
    runs = [_run(env, chunk, params[i * 256:(i + 1) * 256], seed + 1 + i, rng) for i, chunk in enumerate(chunks)]
    fields = {f: np.concatenate([np.asarray(getattr(r, f)) for r in runs]) for f in runs[0].__dataclass_fields__}
    return Trajectories(**fields)


def actions(gait: dict[str, np.ndarray], time: int, dt: float) -> np.ndarray:
    """act_NA of every gait at a step."""
    phase_NA = 2 * np.pi * gait["f"][:, None] * time * dt + gait["phi"]
    return np.clip(gait["A"] * np.sin(phase_NA) + gait["b"], -1, 1)


def _random(rng, num: int, size: int) -> dict[str, np.ndarray]:
    return {"f": rng.uniform(0.5, 4, num), "A": rng.uniform(0, 1, (num, size)),
            "phi": rng.uniform(0, 2 * np.pi, (num, size)), "b": rng.uniform(-0.3, 0.3, (num, size))}


def _nudge(rng, gait):
    new = {k: v + SPREAD[k] * rng.standard_normal(v.shape) for k, v in gait.items()}
    return new | {"A": np.clip(new["A"], 0, 1), "b": np.clip(new["b"], -0.5, 0.5)}


def _take(gait, index):
    return {k: v[index] for k, v in gait.items()}


def _play(env: Env, gait, param_BX, seed):
    """(obs_NTS, act_NTA, return_N) without noise, on bare arrays: this is the inner loop of climbing."""
    obs, advance = env.host(param_BX, seed)
    seen, done, total = [], [], 0.0
    for time in range(env.length):
        act_NA = actions(gait, time, env.facts["dt"])
        obs, rew, _ = advance(act_NA)
        seen.append(obs)
        done.append(act_NA)
        total = total + rew
    return np.stack(seen, 1), np.stack(done, 1), total


def _run(env: Env, gait, param_BX, seed, rng) -> Trajectories:
    obs, advance = env.host(param_BX, seed)
    steps = []
    for time in range(env.length):
        act = actions(gait, time, env.facts["dt"])
        act = np.clip(act + NOISE * rng.standard_normal(act.shape), -1, 1).astype(np.float32)
        after, rew, done = advance(act)
        steps.append((obs, act, rew, after, done, np.ones(len(obs), np.float32)))
        obs = after
    return rollout.assemble(*(np.stack(a, 1) for a in zip(*steps, strict=True)))
