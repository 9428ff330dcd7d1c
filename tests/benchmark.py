"""How fast a config's update is on this device: against PyTorch, and as a share of the device's matrix rate.

  metalearn benchmark --config=configs/gpicl.py:shifted [--rounds=7]
  metalearn benchmark --memory --config=configs/fewshot.py:memory,plain --config=...:memory,remat      (in a clone)

With PyTorch the same update (`torch_reference.py`) runs in the same rounds, interleaved, eager and compiled, on one
thread and two, after loss and gradient norm agreed to 1e-4. Times are medians. FLOP are those of the
matrix products in the program as written (its jaxpr), held against the fastest 2048^3 product of the same rounds.
`--memory` compiles alone: bytes that the update needs beside its arguments and results.
"""

from __future__ import annotations

import math
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from metalearn import cli
from metalearn.reporting import tables
from metalearn.runtime import config as config_lib, experiment as experiment_lib, loop, replicas, sharding
from metalearn.runtime.experiment import Experiment
from metalearn.validate import require

sys.path.append(os.path.dirname(os.path.abspath(__file__)))
import torch_reference  # noqa: E402  (beside this file, wherever the command is called)


def count_matmuls(jaxpr) -> Counter:
    """{(batch, m, k, n): times} of every matrix product in a jaxpr, loops multiplied by their length.

    A product inside a while loop of unknown length counts once.
    """
    found: Counter = Counter()
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contract, _), (batch, _) = equation.params["dimension_numbers"]
            left, right = (v.aval.shape for v in equation.invars)
            num, k = (math.prod(left[i] for i in axes) for axes in (batch, contract))
            m, n = math.prod(left) // (num * k), math.prod(right) // (num * k)
            found[num, m, k, n] += 1
        if equation.primitive.name == "conv_general_dilated":  # of each output, by output channel
            kernel, out = equation.invars[1].aval, equation.outvars[0].aval
            n = kernel.shape[equation.params["dimension_numbers"].rhs_spec[0]]
            found[1, out.size // n, kernel.size // n, n] += 1
        times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    for shape, count in count_matmuls(inner).items():
                        found[shape] += count * times
    return found


def flop(matmuls: Counter) -> float:
    """Floating-point operations of counted matrix products."""
    return float(sum(2 * math.prod(shape) * count for shape, count in matmuls.items()))


def _built(config: ConfigDict) -> Experiment:
    with tempfile.TemporaryDirectory() as directory:
        return experiment_lib.with_data(experiment_lib.build(config), directory)


def memory(spec: str, overrides: list[str]) -> dict:
    """Bytes of one config's compiled update: temporaries at their peak, and arguments."""
    experiment = _built(config := config_lib.load(spec, overrides))
    data, key = replicas.data(experiment.plan, experiment.task.data), replicas.roots(experiment.plan)
    state = jax.eval_shape(loop.make_init(experiment), data, key)
    update = loop.make_update(experiment, sharding.make_mesh(config.train.devices, config.train.mesh.model))
    began = time.perf_counter()
    used: Any = update.lower(state, data, key, 1).compile().memory_analysis()
    return {"config": spec, "temp_bytes": used.temp_size_in_bytes, "argument_bytes": used.argument_size_in_bytes,
            "compile_seconds": time.perf_counter() - began}


def measure(spec: str, overrides: list[str], rounds: int) -> dict:
    """The figures of one config, medians over `rounds` interleaved rounds."""
    config = config_lib.load(spec, overrides)
    sharding.split_cpu(config.train.devices)
    experiment = _built(config)
    mesh = sharding.make_mesh(config.train.devices, config.train.mesh.model)
    data = sharding.replicate(replicas.data(experiment.plan, experiment.task.data), mesh)
    key = replicas.roots(experiment.plan)
    state = loop.make_init(experiment)(data, key)
    state = sharding.place(state, loop.place_of(experiment, state, mesh))
    update, num = loop.make_update(experiment, mesh), config.train.steps_per_call
    work = flop(count_matmuls(jax.make_jaxpr(lambda *a: update(*a, num))(state, data, key).jaxpr)) / num
    arms, checked = torch_reference.arms(spec, overrides, experiment, data, key, state)
    began = time.perf_counter()
    compiled = update.lower(state, data, key, num).compile()
    compile_seconds = time.perf_counter() - began

    def ours():
        nonlocal state
        state, means = compiled(state, data, key)
        jax.block_until_ready(means)

    run, amount = _matmul(2048)
    seconds = _rounds({"ours": ours, "matmul": run} | arms, rounds)
    ours_S, peak = [s / num for s in seconds.pop("ours")], amount / min(seconds.pop("matmul"))
    step, length, tasks = statistics.median(ours_S), experiment.task.spec.length, config.train.batch
    row = {"config": spec, "device": jax.devices()[0].device_kind, "ms_per_step": step * 1e3,
           "ms_min": min(ours_S) * 1e3, "ms_max": max(ours_S) * 1e3, "tasks_per_second": tasks / step,
           "tokens_per_second": tasks * length / step, "model_gflop_per_step": work / 1e9,
           "model_gflops": work / step / 1e9, "matmul_gflops": peak / 1e9, "fraction_of_matmul": work / step / peak,
           "compile_seconds": compile_seconds}
    by_arm = {name: statistics.median(times) * 1e3 for name, times in seconds.items()}
    best = min(by_arm, key=lambda arm: by_arm[arm], default=None)
    if best:
        row |= {"torch_ms": by_arm, "torch_best": best, "times_torch": by_arm[best] / row["ms_per_step"],
                "torch_min": min(seconds[best]) * 1e3, "torch_max": max(seconds[best]) * 1e3} | checked
    return row


def _rounds(runs: dict[str, Callable], rounds: int) -> dict[str, list[float]]:
    """Seconds of each in turn, `rounds` times; short ones are repeated within a round, after one call that warms up
    the caches and wakes the threads. One that fails in its first call is left out."""
    repeats, seconds = {}, {}
    for name, run in runs.items():
        try:
            run()
            repeats[name] = max(1, min(20, round(0.1 / _time(run))))
        except Exception as error:  # noqa: BLE001 - a compiler's failure is that arm's end, and no more
            print(f"{name} is left out: {str(error).strip().splitlines()[0][:200]}", file=sys.stderr)
    for _ in range(rounds):
        for name, num in repeats.items():
            runs[name]()
            times = [_time(runs[name]) for _ in range(num)]
            seconds.setdefault(name, []).append(statistics.median(times))
    return seconds


def _matmul(size: int):
    """(run, FLOP per run) of a square f32 product."""
    a, run = jnp.full((size, size), 1e-3), jax.jit(lambda a: a @ a)
    return lambda: jax.block_until_ready(run(a)), 2.0 * size**3


def _time(run) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


COLUMNS = ["update", "ms", "from", "to", "PyTorch ms", "best arm", "times PyTorch", "GFLOP/s", "% of peak", "compile s"]


def cells(name: str, row: dict) -> list:
    """A row of the table."""
    number = lambda x: round(x) if x >= 100 else float(f"{x:.3g}")
    theirs = [None] * 3
    if "torch_best" in row:
        theirs = [number(row["torch_ms"][row["torch_best"]]), row["torch_best"], round(row["times_torch"], 2)]
    return [name, *(number(row[k]) for k in ("ms_per_step", "ms_min", "ms_max")), *theirs, round(row["model_gflops"]),
            round(100 * row["fraction_of_matmul"]), round(row["compile_seconds"], 1)]


def main() -> int:
    parser = cli.Parser(__doc__, prog="metalearn benchmark")
    parser.add_argument("--config", required=True, action="append", help="FILE[:argument]; repeat for several rows")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--memory", action="store_true", help="compiled peak bytes alone; runs nothing")
    args = parser.parse()
    require(args.rounds >= 1, "--rounds", args.rounds, "must be at least 1")
    if args.memory:
        rows = [memory(spec, args.overrides) for spec in args.config]
        table = [[r["config"].rpartition(":")[2], f"{r['temp_bytes'] / 2**20:.1f}",
                  f"{r['argument_bytes'] / 2**20:.1f}", f"{r['compile_seconds']:.1f}"] for r in rows]
        tables.show({"tables": [{"title": f"one compiled update on {jax.devices()[0].device_kind}", "rows": table,
                                 "columns": ["config", "temporaries MiB", "arguments MiB", "compile s"]}]})
        cli.print_result({"rows": rows})
        return 0
    jax.config.update("jax_enable_compilation_cache", False)  # compiling is measured
    rows = [measure(spec, args.overrides, args.rounds) for spec in args.config]
    names = [r["config"].rpartition(":")[2] for r in rows]
    title = f"one update on {rows[0]['device']}, medians of {args.rounds} rounds, peak {rows[0]['matmul_gflops']:.0f}"
    tables.show({"tables": [{"title": title, "columns": COLUMNS, "rows": [
        ["" if c is None else str(c) for c in cells(*pair)] for pair in zip(names, rows, strict=True)]}]})
    cli.print_result({"rows": rows})
    return 0


if __name__ == "__main__":
    cli.main(main)
