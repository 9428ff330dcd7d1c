"""Evaluate a checkpoint: the same evaluators that training ran, on the same frozen episodes, so the same numbers.

  metalearn eval --workdir=runs/gpicl [--dataset=NAME|FILE.npz|FOLDER] [--step=N]

`--dataset` evaluates on a dataset that was never trained on, alone, resized and normalised as the training dataset was.
Reads the config out of the work directory; never runs Python from it. An evaluation that differs from training's own
says how in its name and in its field `evaluated`: eval/curves@seed=3,step=500.json.
"""

import hashlib
import os
import re
from typing import Any

from ml_collections import ConfigDict

from metalearn import cli
from metalearn.datasets.archives import sha256_of
from metalearn.reporting import plots, tables
from metalearn.runtime import config as config_lib, experiment as experiment_lib, loop, replicas, workdir as workdir_lib
from metalearn.runtime.experiment import Experiment
from metalearn.types import PyTree, Result
from metalearn.validate import require


def evaluate(experiment: Experiment, params: PyTree, carry: PyTree, directory: str, step: int, suffix: str = "",
             changed: tuple[str, ...] = ()) -> dict[str, Any]:
    """Runs every evaluator, writes eval/<name><suffix>.json and its plots, prints its tables; with "" for a directory
    nothing of that.

    step, changed   the parameters' step, and how the config differs from the run's: what the files say of themselves

    Returns the headline numbers of all of them, {evaluator: {name: number}}. An evaluator sees one network: of several
    replicas, one after another.
    """
    plan = experiment.plan
    rows: list[dict[str, Any]] = [{} for _ in range(plan.num)]
    for name in experiment.evaluators:
        results: list[Result] = [cli.plain(_run(experiment, name, params, carry, r)) for r in range(plan.num)]
        rows = [row | {name: one["headline"]} for row, one in zip(rows, results, strict=True)]
        if not directory:
            continue
        result = results[0] if plan.num == 1 else cli.plain(replicas.merge(plan, results))
        result |= {"evaluated": {"step": step, "changed": list(changed)}}
        workdir_lib.write_json(os.path.join(directory, "eval", f"{name}{suffix}.json"), result)
        tables.show(result)
        plots.plot(result, os.path.join(directory, "plots", f"{name}{suffix}"))
    return replicas.summary(plan, rows)


def headlines(experiment: Experiment, params: PyTree, carry: PyTree) -> dict[str, Any]:
    """The headline numbers of `evaluate` alone; nothing is written."""
    return evaluate(experiment, params, carry, "", 0)


def _run(experiment: Experiment, name: str, params: PyTree, carry: PyTree, r: int) -> Result:
    mine = (replicas.one(experiment.plan, tree, r) for tree in (params, carry))
    return experiment.evaluators_of(r)[name].run(*mine)


def run(workdir: str, overrides: dict | None = None, step: int | None = None, dataset: str = "") -> dict:
    """`metalearn.evaluate`, which says what these are; `overrides` {field: value}."""
    workdir = os.path.abspath(workdir)
    own, config = workdir_lib.read_config(workdir), workdir_lib.read_config(workdir)
    config.unlock()
    for field, value in (overrides or {}).items():
        config_lib.assign(config, field, value)
    if dataset:
        _ask(config, os.path.abspath(dataset) if os.path.exists(dataset) else dataset)
    experiment, params, carry, step = loop.restore(experiment_lib.build(config), workdir, step)
    changed = tuple(config_lib.differences(own, config))
    flat = config_lib.flatten(config)
    fields = {name: flat[name] for text in changed if (name := text.partition(": ")[0]) in flat}
    if dataset:  # that stands for what it changed
        fields = {"dataset": dataset, **(overrides or {})}
    suffix = _suffix(fields | ({"step": step} if step != own.train.steps else {}))
    headline = evaluate(experiment, params, carry, workdir, step, suffix, changed)
    return headline | experiment_lib.sizes(experiment, params) | {"step": step}


def _ask(config: ConfigDict, dataset: str) -> None:
    """Makes the config's evaluators ask about `dataset` alone; those that have no sets are left out."""
    blocks = {label: block for label, block in config.evaluators.items() if "sets" in block}
    require("new_dataset" in config.task and bool(blocks), "--dataset", dataset,
            "this run's task takes no other dataset")
    for block in blocks.values():
        if block.name == "learning_curves":  # which scores any dataset in the run's own features
            block.sets = (f"pool:{dataset}",)
        else:
            block.sets, block.episodes_sha256, config.task.new_dataset = ("new",), (), dataset
    config.evaluators = blocks


def _suffix(fields: dict[str, Any]) -> str:
    """'@seed=3,step=500' of these values, short and of plain characters; of files their name and what they hold, as two
    may have one name."""
    words, exact = [], []
    for field, value in sorted(fields.items()):
        if isinstance(value, str) and os.path.isdir(value):
            value = os.path.basename(os.path.abspath(value))
        elif isinstance(value, str) and os.path.isfile(value):
            value = os.path.splitext(os.path.basename(value))[0] + "-" + sha256_of(value)[:8]
        exact.append(f"{field}={value}")
        words.append(re.sub(r"[^A-Za-z0-9._=-]+", "-", exact[-1]).strip("-"))
    text = ",".join(words)
    if text != ",".join(exact) or len(text) > 90:  # what was left out of the name tells two apart all the same
        text = text[:80] + "-" + hashlib.sha256(repr(exact).encode()).hexdigest()[:8]
    return "@" + text if fields else ""


def main() -> int:
    parser = cli.Parser(__doc__, prog="metalearn eval")
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--dataset", default="", help="a dataset's name, an .npz with x and y, or a folder CLASS/*.png")
    parser.add_argument("--step", type=int, help="a checkpoint other than the newest")
    args = parser.parse()
    overrides = dict(o.partition("=")[::2] for o in args.overrides)
    cli.print_result(run(args.workdir, overrides, args.step, args.dataset))
    return 0


if __name__ == "__main__":
    cli.main(main)
