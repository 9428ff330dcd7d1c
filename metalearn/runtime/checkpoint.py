"""Checkpoints that are verified: arrays through Orbax, with a SHA-256 per leaf that is checked on the way back.

Orbax restores a flipped bit without an error and does not fall back by itself, so both happen here. A state is
stored flat, {path: array}; a template gives it back its structure. The only file that imports Orbax.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from metalearn.types import PyTree, leaf_name
from metalearn.validate import ConfigError


class CheckpointError(RuntimeError):
    """No checkpoint could be restored; the text lists every step that was tried and what is wrong with it."""


class Checkpoints:
    """The checkpoints of one work directory, `keep` newest ones. Writes happen only in `save`."""

    def __init__(self, directory: str, keep: int = 2):
        self.directory = os.path.abspath(directory)  # a relative one fails inside Orbax at restore
        self.keep = keep
        self._manager = None

    def _open(self) -> ocp.CheckpointManager:
        if self._manager is None:
            options = ocp.CheckpointManagerOptions(
                max_to_keep=self.keep, enable_async_checkpointing=False, cleanup_tmp_directories=True)
            self._manager = ocp.CheckpointManager(self.directory, options=options)
        return self._manager

    def steps(self) -> list[int]:
        """Steps on disk, oldest first, unverified."""
        if not os.path.isdir(self.directory):
            return []
        return sorted(int(name) for name in os.listdir(self.directory) if name.isdigit())

    def save(self, step: int, state: PyTree, meta: dict[str, Any]) -> None:
        """Writes `state` and `meta` (plain JSON) as `step` and returns once they are committed.

        Raises OSError or what Orbax raises when the disk is full; earlier steps stay intact.
        """
        arrays = {k: np.asarray(v) for k, v in _flatten(state).items()}
        leaves = {k: {"shape": list(v.shape), "dtype": str(v.dtype), "sha256": _hash(v)} for k, v in arrays.items()}
        meta = {**meta, "step": int(step), "leaves": leaves}
        meta["sha256"] = _hash_json(meta)
        manager = self._open()
        if step in self.steps():
            manager.delete(step)
        manager.save(step, args=ocp.args.Composite(
            state=ocp.args.StandardSave(arrays), meta=ocp.args.JsonSave(meta)), force=True)
        manager.wait_until_finished()

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
        for candidate in reversed(steps):
            try:
                return self._restore_one(candidate, template)
            except ConfigError:
                raise
            except Exception as error:  # Orbax raises bare Exceptions for damaged files: any failure means fall back
                reason = " ".join(str(error).split())[:200] or type(error).__name__
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

    def _restore_one(self, step: int, template: PyTree) -> tuple[PyTree, dict[str, Any]]:
        meta = self._read_meta(step)
        wanted, leaves = _flatten(template), meta["leaves"]
        for path, leaf in wanted.items():
            have = leaves.get(path)
            shape = list(np.shape(leaf))
            if have is None or have["shape"] != shape or have["dtype"] != str(leaf.dtype):
                found = "absent" if have is None else f"{have['dtype']}{have['shape']}"
                raise ConfigError(f"checkpoint {self.directory}/{step}", path,
                                  f"this config needs {leaf.dtype}{shape} there, the checkpoint has it as {found}")
        # numpy targets: the caller decides on devices, so any device count reads what any other wrote
        target = {k: np.empty(v["shape"], np.dtype(v["dtype"])) for k, v in leaves.items()}
        with ocp.StandardCheckpointer() as reader:
            arrays = reader.restore(os.path.join(self.directory, str(step), "state"), target)
        for path, array in arrays.items():
            if _hash(np.asarray(array)) != leaves[path]["sha256"]:
                raise ValueError(f"leaf {path} does not have the SHA-256 that was saved")
        flat, treedef = jax.tree_util.tree_flatten_with_path(template)
        return jax.tree_util.tree_unflatten(treedef, [np.asarray(arrays[leaf_name(path)]) for path, _ in flat]), meta

    def _read_meta(self, step: int) -> dict[str, Any]:
        with open(os.path.join(self.directory, str(step), "meta", "metadata"), encoding="utf-8") as file:
            meta = json.load(file)
        if not isinstance(meta, dict) or meta.pop("sha256", None) != _hash_json(meta):
            raise ValueError("meta/metadata does not have the SHA-256 that was saved")
        return meta


def _flatten(tree: PyTree) -> dict[str, Any]:
    return {leaf_name(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def _hash(array: np.ndarray) -> str:
    head = f"{array.dtype}{array.shape}".encode()
    return hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).hexdigest()


def _hash_json(meta: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()
