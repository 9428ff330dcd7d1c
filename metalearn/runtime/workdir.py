"""A run's directory: config.json, manifest.json, checkpoints/, metrics.jsonl, eval/*.json, plots/*.

One process at a time holds it (an OS lock, which a killed process gives up), and it belongs to one config.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import importlib.metadata
import json
import os
import platform
import shlex
import socket
import subprocess
import sys
from typing import Any

from ml_collections import ConfigDict

from metalearn.runtime import config as config_lib
from metalearn.validate import ConfigError, require

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "ml-collections", "numpy", "scikit-learn")


@contextlib.contextmanager
def hold(workdir: str, config: ConfigDict):
    """Creates or reopens `workdir` for this config and holds its lock; yields the absolute path.

    Raises ConfigError when another process holds it or another config owns it; then nothing on disk has changed.
    """
    workdir = os.path.abspath(workdir)
    fresh = check(workdir, config)
    try:
        os.makedirs(workdir, exist_ok=True)
        file = open(os.path.join(workdir, ".lock"), "a+", encoding="utf-8")
    except OSError as error:
        raise ConfigError("--workdir", workdir, f"cannot be written to ({error.strerror})") from None
    with file as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            raise ConfigError("--workdir", workdir, f"in use by {lock.read().strip() or 'another process'}") from None
        fresh = check(workdir, config) or fresh  # again, now that nobody else can be first
        lock.truncate(0)
        lock.write(f"pid {os.getpid()} on {socket.gethostname()}\n")
        lock.flush()
        if fresh:
            write_text(os.path.join(workdir, "config.json"), config_lib.to_json(config))
        yield workdir


def check(workdir: str, config: ConfigDict) -> bool:
    """Whether `workdir` is new to this config; ConfigError when it belongs to another. Touches nothing."""
    require(not os.path.isfile(workdir), "--workdir", workdir, "is a file")
    path = os.path.join(workdir, "config.json")
    if not os.path.exists(path):
        others = [n for n in os.listdir(workdir) if n != ".lock"] if os.path.isdir(workdir) else []
        require(not others, "--workdir", workdir,
                f"holds other files ({', '.join(sorted(others)[:3])}) and no config.json")
        return True
    changed = config_lib.differences(read_config(workdir), config)
    require(not changed, "--workdir", workdir, "was made by another config; these differ: " + "; ".join(changed[:8]))
    return False


def read_config(workdir: str) -> ConfigDict:
    """The config that a run saved; ConfigError when there is none."""
    path = os.path.join(workdir, "config.json")
    require(os.path.isfile(path), "--workdir", workdir, "no config.json in it: not a work directory")
    try:
        with open(path, encoding="utf-8") as file:
            return config_lib.from_json(file.read())
    except ValueError as error:
        raise ConfigError("--workdir", path, f"is not valid JSON of a config ({error})") from None


def write_text(path: str, text: str) -> None:
    """Whole or not at all: a temporary file in the same directory, then a rename."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = f"{path}.{os.getpid()}.tmp"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_json(path: str, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1) + "\n")


def versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "metalearn": importlib.metadata.version("metalearn")
             if _installed("metalearn") else "source tree"}
    return found | {name: importlib.metadata.version(name) for name in PACKAGES if _installed(name)}


def _installed(name: str) -> bool:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return bool(importlib.metadata.version(name))
    return False


def manifest(device: str, num_devices: int) -> dict[str, Any]:
    """What ran, where: versions, device, git revision, command. No environment variables, no user names."""
    home = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # of the repository
    git = None
    if os.path.exists(os.path.join(home, ".git")):  # a file in a worktree, a folder in a clone
        git = subprocess.run(["git", "-C", home, "describe", "--always", "--dirty", "--abbrev=12"],
                             capture_output=True, text=True, check=False)
    return {
        "command": shlex.join([os.path.basename(sys.argv[0]), *sys.argv[1:]]),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "git": git.stdout.strip() if git and git.returncode == 0 else "unknown",
        "device": device,
        "num_devices": num_devices,
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "versions": versions(),
    }
