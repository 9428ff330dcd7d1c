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
`train_mean` the mean over training tasks of each one's best; `fixed`. With wish=rank it is rank 1.

Reference lines on the same tasks: the expert that knows the parameters, the behaviour's mean and best, standing still,
uniform actions.
"""

from __future__ import annotations

import functools
import hashlib

import jax
import jax.numpy as jnp
import numpy as np

from metalearn.measure import statistics
from metalearn.rl import rollout
from metalearn.types import Evaluator, Learner, Prompted, Result, TaskDist, Trajectories
from metalearn.validate import nonnegative, one_of, positive, require

METHODS = ("zero", "zero_sample", "few_none", "few_random", "few_gauss", "few_sample", "demo", "demo_median")
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
    facts, env = task.facts, task.facts["env"]
    demos = [m for m in methods if m.startswith("demo")]
    own = [m for m in methods if not m.startswith("demo")]
    require(not (own and target == "task_max"), "target", target,
            f"is knowledge of the test task: not for {', '.join(own)}; use train_max, train_mean or fixed")
    h, T, K = facts["horizon"], facts["episode"], facts["window"]
    part = task.data["test"]
    ids_E = np.repeat(part["id_B"], repeats)
    param_EX = np.repeat(part["param_BX"], repeats, 0)
    E = len(ids_E)

    def blank(steps: int) -> Trajectories:
        """An empty stretch of horizon + `steps` steps for all E episodes."""
        zeros = lambda *tail, dtype=np.float32: np.zeros((E, h + steps, *tail), dtype)
        S, A = facts["obs_size"], facts["act_size"]
        return Trajectories(zeros(S), zeros(A), zeros(), zeros(S), zeros(), zeros(dtype=np.int32), zeros(dtype=bool),
                            zeros(dtype=bool), zeros())

    def policy(params, carry, prompt, knobs, memory, time, obs_BS, rew_B, key):
        """Memory is the episode so far; the network sees its last K steps and the h before them."""
        steps, wish_B = memory
        put = lambda a, value: jax.lax.dynamic_update_slice_in_dim(a, value[:, None].astype(a.dtype), h + time, 1)
        previous = jnp.maximum(time - 1, 0)
        late = lambda a, value: jnp.where(time > 0, jax.lax.dynamic_update_slice_in_dim(
            a, value[:, None].astype(a.dtype), h + previous, 1), a)
        wish_B = wish_B if facts["wish"] == "rank" else wish_B - rew_B
        steps = steps.replace(
            rew_BT=late(steps.rew_BT, rew_B), next_BTS=late(steps.next_BTS, obs_BS), obs_BTS=put(steps.obs_BTS, obs_BS),
            rtg_BT=put(steps.rtg_BT, wish_B), mask_BT=put(steps.mask_BT, jnp.ones_like(rew_B)),
            time_BT=put(steps.time_BT, jnp.full(rew_B.shape, time)))
        start = jnp.maximum(time - K + 1, 0)
        window = jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(a, start, h + K, 1), steps)
        out = learner.predict(params, carry, Prompted(prompt, window, jnp.asarray(ids_E), jnp.asarray(param_EX)))
        pick = lambda a: jnp.take(a, time - start, axis=1)
        key_sample, key_noise, key_uniform = jax.random.split(key, 3)
        act_BA = pick(out["act_BTA"])
        act_BA += knobs["sample"] * pick(out["std_BTA"]) * jax.random.normal(key_sample, act_BA.shape)
        act_BA += knobs["noise"] * jax.random.normal(key_noise, act_BA.shape)
        anything_BA = jax.random.uniform(key_uniform, act_BA.shape, minval=-1, maxval=1)
        act_BA = jnp.clip(jnp.where(time < knobs["random"], anything_BA, act_BA), -1, 1)
        return (steps.replace(act_BTA=put(steps.act_BTA, act_BA)), wish_B), act_BA

    def episode(params, carry, prompt, knobs, target_E, key) -> Trajectories:
        memory = (jax.tree.map(jnp.asarray, blank(max(T, K))), jnp.asarray(target_E))
        if env.host is None:
            step = functools.partial(policy, params, carry, prompt, knobs)
            return rollout.run(env, step, memory, jnp.asarray(param_EX), key)
        return rollout.run(env, functools.partial(policy_jit, params, carry, prompt, knobs), memory, param_EX, key)

    policy_jit = jax.jit(policy)
    # one program for all methods: they differ in arrays alone
    play = jax.jit(episode) if env.host is None else episode  # one program; methods differ in arrays alone

    def padded(steps: Trajectories) -> Trajectories:
        return jax.tree.map(lambda a: jnp.pad(a, ((0, 0), (h, 0)) + ((0, 0),) * (a.ndim - 2)), steps)

    @functools.cache
    def references() -> dict[str, np.ndarray]:
        """Return per episode (E,) of each reference line."""
        key = jax.random.key(seed, impl="threefry2x32")
        found = {}
        for name, make_policy in (("oracle", rollout.expert), ("still", rollout.still), ("random", rollout.uniform)):
            if name == "oracle" and env.expert is None:
                continue
            one = make_policy(env)
            go = lambda param, key, one=one: rollout.run(env, one, param, param, key).rtg_BT[:, 0]
            go = jax.jit(go) if env.host is None else go
            found[name] = np.asarray(go(jnp.asarray(param_EX), key))
        logged_BE = part["logs"].rtg_BT[..., 0]
        found["behaviour"] = np.repeat(logged_BE.mean(1), repeats)
        found["behaviour_best"] = np.repeat(logged_BE.max(1), repeats)
        return found

    def targets() -> np.ndarray:
        if facts["wish"] == "rank":
            return np.ones(E, np.float32)
        if target == "task_max":
            return np.repeat(part["logs"].rtg_BT[..., 0].max(1), repeats).astype(np.float32)
        best_B = facts["train_best"]
        value = {"train_max": best_B.max(), "train_mean": best_B.mean(), "fixed": target_value}[target]
        return np.full(E, value, np.float32)

    def demonstrations(quantile: float) -> Trajectories:
        """The logged episode of each test task whose return has this rank (1: the best)."""
        order_BE = np.argsort(part["logs"].rtg_BT[..., 0], axis=1)
        which_B = order_BE[:, round(quantile * (order_BE.shape[1] - 1))]
        picked = jax.tree.map(lambda a: np.repeat(a[np.arange(len(which_B)), which_B], repeats, 0), part["logs"])
        return padded(picked)

    def run(params, carry) -> Result:
        carry = jax.tree.map(jnp.asarray, carry)
        target_E, none = targets(), blank(T)
        knob = lambda random=0, noise=0.0, sample=0.0: {
            "random": jnp.int32(random), "noise": jnp.float32(noise), "sample": jnp.float32(sample)}
        root = jax.random.key(seed, impl="threefry2x32")
        scores: dict[str, np.ndarray] = {}
        won: dict[str, np.ndarray] = {}
        curves: dict[str, list] = {}
        paths: dict[str, list] = {}

        def score(name: str, steps: Trajectories) -> None:
            scores[name] = _return(steps)
            if "success_reward" in env.facts:
                won[name] = np.asarray(steps.rew_BT).max(1) >= env.facts["success_reward"]

        for m, method in enumerate(METHODS):
            if method not in methods:
                continue
            key = jax.random.fold_in(root, m)
            go = lambda prompt, knobs, r, key=key: play(
                params, carry, prompt, knobs, target_E, jax.random.fold_in(key, r))
            if method in demos:
                score(method, go(demonstrations(0.5 if method == "demo_median" else 1.0), knob(), 0))
                continue
            if method.startswith("zero"):
                score(method, go(none, knob(sample=float(method == "zero_sample")), 0))
                continue
            knobs = {"few_none": knob(), "few_random": knob(random=explore_steps), "few_gauss": knob(noise=noise),
                     "few_sample": knob(sample=1.0)}[method]
            best, best_E, adapt = none, np.full(E, -np.inf), []
            for r in range(rounds):
                steps = go(best, knobs, r)
                got_E = _return(steps)
                adapt.append(got_E)
                best = jax.tree.map(lambda new, old, better=got_E > best_E: jnp.where(
                    better.reshape(-1, *[1] * (new.ndim - 1)), new, old), padded(steps), best)
                best_E = np.maximum(best_E, got_E)
                paths.setdefault(method, []).append(np.asarray(steps.obs_BTS)[::repeats][:4, :, :2].tolist())
                if r + 1 in after:
                    score(f"{method}_{r + 1}", go(best, knob(), rounds + r))
            score(method, go(best, knob(), 2 * rounds))
            curves[method] = adapt
        return _report(scores, won, references(), curves, paths, target_E)

    def _report(scores, won, lines, curves, paths, target_E) -> Result:
        tasks = lambda a: np.asarray(a, np.float64).reshape(-1, repeats).mean(1)  # the unit of the interval is a task
        summary = {name: _summary(tasks(a)) for name, a in {**scores, **lines}.items()}
        headline = {name: s["mean"] for name, s in summary.items()}
        headline |= {f"{name}_ci95": summary[name]["ci95"] for name in scores}
        headline |= {f"{name}_iqm": summary[name]["iqm"] for name in methods}
        headline |= {f"{name}_success": float(tasks(a).mean()) for name, a in won.items()}
        sha = hashlib.sha256(np.ascontiguousarray(param_EX).tobytes() + ids_E.tobytes() + bytes(str(seed), "ascii"))
        headline |= {"target": target, "tasks": E // repeats, "rounds": rounds, "explore_steps": explore_steps,
                     "adaptation_steps": rounds * T, "episodes_sha256": sha.hexdigest()}
        rows = [[name, f"{s['mean']:.2f} ± {s['ci95']:.2f}", f"{s['iqm']:.2f}",
                 *([f"{won[name].mean():.2f}" if name in won else ""] if won else [])] for name, s in summary.items()]
        series = [{"name": name, "y": [tasks(a).mean() for a in adapt], "points": True, "dashed": False,
                   "ci95": [_summary(tasks(a))["ci95"] for a in adapt]} for name, adapt in curves.items()]
        plots = [{"title": "adaptation episodes", "x": list(range(1, rounds + 1)), "xlabel": "episode on the task",
                  "ylabel": "return", "series": series, "levels": {n: summary[n]["mean"] for n in lines}}]
        plots = plots if series else []
        out = {"seed": seed, "target": target, "target_return": float(np.mean(target_E)), "repeats": repeats,
               "noise": noise, "horizon": h, "data_sha256": facts["sha256"], "behaviour": facts["behaviour"],
               "quality": facts["quality"],
               "returns": {n: tasks(a) for n, a in scores.items()},
               "successes": {n: tasks(a) for n, a in won.items()},
               "behaviour_returns": tasks(lines["behaviour"]), "paths": paths, "goals": param_EX[::repeats][:4],
               "environment": {k: v for k, v in env.facts.items() if not callable(v)},
               "episodes_sha256": sha.hexdigest()}
        title = f"returns on {E // repeats} test tasks (± 95 % interval over tasks; target {target})"
        columns = ["method", "return", "IQM", *(["success"] if won else [])]
        table = {"title": title, "columns": columns, "rows": rows}
        return {"headline": headline, "tables": [table], "curves": plots, "facts": out}

    return Evaluator(run)


def _return(steps: Trajectories) -> np.ndarray:
    return np.asarray(steps.rtg_BT[:, 0])


def _summary(values: np.ndarray) -> dict[str, float]:
    """mean, half-width of its 95 % interval, interquartile mean."""
    mean, half = statistics.interval(values)
    return {"mean": mean, "ci95": half, "iqm": statistics.interquartile(values)}
