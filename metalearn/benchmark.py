"""How fast a config's update is on this device, and what share of the device's matrix rate it reaches.

  metalearn benchmark --config=configs/gpicl.py:digits [--rounds=5]
  metalearn benchmark --memory --config=configs/fewshot.py:memory,plain --config=...:memory,remat

Prints steps/s, tasks/s (episodes), tokens/s (batch x episode length), compile time, model FLOP/s and its fraction of
two rates measured in the same interleaved rounds: a 2048^3 matmul, and a matmul of the shape that dominates the
update. FLOP are those of the matrix products in the program as written (counted in its jaxpr: forward, backward, task
generation), so neither recomputation that the compiler drops nor element-wise work flatters the figure. Pass as many
configs as you like.

Where PyTorch is installed, MAML and prototypes on Conv4 are timed there too, the same update
(`metalearn/measure/torch_reference.py`) in the same interleaved rounds.

`--memory` compiles the update and runs nothing: the compiler's own figure of the bytes that it needs beside its
arguments (parameters, optimiser state, datasets) and results.
"""

from __future__ import annotations

import math
import statistics
import sys
import tempfile
import time
from collections import Counter

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from metalearn import cli
from metalearn.measure import torch_reference
from metalearn.reporting import tables
from metalearn.runtime import config as config_lib, experiment as experiment_lib, loop, replicas, sharding
from metalearn.runtime.experiment import Experiment
from metalearn.types import Result


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
    experiment = _built(config_lib.load(spec, overrides))
    data, key = replicas.data(experiment.plan, experiment.task.data), replicas.roots(experiment.plan)
    state = jax.eval_shape(loop.make_init(experiment), data, key)
    update = loop.make_update(experiment, sharding.make_mesh(experiment.config.train.devices))
    began = time.perf_counter()
    used = update.lower(state, data, key, 1).compile().memory_analysis()
    return {"config": spec, "temp_bytes": used.temp_size_in_bytes, "argument_bytes": used.argument_size_in_bytes,
            "compile_seconds": time.perf_counter() - began}


def measure(spec: str, overrides: list[str], rounds: int) -> dict:
    """The figures of one config, medians over `rounds` interleaved rounds of about a second each."""
    config = config_lib.load(spec, overrides)
    experiment = _built(config)
    mesh = sharding.make_mesh(config.train.devices)
    data = sharding.replicate(replicas.data(experiment.plan, experiment.task.data), mesh)
    key = replicas.roots(experiment.plan)
    state = sharding.replicate(loop.make_init(experiment)(data, key), mesh)
    update, num = loop.make_update(experiment, mesh), config.train.steps_per_call
    matmuls = count_matmuls(jax.make_jaxpr(lambda *a: update(*a, num))(state, data, key).jaxpr)
    work, (shape, _) = flop(matmuls) / num, max(matmuls.items(), key=lambda item: flop(Counter([item[0]])) * item[1])
    began = time.perf_counter()
    compiled = update.lower(state, data, key, num).compile()
    compile_seconds = time.perf_counter() - began

    state, _ = compiled(state, data, key)
    problem = torch_reference.lacks(config)
    if problem:
        print(problem, file=sys.stderr)
    other = torch_reference.make(config, experiment.task.spec) if problem == "" else None
    peaks = {"2048^3": _matmul((1, 2048, 2048, 2048)), "own shape": _matmul(shape)}
    seconds, torch_seconds, rates = [], [], {name: [] for name in peaks}
    if other:
        other()
    for _ in range(rounds):
        began = time.perf_counter()
        state, means = compiled(state, data, key)
        jax.block_until_ready(means)
        seconds.append((time.perf_counter() - began) / num)
        if other:
            torch_seconds.append(min(_time(other) for _ in range(3)))
        for name, (run, amount) in peaks.items():
            rates[name].append(amount / _time(run))
    step = statistics.median(seconds)
    peak = {name: statistics.median(r) for name, r in rates.items()}
    length, tasks = experiment.task.spec.length, config.train.batch
    theirs = statistics.median(torch_seconds) if other else None
    beside = {"torch_ms_per_step": theirs * 1e3, "torch_tasks_per_second": tasks / theirs} if other else {}
    return {"config": spec, "device": jax.devices()[0].device_kind, "ms_per_step": step * 1e3,
            "ms_min": min(seconds) * 1e3, "ms_max": max(seconds) * 1e3,
            "steps_per_second": 1 / step, "tasks_per_second": tasks / step,
            "tokens_per_second": tasks * length / step, "model_gflop_per_step": work / 1e9,
            "model_gflops": work / step / 1e9, "matmul_gflops": peak["2048^3"] / 1e9,
            "own_shape": "x".join(map(str, shape)), "own_shape_gflops": peak["own shape"] / 1e9,
            "fraction_of_matmul": work / step / peak["2048^3"],
            "fraction_of_own_shape": work / step / peak["own shape"], "compile_seconds": compile_seconds} | beside


def _matmul(shape):
    """(run, FLOP per run) of a batched f32 product, repeated inside one program so that dispatch costs nothing."""
    num, m, k, n = shape
    amount = 2.0 * math.prod(shape)
    repeats = max(1, int(2e10 / amount)) if amount < 2e10 else 1
    a, b = jnp.ones((num, m, k)), jnp.full((num, k, n), 1e-3)

    @jax.jit
    def run(a, b):
        # the next factor depends on the last product, so no repetition can be dropped
        step = lambda _, c: jnp.einsum("bmk,bkn->bmn", a + c[:, :1, :1] * 1e-9, b)
        return jax.lax.fori_loop(0, repeats, step, jnp.zeros((num, m, n)))

    jax.block_until_ready(run(a, b))
    return lambda: jax.block_until_ready(run(a, b)), amount * repeats


def _time(run) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def main() -> int:
    parser = cli.Parser(__doc__, prog="metalearn benchmark")
    parser.add_argument("--config", required=True, action="append", help="FILE[:argument]; repeat for several rows")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", action="store_true", help="compiled peak bytes alone; runs nothing")
    args = parser.parse()
    if args.memory:
        rows = [memory(spec, args.overrides) for spec in args.config]
        table = [[r["config"].rpartition(":")[2], f"{r['temp_bytes'] / 2**20:.1f}",
                  f"{r['argument_bytes'] / 2**20:.1f}", f"{r['compile_seconds']:.1f}"] for r in rows]
        tables.show({"tables": [{"title": f"one compiled update on {jax.devices()[0].device_kind}", "rows": table,
                                 "columns": ["config", "temporaries MiB", "arguments MiB", "compile s"]}]})
        cli.print_result({"rows": rows})
        return 0
    rows = [measure(spec, args.overrides, max(args.rounds, 1)) for spec in args.config]
    columns = ["config", "ms/step (min-max)", "steps/s", "tasks/s", "PyTorch tasks/s", "tokens/s", "GFLOP/step",
               "GFLOP/s", "of 2048^3", "of own shape", "compile s"]
    table = [[r["config"].rpartition(":")[2], f"{r['ms_per_step']:.2f} ({r['ms_min']:.2f}-{r['ms_max']:.2f})",
              f"{r['steps_per_second']:.1f}", f"{r['tasks_per_second']:.1f}",
              f"{r['torch_tasks_per_second']:.1f}" if "torch_tasks_per_second" in r else "-",
              f"{r['tokens_per_second']:.0f}", f"{r['model_gflop_per_step']:.3f}",
              f"{r['model_gflops']:.1f}", f"{r['fraction_of_matmul']:.2f} of {r['matmul_gflops']:.0f}",
              f"{r['fraction_of_own_shape']:.2f} of {r['own_shape_gflops']:.0f} ({r['own_shape']})",
              f"{r['compile_seconds']:.1f}"] for r in rows]
    result: Result = {"tables": [{"title": f"one update on {rows[0]['device']}, f32, medians of {args.rounds} rounds",
                                  "columns": columns, "rows": table}]}
    tables.show(result)
    cli.print_result({"rows": rows})
    return 0


if __name__ == "__main__":
    cli.main(main)
