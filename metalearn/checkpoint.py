"""What a run's checkpoints are worth, and the update that made a run diverge.

  metalearn checkpoint verify WORKDIR     every step, every leaf: good, or why not
  metalearn checkpoint replay WORKDIR     the refused update of a run that stopped as diverged, made again

`verify` reads all arrays and compares their hashes; it exits with 1 where anything is damaged, or nothing is there.
Training and evaluation do the same with what they read, and fall back to the step before (train --strict does not).
"""

import json
import os

from metalearn import cli
from metalearn.reporting import tables
from metalearn.runtime import experiment as experiment_lib, guard, workdir as workdir_lib
from metalearn.runtime.checkpoint import Checkpoints
from metalearn.validate import require


def verify(workdir: str) -> dict[int, dict[str, str]]:
    """{step: {leaf: '' or what is wrong with it}} of every step of a run."""
    workdir_lib.read_config(workdir)
    checkpoints = Checkpoints(os.path.join(workdir, "checkpoints"))
    return {step: checkpoints.verify(step) for step in checkpoints.steps()}


def replay(workdir: str) -> dict:
    """The step, key and batch of the refused update, and what in it is not finite; see runtime/guard.py."""
    config = workdir_lib.read_config(workdir)
    there = os.path.isdir(os.path.join(workdir, guard.FOLDER))
    require(there, "workdir", workdir, f"has no {guard.FOLDER}/: it did not stop as diverged")
    return cli.plain(guard.replay(workdir, experiment_lib.with_data(experiment_lib.build(config), workdir)))


def main() -> int:
    parser = cli.Parser(__doc__, prog="metalearn checkpoint")
    parser.add_argument("what", choices=("verify", "replay"))
    parser.add_argument("workdir")
    args = parser.parse()
    require(not args.overrides, "--config." + "".join(args.overrides[:1]), "", "a run is taken as it is")
    workdir = os.path.abspath(args.workdir)
    if args.what == "replay":
        found = replay(workdir)
        print(json.dumps(found, indent=1))
        cli.print_result({"step": found["step"], "not_finite": found["not_finite"]})
        return 0
    found = verify(workdir)
    rows = [[step, leaf, reason or "good"] for step, leaves in found.items() for leaf, reason in leaves.items()]
    tables.show({"tables": [{"title": workdir, "columns": ["step", "leaf", ""], "rows": rows}]})
    bad = [step for step, leaves in found.items() if any(leaves.values())]
    cli.print_result({"good": [step for step in found if step not in bad], "bad": bad})
    return cli.EXIT_FAILURE if bad or not found else 0


if __name__ == "__main__":
    cli.main(main)
