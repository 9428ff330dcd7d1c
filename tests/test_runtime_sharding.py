"""One code path for any number of devices: eight give what one gives, however the state is split among them; and a
batch or a mesh that they do not divide is refused."""

from __future__ import annotations

import os
import subprocess
import sys

PROGRAM = """
import sys
import jax, numpy as np
from metalearn.runtime import config, experiment, loop, replicas, sharding
for fields in sys.argv[1:]:
    fields = [f if f.startswith("replicas") else f"train.{f}" for f in fields.split()]
    fields += ["learner.network.depth=1", "optim.name=sgd"]  # Adam would divide by noise
    parts = experiment.build(config.load("configs/gpicl.py:smoke", fields))
    train = parts.config.train
    mesh = sharding.make_mesh(train.devices, train.mesh.model)
    data, key = sharding.replicate(replicas.data(parts.plan, parts.task.data), mesh), replicas.roots(parts.plan)
    state = loop.make_init(parts)(data, key)
    state = jax.device_put(state, loop.place_of(parts, state, mesh))
    state, means = loop.make_update(parts, mesh)(state, data, key, 2)
    leaves = [np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(state.params)]
    print(mesh.size, sharding.bytes_per_device(state.params), float(means["loss"].compute().sum()),
          *np.concatenate(leaves)[::50])
"""


def run(devices: int, *program: str) -> subprocess.CompletedProcess:
    flags = os.environ.get("XLA_FLAGS", "") + f" --xla_force_host_platform_device_count={devices}"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    return subprocess.run([sys.executable, *program], env=environment, capture_output=True, text=True, check=False)


def test_any_mesh_and_any_number_of_parts_of_a_batch_agree_with_one_device():
    ways = ["devices=1", "devices=8", "devices=8 mesh.params=sharded", "devices=8 mesh.params=sharded mesh.model=2",
            "devices=4 mesh.model=4", "devices=1 accumulate=4"]
    done = run(8, "-c", PROGRAM, *ways)
    assert done.returncode == 0, done.stderr
    found = [[float(x) for x in line.split()] for line in done.stdout.splitlines()]
    assert [row[0] for row in found] == [1, 8, 8, 8, 4, 1]
    whole, sharded, split = found[0][1], found[2][1], found[4][1]
    assert sharded < whole / 7 and whole / 4 < split < whole / 2  # most leaves; a block's products alone
    for row in found[1:]:  # parameters start at the same bits; two updates differ by the order of sums alone
        assert max(abs(x - y) for x, y in zip(found[0][2:], row[2:], strict=True)) < 1e-5


def test_devices_share_replicas_out_and_each_is_what_it_is_on_one():
    vary = "replicas.vary={'task.num_tasks':(1,2,0,8)}"
    done = run(4, "-c", PROGRAM, *(f"devices={num} replicas.num=4 replicas.at_once={at_once} {vary}"
                                   for num, at_once in ((1, 0), (4, 0), (2, 1))))
    assert done.returncode == 0, done.stderr
    found = [[float(x) for x in line.split()] for line in done.stdout.splitlines()]
    assert [row[1] / found[0][1] for row in found] == [1, 1 / 4, 1 / 2]  # bytes of parameters on each device
    for row in found[1:]:
        assert max(abs(x - y) for x, y in zip(found[0][2:], row[2:], strict=True)) < 1e-5


def test_a_batch_that_the_devices_do_not_divide_is_refused(tmp_path):
    done = run(3, "-m", "metalearn.train", "--config=configs/gpicl.py:smoke", f"--workdir={tmp_path}/run")
    assert done.returncode == 2
    assert done.stderr.strip() == "error: config.train.batch=8: must be a multiple of devices=3"
    assert not (tmp_path / "run").exists()


def test_a_cpu_counts_as_the_devices_asked_for_where_it_has_the_cores():
    program = "import sys, jax; from metalearn.runtime import sharding; sharding.split_cpu(int(sys.argv[1]));"
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"} | {"JAX_PLATFORMS": "cpu"}
    counts = [subprocess.run([sys.executable, "-c", program + "print(jax.device_count())", str(num)], env=environment,
                             capture_output=True, text=True, check=True).stdout for num in (os.cpu_count(), 10**6)]
    assert [int(count) for count in counts] == [os.cpu_count(), 1]
