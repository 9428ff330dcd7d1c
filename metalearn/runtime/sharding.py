"""Where arrays live. One code path for 1 device, 8 devices and several hosts: batches are split over the mesh's
`data` axis, parameters are replicated, XLA inserts the collectives.
"""

import contextlib

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from metalearn.types import PyTree
from metalearn.validate import require


def split_cpu(num_devices: int) -> None:
    """Has a CPU count as so many devices, between which batches are split: small kernels then do not wait for each
    other's threads. It must come before anything uses a device, else it does nothing; accelerators are as they are."""
    if num_devices > 1:
        with contextlib.suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", num_devices)


def make_mesh(num_devices: int = 0) -> Mesh:
    """A one-axis mesh ('data') over the first `num_devices` devices (0: all)."""
    devices = jax.devices()
    require(num_devices <= len(devices), "config.train.devices", num_devices, f"this machine has {len(devices)}")
    num = num_devices or len(devices)
    return jax.make_mesh((num,), ("data",), axis_types=(AxisType.Auto,), devices=devices[:num])


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
    """Every device holds the whole of it."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def split_batch(tree: PyTree, mesh: Mesh) -> PyTree:
    """Inside jit: the leading axis of every leaf goes over `data`."""
    return jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, PartitionSpec("data")))
