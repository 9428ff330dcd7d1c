"""Collect offline data for a config whose task is `offline`, into one file that the config can then name.

  metalearn collect --config=configs/metadt.py:point --out=point.npz [--config.task.quality=expert ...]
  bash launch/local.sh --config=configs/metadt.py:point --config.task.data=point.npz ...

The same config and seeds give the same file. An existing file is refused, never overwritten.
"""

import os
import time
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from metalearn import cli
from metalearn.reporting import tables
from metalearn.rl import recipe as recipe_lib, store
from metalearn.runtime import config as config_lib, manifest
from metalearn.validate import require, within


def run(config: ConfigDict, out: str) -> dict[str, Any]:
    """Collects by `config.task`, writes `out`, returns the headline numbers; ConfigError before any work."""
    began = time.monotonic()
    store.refuse(out)
    task = config.task
    require(task.name == "offline", "config.task.name", task.name, "must be offline: only its tasks are collected")
    fields = task.to_dict()
    with within("config.task"):
        recipe = recipe_lib.Recipe(**{k: fields[k] for k in recipe_lib.FIELDS})
    param_BX, logs = recipe.collect()
    return_BE = logs.rtg_BT[..., 0]
    header = recipe.header() | {"mean_return": np.round(return_BE.mean(1), 4).tolist(),
                                "best_return": np.round(return_BE.max(1), 4).tolist(),
                                "versions": manifest.versions()}
    sha = store.save(out, param_BX, logs, header)
    rows = [[i, f"{r.mean():.2f}", f"{r.min():.2f}", f"{r.max():.2f}"] for i, r in enumerate(return_BE[:10])]
    tables.show({"tables": [{"title": f"{task.behaviour} in {task.env.name}: returns of the first tasks",
                             "columns": ["task", "mean", "worst", "best"], "rows": rows}]})
    return {"out": out, "sha256": sha, "tasks": len(param_BX), "episodes": task.episodes,
            "steps": int(logs.mask_BT.sum()),
            "return_mean": float(return_BE.mean()), "return_best": float(return_BE.max(1).mean()),
            "bytes": os.path.getsize(out), "seconds": time.monotonic() - began}


def main() -> int:
    parser = cli.Parser(__doc__, prog="metalearn collect")
    parser.add_argument("--config", required=True, help="FILE[:argument]; its task must be offline")
    parser.add_argument("--out", required=True, help="the .npz to write")
    args = parser.parse()
    cli.print_result(run(config_lib.load(args.config, args.overrides), os.path.abspath(args.out)))
    return 0


if __name__ == "__main__":
    cli.main(main)
