"""Sine gaits: data for simulated runners without training a policy for every task.

a_t = clip(A_i sin(2 pi f t dt + phi_i) + b_i, +-1). A library of random gaits is simulated once; the best for the first
wish of `facts["wishes"]` (the fastest run) is refined by climbing on the real return, and so is, from there, each next
wish with the frequency held. So neighbouring wishes have neighbouring gaits, and their mean is a gait again: what a
network imitates is a function of time and wish. (With gaits found for each task alone it is not, and a decision
transformer trained on those earned what standing still does.)

The logs are scripted like `history`: every episode sets off with the gait of a wrong wish, the further off the lower
its skill, and half of them turn to the right one on the way; with action noise, so that they are not open-loop copies.
"""

from __future__ import annotations

import numpy as np

from metalearn.rl import rollout
from metalearn.types import Env, Trajectories
from metalearn.validate import ConfigError

SPREAD = {"f": 0.1, "A": 0.1, "phi": 0.3, "b": 0.05}  # proposal std of one climbing step
NOISE, TURN_FRAC, POPULATION = 0.1, 0.5, 24


def collect(env: Env, param_BX: np.ndarray, skill_E: np.ndarray, seed: int, library: int, climbs: int) -> Trajectories:
    """Trajectories (B x E, T, ...) of one episode per task and skill in [0, 1].

    library   random gaits simulated for the first wish
    climbs    rounds of `POPULATION` proposals per wish, the best of which is kept if it is better
    """
    if "wishes" not in env.facts:
        raise ConfigError("behaviour", "gaits", f"{env.facts['name']} has no wishes that gaits could be climbed for")
    rng = np.random.default_rng(seed)
    wishes, table = climb(env, rng, library, climbs)
    B, E = len(param_BX), len(skill_E)
    wish_N, skill_N = np.repeat(param_BX[:, 0], E), np.tile(skill_E, B)
    wrong_N = wish_N + (1 - skill_N) * env.spread_X[0] * rng.standard_normal(B * E)
    wrong_N = np.clip(wrong_N, wishes.min(), wishes.max())
    turn_N = np.where(rng.random(B * E) < TURN_FRAC, rng.integers(5, env.length // 2, B * E), env.length)
    runs = []
    for i in range(0, B * E, 256):
        part = slice(i, i + 256)
        first, then = between(wishes, table, wrong_N[part]), between(wishes, table, wish_N[part])
        runs.append(_run(env, first, then, turn_N[part], wish_N[part, None], seed + 1 + i, rng))
    fields = {f: np.concatenate([np.asarray(getattr(r, f)) for r in runs]) for f in runs[0].__dataclass_fields__}
    return Trajectories(**fields)


def climb(env: Env, rng, library: int, climbs: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(wishes (W,), their gaits {f (W,), A, phi, b (W, A)})."""
    wishes = np.asarray(env.facts["wishes"], np.float64)
    pool = _random(rng, library, env.facts["act_size"])
    score_N = np.concatenate([play(env, {k: v[i:i + 256] for k, v in pool.items()}, wishes[0], 0)
                              for i in range(0, library, 256)])
    best, found = _take(pool, int(score_N.argmax())), []
    for number, wish in enumerate(wishes):
        score = play(env, _many(best, 1), wish, 0)[0]
        for step in range(climbs * (3 if number == 0 else 1)):
            trial = _nudge(rng, _many(best, POPULATION), free=number == 0)
            score_N = play(env, trial, wish, step)  # another reset each time: a gait that only fits one is no gait
            score = 0.5 * (score + play(env, _many(best, 1), wish, step)[0])
            if score_N.max() > score:
                best, score = _take(trial, int(score_N.argmax())), score_N.max()
        found.append(best)
    return wishes, {k: np.stack([g[k] for g in found]) for k in found[0]}


def between(wishes: np.ndarray, table: dict[str, np.ndarray], wish_N: np.ndarray) -> dict[str, np.ndarray]:
    """Gaits of any wishes, by linear interpolation in the table."""
    order = np.argsort(wishes)
    mix = lambda column: np.interp(wish_N, wishes[order], column[order])
    return {k: mix(v) if v.ndim == 1 else np.stack([mix(c) for c in v.T], 1) for k, v in table.items()}


def actions(gait: dict[str, np.ndarray], time: int, dt: float) -> np.ndarray:
    """act_NA of every gait at a step."""
    phase_NA = 2 * np.pi * gait["f"][:, None] * time * dt + gait["phi"]
    return np.clip(gait["A"] * np.sin(phase_NA) + gait["b"], -1, 1)


def play(env: Env, gait: dict[str, np.ndarray], wish: float, seed: int) -> np.ndarray:
    """return_N of gaits under one wish, without noise, on bare arrays: the inner loop of climbing."""
    num, total = len(gait["f"]), 0.0
    _, advance = env.host(np.full((num, 1), wish, np.float32), seed)
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
    held = {} if free else {"f": gait["f"]}
    return new | {"A": np.clip(new["A"], 0, 1), "b": np.clip(new["b"], -0.5, 0.5)} | held


def _take(gait, index):
    return {k: v[index] for k, v in gait.items()}


def _many(gait, num):
    return {k: np.repeat(np.asarray(v)[None], num, 0) for k, v in gait.items()}


def _run(env: Env, first, then, turn_N, param_NX, seed, rng) -> Trajectories:
    obs, advance = env.host(param_NX, seed)
    steps = []
    for time in range(env.length):
        act = np.where((time >= turn_N)[:, None], actions(then, time, env.facts["dt"]),
                       actions(first, time, env.facts["dt"]))
        act = np.clip(act + NOISE * rng.standard_normal(act.shape), -1, 1).astype(np.float32)
        after, rew, done = advance(act)
        steps.append((obs, act, rew, after, done, np.ones(len(obs), np.float32)))
        obs = after
    return rollout.assemble(*(np.stack(a, 1) for a in zip(*steps, strict=True)))
