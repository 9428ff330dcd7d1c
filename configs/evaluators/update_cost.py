"""What one update costs: compile time, the compiled program's working memory, time, and input positions per second.

The batch is an argument of the measured program, so `temp_bytes` is what the gradient itself needs beside it.
"""

import statistics
import time

import jax

from metalearn.types import Evaluator, Learner, Result, TaskDist
from metalearn.validate import given, positive


def make(task: TaskDist, learner: Learner, *, batch: int, repeats: int, positions: int) -> Evaluator:
    """Measures `learner.grads` on a batch of `batch` episodes, `repeats` times: medians of time and of this process's
    CPU time. The second leaves out waiting for a core that others use; beside an accelerator it is the host's share.

    positions  steps of each episode that one update reads (the segment, or the episode): the unit of the rate
    """
    positive(batch=batch, repeats=repeats, positions=positions)

    def run(params, carry) -> Result:
        data, key = task.placed, jax.random.key(0, impl="threefry2x32")
        drawn = jax.jit(lambda data: task.sample(data, key, task.splits[0], batch))(data)
        _, fresh = jax.eval_shape(learner.init, key, drawn)
        carry = jax.tree.map(lambda s: jax.numpy.zeros(s.shape, s.dtype), fresh)  # the batch may differ from training's
        began = time.perf_counter()
        compiled = jax.jit(learner.grads).lower(params, carry, drawn, key).compile()
        compile_seconds = time.perf_counter() - began
        times, cpu_times, memory = [], [], given(compiled.memory_analysis(), "name", "update_cost", "no sizes here")
        for _ in range(repeats + 1):
            began, cpu_began = time.perf_counter(), time.process_time()
            jax.block_until_ready(compiled(params, carry, drawn, key))
            times.append(time.perf_counter() - began)
            cpu_times.append(time.process_time() - cpu_began)
        seconds, cpu_seconds = statistics.median(times[1:]), statistics.median(cpu_times[1:])
        head = {"temp_bytes": memory.temp_size_in_bytes, "ms_per_update": 1e3 * seconds,
                "cpu_ms_per_update": 1e3 * cpu_seconds, "positions_per_second": batch * positions / seconds,
                "compile_seconds": compile_seconds}
        table = {"title": f"cost of one update, batch {batch}, episode length {task.spec.length}",
                 "columns": list(head), "rows": [[f"{v:.4g}" for v in head.values()]]}
        return {"headline": head, "tables": [table], "facts": {"batch": batch, "device": jax.devices()[0].device_kind}}

    return Evaluator(run)
