"""Weights that travel: a directory with config.json, task.npz and model.safetensors, which is read where a run's
checkpoints would be. Nothing in it is code, and safetensors is not ours: other programs read the arrays too.

model.safetensors holds `params/...` and `carry/...`, as checkpoints do; its metadata the step and one SHA-256.
"""

import os
from typing import Any

import jax
import numpy as np

from metalearn.runtime.checkpoint import Checkpoints, fit
from metalearn.runtime.experiment import fingerprint
from metalearn.types import PyTree, leaf_name, named_leaves
from metalearn.validate import ConfigError, require

FILE = "model.safetensors"


def write(directory: str, state: PyTree, step: int) -> str:
    """Writes the leaves of `state` = {"params": ..., "carry": ...} and returns their SHA-256."""
    arrays = {name: np.array(leaf, order="C") for name, leaf in named_leaves(jax.device_get(state)).items()}
    sha256 = fingerprint(arrays)
    with open(os.path.join(directory, FILE), "wb") as file:  # the library's own file is for its owner alone to read
        file.write(_library().save(arrays, {"step": str(step), "sha256": sha256}))
    return sha256


def of(workdir: str) -> "Checkpoints | Exported":
    """The checkpoints of a run, or the weights of an exported one."""
    return Exported(workdir) if is_one(workdir) else Checkpoints(os.path.join(workdir, "checkpoints"))


def is_one(workdir: str) -> bool:
    return os.path.exists(os.path.join(workdir, FILE))


class Exported:
    """One step, read and checked as `Checkpoints` reads a run's. ConfigError where the file is damaged."""

    def __init__(self, workdir: str):
        self.path = os.path.join(workdir, FILE)
        _library()
        import safetensors

        try:
            with safetensors.safe_open(self.path, framework="numpy") as file:
                about = file.metadata() or {}
                self._arrays = {name: file.get_tensor(name) for name in file.keys()}
        except (OSError, safetensors.SafetensorError, TypeError) as error:
            raise ConfigError("--workdir", self.path, f"is damaged, or no safetensors file ({error})") from None
        require(about.get("sha256") == fingerprint(self._arrays), "--workdir", self.path,
                "does not have the SHA-256 that was saved: it is damaged, or not from `metalearn export`")
        self.step = int(about["step"])

    def steps(self) -> list[int]:
        return [self.step]

    def restore(self, template: PyTree, step: int | None = None) -> tuple[PyTree, dict[str, Any]]:
        """(state, {"step"}), a state as `template` has it; ConfigError where the file does not fit it."""
        have = {name: {"shape": list(a.shape), "dtype": str(a.dtype)} for name, a in self._arrays.items()}
        fit(template, have, self.path)
        state = jax.tree_util.tree_map_with_path(lambda path, _: self._arrays[leaf_name(path)], template)
        return state, {"step": self.step}


def _library():
    try:
        import safetensors.numpy
    except ImportError:
        raise ConfigError("safetensors", "not installed", "weights are exported and read with it: "
                          'pip install "metalearn-jax[export]" (or: pip install safetensors)') from None
    return safetensors.numpy
