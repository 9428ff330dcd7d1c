"""One code path for any number of devices: eight give what one gives, and a batch they do not divide is refused."""

from __future__ import annotations

import os
import subprocess
import sys

PROGRAM = """
import sys
import jax, numpy as np
from metalearn.runtime import config, experiment, loop, sharding
sharding.split_cpu(int(sys.argv[1]))
parts = experiment.build(config.load("configs/gpicl.py:smoke", ["optim.name=sgd"]))  # Adam would divide by noise
mesh = sharding.make_mesh(0)  # all that there are
data, key = sharding.replicate(parts.task.data, mesh), jax.random.key(0, impl="threefry2x32")
state = sharding.replicate(loop.make_init(parts)(data, key), mesh)
state, means = loop.make_update(parts, mesh)(state, data, key, 2)
leaves = [np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(state.params)]
print(mesh.size, float(means["loss"].compute().sum()), *np.concatenate(leaves)[::50])
"""


def run(devices: int, *program: str) -> subprocess.CompletedProcess:
    flags = os.environ.get("XLA_FLAGS", "") + f" --xla_force_host_platform_device_count={devices}"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    return subprocess.run([sys.executable, *program], env=environment, capture_output=True, text=True, check=False)


def test_eight_devices_agree_with_one():
    one, eight = (run(1, "-c", PROGRAM, str(n)) for n in (1, 8))
    assert one.returncode == eight.returncode == 0, one.stderr + eight.stderr
    a, b = ([float(x) for x in done.stdout.split()] for done in (one, eight))
    assert (a[0], b[0]) == (1, 8)
    # parameters start at the same bits; two updates differ by the order of sums alone
    assert max(abs(x - y) for x, y in zip(a[1:], b[1:], strict=True)) < 1e-5


def test_a_batch_that_the_devices_do_not_divide_is_refused(tmp_path):
    done = run(3, "-m", "metalearn.train", "--config=configs/gpicl.py:smoke", f"--workdir={tmp_path}/run")
    assert done.returncode == 2
    assert done.stderr.strip() == "error: config.train.batch=8: must be a multiple of devices=3"
    assert not (tmp_path / "run").exists()
