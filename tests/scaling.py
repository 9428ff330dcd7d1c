"""How an update grows: with devices, batch, length, width, replicas and processes; and what `paper` configs would need.

  python -m tests.scaling [--only=size,devices,replicas,processes,plan] [--store]     (bash launch/test.sh --scaling)

Every row is `metalearn benchmark` (or `train`, for processes) in a process of its own, so that each has the devices
that it says. All of it on one machine: virtual devices and processes share its cores, and what they cost is seen, not
what a cluster would gain. `--store` puts the tables into results/scaling.json, in the place of those of the same title.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time

import jax

from metalearn.runtime import config as config_lib, experiment as experiment_lib, loop, replicas, sharding
from tests import benchmark, measured
from tests.faults import together

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DIGITS = ("configs/gpicl.py:shifted", "train.steps_per_call=5")


def bench(config: str, *changes: str, devices: int = 1, memory: bool = True) -> tuple[float, float]:
    """(milliseconds of an update, MiB that it needs beside its arguments) as the compiler says, on all devices."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    found = []
    for extra in (["--rounds=5"], ["--memory"])[:1 + memory]:
        words = [sys.executable, "-m", "tests.benchmark", f"--config={config}", *extra,
                 *(f"--config.{change}" for change in changes)]
        done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env=os.environ | {
            "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"})
        assert done.returncode == 0, done.stderr
        line = next(line for line in reversed(done.stdout.splitlines()) if line.startswith("RESULT "))
        found.append(json.loads(line.removeprefix("RESULT "))["rows"][0])
    return found[0]["ms_per_step"], found[-1].get("temp_bytes", 0) / 2**20


def size() -> dict:
    """One thing larger at a time, from the digits job in the paper's layout: 2 blocks of 64, T = 20, batch 64."""
    rows = []
    for name, values, changes in (
            ("batch", (16, 64, 256), lambda v: [f"train.batch={v}"]),
            ("T, batch 2", (100, 400, 1600, 4096), lambda v: [f"task.length={v}", "train.batch=2"]),
            ("width", (64, 128, 256, 512), lambda v: [f"learner.network.width={v}", f"learner.network.mlp={4 * v}"])):
        for value in values:
            ms, mib = bench(*DIGITS, *changes(value))
            rows.append([name, value, round(ms, 1), round(mib, 1)])
    return {"title": "Growth with size, digits in the paper's layout", "columns": ["what", "", "ms", "MiB"],
            "rows": rows}


def devices() -> dict:
    rows = []
    for num in (1, 2, 4, 8):
        for params in ("replicated", "sharded"):
            ms, mib = bench(*DIGITS, f"train.mesh.params={params}", devices=num)
            rows.append([num, params, round(ms, 1), round(mib, 1)])
    return {"title": f"Virtual devices on {os.cpu_count()} cores, the same batch of 64 (MiB of each device)",
            "columns": ["devices", "parameters", "ms", "MiB"], "rows": rows}


def together_at_once() -> dict:
    """Runs side by side in one program: updates of all of them in a second."""
    rows = []
    for config in ("configs/memnet.py:gated_recall", "configs/gpicl.py:shifted"):
        for num in (1, 4, 16, 64):
            row = [config.rpartition(":")[2], num]
            for at_once, count in ((0, 1), (1, 1), (1, 2)):
                if num % count or num == 64 and "gpicl" in config:
                    row.append(None)
                    continue
                ms, _ = bench(config, f"replicas.num={num}", f"replicas.at_once={min(at_once, num)}",
                              "train.steps_per_call=5", devices=count, memory=False)
                row.append(round(1e3 * num / ms))
            rows.append(row)
    return {"title": "R replicas in one program: updates a second, of all together",
            "columns": ["config", "R", "all at once", "one after another", "the same, two devices"], "rows": rows}


def among_processes() -> dict:
    """Strong: the same batch among more; weak: as many episodes for each. Seconds of 1,200 updates alone."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("strong", "weak"):
            for num in (1, 2):
                took = []
                for steps in (80, 40, 1240):  # the first compiles for both
                    changes = (f"train.steps={steps}", "train.steps_per_call=20", "train.log_every=40",
                               "train.save_every=1000000", "train.eval_every=0", "task.length=20", "task.pca=32",
                               "learner.network.width=64", f"train.batch={64 * (num if kind == 'weak' else 1)}")
                    port, began = together._port(), time.monotonic()
                    pair = [together._start(os.path.join(folder, f"{kind}{num}-{steps}"), port, i, *changes, num=num,
                                            devices=1, timeout=120) for i in range(num)]
                    codes, said = together._ends(pair)
                    assert not any(codes), said
                    took.append(time.monotonic() - began)
                rows.append([kind, num, round(took[2] - took[1], 1)])
    return {"title": "Processes of one run on this machine, which share its cores: seconds of 1,200 updates",
            "columns": ["scaling", "processes", "seconds"], "rows": rows}


POINT = ("task.behaviour=search", "task.quality=mixed")
PLANS = (("configs/gpicl.py:paper",), ("configs/gpicl.py:paper", "learner.network.remat=blocks"),
         ("configs/gpicl.py:mnist",), ("configs/metadt_paper.py:point", *POINT),
         ("configs/metadt_paper.py:point", *POINT, "learner.remat=blocks"), ("configs/memnet.py:omniglot_online",))
# without it the CPU's compiler undoes what `remat` asks for, which an accelerator's does not
KEEP_REMAT = {"xla_disable_hlo_passes": "cse_barrier_expander"}


def plan() -> dict:
    """Of one update, compiled for each device's share of the batch and never run: products, state, what is live, and
    what a ring of N devices sends (gradients summed; with sharded parameters gathered twice and summed once)."""
    rows = []
    for spec, *changes in PLANS:
        config = config_lib.load(spec, changes)
        config.init_from = ""
        with tempfile.TemporaryDirectory() as folder:
            experiment = experiment_lib.with_data(experiment_lib.build(config), folder)
        mesh = sharding.make_mesh(1)
        data, key = replicas.data(experiment.plan, experiment.task.data), replicas.roots(experiment.plan)
        state = shapes(experiment, data, key)
        update = loop.make_update(experiment, mesh)
        one = jax.make_jaxpr(lambda *a, update=update: update(*a, 1))(state, data, key)
        work = benchmark.flop(benchmark.count_matmuls(one.jaxpr))
        params, moments = (sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
                           for tree in (state.params, state.opt_state))
        for num in (1, 8, 64, 256):
            if config.train.batch % num:
                continue
            share = config_lib.load(spec, [*changes, f"train.batch={config.train.batch // num}"])
            share.init_from = ""
            part = experiment_lib.build(share, experiment.task)
            temp = loop.make_update(part, mesh).lower(shapes(part, data, key), data, key, 1).compile(
                KEEP_REMAT).memory_analysis().temp_size_in_bytes
            print(f"{spec}, {num} devices: compiled", file=sys.stderr, flush=True)
            ring = 2 * (num - 1) / num * params
            label = spec.removeprefix("configs/") + ("".join(f", {c}" for c in changes if "remat" in c))
            rows.append([label, num, config.train.batch // num, round(work / 1e9 / num, 1),
                         *(round(b / 2**20, 1) for b in (params, moments, temp, ring, 1.5 * ring))])
    return {"title": "Of one update on each of N accelerators (compiled on a CPU, not run)",
            "columns": ["config", "N", "batch", "GFLOP", "parameters MiB", "moments MiB", "live MiB", "sent MiB",
                        "sent, sharded MiB"], "rows": rows}


def shapes(experiment, data, key):
    return jax.eval_shape(loop.make_init(experiment), data, key)


SECTIONS = {"size": size, "devices": devices, "replicas": together_at_once, "processes": among_processes,
            "plan": plan}


if __name__ == "__main__":
    measured.main(
        __doc__, "scaling", "How an update grows: size, devices, replicas, processes",
        "benchmark --config=configs/gpicl.py:shifted --config.train.devices=2",
        "`bash launch/test.sh --scaling --store` writes this record; the command above is one of its rows.", SECTIONS,
        digits=1)
