"""What ran, where, when: manifest.json. Its head is the session that began the run, and is never overwritten.

`history` has a line for every session: the same facts, the step that it went on from, what of the config had `changed`,
its first checkpoint (`saved`), and the step that a diverging run was `rolled_back` to.
"""

import contextlib
import datetime
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from typing import Any

from metalearn.runtime import workdir as workdir_lib

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "ml-collections", "numpy", "scikit-learn")


def add(workdir: str, session: dict[str, Any], **facts: Any) -> None:
    """Appends `session`, what `describe` gives, with `facts` of what this one did; what stood there before stays."""
    before = read(workdir)
    history = [*before.get("history", []), {**session, **facts}]
    workdir_lib.write_json(os.path.join(workdir, "manifest.json"), {**(before or session), "history": history})


def note(workdir: str, **facts: Any) -> None:
    """Adds facts to the last session's line."""
    found = read(workdir)
    if found.get("history"):
        found["history"][-1] |= facts
        workdir_lib.write_json(os.path.join(workdir, "manifest.json"), found)


def read(workdir: str) -> dict[str, Any]:
    """manifest.json; {} where there is none, or none that can be read."""
    found = workdir_lib.read_json(os.path.join(workdir, "manifest.json")) or {}
    history = found.get("history", [])
    sound = isinstance(history, list) and all(isinstance(line, dict) for line in history)
    return found if sound else {k: v for k, v in found.items() if k != "history"}


def rolled_back(workdir: str) -> tuple[int, int | None]:
    """(how often the run went back to an earlier checkpoint because it diverged, the step that it went back to where
    nothing was saved since)."""
    lines = read(workdir).get("history", [])
    back = [line for line in lines if "rolled_back" in line]
    if not back or any(line.get("saved") is not None for line in lines[lines.index(back[-1]):]):
        return len(back), None
    return len(back), back[-1]["rolled_back"]


def saved(workdir: str) -> bool:
    """Whether some session of the run has saved a checkpoint that should still be there."""
    back = rolled_back(workdir)[1]
    return back != 0 and any("saved" in line for line in read(workdir).get("history", []))


def versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "metalearn": _version("metalearn-jax") or "source tree"}
    return found | {name: version for name in PACKAGES if (version := _version(name))}


def _version(name: str) -> str:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(name)
    return ""


def describe(device: str, num_devices: int) -> dict[str, Any]:
    """One session: versions, device, git revision, command. No environment variables, no user names."""
    home = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # of the repository
    git = None
    if os.path.exists(os.path.join(home, ".git")):  # a file in a worktree, a folder in a clone
        git = subprocess.run(["git", "-C", home, "describe", "--always", "--dirty", "--abbrev=12"],
                             capture_output=True, text=True, check=False)
    return {
        "command": shlex.join(["metalearn", os.path.basename(sys.argv[0]).removesuffix(".py"), *sys.argv[1:]]),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "git": git.stdout.strip() if git and git.returncode == 0 else "unknown",
        "device": device,
        "num_devices": num_devices,
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "versions": versions(),
    }
