"""How well a world model predicts tasks it was not trained on, and what its codes know of the task.

test_mse, validation_mse   squared error of reward and next state (by their spread): mean over steps, interval over
                       tasks
test_mse_informed      over the steps with a whole context behind them (from step `task.history` on): the number to
                       judge by, since the first step, whose reward nobody can know, is most of `test_mse`
test_mse_by_step       by step number
probe_r2               share of the hidden parameters' variance that a ridge regression reads out of a stretch's code
                       (fitted on training tasks, scored on test tasks)
"""

import math

import jax
import numpy as np

from metalearn.measure import frozen as frozen_lib, statistics
from metalearn.types import Evaluator, Learner, Result, TaskDist
from metalearn.validate import multiple_of, one_of, positive

PENALTY = 1e-4  # per sample, on inputs of unit spread


def make(task: TaskDist, learner: Learner, *, splits: tuple[str, ...], windows: int, chunk: int,
         seed: int) -> Evaluator:
    """`windows` frozen windows of each split, `chunk` at a time (memory only); the probe needs `train` and `test`."""
    positive(windows=windows, chunk=chunk)
    multiple_of("chunk", chunk, windows=windows)
    for name in splits:
        one_of(task.splits, splits=name)
    h, std_S = task.spec.history, task.spec.statistics.obs_std_S
    frozen = {split: frozen_lib.Frozen(task, split, windows, chunk, seed) for split in splits}

    @jax.jit
    def look(params, carry, batch):
        out = learner.predict(params, carry, batch)
        now = jax.tree.map(lambda a: a[:, h:], batch.body)
        found = {"code": out["code_BTC"]}
        if "rew_BT" in out:
            found["reward"] = (out["rew_BT"] - now.rew_BT) ** 2
        if "next_BTS" in out:
            found["state"] = (((out["next_BTS"] - now.next_BTS) / std_S) ** 2).mean(-1)
        return found | {"mask": now.mask_BT, "time": now.time_BT, "param": batch.param_BX, "rew": now.rew_BT,
                        "task": batch.task_B}

    def run(params, carry) -> Result:
        headline, rows, seen = {}, [], {}
        for split in splits:
            parts = [jax.device_get(look(params, carry, batch)) for batch in frozen[split]]
            found = seen[split] = jax.tree.map(lambda *a: np.concatenate(a), *parts)
            for what in ("reward", "state"):
                if what in found:
                    name = f"{split}_mse" if what == "reward" or "reward" not in found else f"{split}_state_mse"
                    for suffix, steps, first in (("", "all", 0), ("_informed", f"from {h} on", h)):
                        on_BT = (found["mask"] > 0) & (found["time"] >= first)
                        headline[name + suffix] = mean = float(found[what][on_BT].mean()) if on_BT.any() else math.nan
                        half = task_interval(found[what], on_BT, found["task"])
                        rows.append([split, what, steps, statistics.text(mean, half, 5)])
            headline[f"{split}_reward_var"] = float(found["rew"][found["mask"] > 0].var())
        if {"train", "test"} <= seen.keys():
            headline["probe_r2"] = _probe(seen["train"], seen["test"])
        tables = [{"title": "world model on frozen windows (± 95 % interval over tasks)",
                   "columns": ["split", "predicts", "steps", "mean squared error"], "rows": rows}]
        digest, inputs = frozen_lib.together(frozen)
        facts = {"seed": seed, "windows": windows, "episodes_sha256": digest, "data_sha256": task.facts["sha256"]}
        return {"headline": headline | {"episodes_sha256": digest, "inputs_sha256": inputs}, "tables": tables,
                "curves": [_by_step(seen["test"])] if "test" in seen else [], "facts": facts}

    return Evaluator(run)


def task_interval(values_BT: np.ndarray, mask_BT: np.ndarray, ids_B: np.ndarray) -> float:
    """Half of the 95 % interval of the mean over tasks: windows of one task are not independent of each other."""
    of = lambda mine_B: values_BT[mine_B][mask_BT[mine_B]]
    return statistics.interval([of(ids_B == i).mean() for i in np.unique(ids_B) if mask_BT[ids_B == i].any()])[1]


def _by_step(found: dict) -> dict:
    """The curve of the error over step numbers."""
    what = "reward" if "reward" in found else "state"
    steps = np.unique(found["time"])
    pick = lambda t: (found["mask"] > 0) & (found["time"] == t)
    series = {"name": what, "y": [float(found[what][pick(t)].mean()) for t in steps], "ci95": None, "dashed": False}
    return {"title": "error on test tasks", "x": steps.tolist(), "xlabel": "step of the episode",
            "ylabel": "squared error", "series": [series], "levels": {}}


def _probe(train: dict, test: dict) -> float:
    """R^2 on test tasks of a ridge regression from the last code of a window to the parameters."""
    def design(found):
        full = (found["mask"][:, -1] > 0) & (found["time"][:, -1] > 3)  # a code of the first steps knows nothing
        code = found["code"][full, -1]
        x = np.concatenate([code, np.ones((len(code), 1))], 1)
        return x.astype(np.float64), found["param"][full].astype(np.float64)

    (x, y), (x_new, y_new) = design(train), design(test)
    if len(x) < 2 or len(x_new) < 2:
        return float("nan")
    scale = x.std(0) + 1e-8
    x, x_new = x / scale, x_new / scale
    w = np.linalg.solve(x.T @ x + PENALTY * len(x) * np.eye(x.shape[1]), x.T @ y)
    spread = ((y_new - y_new.mean(0)) ** 2).sum()
    return float(1 - ((y_new - x_new @ w) ** 2).sum() / max(spread, 1e-12))
