"""Episodes for evaluation, the same for whoever asks."""

import functools
import hashlib
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metalearn.types import Array, Episodes, Prompted, TaskDist
from metalearn.validate import multiple_of, one_of, positive


class Frozen:
    """Episodes for evaluation: number i is a function of (task, seed, split, block, i) alone, whatever the chunk.

    It is the (i mod block)-th of the `block` episodes that the key fold_in(key(seed, split), i // block) draws at once:
    what a task draws with one key depends on how many it is asked for, so `block` belongs to the protocol, as the seed
    does. A block of 1 gives every episode a key of its own; larger ones draw faster. `chunk` is how many are held and
    scored at a time: memory only; one of the two must be a multiple of the other.

    Iterating gives batches of `chunk`, `Episodes` or `Prompted`. `digest` is the SHA-256 of what was `drawn`;
    `inputs_digest` that of it and the dataset's own hash, so that two datasets with the same labels differ. Inputs
    themselves are not hashed: projected and normalised, they differ in their last bits between machines.

    The task's data are an argument of the program that draws: of tasks that differ in them alone
    (`dataclasses.replace(task, data=...)`), all draw by one. ConfigError: no such split, a chunk that does not divide.
    """

    def __init__(self, task: TaskDist, split: str, episodes: int, chunk: int, seed: int, block: int = 1):
        positive(episodes=episodes, chunk=chunk)
        multiple_of("chunk", chunk, episodes=episodes)
        one_of(task.splits, split=split)
        self._task, self._split, self._num, self._chunk, self._seed, self._block = (
            task, split, episodes, chunk, seed, block)

    @functools.cached_property
    def _keys(self):
        """One for each block."""
        key = jax.random.key(self._seed, impl="threefry2x32")
        key = jax.random.fold_in(key, zlib.crc32(self._split.encode()) & 0x7FFFFFFF)
        return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(-(-self._num // self._block)))

    def __iter__(self) -> Iterator[Any]:
        blocks = max(1, self._chunk // self._block)  # drawn at a time
        for first in range(0, len(self._keys), blocks):
            batch = draw(self._task.placed, self._keys[first:first + blocks], self._task.sample, self._split,
                         self._block)
            wanted = min(len(batch.task_B), self._num - first * self._block)
            for i in range(0, wanted, self._chunk):
                yield jax.tree.map(lambda a, part=slice(i, min(i + self._chunk, wanted)): a[part], batch)

    @functools.cached_property
    def digest(self) -> str:
        sha = hashlib.sha256()
        for batch in self:
            # row by row, so that the hash does not depend on the chunk either; floats to 4 decimals, because their
            # last bit depends on the machine
            arrays = [np.asarray(a) for a in drawn(batch)]
            arrays = [a if np.issubdtype(a.dtype, np.integer) else np.round(a, 4) + 0.0 for a in arrays]
            for row in zip(*arrays, strict=True):
                sha.update(b"".join(np.ascontiguousarray(a).tobytes() for a in row))
        return sha.hexdigest()

    @functools.cached_property
    def inputs_digest(self) -> str:
        return hashlib.sha256(f"{self._task.facts.get('sha256', '')} {self.digest}".encode()).hexdigest()

    @property
    def hashes(self) -> dict[str, str]:
        """Both, as results name them."""
        return {"episodes_sha256": self.digest, "inputs_sha256": self.inputs_digest}


def together(sets: Mapping[Any, Frozen]) -> tuple[str, str]:
    """(digest, inputs digest) of several sets, in the order of their names."""
    of = [sets[name] for name in sorted(sets)]
    joined = lambda digests: hashlib.sha256("".join(digests).encode()).hexdigest()
    return joined(f.digest for f in of), joined(f.inputs_digest for f in of)


def drawn(batch: Episodes | Prompted) -> tuple[Array, ...]:
    """What says which episodes these are, each array (B, ...): task ids with labels (or targets) and dataset items, or
    with the step numbers and rewards of prompts and windows."""
    if isinstance(batch, Prompted):
        return batch.task_B, *(a for part in (batch.prompt, batch.body) for a in (part.time_BT, part.rew_BT))
    return batch.task_B, batch.y_BT, batch.index_BT


# compiled once for all evaluators of one task: those of several replicas differ in their data alone
@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def draw(data, keys, sample, split, block):
    """`block` episodes with each key, one after another."""
    if len(keys) == 1:
        return sample(data, keys[0], split, block)
    batches = jax.vmap(lambda key: sample(data, key, split, block))(keys)
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), batches)
