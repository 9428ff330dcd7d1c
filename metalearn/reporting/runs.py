"""The runs of a sweep one by one, whether each had a program of its own or was a replica in one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

from metalearn.runtime import writer


def single(results: Iterable[tuple[dict, dict, str]]) -> Iterator[tuple[dict[str, Any], dict[str, Any], list[dict]]]:
    """(overrides with the replica's own setting, headline, evaluations during training) of every run, out of what the
    launcher hands to `summarise`: (overrides, headline, work directory) of every program."""
    for overrides, headline, workdir in results:
        history = writer.read(os.path.join(workdir, "eval", "history.jsonl"))
        if "replicas" not in headline:
            yield overrides, headline, history
            continue
        for r, row in enumerate(headline["replicas"]):
            mine = [{"step": line["step"]} | line["replicas"][r] for line in history]
            yield overrides | row["setting"], row, mine
