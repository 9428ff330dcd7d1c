"""Where arrays live. One code path for any number of devices: a mesh of `data` x `model` axes, batches split over
`data`, and XLA inserts the collectives. What `pmap` was once used for is this: one `jit` over arrays that say where
they lie.

params="replicated"  every device holds all parameters and the optimiser's moments, but what RULES split over `model`
params="sharded"     each of their leaves is split over `data` too, along its longest axis that the devices divide: an
                     update gathers what it needs when it needs it (ZeRO, arXiv 1910.02054, stage 3)
"""

import contextlib
import math
import os
import re

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from metalearn.types import PyTree, leaf_name
from metalearn.validate import require

PARAMS = ("replicated", "sharded")
# what `model` splits, and along which axis: a Transformer's first products by their outputs, its second by their inputs
# (Megatron-LM, arXiv 1909.08053, section 3), so that a block sums over devices twice
RULES = ((r"(qkv|up)/kernel$", -1), (r"(qkv|up)/bias$", -1), (r"(out|down)/kernel$", -2))


def split_cpu(num_devices: int) -> None:
    """Has a CPU count as so many devices, between which batches are split: small kernels then do not wait for each
    other's threads. It must come before anything uses a device, and there must be as many cores, else it does nothing;
    accelerators are as they are."""
    if 1 < num_devices <= (os.cpu_count() or 1):
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", num_devices)


def make_mesh(num_devices: int = 0, model: int = 1) -> Mesh:
    """('data', 'model') over the first `num_devices` devices (0: all), `model` of them side by side."""
    devices = jax.devices()
    require(num_devices <= len(devices), "config.train.devices", num_devices, f"this machine has {len(devices)}")
    num = num_devices or len(devices)
    require(num % model == 0, "config.train.mesh.model", model, f"must divide devices={num}")
    shape = (num // model, model)
    return jax.make_mesh(shape, ("data", "model"), axis_types=(AxisType.Auto,) * 2, devices=devices[:num])


def place(tree: PyTree, where: PyTree) -> PyTree:
    """Every leaf as its sharding says; where devices are other processes' too, all of them have the same `tree`."""

    def one(leaf, sharding):
        if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(one(jax.random.key_data(leaf), sharding), impl=jax.random.key_impl(leaf))
        host = np.asarray(leaf)
        return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

    if jax.process_count() == 1:
        return jax.device_put(tree, where)
    return jax.tree.map(one, tree, where)


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
    """Every device holds the whole of it."""
    return place(tree, jax.tree.map(lambda _: NamedSharding(mesh, PartitionSpec()), tree))


def local(tree: PyTree, mesh: Mesh) -> PyTree:
    """The whole of it on this process's own devices, to be read, saved and evaluated there."""
    if jax.process_count() == 1:
        return tree
    whole = jax.jit(lambda tree: tree, out_shardings=NamedSharding(mesh, PartitionSpec()))(tree)
    return jax.tree.map(np.asarray, whole)


def of_state(state: PyTree, mesh: Mesh, params: str, replicas: bool = False) -> PyTree:
    """Where each leaf of a TrainState lies: `params` and `opt_state` by the rules above, the rest replicated; where
    `replicas` are split among devices, every leaf with an axis of them by that."""

    def one(path, leaf):
        name, axes = leaf_name(path), [None] * leaf.ndim
        if replicas:
            return NamedSharding(mesh, PartitionSpec("data") if leaf.ndim else PartitionSpec())
        if name.startswith(("params", "opt_state")):
            for pattern, axis in RULES:
                if mesh.shape["model"] > 1 and re.search(pattern, name) and leaf.shape[axis] % mesh.shape["model"] == 0:
                    axes[axis] = "model"
            free = [i for i, a in enumerate(axes) if a is None and leaf.shape[i] % mesh.shape["data"] == 0]
            if params == "sharded" and free:
                axes[max(free, key=lambda i: leaf.shape[i])] = "data"
        return NamedSharding(mesh, PartitionSpec(*axes))

    return jax.tree_util.tree_map_with_path(one, state)


def bytes_per_device(tree: PyTree) -> int:
    """Of its arrays, on the device that holds most."""
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def split_batch(tree: PyTree, mesh: Mesh) -> PyTree:
    """Inside jit: the leading axis of every leaf goes over `data`."""
    return jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, PartitionSpec("data")))
