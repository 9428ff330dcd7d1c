"""The file format of offline data: one .npz without pickles, arrays (tasks, episodes, steps, ...) and a JSON header.

  obs act rew next rtg time terminated truncated mask    the fields of types.Trajectories with axes (B, E, T, ...)
  param     (B, X) hidden task parameters
  header    JSON text: format, env (name, version, fields), behaviour, seeds, task ids, returns per task, and the
            SHA-256 of all arrays
"""

import contextlib
import fcntl
import hashlib
import json
import os
from typing import Any

import numpy as np

from metalearn.types import Trajectories
from metalearn.validate import NO_NPZ, ConfigError, require

FORMAT = 2  # 1 had `done` and `cut` for `terminated` and `truncated`
FIELDS = {"obs": "obs_BTS", "act": "act_BTA", "rew": "rew_BT", "next": "next_BTS", "rtg": "rtg_BT", "time": "time_BT",
          "terminated": "terminated_BT", "truncated": "truncated_BT", "mask": "mask_BT"}


def save(path: str, param_BX: np.ndarray, episodes: Trajectories, header: dict[str, Any]) -> str:
    """Writes the file whole or not at all; returns the SHA-256 of its arrays. An existing file is refused."""
    refuse(path)
    arrays: dict[str, Any] = {name: np.asarray(getattr(episodes, field)) for name, field in FIELDS.items()}
    arrays["param"] = param_BX
    header = {"format": FORMAT, "steps": arrays["rew"].shape[2], **header, "sha256": digest(arrays)}
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    temporary = f"{path}.{os.getpid()}.tmp.npz"
    try:
        np.savez_compressed(temporary, header=np.array(json.dumps(header)), **arrays)
        os.link(temporary, path)  # unlike a rename it overwrites nothing
    except FileExistsError:
        refuse(path)
        raise
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(temporary)
    return header["sha256"]


def refuse(path: str) -> None:
    """ConfigError for what `save` would not write to."""
    require(path.endswith(".npz"), "--out", path, "must end in .npz")
    require(not os.path.exists(path), "--out", path, "exists already; nothing was overwritten")


@contextlib.contextmanager
def sole_writer(path: str):
    """Waits until no other process is about to write `path`, and keeps others waiting meanwhile (an OS lock beside it).

    A process that waited finds the file there when it looks again.
    """
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with open(f"{path}.lock", "a", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def load(path: str, field: str = "data") -> tuple[np.ndarray, Trajectories, dict[str, Any]]:
    """(param_BX, Trajectories, header); ConfigError names what is wrong with the file."""
    require(os.path.isfile(path), field, path, "no such file")
    try:
        with np.load(path, allow_pickle=False) as file:
            require("header" in file, field, path, "lacks header: not a trajectory file")
            header = json.loads(str(file["header"]))
            require(header.get("format") == FORMAT, field, path,
                    f"is of format {header.get('format')}, this reads {FORMAT}")
            missing = [name for name in (*FIELDS, "param") if name not in file]
            require(not missing, field, path, f"lacks {', '.join(missing)}: not a trajectory file")
            arrays = {name: file[name] for name in (*FIELDS, "param")}
    except NO_NPZ as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(field, path, f"cannot be read as .npz without pickles ({error})") from None
    for name, array in arrays.items():
        require(not np.issubdtype(array.dtype, np.floating) or bool(np.isfinite(array).all()), field, path,
                f"holds NaN or infinite values in {name}")
    require(header.get("sha256") == digest(arrays), field, path, "its arrays do not have the SHA-256 of its header")
    B, E, T = arrays["rew"].shape
    for name, array in arrays.items():
        want = (B,) if name == "param" else (B, E, T)
        require(array.shape[: len(want)] == want, field, path, f"{name} has shape {array.shape}, rew has {(B, E, T)}")
    return arrays["param"], Trajectories(**{FIELDS[name]: arrays[name] for name in FIELDS}), header


def digest(arrays: dict[str, np.ndarray]) -> str:
    """One hash over names, types, shapes and bytes."""
    sha = hashlib.sha256()
    for name in sorted(arrays):
        a = np.ascontiguousarray(arrays[name])
        sha.update(f"{name}{a.dtype}{a.shape}".encode() + a.tobytes())
    return sha.hexdigest()
