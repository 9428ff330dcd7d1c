"""Runs of a sweep that differ in nothing but what one program can vary, run as its replicas, and taken apart again.

What is taken apart has what the run alone would have left, its numbers up to rounding (see `replicas`): config,
manifest, last checkpoint, what loading needs of the task, metrics, evaluations and result, without plots. So it is a
run like any other: evaluated, loaded, taken over by `init_from`, or gone on with.
"""

import glob
import os
from typing import Any

import jax
from ml_collections import ConfigDict

from metalearn import lookup
from metalearn.cli import plain
from metalearn.runtime import config as config_lib, loop, manifest, replicas, stored, workdir as workdir_lib, writer
from metalearn.runtime.checkpoint import Checkpoints
from metalearn.runtime.experiment import build, fingerprint, with_data
from metalearn.validate import given


def pack(runs: list[dict]) -> list[dict]:
    """The runs of `sweep.expand`, those that can be packed replaced by their packs: runs of a program of their own,
    which have their `members`. The others, and those that have no equal, stay as they are."""
    groups: dict[str, list[dict]] = {}
    traced: dict[str, tuple[str, ...]] = {}
    for run in runs:
        config = run["config"]
        kind = config.task.name
        if kind not in traced:
            task = lookup.of_block("tasks", config.task.to_dict())
            traced[kind] = ("seed", "optim.lr", *(f"task.{name}" for name in task.traced))
        rest = {field: value for field, value in config_lib.flatten(config).items() if field not in traced[kind]}
        alone = run["name"] if config.replicas.num > 1 else ""
        groups.setdefault(repr((run["stage"], sorted(rest.items()), alone)), []).append(run)
    return [_packed(found, traced[found[0]["config"].task.name]) if len(found) > 1 else found[0]
            for found in groups.values()]


def _packed(runs: list[dict], traced: tuple[str, ...]) -> dict:
    first = runs[0]
    values = {field: tuple(config_lib.flatten(run["config"])[field] for run in runs) for field in traced}
    vary = {field: each for field, each in values.items() if field == "seed" or len(set(each)) > 1}
    overrides = {"replicas.num": len(runs), "replicas.vary": vary}
    config = ConfigDict(first["config"].to_dict())
    for field, value in overrides.items():
        config_lib.assign(config, field, value)
    name = f"{first['name']}-and-{len(runs) - 1}-more"
    workdir = os.path.join(os.path.dirname(first["workdir"]), name)
    command = [f"--workdir={workdir}" if word.startswith("--workdir=") else word for word in first["command"]]
    command += [f"--config.{field}={value}" for field, value in overrides.items()]
    return dict(stage=first["stage"], label=name, name=name, workdir=workdir, overrides=overrides, config=config.lock(),
                command=command, members=runs)


def unpack(packed: dict) -> None:
    """Leaves each member of a finished pack as a finished run in its own directory."""
    path, members = packed["workdir"], packed["members"]
    experiment = with_data(build(packed["config"]), path)
    plan, task = experiment.plan, experiment.task
    template = jax.eval_shape(loop.make_init(experiment), replicas.data(plan, task.data), replicas.roots(plan))
    state, meta = Checkpoints(os.path.join(path, "checkpoints")).restore(template)
    result = _read(os.path.join(path, "result.json"))
    session = {k: v for k, v in manifest.read(path).items() if k != "history"}
    for r, run in enumerate(members):
        with workdir_lib.hold(run["workdir"], run["config"]) as held:
            own = lambda *names, held=held: os.path.join(held.path, *names)
            alone = replicas.task_of(plan, task, r)
            guard = {k: v if k == "attempt" else [v[r]] for k, v in meta["guard"].items()}
            manifest.add(held.path, session, step=meta["step"], saved=meta["step"], packed=packed["name"])
            Checkpoints(own("checkpoints")).save(meta["step"], replicas.state_of(plan, state, r), {
                "config": run["config"].to_dict(), "versions": meta["versions"], "running": {}, "guard": guard,
                "data_sha256": fingerprint(alone.data), "seconds": meta["seconds"] / plan.num})
            stored.save(held.path, alone, run["config"].train.batch)
            of_line = lambda line, r: {"step": line["step"]} | {k: v[r] for k, v in line["by_replica"].items()}
            for name, pick in (("metrics.jsonl", of_line), (os.path.join("eval", "history.jsonl"), _of_history)):
                writer.rewrite(own(name), [pick(line, r) for line in writer.read(os.path.join(path, name))])
            for file in glob.glob(os.path.join(glob.escape(path), "eval", "*.json")):
                merged = _read(file)
                workdir_lib.write_json(own("eval", os.path.basename(file)),
                                       merged["replicas"][r] | {"evaluated": merged["evaluated"]})
            sizes = {name: result[name] for name in ("parameters", "state_size")}
            workdir_lib.write_json(own("result.json"), plain(
                _of_history(result, r) | sizes | {"seconds": result["seconds"] / plan.num}))


def _read(path: str) -> dict[str, Any]:
    return given(workdir_lib.read_json(path), "workdir", path, "is not valid JSON")


def _of_history(line: dict[str, Any], r: int) -> dict[str, Any]:
    step = {"step": line["step"]} if "step" in line else {}
    return step | {name: value for name, value in line["replicas"][r].items() if name not in ("setting", "skipped")}
