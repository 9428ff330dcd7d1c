"""What a policy earns on tasks it has never seen, with the budget of every protocol counted.

Methods (a frozen network in all; `rounds` = n):

  zero           no prompt, the first episode on the task; `zero_sample` draws from the policy's own spread
  few_none       n adaptation episodes by the deterministic policy, prompted by the best of them so far
  few_random     the same, the first `explore_steps` actions of each adaptation episode uniform
  few_gauss      the same, with Gaussian noise of std `noise` on all actions
  few_sample     the same, actions drawn from the policy's own spread: it decides how much to explore
  demo           prompted by the best logged episode of the test task: a demonstration, not few-shot
  demo_median    prompted by the median one

A few-shot number is one more, deterministic episode after the n, none of which it uses but the best as a prompt; the
adaptation episodes' own returns are reported round by round. Few-shot and zero-shot read nothing of a test task but
what the agent itself collected, so `target=task_max` is refused for them.

Target return: `task_max` the best logged return of that very task; `train_max` the best of all training tasks;
`train_mean` the mean over training tasks of each one's best; `fixed`. With conditioning=rank it is rank 1.

Reference lines on the same tasks: the expert that knows the parameters, the behaviour's mean and best, zero actions,
uniform actions. Every random number in an episode is a function of (seed, method, round, task id, repeat), the episode
after n rounds having a number of its own, whatever `rounds` is.
"""

import dataclasses
import functools
import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metalearn.measure import statistics
from metalearn.rl import acting, rollout
from metalearn.types import Array, Evaluator, Learner, Result, TaskDist, Trajectories, TrajectorySpec
from metalearn.validate import nonnegative, one_of, positive, require

METHODS = ("zero", "zero_sample", "few_none", "few_random", "few_gauss", "few_sample", "demo", "demo_median")
AFTER = 2**20  # + n: the number of the deterministic episode after n rounds, past that of any adaptation episode
TARGETS = ("task_max", "train_max", "train_mean", "fixed")


def make(task: TaskDist, learner: Learner, *, methods: tuple[str, ...], rounds: int, after: tuple[int, ...],
         explore_steps: int, noise: float, target: str, target_value: float, repeats: int, seed: int) -> Evaluator:
    """Runs every method on all test tasks, each `repeats` times over (other exploration, other resets).

    rounds   adaptation episodes of the few-shot methods
    after    rounds after which the deterministic episode is run too
    target   see above; `target_value` is used by fixed alone
    """
    require(len(methods) > 0, "methods", methods, "must name at least one")
    for name in methods:
        one_of(METHODS, methods=name)
    one_of(TARGETS, target=target)
    positive(rounds=rounds, repeats=repeats)
    nonnegative(explore_steps=explore_steps, noise=noise)
    for n in after:
        require(1 <= n <= rounds, "after", n, f"must lie between 1 and rounds={rounds}")
    own = [m for m in methods if not m.startswith("demo")]
    require(not (own and target == "task_max"), "target", target,
            f"is knowledge of the test task: not for {', '.join(own)}; use train_max, train_mean or fixed")
    spec, player = task.spec, _Player(task.spec, learner)
    chosen = [(number, name) for number, name in enumerate(METHODS) if name in methods]

    def run(params, carry) -> Result:
        carry, part = jax.tree.map(jnp.asarray, carry), task.data["test"]
        tests = _Tests(np.repeat(part["id_B"], repeats), np.tile(np.arange(repeats), len(part["id_B"])),
                       np.repeat(part["param_BX"], repeats, 0))
        target_E = _targets(spec, part, target, target_value, repeats)
        root = jax.random.key(seed, impl="threefry2x32")
        found = _Found({}, {}, {}, {})
        for number, method in chosen:
            key = jax.random.fold_in(root, number)
            go = lambda prompt, knobs, r, key=key: player.play(
                params, carry, prompt, knobs, tests, target_E, tests.keys(jax.random.fold_in(key, r)))
            none = acting.no_prompt(spec, len(target_E))
            if method.startswith("demo"):
                logged = _demonstrations(part, 0.5 if method == "demo_median" else 1.0, repeats)
                found.score(method, go(acting.as_prompt(spec, logged), _knobs(), 0))
            elif method.startswith("zero"):
                found.score(method, go(none, _knobs(sample=float(method == "zero_sample")), 0))
            else:
                _adapt(player, found, method, go, none, rounds, after, explore_steps, noise, repeats)
        lines = _references(spec, tests, part, repeats, root)
        headline, tables, curves = _report(found, lines, methods, repeats, target)
        protocol = {"target": target, "tasks": len(part["id_B"]), "rounds": rounds, "explore_steps": explore_steps,
                    "adaptation_steps": rounds * spec.episode, "episodes_sha256": tests.sha256(seed)}
        facts = {"seed": seed, "target": target, "target_return": float(np.mean(target_E)), "repeats": repeats,
                 "noise": noise, "history": spec.history, "data_sha256": task.facts["sha256"],
                 "behaviour": task.facts["behaviour"], "quality": task.facts["quality"],
                 "environment": {k: v for k, v in spec.env.facts.items() if not callable(v)},
                 "goals": tests.param_EX[::repeats][:4], "episodes_sha256": protocol["episodes_sha256"]}
        return {"headline": headline | protocol, "tables": tables, "curves": curves,
                "facts": facts | found.facts(lines, repeats)}

    return Evaluator(run)


@dataclasses.dataclass(frozen=True)
class _Tests:
    """E episodes on test tasks: the task id and the repeat of each, and its parameters."""

    id_E: np.ndarray
    repeat_E: np.ndarray
    param_EX: np.ndarray

    def keys(self, key: Array) -> Array:
        return rollout.episode_keys(key, self.id_E, self.repeat_E)

    def sha256(self, seed: int) -> str:
        text = np.ascontiguousarray(self.param_EX).tobytes() + self.id_E.tobytes() + bytes(str(seed), "ascii")
        return hashlib.sha256(text).hexdigest()


@dataclasses.dataclass(frozen=True)
class _Player:
    """Plays whole episodes with a policy network that is shown the episode so far."""

    spec: TrajectorySpec
    learner: Learner

    def play(self, params, carry, prompt: Trajectories, knobs: dict, tests: _Tests, target_E,
             keys_E) -> tuple[Trajectories, np.ndarray | None]:
        """One episode on each test task, and whether it succeeded, where the environment tells.

        Methods differ in arrays alone, so all of them are one program.
        """
        fixed = (params, carry, prompt, knobs, jnp.asarray(tests.id_E), jnp.asarray(tests.param_EX))
        if self.spec.env.host is None:
            return self._scanned(fixed, jnp.asarray(target_E), jnp.asarray(tests.param_EX), keys_E), None
        begin, act = self._jitted
        steps, won_E = rollout.run_host(self.spec.env, functools.partial(act, *fixed), begin(fixed, target_E),
                                        tests.param_EX, keys_E)
        return steps, won_E if self.spec.env.facts.get("success") else None

    @functools.cached_property
    def _scanned(self):
        return jax.jit(lambda fixed, target_E, param_EX, keys_E: rollout.run(
            self.spec.env, functools.partial(self._act, *fixed), self._begin(fixed, target_E), param_EX, keys_E))

    @functools.cached_property
    def _jitted(self):
        return jax.jit(self._begin), jax.jit(self._act)

    def _begin(self, fixed, target_E):
        """The history of episodes in which nothing has happened."""
        params, _, prompt, _, id_E, param_EX = fixed
        history = acting.begin(self.spec, target_E)
        return acting.cache(self.spec, self.learner, params, prompt, history, id_E, param_EX)

    def _act(self, params, carry, prompt, knobs, id_E, param_EX, history, time, obs_BS, rew_B, keys_B):
        """A policy of `rollout.run` whose memory is the history."""
        history = acting.observe(history, time, obs_BS, rew_B)
        act_BA, std_BA, history = acting.decide(self.spec, self.learner, params, carry, prompt, history, time, id_E,
                                                param_EX)
        keys_BK, A = jax.vmap(lambda k: jax.random.split(k, 3))(keys_B), act_BA.shape[1]
        act_BA += knobs["sample"] * std_BA * rollout.normal(keys_BK[:, 0], A)
        act_BA += knobs["noise"] * rollout.normal(keys_BK[:, 1], A)
        act_BA = jnp.where(time < knobs["random"], rollout.uniform_actions(keys_BK[:, 2], A), act_BA)
        act_BA = jnp.clip(act_BA, -1, 1)
        return acting.acted(history, time, act_BA), act_BA


@dataclasses.dataclass(frozen=True)
class _Found:
    """By method: return of each episode, whether it succeeded, returns of the adaptation episodes, their paths."""

    scores: dict[str, np.ndarray]
    won: dict[str, np.ndarray]
    adaptation: dict[str, list]
    paths: dict[str, list]

    def score(self, name: str, played: tuple[Trajectories, np.ndarray | None]) -> None:
        """Notes what `_Player.play` gave."""
        steps, won_E = played
        self.scores[name] = _return(steps)
        if won_E is not None:
            self.won[name] = won_E

    def facts(self, lines: dict[str, np.ndarray], repeats: int) -> dict[str, Any]:
        return {"returns": {n: _by_task(a, repeats) for n, a in self.scores.items()},
                "successes": {n: _by_task(a, repeats) for n, a in self.won.items()},
                "behaviour_returns": _by_task(lines["behaviour"], repeats), "paths": self.paths}


def _knobs(random: int = 0, noise: float = 0.0, sample: float = 0.0) -> dict[str, Array]:
    """random: uniform actions at so many first steps; noise: std of noise on actions; sample: of the policy's own."""
    return {"random": jnp.int32(random), "noise": jnp.float32(noise), "sample": jnp.float32(sample)}


def _adapt(player: _Player, found: _Found, method: str, go, none: Trajectories, rounds: int, after: tuple[int, ...],
           explore_steps: int, noise: float, repeats: int) -> None:
    """The rounds of one few-shot method, each prompted by the best episode before it, and what they lead to."""
    knobs = {"few_none": _knobs(), "few_random": _knobs(random=explore_steps), "few_gauss": _knobs(noise=noise),
             "few_sample": _knobs(sample=1.0)}[method]
    best, best_E = none, np.full(len(none.rew_BT), -np.inf)
    returns, paths = found.adaptation.setdefault(method, []), found.paths.setdefault(method, [])
    for r in range(rounds):
        steps, _ = go(best, knobs, r)
        got_E = _return(steps)
        returns.append(got_E)
        best = jax.tree.map(lambda new, old, better=got_E > best_E: jnp.where(
            better.reshape(-1, *[1] * (new.ndim - 1)), new, old), acting.as_prompt(player.spec, steps), best)
        best_E = np.maximum(best_E, got_E)
        paths.append(np.asarray(steps.obs_BTS)[::repeats][:4, :, :2].tolist())
        if r + 1 in after:
            found.score(f"{method}_{r + 1}", go(best, _knobs(), AFTER + r + 1))
    found.score(method, go(best, _knobs(), AFTER + rounds))


def _references(spec: TrajectorySpec, tests: _Tests, part: dict, repeats: int, root: Array) -> dict[str, np.ndarray]:
    """Return per episode (E,) of each reference line."""
    found, env, keys_E = {}, spec.env, tests.keys(jax.random.fold_in(root, len(METHODS)))
    for name, make_policy in (("oracle", rollout.expert), ("zero_action", rollout.zero_action),
                              ("random", rollout.uniform)):
        if name == "oracle" and env.expert is None:
            continue
        play = functools.partial(rollout.run, env, make_policy(env))
        play = jax.jit(play) if env.host is None else play
        param_EX = jnp.asarray(tests.param_EX)
        found[name] = _return(play(param_EX, param_EX, keys_E))
    logged_BE = part["logs"].rtg_BT[..., 0]
    return found | {"behaviour": np.repeat(logged_BE.mean(1), repeats),
                    "behaviour_best": np.repeat(logged_BE.max(1), repeats)}


def _targets(spec: TrajectorySpec, part: dict, target: str, value: float, repeats: int) -> np.ndarray:
    """What each episode's first step is conditioned on, (E,)."""
    E = len(part["id_B"]) * repeats
    if spec.conditioning == "rank":
        return np.ones(E, np.float32)
    if target == "task_max":
        return np.repeat(part["logs"].rtg_BT[..., 0].max(1), repeats).astype(np.float32)
    best_B = spec.statistics.best_return_B
    return np.full(E, {"train_max": best_B.max(), "train_mean": best_B.mean(), "fixed": value}[target], np.float32)


def _demonstrations(part: dict, quantile: float, repeats: int) -> Trajectories:
    """The logged episode of each test task whose return has this rank (1: the best)."""
    order_BE = np.argsort(part["logs"].rtg_BT[..., 0], axis=1)
    which_B = order_BE[:, round(quantile * (order_BE.shape[1] - 1))]
    return jax.tree.map(lambda a: np.repeat(a[np.arange(len(which_B)), which_B], repeats, 0), part["logs"])


def _report(found: _Found, lines: dict[str, np.ndarray], methods: tuple[str, ...], repeats: int, target: str):
    """(headline, tables, curves); the unit of every interval is a task, averaged over its repeats."""
    by_task = {name: _by_task(a, repeats) for name, a in {**found.scores, **lines}.items()}
    means = {name: statistics.interval(a) for name, a in by_task.items()}
    middle = {name: statistics.interquartile(a) for name, a in by_task.items()}
    won = {name: float(np.mean(a)) for name, a in found.won.items()}
    headline = {name: mean for name, (mean, _) in means.items()}
    headline |= {f"{name}_ci95": means[name][1] for name in found.scores}
    headline |= {f"{name}_iqm": middle[name] for name in methods}
    headline |= {f"{name}_success": share for name, share in won.items()}
    rows = [[name, f"{mean:.2f} ± {half:.2f}", f"{middle[name]:.2f}",
             *([f"{won[name]:.2f}" if name in won else ""] if won else [])] for name, (mean, half) in means.items()]
    num = len(by_task["behaviour"])
    tables = [{"title": f"returns on {num} test tasks (± 95 % interval over tasks; target {target})",
               "columns": ["method", "return", "IQM", *(["success"] if won else [])], "rows": rows}]
    series = []
    for name, rounds in found.adaptation.items():
        points = [statistics.interval(_by_task(a, repeats)) for a in rounds]
        series.append({"name": name, "y": [mean for mean, _ in points], "points": True, "dashed": False,
                       "ci95": [half for _, half in points]})
    curves = [{"title": "adaptation episodes", "x": list(range(1, len(s["y"]) + 1)), "xlabel": "episode on the task",
               "ylabel": "return", "series": series, "levels": {n: means[n][0] for n in lines}} for s in series[:1]]
    return headline, tables, curves


def _by_task(values_E: np.ndarray, repeats: int) -> np.ndarray:
    return np.asarray(values_E, np.float64).reshape(-1, repeats).mean(1)


def _return(steps: Trajectories) -> np.ndarray:
    return np.asarray(steps.rtg_BT[:, 0])
