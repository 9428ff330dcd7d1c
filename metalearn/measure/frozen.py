"""Episodes for evaluation, the same for whoever asks."""

from __future__ import annotations

import functools
import hashlib
import zlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from metalearn.types import Episodes, TaskDist


class Frozen:
    """Episodes for evaluation: number i is a function of (task, seed, split, i) alone, whatever the chunk.

    Iterating gives batches of `chunk`; `digest` is the SHA-256 of all task ids, labels (or targets) and dataset items.
    """

    def __init__(self, task: TaskDist, split: str, episodes: int, chunk: int, seed: int):
        self._task, self._split, self._num, self._chunk = task, split, episodes, chunk
        self._seed = seed

        def draw(data, keys):
            one = lambda key: task.sample(data, key, split, 1)
            return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), jax.vmap(one)(keys))

        self._draw = jax.jit(draw)

    @functools.cached_property
    def _keys(self):
        key = jax.random.key(self._seed, impl="threefry2x32")
        key = jax.random.fold_in(key, zlib.crc32(self._split.encode()) & 0x7FFFFFFF)
        return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(self._num))

    @functools.cached_property
    def _data(self):
        return jax.device_put(self._task.data)

    def __iter__(self) -> Iterator[Episodes]:
        for i in range(0, self._num, self._chunk):
            yield self._draw(self._data, self._keys[i:i + self._chunk])

    @functools.cached_property
    def digest(self) -> str:
        sha = hashlib.sha256()
        for batch in self:
            # row by row, so that the hash does not depend on the chunk either; float targets to 4 decimals,
            # because their last bit depends on the machine
            y = np.asarray(batch.y_BT)
            y = y if np.issubdtype(y.dtype, np.integer) else np.round(y, 4) + 0.0
            for row in zip(np.asarray(batch.task_B), y, np.asarray(batch.index_BT), strict=True):
                sha.update(b"".join(np.ascontiguousarray(a).tobytes() for a in row))
        return sha.hexdigest()
