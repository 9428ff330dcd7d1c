"""What predicting needs of a run's task, kept with the run in task.npz, so that its data may be gone.

The spec (normalisation of observations among it), the facts, from images to inputs (mean, std, PCA), and the shapes of
a batch, which say what a state looks like. No pickle: arrays, and JSON that says where in it they belong.
"""

import dataclasses
import io
import json
import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from metalearn import cli, lookup, types
from metalearn.datasets import Inputs
from metalearn.runtime import workdir as workdir_lib
from metalearn.types import TaskDist
from metalearn.validate import NO_NPZ

FILE = "task.npz"
RECORDS = {cls.__name__: cls for cls in (
    Inputs, types.EpisodeSpec, types.TrajectorySpec, types.TrajectoryStatistics, types.Episodes, types.Prompted,
    types.Trajectories)}


def save(workdir: str, task: TaskDist, num: int) -> None:
    """Writes `task`, which has its data; batches are of `num`. A task of records that are not the library's is left
    out: such a run is loaded with its data."""
    arrays: dict[str, np.ndarray] = {}
    draw = lambda data, key: task.sample(data, key, task.splits[0], num)
    batch = jax.eval_shape(draw, task.data, jax.random.key(0, impl="threefry2x32"))
    if not {type(batch).__name__, type(task.spec).__name__} <= RECORDS.keys():
        return
    whole = {"spec": task.spec, "inputs": task.inputs, "batch": batch, "facts": task.facts, "splits": task.splits,
             "traced": sorted(task.traced)}
    text = json.dumps(_encode(whole, arrays)).encode()
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, json=np.frombuffer(text, np.uint8), **arrays)
    workdir_lib.write_bytes(os.path.join(workdir, FILE), file.getvalue())


def read(workdir: str, config: ConfigDict) -> TaskDist | None:
    """The task without its data: `sample` gives batches of zeros. None where the run has no such file, or a damaged
    one, which is said."""
    path = os.path.join(workdir, FILE)
    if not os.path.exists(path):
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        whole = _decode(json.loads(arrays["json"].tobytes()), arrays)
        batch, spec, traced = whole["batch"], whole["spec"], dict.fromkeys(whole["traced"], np.asarray)
        zeros = lambda data, key, split, num: jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), batch)
        task = TaskDist({}, zeros, whole["splits"], spec, whole["facts"], traced, inputs=whole["inputs"])
    except (*NO_NPZ, TypeError, AttributeError, RecursionError) as error:
        why = " ".join(str(error).split())[:100]
        cli.say(f"warning: {path} is damaged ({why}); the run's data are read in its place")
        return None
    if not isinstance(spec, types.TrajectorySpec):
        return task
    env = lookup.of_block("envs", config.task.env.to_dict())  # functions are not stored
    return dataclasses.replace(task, spec=dataclasses.replace(spec, env=env))


def _encode(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """Plain JSON; arrays go into `arrays`. What is neither (functions, pictures) becomes None."""
    if isinstance(value, (str, int, float)):
        return value
    if isinstance(value, jax.ShapeDtypeStruct):
        return {"shape": list(value.shape), "dtype": str(value.dtype)}
    if (kind := type(value).__name__) in RECORDS:
        return {"record": kind, "fields": {f.name: _encode(getattr(value, f.name), arrays)
                                           for f in dataclasses.fields(value)}}
    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
        arrays[name := f"array_{len(arrays)}"] = np.asarray(value)
        return {"array": name}
    if isinstance(value, (tuple, list)):
        return {"tuple": [_encode(one, arrays) for one in value]}
    if isinstance(value, Mapping):
        return {"map": {str(key): _encode(one, arrays) for key, one in value.items()}}
    return None


def _decode(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    if not isinstance(value, dict):
        return value
    if "record" in value:
        return RECORDS[value["record"]](**{name: _decode(one, arrays) for name, one in value["fields"].items()})
    if "array" in value:
        return arrays[value["array"]]
    if "tuple" in value:
        return tuple(_decode(one, arrays) for one in value["tuple"])
    if "shape" in value:
        return jax.ShapeDtypeStruct(tuple(value["shape"]), np.dtype(value["dtype"]))
    return {name: _decode(one, arrays) for name, one in value["map"].items()}
