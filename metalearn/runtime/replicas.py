"""Several runs in one program: mapped over parameters, optimiser state, carry, keys and what `config.replicas` varies.

  replicas = {num: R, at_once: 0, vary: {"seed": (0, 1, ...), "optim.lr": (1e-3, ...), "task.num_tasks": (1, ...)}}

`at_once` of them are computed together (`vmap`; 0: all), the groups one after another. Where the mesh's `data` axis
divides R, its devices share the replicas out, each its own, and no batch is split. Replica r has the seed `seed + r`
unless seeds are listed, its own batches, clipping norm and count of refused updates, and is the run that its values
alone would be, up to rounding. With num = 1 nothing is mapped and every bit is that of a plain run. The step is shared;
every other leaf of the state has a leading axis R.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from ml_collections import ConfigDict

from metalearn.measure import statistics
from metalearn.runtime import config as config_lib, optimiser
from metalearn.types import Array, PyTree, Result, TaskDist, TrainState
from metalearn.validate import call, fields, positive, require, within

FIELDS = ("num", "at_once", "vary")
MOST = 2**16  # each has a line of settings


@dataclasses.dataclass(frozen=True)
class Plan:
    """What `config.replicas` asks for, checked.

    num        R
    at_once    how many are computed together
    seeds      one for each replica
    lr         its peak learning rate; () where all have the config's
    data       {leaf of the task's data: (R, ...)}, what is varied of it
    settings   {"seed": 3, "task.num_tasks": 8} of each replica: what differs between them
    """

    num: int
    at_once: int
    seeds: tuple[int, ...]
    lr: tuple[float, ...]
    data: Mapping[str, np.ndarray]
    settings: tuple[dict[str, Any], ...]

    @property
    def alike(self) -> bool:
        """Whether the replicas differ in nothing but their seeds, so that a mean over them says something."""
        return all({**s, "seed": 0} == {**self.settings[0], "seed": 0} for s in self.settings)


def plan(config: ConfigDict, task: TaskDist) -> Plan:
    """Reads and checks `config.replicas`; ConfigError names the field, and what may be varied."""
    with within("replicas"):
        block = config.replicas
        fields(block, FIELDS)
        for name in ("num", "at_once"):
            require(type(block[name]) is int, name, block[name], "must be an integer")
        positive(num=block.num)
        require(block.num <= MOST, "num", block.num, f"must be at most {MOST}")
        require(0 <= block.at_once <= block.num, "at_once", block.at_once, f"must lie between 0 (all) and {block.num}")
        vary = _varied(config, task)
    seeds = vary.get("seed", tuple(config.seed + r for r in range(block.num)))
    for seed in seeds:
        require(0 <= seed < 2**31, "replicas.vary.seed", seed, "must lie between 0 and 2**31 - 1")
    for lr in vary.get("optim.lr", ()):
        with within("replicas.vary.optim"):
            call(optimiser.make, **config.optim.to_dict() | {"lr": lr}, total_steps=config.train.steps)
    data = {}
    for field, values in vary.items():
        if field.startswith("task."):
            name = field.removeprefix("task.")
            with within("replicas.vary.task"):
                data[name] = np.stack([task.traced[name](value) for value in values])
    settings = tuple({"seed": seeds[r]} | {field: values[r] for field, values in vary.items()}
                     for r in range(block.num))
    return Plan(block.num, block.at_once or block.num, seeds, vary.get("optim.lr", ()), data, settings)


def _varied(config: ConfigDict, task: TaskDist) -> dict[str, tuple]:
    """{dotted field: its values}, each of the field's type."""
    vary, flat = config_lib.flatten(config.replicas.vary), config_lib.flatten(config)
    allowed = ("seed", "optim.lr", *(f"task.{name}" for name in sorted(task.traced)))
    for field, values in vary.items():
        require(field in allowed, f"vary.{field}", values, "is not traced; replicas of this task may vary "
                + ", ".join(allowed))
        require(isinstance(values, tuple) and len(values) == config.replicas.num, f"vary.{field}", values,
                f"must list a value for each of replicas.num={config.replicas.num}")
        vary[field] = tuple(config_lib.coerce(f"vary.{field}", flat[field], value) for value in values)
    return vary


def roots(plan: Plan) -> Array:
    """The key that everything of a run comes from; (R,) of them where there are several replicas."""
    keys = [jax.random.key(seed, impl="threefry2x32") for seed in plan.seeds]
    return keys[0] if plan.num == 1 else jax.numpy.stack(keys)


def split(plan: Plan, key: Array) -> tuple[Array, Array]:
    """Two keys, or two (R,), of `roots`: for the parameters and for the steps."""
    if plan.num == 1:
        return tuple(jax.random.split(key))
    both_R2 = jax.vmap(jax.random.split)(key)
    return both_R2[:, 0], both_R2[:, 1]


def data(plan: Plan, data: PyTree) -> PyTree:
    """The task's data with what is varied stacked; it must then be a dict."""
    return data | dict(plan.data) if plan.data and plan.num > 1 else data


def keys(plan: Plan, key: Array, attempt: int) -> Array:
    """The key of the steps, or (R,): those of `split`, and others for each `attempt` after a roll-back."""
    if not attempt:
        return key
    fold = lambda one: jax.random.fold_in(one, np.uint32(2**32 - attempt))  # steps fold in 0, 1, ...: not one of theirs
    return fold(key) if plan.num == 1 else jax.vmap(fold)(key)


def shared_out(plan: Plan, mesh: Mesh) -> bool:
    """Whether the devices of the mesh have replicas of their own."""
    return plan.num > 1 and mesh.size > 1 and plan.num % mesh.shape["data"] == 0


def each(plan: Plan, function: Callable, data: PyTree, *stacked: PyTree, mesh: Mesh | None = None) -> PyTree:
    """function(data of one replica, *leaves of one replica) for each, the results stacked. `data` is what `data` gives;
    every leaf of `stacked` has an axis R, which the devices of `mesh`, where given, share out."""
    varied = {name: data[name] for name in plan.data}

    def these(data, *given):
        one = lambda x: function(data | x[0] if x[0] else data, *x[1:])
        if plan.at_once >= plan.num // (mesh.shape["data"] if mesh else 1):
            return jax.vmap(one)(given)
        return jax.lax.map(one, given, batch_size=plan.at_once if plan.at_once > 1 else None)

    if mesh:
        split = PartitionSpec("data")
        these = jax.shard_map(these, mesh=mesh, in_specs=(PartitionSpec(), *[split] * (1 + len(stacked))),
                              out_specs=split, check_vma=False)
    return these(data, varied, *stacked)


def task_of(plan: Plan, task: TaskDist, r: int) -> TaskDist:
    """The task of one replica as a run of its own would have it, facts included."""
    if not plan.data:
        return task
    named = {field.removeprefix("task."): value for field, value in plan.settings[r].items()}
    facts = {**task.facts, **{name: value for name, value in named.items() if name in task.facts}}
    return dataclasses.replace(task, data=task.data | {k: v[r] for k, v in plan.data.items()}, facts=facts)


def one(plan: Plan, tree: PyTree, r: int) -> PyTree:
    """Replica r's part of stacked parameters, or of a stacked carry."""
    return tree if plan.num == 1 else jax.tree.map(lambda leaf: leaf[r], tree)


def state_of(plan: Plan, state: TrainState, r: int) -> TrainState:
    """Replica r's part of a run's state, whose step is shared."""
    return one(plan, state.replace(step=None), r).replace(step=state.step)


def line(plan: Plan, numbers: Sequence[dict[str, float]]) -> dict[str, Any]:
    """One step's training numbers: those of the only replica, or means over those that are finite, and
    `by_replica` {name: [each one's]}."""
    if plan.num == 1:
        return dict(numbers[0])
    by = {k: [n[k] for n in numbers] for k in numbers[0]}
    mean = {k: float(np.mean(known)) if (known := [v for v in values if np.isfinite(v)]) else float("nan")
            for k, values in by.items()}
    return mean | {"by_replica": by}


def summary(plan: Plan, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The headline of a run out of its replicas' headlines; that of the only one as it is.

    Means over the replicas under the plain names, `intervals` {name: half of the 95 % interval by Student's t} over
    them, and `replicas`, each one's own with what was varied as its
    `setting`. Where replicas differ in more than the seed there is no mean. A number that a replica lacks (None, NaN)
    is left out of the mean.
    """
    if plan.num == 1:
        return dict(rows[0])
    out = {"replicas": [{"setting": setting} | dict(row) for setting, row in zip(plan.settings, rows, strict=True)]}
    if plan.alike:
        means, intervals = _over(list(rows))
        out = means | {"intervals": intervals} | out
    return out


def _over(values: list) -> tuple[Any, Any]:
    """(mean, interval) of numbers, or of dicts of them; what all agree on stands for itself, the rest is dropped."""
    if all(isinstance(v, Mapping) for v in values):
        pairs = {k: _over([v[k] for v in values]) for k in values[0] if all(k in v for v in values)}
        return ({k: mean for k, (mean, _) in pairs.items() if mean is not None},
                {k: half for k, (_, half) in pairs.items() if half not in (None, {})})
    if all(v is None or (isinstance(v, (int, float, np.number)) and not isinstance(v, bool)) for v in values):
        known = [v for v in values if v is not None and np.isfinite(v)]
        return statistics.interval(known) if known else (None, None)
    return (values[0] if all(v == values[0] for v in values) else None), None


def merge(plan: Plan, results: Sequence[Result]) -> Result:
    """One evaluator's Result over all replicas: one table with a column for each, and curves as means over them."""
    headline = summary(plan, [r["headline"] for r in results])
    names = [k for k, v in results[0]["headline"].items() if isinstance(v, (int, float)) and not isinstance(v, bool)]
    text = lambda value: f"{value:.4g}" if isinstance(value, (int, float)) else str(value)
    over = lambda k: [statistics.text(headline[k], headline["intervals"].get(k, float("nan")), 4)
                      if k in headline else ""] if plan.alike else []
    rows = [[field, *([""] if plan.alike else []), *(text(s[field]) for s in plan.settings)]
            for field in plan.settings[0]]
    rows += [[k, *over(k), *(text(r["headline"].get(k)) for r in results)] for k in names]
    columns = ["replica", *(["mean ± 95 %"] if plan.alike else []), *map(str, range(plan.num))]
    curves = [_curve([r["curves"][i] for r in results]) for i in range(len(results[0].get("curves", [])))]
    return {"headline": headline, "tables": [{"title": f"{plan.num} replicas", "columns": columns, "rows": rows}],
            "curves": curves if plan.alike else [], "replicas": list(results)}


def _curve(curves: Sequence[dict]) -> dict:
    series = []
    for i, first in enumerate(curves[0]["series"]):
        points = [[v for v in at if v is not None] for at in zip(*(c["series"][i]["y"] for c in curves), strict=True)]
        over = [statistics.interval(p) if p else (None, None) for p in points]
        series.append(first | {"y": [mean for mean, _ in over], "ci95": [half for _, half in over]})
    return curves[0] | {"series": series}
