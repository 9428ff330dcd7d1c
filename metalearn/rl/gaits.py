"""Sine gaits: data for simulated runners without training a policy for every task.

a_t = clip(A_i sin(2 pi f t dt + phi_i) + b_i, +-1). The best of a library of random gaits for the first of
`facts["targets"]` is refined by climbing on the real return, and from there each next target with the frequency fixed:
neighbouring targets have neighbouring gaits, so what a network imitates is a function of time and target. (On gaits
found for each task alone a decision transformer earned what zero actions do.) The logs are scripted like `history`:
episodes set off with the gait of a wrong target and half of them turn, with action noise.
"""

from typing import Any

import jax
import numpy as np

from metalearn.rl import rollout
from metalearn.types import Env, Trajectories

SPREAD = {"f": 0.1, "A": 0.1, "phi": 0.3, "b": 0.05}  # proposal std of one climbing step
NOISE, TURN_FRAC, POPULATION = 0.1, 0.5, 24


def collect(env: Env, param_BX: np.ndarray, ids_B: np.ndarray, skill_E: np.ndarray, seed: int, library: int,
            climbs: int) -> Trajectories:
    """Trajectories (B x E, T, ...) of one episode per task and skill in [0, 1].

    library   random gaits simulated for the first target
    climbs    rounds of `POPULATION` proposals per target, the best of which is kept if it is better
    """
    targets, table = climb(env, np.random.default_rng(seed), library, climbs)
    B, E = len(param_BX), len(skill_E)
    target_N, skill_N = np.repeat(param_BX[:, 0], E), np.tile(skill_E, B)
    # the generator of an episode is a function of (seed, task id, episode) alone
    rng_N = [np.random.default_rng((seed, int(i), e)) for i in ids_B for e in range(E)]
    wrong_N = target_N + (1 - skill_N) * env.spread_X[0] * np.array([r.standard_normal() for r in rng_N])
    wrong_N = np.clip(wrong_N, targets.min(), targets.max())
    turn_N = np.array([r.integers(5, env.length // 2) if r.random() < TURN_FRAC else env.length for r in rng_N])
    runs = []
    for i in range(0, B * E, 256):
        part = slice(i, i + 256)
        first, then = between(targets, table, wrong_N[part]), between(targets, table, target_N[part])
        runs.append(_run(env, first, then, turn_N[part], target_N[part, None], rng_N[part]))
    return jax.tree.map(lambda *a: np.concatenate(a), *runs)


def climb(env: Env, rng, library: int, climbs: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(targets (W,), their gaits {f (W,), A, phi, b (W, A)})."""
    targets = np.asarray(env.facts["targets"], np.float64)
    pool = _random(rng, library, env.facts["act_size"])
    score_N = np.concatenate([play(env, {k: v[i:i + 256] for k, v in pool.items()}, targets[0], 0)
                              for i in range(0, library, 256)])
    best, found = _take(pool, int(score_N.argmax())), []
    for number, target in enumerate(targets):
        score = play(env, _many(best, 1), target, 0)[0]
        for step in range(climbs * (3 if number == 0 else 1)):
            trial = _nudge(rng, _many(best, POPULATION), free=number == 0)
            score_N = play(env, trial, target, step)  # another reset each time: a gait that only fits one is no gait
            score = 0.5 * (score + play(env, _many(best, 1), target, step)[0])
            if score_N.max() > score:
                best, score = _take(trial, int(score_N.argmax())), score_N.max()
        found.append(best)
    return targets, {k: np.stack([g[k] for g in found]) for k in found[0]}


def between(targets: np.ndarray, table: dict[str, np.ndarray], target_N: np.ndarray) -> dict[str, np.ndarray]:
    """Gaits of any targets, by linear interpolation in the table."""
    order = np.argsort(targets)
    mix = lambda column: np.interp(target_N, targets[order], column[order])
    return {k: mix(v) if v.ndim == 1 else np.stack([mix(c) for c in v.T], 1) for k, v in table.items()}


def actions(gait: dict[str, np.ndarray], time: int, dt: float) -> np.ndarray:
    """act_NA of every gait at a step."""
    phase_NA = 2 * np.pi * gait["f"][:, None] * time * dt + gait["phi"]
    return np.clip(gait["A"] * np.sin(phase_NA) + gait["b"], -1, 1)


def play(env: Env, gait: dict[str, np.ndarray], target: float, seed: int) -> Any:
    """return_N of gaits under one target, without noise, on bare arrays: the inner loop of climbing."""
    num, total = len(gait["f"]), 0.0
    _, advance = env.host(np.full((num, 1), target, np.float32), seed * num + np.arange(num))
    for time in range(env.length):
        total = total + advance(actions(gait, time, env.facts["dt"]))[1]
    return total


def _random(rng, num: int, size: int) -> dict[str, np.ndarray]:
    return {"f": rng.uniform(1, 4, num), "A": rng.uniform(0, 1, (num, size)),
            "phi": rng.uniform(0, 2 * np.pi, (num, size)), "b": rng.uniform(-0.3, 0.3, (num, size))}


def _nudge(rng, gait, free: bool):
    size = rng.choice([0.3, 1.0, 2.0], len(gait["f"]))  # small and large steps in one population
    new = {k: v + SPREAD[k] * (size.reshape(-1, *[1] * (v.ndim - 1)) * rng.standard_normal(v.shape))
           for k, v in gait.items()}
    fixed = {} if free else {"f": gait["f"]}
    return new | {"A": np.clip(new["A"], 0, 1), "b": np.clip(new["b"], -0.5, 0.5)} | fixed


def _take(gait, index):
    return jax.tree.map(lambda v: v[index], gait)


def _many(gait, num):
    return jax.tree.map(lambda v: np.repeat(np.asarray(v)[None], num, 0), gait)


def _run(env: Env, first, then, turn_N, param_NX, rng_N) -> Trajectories:
    obs, advance = env.host(param_NX, np.array([r.integers(2**31) for r in rng_N]))
    noise_NTA = NOISE * np.stack([r.standard_normal((env.length, env.facts["act_size"])) for r in rng_N])
    steps = []
    for time in range(env.length):
        act = np.where((time >= turn_N)[:, None], actions(then, time, env.facts["dt"]),
                       actions(first, time, env.facts["dt"]))
        act = np.clip(act + noise_NTA[:, time], -1, 1).astype(np.float32)
        after, rew, terminated, _ = advance(act)
        steps.append((obs, act, rew, after, terminated, np.ones(len(obs), np.float32)))
        obs = after
    return rollout.assemble(*(np.stack(a, 1) for a in zip(*steps, strict=True)))
