"""Make a folder of a run's weights that can be handed on: safetensors, config, model card; no pickle.

  metalearn export WORKDIR --out=DIR [--step=N] [--replica=R]

What comes out is read where a work directory is: `metalearn.load(DIR)`, `metalearn eval --workdir=DIR`, and
`init_from=DIR` of another run. It gives the same bits, and needs none of the data that the run was trained on.
"""

import glob
import os
import shutil

from metalearn import api, cli
from metalearn.runtime import config as config_lib, exported, manifest, stored, workdir as workdir_lib
from metalearn.runtime.checkpoint import Checkpoints
from metalearn.types import Result
from metalearn.validate import require

# the first lines are what model hubs read
CARD = """---
library_name: metalearn-jax
tags: [jax, flax, meta-learning, {task}]
---
# {title}

Learner `{learner}` on task `{task}`, {parameters:,} parameters, after {step:,} updates.

```python
import metalearn

learner = metalearn.load("this folder")     # pip install "metalearn-jax[export]"
```

What it predicts from: docstring of `metalearn.api`. `config.json` is the whole experiment; `task.npz` is what
predicting needs of its data; `model.safetensors` holds parameters and what the learner carries between updates.

## Evaluation

{evaluation}

## Where it is from

| | |
|---|---|
{origin}
"""


def run(workdir: str, out: str, step: int | None = None, replica: int = 0) -> dict:
    """Writes `out`, which must be new or empty; returns what the RESULT line says. ConfigError as `metalearn.load`."""
    workdir, out = os.path.abspath(workdir), os.path.abspath(out)
    require(not os.path.lexists(out) or os.path.isdir(out) and not os.listdir(out), "--out", out,
            "is there already: name a new directory")
    require(not exported.is_one(workdir), "WORKDIR", workdir, "is an exported one: copy it")
    trained = api.load(workdir, step, replica)
    config, plan = trained.config.copy_and_resolve_references(), trained.plan
    for field, value in plan.settings[replica].items() if plan.num > 1 else ():
        config_lib.assign(config, field, value)
    with config.unlocked():
        config.replicas = {"num": 1, "at_once": 0, "vary": {}}
    os.makedirs(out, exist_ok=True)
    sha256 = exported.write(out, {"params": trained.params, "carry": trained.carry}, trained.step)
    workdir_lib.write_text(os.path.join(out, "config.json"), config_lib.to_json(config))
    if os.path.exists(kept := os.path.join(workdir, stored.FILE)):
        shutil.copyfile(kept, os.path.join(out, stored.FILE))
    card = _card(workdir, trained, sha256)
    workdir_lib.write_text(os.path.join(out, "README.md"), card)
    return {"out": out, "step": trained.step, "sha256": sha256}


def _card(workdir: str, trained: api.Trained, sha256: str) -> str:
    """README.md of the folder: what it is, how well it did where, and what made it."""
    found, meta = manifest.read(workdir), Checkpoints(os.path.join(workdir, "checkpoints")).meta(trained.step)
    origin = {"command": found.get("command", "not known"), "git": found.get("git", "not known"),
              "device": found.get("device", "not known"), "weights, SHA-256": sha256,
              "training data, SHA-256": meta.get("data_sha256", "not known"), **meta.get("versions", {})}
    parts = []
    for path in sorted(glob.glob(os.path.join(glob.escape(workdir), "eval", "*.json"))):
        result: Result = workdir_lib.read_json(path) or {}
        if result.get("evaluated", {}).get("step") == trained.step:
            parts += [f"### {os.path.basename(path)[:-5]}\n", *map(_table, result.get("tables", []))]
            parts += [f"{name}: `{value}`\n" for name, value in result["headline"].items() if name.endswith("sha256")]
    return CARD.format(
        title=os.path.basename(workdir), task=trained.config.task.name, learner=trained.config.learner.name,
        parameters=trained.parameters, step=trained.step, origin="\n".join(_row(pair) for pair in origin.items()),
        evaluation="\n".join(parts) or f"None was made of step {trained.step}.")


def _table(table: dict) -> str:
    rule = "|" + "---|" * len(table["columns"])
    return "\n".join([f"{table['title']}:\n", _row(table["columns"]), rule, *map(_row, table["rows"])]) + "\n"


def _row(cells) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def main() -> int:
    parser = cli.Parser(__doc__, prog="metalearn export")
    parser.add_argument("workdir")
    parser.add_argument("--out", required=True, help="the directory to write, new")
    parser.add_argument("--step", type=int, help="a checkpoint other than the newest")
    parser.add_argument("--replica", type=int, default=0, help="which of several replicas")
    args = parser.parse()
    require(not args.overrides, "--config." + "".join(args.overrides[:1]), "", "a run is exported as it is")
    found = run(args.workdir, args.out, args.step, args.replica)
    cli.print_result(found)
    cli.say(f"next: metalearn eval --workdir={args.out}; in Python metalearn.load({args.out!r})")
    return 0


if __name__ == "__main__":
    cli.main(main)
