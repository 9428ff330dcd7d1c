"""Collect offline data for a config whose task is `offline`, into one file that the config can then name.

  python -m metalearn.collect --config=configs/metadt.py:point --out=point.npz [--config.task.quality=expert ...]
  bash launch/local.sh --config=configs/metadt.py:point --config.task.data=point.npz ...

The same config and seeds give the same file. An existing file is refused, never overwritten.
"""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from metalearn import cli, lookup
from metalearn.reporting import tables
from metalearn.rl import behaviours, store
from metalearn.runtime import config as config_lib
from metalearn.runtime import workdir
from metalearn.validate import require, within


def run(config: ConfigDict, out: str) -> dict[str, Any]:
    """Collects by `config.task`, writes `out`, returns the headline numbers; ConfigError before any work."""
    began = time.monotonic()
    store.refuse(out)
    task = config.task
    require(task.name == "offline", "config.task.name", task.name, "must be offline: only its tasks are collected")
    env = task.env.to_dict()
    with within("config.task"):
        with within("env"):
            built = lookup.build("envs", env["name"], **{k: v for k, v in env.items() if k != "name"})
        ids = behaviours.task_ids(task.train_tasks, task.test_tasks)
        param_BX, logs = behaviours.collect(built, task.behaviour, ids, task.episodes, task.task_seed, task.data_seed,
                                            task.quality, task.sac.to_dict())
    return_BE = logs.rtg_BT[..., 0]
    facts = {k: v for k, v in built.facts.items() if isinstance(v, (str, int, float, bool))}
    header = {"env": env, "env_facts": facts, "behaviour": task.behaviour, "quality": task.quality,
              "task_seed": task.task_seed, "data_seed": task.data_seed, "task_ids": ids.tolist(),
              "train_tasks": task.train_tasks, "episodes": task.episodes, "steps": built.length,
              "mean_return": np.round(return_BE.mean(1), 4).tolist(),
              "best_return": np.round(return_BE.max(1), 4).tolist(),
              "versions": workdir.versions()}
    header |= {"sac": task.sac.to_dict()} if task.behaviour == "sac" else {}
    sha = store.save(out, param_BX, logs, header)
    rows = [[i, f"{r.mean():.2f}", f"{r.min():.2f}", f"{r.max():.2f}"] for i, r in enumerate(return_BE[:10])]
    tables.show({"tables": [{"title": f"{task.behaviour} in {env['name']}: returns of the first tasks",
                             "columns": ["task", "mean", "worst", "best"], "rows": rows}]})
    return {"out": out, "sha256": sha, "tasks": len(ids), "episodes": task.episodes, "steps": int(logs.mask_BT.sum()),
            "return_mean": float(return_BE.mean()), "return_best": float(return_BE.max(1).mean()),
            "bytes": os.path.getsize(out) if os.path.isfile(out) else 0, "seconds": time.monotonic() - began}


def main() -> int:
    parser = cli.Parser(__doc__, prog="python -m metalearn.collect")
    parser.add_argument("--config", required=True, help="FILE[:argument]; its task must be offline")
    parser.add_argument("--out", required=True, help="the .npz to write, or minari:NAMESPACE/NAME-v0")
    args = parser.parse()
    out = args.out if args.out.startswith("minari:") else os.path.abspath(args.out)
    cli.print_result(run(config_lib.load(args.config, args.overrides), out))
    return 0


if __name__ == "__main__":
    cli.main(main)
