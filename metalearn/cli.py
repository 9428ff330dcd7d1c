"""What all programs share: flags, the one-line answer to bad input, exit codes, the RESULT line.

Exit codes: 0 done; 1 failed, for a reason said in one line; 2 bad configuration; 75 stopped by a signal after saving;
anything else is a crash.
"""

import argparse
import contextlib
import errno
import hashlib
import json
import math
import os
import pathlib
import platform
import sys
import textwrap
from collections.abc import Callable
from typing import Any

from metalearn.validate import ConfigError, nearest

CACHE_BYTES = 2 * 2**30  # of compiled programs
EXIT_FAILURE, EXIT_CONFIG, EXIT_SIGNAL = 1, 2, 75
# of the machine, not of the program: what a person needs to know is the place and the reason
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


class Failure(RuntimeError):
    """A run cannot go on, for a reason that a person can act on. `str()` is the one line; programs exit with 1."""


class Parser(argparse.ArgumentParser):
    """argparse with one-line errors and `--config.field=value` overrides, gathered in `args.overrides`."""

    def __init__(self, doc: str | None, **kw):
        kw |= dict(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
        super().__init__(description=doc, **kw)

    def error(self, message: str):
        raise ConfigError("command line", " ".join(sys.argv[1:]), message)

    def parse(self, argv: list[str] | None = None) -> argparse.Namespace:
        argv = list(sys.argv[1:] if argv is None else argv)
        overrides, rest = [], []
        while argv:
            word = argv.pop(0)
            if word.startswith("--config."):
                body = word[len("--config."):]
                if "=" not in body and argv and not argv[0].startswith("--"):
                    body += "=" + argv.pop(0)
                overrides.append(body)
            else:
                rest.append(word)
        args, unknown = self.parse_known_args(rest)
        if unknown:
            flags = [s for action in self._actions for s in action.option_strings]
            name = unknown[0].partition("=")[0]
            raise ConfigError(name, unknown[0].partition("=")[2], "unknown flag" + nearest(name, flags))
        args.overrides = overrides
        return args


def main(program: Callable[[], int | None]) -> None:
    """Runs a program and exits: a ConfigError is one line on standard error and code 2, a Failure or a disk that takes
    nothing more one line and code 1."""
    keep_compiled()
    try:
        code = program() or 0
    except (ConfigError, Failure) as error:
        print(f"error: {error}", file=sys.stderr)
        code = EXIT_CONFIG if isinstance(error, ConfigError) else EXIT_FAILURE
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        sys.stderr.close()
        code = 141  # as a shell says it: what was to be done is not
    except OSError as error:
        if error.errno not in DISK:
            raise
        print(f"error: {error.filename or 'a file'}: {error.strerror}", file=sys.stderr)
        code = EXIT_FAILURE
    sys.exit(code)


def keep_compiled() -> None:
    """Has JAX keep what it compiles in the user's cache directory, up to CACHE_BYTES, for later processes.

    What is compiled is run, so it never lies in a work directory, which may come from elsewhere; and each kind of
    processor has a folder. JAX_COMPILATION_CACHE_DIR names another place, METALEARN_COMPILED=off keeps nothing.
    """
    if os.environ.get("METALEARN_COMPILED") == "off" or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    kind = platform.processor() + platform.machine()
    with contextlib.suppress(OSError):
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        kind += "".join(sorted({line for line in lines if line.startswith(("flags", "Features"))}))
    folder = os.path.join(home, "metalearn", "compiled", hashlib.sha256(kind.encode()).hexdigest()[:8])
    with contextlib.suppress(OSError):  # a home that cannot be written costs a start its seconds, and no more
        os.makedirs(folder, mode=0o700, exist_ok=True)
        prune(folder, CACHE_BYTES)
        for name, value in {"compilation_cache_dir": folder, "persistent_cache_min_compile_time_secs": 0.1}.items():
            os.environ[f"JAX_{name.upper()}"] = str(value)  # for programs started here, and where JAX is yet to come
            if "jax" in sys.modules:
                sys.modules["jax"].config.update(f"jax_{name}", value)


def prune(folder: str, limit: int) -> None:
    """Removes the oldest files of `folder` where they hold more than `limit` bytes, down to half of that."""
    files = sorted((file.stat().st_mtime, file.stat().st_size, file.path) for file in os.scandir(folder))
    total = sum(size for _, size, _ in files)
    excess = total - limit // 2 if total > limit else 0
    for _, size, path in files:
        if excess > 0:
            pathlib.Path(path).unlink(missing_ok=True)
            excess -= size


def entry(name: str, text: str) -> str:
    """A line of a list: a name and what it is, wrapped to 80 columns."""
    return textwrap.fill(text, 79, initial_indent=f"  {name:18s} ", subsequent_indent=" " * 21)


def plain(value: Any) -> Any:
    """JSON-ready: arrays to lists, floats to 6 significant digits, NaN and infinities to null."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def print_result(numbers: dict[str, Any]) -> None:
    """The last line of every program, for whoever reads it: `RESULT {json}` for a file or a pipe, and for a person at a
    terminal the numbers that fit on a few lines. Everything is in the files of the run."""
    if not sys.stdout.isatty():
        print("RESULT " + json.dumps(plain(numbers)), flush=True)
        return
    shown = [f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
             for name, value in flat(plain(numbers)).items() if isinstance(value, (int, float)) or len(str(value)) < 30]
    print(textwrap.shorten("result: " + ", ".join(shown), 240, placeholder=" ..."), flush=True)


def flat(numbers: dict, prefix: str = "", join: str = "/") -> dict:
    """Nested numbers by the path that leads to each: {"curves": {"last": .8}} gives {"curves/last": .8}; an empty dict
    stays as one entry."""
    found = {}
    for name, value in numbers.items():
        deeper = isinstance(value, dict) and value
        found |= flat(value, f"{prefix}{name}{join}", join) if deeper else {f"{prefix}{name}": value}
    return found


def say(text: str) -> None:
    """A line of its own on standard error, also where a progress line stands."""
    print(("\r\x1b[K" if sys.stderr.isatty() else "") + text, file=sys.stderr, flush=True)
