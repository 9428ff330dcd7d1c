"""The runs of a sweep as tables take them: each with its label, and replicas as the runs that they are."""

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from metalearn.runtime import workdir as workdir_lib, writer


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run of a sweep.

    label      what the sweep calls it, unique in the sweep; what stands before its first comma is shared by the runs
               that one row of a table is made of: "maml, seed 0", "maml, seed 1"
    overrides  the fields that the sweep changed
    headline   its result.json: {evaluator: {name: number}}, and what is the run's own, as its seconds
    workdir    its work directory
    """

    label: str
    overrides: Mapping[str, Any]
    headline: Mapping[str, Any]
    workdir: str

    @property
    def name(self) -> str:
        return self.label.partition(",")[0]

    def history(self) -> list[dict[str, Any]]:
        """The evaluations during training."""
        return writer.read(os.path.join(self.workdir, "eval", "history.jsonl"))

    def config(self):
        """The config that it saved."""
        return workdir_lib.read_config(self.workdir)


def single(runs: Iterable[Run]) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any], list[dict]]]:
    """(overrides with the replica's own setting, headline, evaluations during training) of every run and replica."""
    for run in runs:
        history = run.history()
        if "replicas" not in run.headline:
            yield run.overrides, run.headline, history
            continue
        for r, row in enumerate(run.headline["replicas"]):
            mine = [{"step": line["step"]} | line["replicas"][r] for line in history]
            yield {**run.overrides, **row["setting"]}, row, mine
