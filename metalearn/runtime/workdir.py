"""A run's directory: config.json, manifest.json, checkpoints/, metrics.jsonl, eval/*.json, plots/*.

One process at a time holds it (an OS lock, which a killed process gives up), it belongs to one config, and it holds
files and folders of its own alone: what was put there to lead elsewhere, or to be waited for, is refused.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import re
import socket
import stat
from collections.abc import Iterator
from typing import IO, Any

from ml_collections import ConfigDict

from metalearn.cli import Failure
from metalearn.runtime import config as config_lib
from metalearn.validate import ConfigError, require

# What a run may be gone on with differently: none of it enters an update, but `devices` and `mesh`,
# which add in another order. A block stands for all of its fields.
MAY_CHANGE = ("train.steps", "train.log_every", "train.save_every", "train.eval_every", "train.keep",
              "train.max_bad_steps", "train.devices", "train.mesh", "evaluators")
_LEFT = re.compile(r".+\.(\d+)\.tmp")  # what `write_text` leaves behind where it is killed


@dataclasses.dataclass(frozen=True)
class Held:
    """A work directory while this process holds it.

    changed  ['train.steps: 2000 -> 3000', ...] against the config that it was held with before
    """

    path: str
    changed: tuple[str, ...]
    lock: IO

    def check(self) -> None:
        """Failure where the directory was removed, moved or replaced since: what is written now would be lost."""
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(os.path.join(self.path, ".lock")), os.fstat(self.lock.fileno())):
                return
        raise Failure(f"the work directory {self.path} was removed or replaced while the run went on")


@contextlib.contextmanager
def hold(workdir: str, config: ConfigDict) -> Iterator[Held]:
    """Creates or reopens `workdir` for this config and holds its lock.

    Raises ConfigError when another process holds it or another config owns it; then nothing on disk has changed.
    """
    workdir = os.path.abspath(workdir)
    check(workdir, config)
    with lock(workdir, "--workdir") as file:
        fresh, changed = check(workdir, config)  # again, now that nobody else can be first
        _remove_left(workdir)
        if changed:  # an old result is not that of what it goes on to
            with contextlib.suppress(FileNotFoundError):
                os.remove(os.path.join(workdir, "result.json"))
        if fresh or changed:
            write_text(os.path.join(workdir, "config.json"), config_lib.to_json(config))
        held = Held(workdir, changed, file)
        try:
            yield held
        except Failure:
            held.check()  # a checkpoint that could not be saved, as its directory is gone
            raise


@contextlib.contextmanager
def lock(directory: str, flag: str) -> Iterator[IO]:
    """Makes `directory` where there is none and holds its `.lock`; ConfigError naming who has it, or why it cannot."""
    path = os.path.join(directory, ".lock")
    try:
        os.makedirs(directory, exist_ok=True)
        no_link = lambda path, flags: os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        file = open(path, "a+", encoding="utf-8", opener=no_link)
    except OSError as error:
        raise ConfigError(flag, directory, f"cannot be written to ({error.strerror})") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise ConfigError(flag, directory, f"in use by {_owner(file.read(200))}") from None
        file.truncate(0)
        file.write(f"pid {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield file


def _remove_left(workdir: str) -> None:
    """Removes temporary files of killed processes; in eval/ another process may evaluate this run meanwhile."""
    for folder in (workdir, os.path.join(workdir, "eval")):
        for name in os.listdir(folder) if os.path.isdir(folder) else ():
            found = _LEFT.fullmatch(name)
            if found and (folder == workdir or not _alive(int(found[1]))):
                os.remove(os.path.join(folder, name))


def _owner(text: str) -> str:
    """Who holds a lock, by what its file says."""
    found = re.fullmatch(r"pid (\d+) on (.*)\n", text)
    if found and found[2] == socket.gethostname() and not _alive(int(found[1])):
        return f"processes that pid {found[1]}, which is gone, has started"
    return text.strip() or "another process"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def check(workdir: str, config: ConfigDict) -> tuple[bool, tuple[str, ...]]:
    """(whether `workdir` is new to this config, what of MAY_CHANGE differs); ConfigError when it belongs to another.
    Touches nothing."""
    require(not os.path.isfile(workdir), "--workdir", workdir, "is a file")
    path = os.path.join(workdir, "config.json")
    if not os.path.lexists(path):
        names = os.listdir(workdir) if os.path.isdir(workdir) else []
        others = [n for n in names if n != ".lock" and not _LEFT.fullmatch(n)]  # what a killed start leaves
        require(not others, "--workdir", workdir,
                f"holds other files ({', '.join(sorted(others)[:3])}) and no config.json")
        plain(workdir)
        return True, ()
    old = read_config(workdir)
    changed = config_lib.differences(old, config)
    may = lambda field: any(field == known or field.startswith(known + ".") for known in MAY_CHANGE)
    fixed = [text for text in changed if not may(text.partition(": ")[0])]
    require(not fixed, "--workdir", workdir, "was made by another config; these differ: " + "; ".join(fixed[:8]))
    if any(text.startswith("train.steps: ") for text in changed):
        decay = old.optim.decay
        require(decay == "constant", "config.train.steps", config.train.steps,
                f"must stay {old.train.steps}: optim.decay={decay} ends there, so other steps are another run")
    return False, tuple(changed)


def plain(workdir: str, flag: str = "--workdir") -> None:
    """ConfigError where anything in a work directory is a link, a pipe or another special file: following one would
    read, wait for, overwrite or delete what is not the run's."""
    for folder, folders, files in os.walk(workdir):
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            with contextlib.suppress(FileNotFoundError):  # a step that training deletes meanwhile
                mode = os.lstat(path).st_mode
                require(stat.S_ISREG(mode) or stat.S_ISDIR(mode), flag, path,
                        "is a link or a special file; a work directory holds files and folders of its own")


def read_config(workdir: str) -> ConfigDict:
    """The config that a run saved; ConfigError when there is none, or where the directory leads elsewhere."""
    path = os.path.join(workdir, "config.json")
    plain(workdir)
    require(os.path.isfile(path), "--workdir", workdir, "no config.json in it: not a work directory")
    try:
        with open(path, encoding="utf-8") as file:
            return config_lib.from_json(file.read())
    except (ValueError, RecursionError) as error:
        raise ConfigError("--workdir", path, f"is not valid JSON of a config ({error})") from None


def read_json(path: str) -> dict[str, Any] | None:
    """The object in a file; None where there is none, or a damaged one, which the same command makes again."""
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def write_text(path: str, text: str) -> None:
    """`write_bytes` of the text in UTF-8."""
    write_bytes(path, text.encode())


def write_bytes(path: str, content: bytes) -> None:
    """Whole or not at all: a temporary file in the same directory, then a rename."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.remove(temporary)
        raise


def write_json(path: str, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1) + "\n")
