"""The fault suite: kills, damage, full disks, bad input, and what is left afterwards. One table by R-number.

  python -m tests.faults [--short] [--only=R1,R4] [--jobs=2] [--keep]      (bash launch/test.sh --faults)

Every section runs in a process of its own. A case is *lost* where a promise did not hold; each is named with what was
seen, and the exit code is then 1. `--short` tries each kind of case a few times.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
import traceback

WORK = tempfile.mkdtemp(prefix="metalearn-faults-")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.join(WORK, "compiled"))  # before anything imports jax
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from metalearn import cli  # noqa: E402
from metalearn.reporting import tables  # noqa: E402
from metalearn.validate import require  # noqa: E402

from . import damage, kills, processes, rest  # noqa: E402

# R-number, what it is, the section, cases of each kind, and how many in --short
SECTIONS = [
    *(("R1", "kill -9 at random moments", kills.random_kills(family), 20, 2) for family in processes.FAMILIES),
    ("R2", "killed at four points inside a save", kills.inside_saving, 10, 1),
    ("R3", "five signals: once, twice, after a stop", kills.signals, 6, 1),
    ("R4", "a bit flipped in the newest step", damage.flips, 100, 20),
    ("R5", "each file of a step cut or deleted", damage.cuts, 1, 1),
    ("R6", "every checkpoint bad, or gone", damage.all_bad, 1, 1),
    ("R7", "disk full, read-only; directory removed", damage.disk, 3, 1),
    ("R8", "1, 2, 4, 8 devices and back", rest.devices, 1, 1),
    ("R9", "the same command twice", rest.twice, 100, 24),
    ("R11", "batches that are not finite", rest.broken_batches, 1, 1),
    ("R14", "updates that do not come back", rest.ordinary("tests/test_runtime_watchdog.py"), 1, 1),
    ("R16", "bad configurations of all programs", rest.bad_input, 1, 1),
    ("R17", "another config in the directory", rest.other_configs, 1, 1),
    ("R18", "two trainers in one directory", kills.two_at_once, 5, 1),
    ("R19", "a checkpoint of an older version",
     rest.ordinary("tests/test_runtime_checkpoint.py", "-k", "long_ago"), 1, 1),
    ("R20", "archives of what they should not hold",
     rest.ordinary("tests/test_datasets_archives.py", "tests/test_datasets_preparing.py"), 1, 1),
    ("R21", "soak: memory, descriptors, compilations", rest.soak, 100_000, 10_000),
    ("R22", "what saving costs", rest.cost, 1, 1),
    ("R22", "killed every two minutes", rest.goodput, 120, 60),
    ("-", "files that hold code", rest.ordinary("tests/test_eval.py", "tests/test_rl_store.py"), 1, 1),
    ("-", "hostile directories and checkpoints", damage.hostile, 1, 1),
]


def work(index: int, short: bool) -> None:
    """Runs one section and writes its cases."""
    _, _, section, many, few = SECTIONS[index]
    folder = os.path.join(WORK, f"section{index}")
    os.makedirs(folder)
    cases, began = [], time.monotonic()
    try:
        for case in section(folder, few if short else many):
            cases.append(dict(name=case.name, held=case.held, seen=case.seen, note=case.note))
    except BaseException as error:
        traceback.print_exc()
        cases.append(dict(name="the section itself", held=False, seen=f"{type(error).__name__}: {error}"[:400]))
    with open(os.path.join(WORK, f"section{index}.json"), "w", encoding="utf-8") as file:
        json.dump({"cases": cases, "seconds": time.monotonic() - began}, file)
    if all(case["held"] for case in cases):
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    parser = cli.Parser(__doc__, prog="python -m tests.faults")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--only", default="", help="R-numbers, comma-separated")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="sections at a time")
    parser.add_argument("--keep", action="store_true", help="leave the directories of lost cases")
    args = parser.parse()
    known = list(dict.fromkeys(r for r, *_ in SECTIONS))
    only = args.only.split(",") if args.only else known
    require(set(only) <= set(known), "--only", args.only, "must be of " + ", ".join(known))
    chosen = [i for i, (r, *_) in enumerate(SECTIONS) if r in only]
    began, running, waiting = time.monotonic(), {}, list(chosen)
    while waiting or running:
        while waiting and len(running) < args.jobs:
            index = waiting.pop()  # from the end, where the longest single one is: it would run alone
            sys.stdout.flush()
            pid = os.fork()
            if not pid:
                work(index, args.short)
                sys.stdout.flush()
                os._exit(0)
            running[pid] = index
        pid, _ = os.wait()
        if (index := running.pop(pid, None)) is not None:
            print(f"{SECTIONS[index][0]}: {SECTIONS[index][1]}: done", file=sys.stderr, flush=True)
    return report(chosen, time.monotonic() - began, args.keep)


def report(chosen: list[int], seconds: float, keep: bool) -> int:
    rows: dict[str, list] = {}
    lost, notes = [], []
    for index in chosen:
        r, text, *_ = SECTIONS[index]
        path = os.path.join(WORK, f"section{index}.json")
        found = {"cases": [dict(name="the section itself", held=False, seen="it was killed")], "seconds": 0.0}
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                found = json.load(file)
        row = rows.setdefault(text, [r, text, 0, 0, 0, 0.0])
        held = sum(case["held"] for case in found["cases"])
        for i, value in enumerate((len(found["cases"]), held, len(found["cases"]) - held, found["seconds"])):
            row[2 + i] += value
        lost += [f"{r} {case['name']}: {case['seen']}" for case in found["cases"] if not case["held"]]
        notes += [f"{r} {case['name']}: {case['note']}" for case in found["cases"] if case.get("note")]
    tables.show({"tables": [{"title": "faults", "columns": ["", "fault", "cases", "survived", "lost", "seconds"],
                             "rows": [[*row[:5], f"{row[5]:.0f}"] for row in rows.values()]}]})
    print("\n".join(["", *notes, *(f"LOST {line}" for line in lost)]), flush=True)
    if lost and keep:
        print(f"kept: {WORK}")
    else:
        shutil.rmtree(WORK, ignore_errors=True)
    cases = sum(row[2] for row in rows.values())
    cli.print_result({"cases": cases, "survived": cases - len(lost), "lost": len(lost), "seconds": seconds})
    return int(bool(lost))


if __name__ == "__main__":
    cli.main(main)
