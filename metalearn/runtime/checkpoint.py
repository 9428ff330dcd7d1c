"""Checkpoints that are verified: arrays through Orbax, with a SHA-256 per leaf that is checked on the way back.

Orbax restores a flipped bit without an error and does not fall back by itself, so both happen here. A state is
stored flat, {path: array}; a template gives it back its structure. The only file that imports Orbax, which writes; what
it wrote is read through TensorStore, Orbax's own means: that answers to a damaged file with one error, where Orbax's
threads write theirs to the terminal, and says how large a chunk is before one is read.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import json
import logging
import math
import os
import shutil
import sys
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts

from metalearn.cli import Failure
from metalearn.types import PyTree, leaf_name, named_leaves
from metalearn.validate import ConfigError

# What is read of a step before anything of it is trusted: bytes of meta/metadata, and how much larger arrays may be
# than the files that they come from. Zeros compress ten thousandfold, trained parameters hardly.
META_BYTES, ARRAY_BYTES, RATIO = 64 * 2**20, 2**30, 1000

# Orbax's threads log the tracebacks of what it then raises, TensorStore's those of finding them gone; what is raised is
# said here in one line
logging.getLogger("absl").addFilter(lambda record: "orbax" not in record.pathname)
sys.unraisablehook = lambda found, before=sys.unraisablehook: (
    before(found) if "Event loop is closed" not in str(found.exc_value) else None)


class CheckpointError(Failure):
    """No checkpoint could be restored, or none written; of several that were tried the text lists every one and what
    is wrong with it."""


class Checkpoints:
    """The checkpoints of one work directory, `keep` newest ones. Writes happen only in `save` and `drop`; a `with`
    block of them ends when everything is written.

    strict   a damaged newest step is an error: no earlier one is taken in its place
    """

    def __init__(self, directory: str, keep: int = 2, strict: bool = False):
        self.directory = os.path.abspath(directory)  # a relative one fails inside Orbax at restore
        self.keep, self.strict = keep, strict
        self._manager = None
        self._writer = concurrent.futures.ThreadPoolExecutor(1, "checkpoints")
        self._writing: concurrent.futures.Future | None = None

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind, *_) -> None:
        with contextlib.suppress(CheckpointError) if kind else contextlib.nullcontext():  # the first error is the one
            self.wait()

    def _open(self) -> ocp.CheckpointManager:
        if self._manager is None:
            # of several processes one alone writes; without being told so Orbax waits for the others
            alone = ocp.options.MultiprocessingOptions(active_processes={jax.process_index()})
            handlers = {"state": ocp.StandardCheckpointHandler(multiprocessing_options=alone),
                        "meta": ocp.JsonCheckpointHandler(multiprocessing_options=alone)}
            os.makedirs(self.directory, exist_ok=True)
            self._manager = ocp.CheckpointManager(self.directory, item_handlers=handlers, options=(
                ocp.CheckpointManagerOptions(
                    max_to_keep=self.keep, enable_async_checkpointing=False, cleanup_tmp_directories=True, create=False,
                    multiprocessing_options=alone)))
        return self._manager

    def steps(self) -> list[int]:
        """Steps on disk, oldest first, unverified."""
        if not os.path.isdir(self.directory):
            return []
        return sorted(int(name) for name in os.listdir(self.directory) if name.isdigit())

    def save(self, step: int, state: PyTree, meta: dict[str, Any], force: bool = False, wait: bool = True) -> None:
        """Writes `state` and `meta` (plain JSON) as `step`; `steps` has it once all of it is committed.

        wait   return then; else once it is copied, and it is written behind, one at a time

        Raises CheckpointError where the disk takes nothing more, and, unless `force`, for parameters that are not
        finite; earlier steps stay intact. What goes wrong behind is raised by the next `save` or `wait`.
        """
        arrays = {k: np.array(v) for k, v in named_leaves(jax.device_get(state)).items()}  # its buffers are used again
        self.wait()
        self._writing = self._writer.submit(self._write, step, arrays, meta, force)
        if wait:
            self.wait()

    def wait(self) -> None:
        """Until what was saved is committed."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _write(self, step: int, arrays: dict[str, np.ndarray], meta: dict[str, Any], force: bool) -> None:
        if broken := not force and _nonfinite(arrays):
            raise CheckpointError(f"step {step} was not saved: parameters are not finite ({broken})")
        leaves = {k: {"shape": list(v.shape), "dtype": str(v.dtype), "sha256": _hash(v)} for k, v in arrays.items()}
        meta = {**meta, "step": int(step), "leaves": leaves}
        meta["sha256"] = _hash_json(meta)
        try:
            manager, size = self._open(), sum(v.nbytes + 2**10 for v in arrays.values()) + 2**17
            free = shutil.disk_usage(self.directory).free
            if free < size:  # Orbax's threads would say so too, in hundreds of lines
                raise OSError(f"it needs {size:,} bytes, {free:,} are free")
            if step in self.steps():
                manager.delete(step)
            manager.save(step, args=ocp.args.Composite(  # leaks 0.3 kB an array, in TensorStore 0.1.86's Spec.to_json
                state=ocp.args.StandardSave(arrays), meta=ocp.args.JsonSave(meta)), force=True)
            manager.wait_until_finished()
        except Exception as error:  # Orbax wraps the system's errors in various of its own
            self._manager = None
            self._remove_unfinished()
            raise CheckpointError(f"step {step} could not be saved in {self.directory}: {_line(error)}; earlier steps "
                                  "are as they were") from error

    def drop(self, after: int) -> None:
        """Deletes every step past `after`."""
        self.wait()
        for step in [s for s in self.steps() if s > after]:
            shutil.rmtree(os.path.join(self.directory, str(step)))
        self._manager = None

    def _remove_unfinished(self) -> None:
        """Orbax removes these at the next start alone, and till then they fill the disk."""
        with contextlib.suppress(OSError):
            for name in os.listdir(self.directory):
                if "orbax-checkpoint-tmp" in name:
                    shutil.rmtree(os.path.join(self.directory, name), ignore_errors=True)

    def restore(self, template: PyTree, step: int | None = None) -> tuple[PyTree, dict[str, Any]]:
        """(state, meta) of the newest healthy step, or of `step` alone.

        `template` is a state, or its shapes; only its leaves are read, so a part of a state (parameters alone)
        restores from the whole. Raises ConfigError when the shapes differ (another model), CheckpointError when
        no step is healthy, FileNotFoundError when there is none at all.
        """
        steps = self.steps() if step is None else [step]
        if not steps or (step is not None and step not in self.steps()):
            raise FileNotFoundError(f"no checkpoint{'' if step is None else f' of step {step}'} in {self.directory}")
        wrong = []
        for candidate in steps[-1:] if self.strict else reversed(steps):
            try:
                return self._restore_one(candidate, template)
            except ConfigError:
                raise
            except Exception as error:  # Orbax raises bare Exceptions for damaged files: any failure means fall back
                reason = _line(error)
                wrong.append(f"step {candidate}: {reason}")
                print(f"warning: checkpoint {candidate} in {self.directory} is damaged: {reason}", file=sys.stderr)
        raise CheckpointError(f"no healthy checkpoint in {self.directory}: " + "; ".join(wrong))

    def meta(self, step: int | None = None) -> dict[str, Any]:
        """The JSON beside the arrays of a step, the newest readable one by default."""
        steps = self.steps() if step is None else [step]
        for candidate in reversed(steps):
            try:
                return self._read_meta(candidate)
            except (OSError, ValueError):
                continue
        raise FileNotFoundError(f"no readable checkpoint in {self.directory}")

    def verify(self, step: int) -> dict[str, str]:
        """{leaf: '' where its hash holds, else what is wrong}; {'meta': ...} where not even that can be read."""
        try:
            leaves = self._read_meta(step)["leaves"]
        except (OSError, ValueError) as error:
            return {"meta": _line(error)}
        found = {}
        for path, leaf in leaves.items():
            try:
                found[path] = "" if _hash(self._read(step, {path: leaf})[path]) == leaf["sha256"] else "other bits"
            except Exception as error:  # as in `restore`
                found[path] = _line(error)
        return found

    def _restore_one(self, step: int, template: PyTree) -> tuple[PyTree, dict[str, Any]]:
        meta = self._read_meta(step)
        leaves = meta["leaves"]
        fit(template, leaves, f"checkpoint {self.directory}/{step}")
        arrays = self._read(step, {path: leaves[path] for path in named_leaves(template)})
        for path, array in arrays.items():
            if _hash(array) != leaves[path]["sha256"]:
                raise ValueError(f"leaf {path} does not have the SHA-256 that was saved")
        if broken := _nonfinite(arrays):
            raise ValueError(f"parameters are not finite ({broken})")
        return jax.tree_util.tree_map_with_path(lambda path, _: arrays[leaf_name(path)], template), meta

    def _read(self, step: int, leaves: dict[str, dict]) -> dict[str, np.ndarray]:
        """The arrays of these leaves alone, unverified."""
        folder = os.path.join(self.directory, str(step), "state")
        size = sum(math.prod(v["shape"]) * np.dtype(v["dtype"]).itemsize for v in leaves.values())
        there = sum(os.path.getsize(os.path.join(path, name)) for path, _, names in os.walk(folder) for name in names)
        if size > max(ARRAY_BYTES, RATIO * there):
            raise ValueError(f"{size:,} bytes of arrays out of {there:,} bytes of files")
        database = {"driver": "ocdbt", "base": {"driver": "file", "path": folder + "/"}}
        stores = {path: ts.open({"driver": "zarr", "kvstore": database | {"path": path + "/"}}, open=True, read=True)
                  for path in leaves}
        stores = {path: store.result() for path, store in stores.items()}
        for path, store in stores.items():
            shape, chunk = leaves[path]["shape"], [n or 1 for n in store.chunk_layout.read_chunk.shape or ()]
            if list(store.shape) != shape or math.prod(chunk) > max(math.prod(shape), 1):
                raise ValueError(f"leaf {path} is not stored as {shape}, but as {list(store.shape)} in {list(chunk)}")
        reads = {path: store.read() for path, store in stores.items()}
        return {path: np.asarray(read.result()) for path, read in reads.items()}

    def _read_meta(self, step: int) -> dict[str, Any]:
        """Raises OSError or ValueError where it is not what `save` wrote for this very step."""
        path = os.path.join(self.directory, str(step), "meta", "metadata")
        if os.path.getsize(path) > META_BYTES:
            raise ValueError(f"meta/metadata is larger than {META_BYTES:,} bytes")
        with open(path, encoding="utf-8") as file:
            try:
                meta = json.load(file)
            except RecursionError:
                raise ValueError("meta/metadata is nested too deeply") from None
        if not isinstance(meta, dict) or meta.pop("sha256", None) != _hash_json(meta):
            raise ValueError("meta/metadata does not have the SHA-256 that was saved")
        if meta.get("step") != step:
            raise ValueError(f"is a copy of step {meta.get('step')}")
        leaves = meta.get("leaves")
        if not isinstance(leaves, dict) or not all(map(_is_leaf, leaves.values())):
            raise ValueError("meta/metadata does not list the leaves")
        return meta


def fit(template: PyTree, leaves: Mapping[str, Mapping[str, Any]], where: str) -> None:
    """ConfigError where a leaf of `template` is not among `leaves`, or has another shape or type there."""
    for path, leaf in named_leaves(template).items():
        have, shape = leaves.get(path), list(np.shape(leaf))
        if have is None or have["shape"] != shape or have["dtype"] != str(leaf.dtype):
            found = "absent" if have is None else f"{have['dtype']}{have['shape']}"
            raise ConfigError(where, path, f"this config needs {leaf.dtype}{shape} there; it is {found}")


def _is_leaf(leaf: Any) -> bool:
    """Whether it is {"shape": [numbers], "dtype": a type of numbers, "sha256": text}."""
    try:
        sizes = all(type(n) is int and n >= 0 for n in leaf["shape"]) and len(leaf["shape"]) <= 32
        return sizes and not np.dtype(leaf["dtype"]).hasobject and isinstance(leaf["sha256"], str)
    except (TypeError, KeyError, ValueError):
        return False


def _nonfinite(arrays: dict[str, np.ndarray]) -> str:
    """The first parameter that is not finite everywhere, '' where all are."""
    number = lambda a: np.issubdtype(a.dtype, np.inexact) or a.dtype.kind == "V"  # V: bfloat16 and its kin
    return next((path for path, array in arrays.items() if path.split("/")[0] == "params" and number(array)
                 and not np.isfinite(array).all()), "")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _hash(array: np.ndarray) -> str:
    head = f"{array.dtype}{array.shape}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).hexdigest()


def _hash_json(meta: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()
