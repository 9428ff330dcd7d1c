"""Configs: load `FILE[:args]`, apply `--config.field=value` overrides, write and compare as JSON.

A config file is Python and is executed: load only files that you trust. What a run saves is JSON, and evaluation,
resuming and reports read that alone.
"""

import ast
import functools
import glob
import importlib.util
import json
import os
import sys
import types
from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from metalearn import cli, lookup
from metalearn.validate import ConfigError, nearest, require

# fields that saved configs of earlier versions lack
SINCE = (("train", None, "accumulate", 1), ("train", None, "mesh", {"model": 1, "params": "replicated"}),
         ("task", "projected", "projection", "gaussian"),
         ("learner", "metadt", "remat", "none"), ("learner.network", "transformer", "remat", "none"))
# and fields that they have although nothing reads them any more, at what they then must have been
GONE = (("learner", "memnet", "fast_weights", {"scope": "persistent", "fast_rate": 1.0, "slow_rate": 1.0, "mix": 0.5,
                                               "leak": 1.0, "match": ""}),)


def built_in() -> dict[str, str]:
    """{name: path} of the built-in configs."""
    paths = sorted(glob.glob(os.path.join(glob.escape(lookup.CONFIGS), "*.py")))
    return {os.path.basename(p)[:-3]: p for p in paths if not p.endswith(("__init__.py", "common.py"))}


def find(spec: str) -> tuple[str, str]:
    """(absolute path, argument) of `FILE[:argument]` or of a built-in config: gpicl:smoke, configs/gpicl.py:smoke."""
    path, _, arg = spec.partition(":")
    if not os.path.isfile(path):
        known, name = built_in(), path.removeprefix("configs/").removesuffix(".py")
        require(name in known, "--config", path, "no such file; built in: " + ", ".join(known) + nearest(name, known))
        path = known[name]
    return os.path.abspath(path), arg


def load(spec: str, overrides: Iterable[str] = ()) -> ConfigDict:
    """The config of `FILE[:argument]` or of a built-in name, with overrides `field.sub=value` applied, locked.

    Raises ConfigError: no such file, no `get_config`, a refused argument, an unknown field, a wrong type.
    """
    path, arg = find(spec)
    config = import_file(path).get_config(arg)
    for override in overrides:
        field, eq, text = override.partition("=")
        require(bool(eq), f"--config.{field}", "", "write it as --config.field=value")
        assign(config, field, text)
    return config.lock()


def import_file(path: str):
    """The config module at `path`; its neighbours, and the built-in ones, import as `configs.<name>` anywhere."""
    spec = importlib.util.spec_from_file_location(f"configs.{os.path.basename(path)[:-3]}", path)
    if spec is None or spec.loader is None or not path.endswith(".py"):
        raise ConfigError("--config", path, "must be a Python file")
    module = importlib.util.module_from_spec(spec)
    for name in [n for n in sys.modules if n.partition(".")[0] == "configs"]:  # of another folder, perhaps
        del sys.modules[name]
    package = sys.modules["configs"] = types.ModuleType("configs")
    package.__path__ = [os.path.dirname(path), lookup.CONFIGS]
    sys.modules[module.__name__] = module  # where dataclasses look for it
    try:
        spec.loader.exec_module(module)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError("--config", path, f"failed to load: {type(error).__name__}: {error}") from None
    require(hasattr(module, "get_config"), "--config", path, "must define get_config(arg)")
    return module


def flatten(config: dict | ConfigDict) -> dict[str, Any]:
    """{'optim.lr': .001, ...}; an empty block stays as one entry, so that it is compared and found too."""
    return cli.flat(config.to_dict() if isinstance(config, ConfigDict) else config, join=".")


def assign(config: ConfigDict, field: str, value: Any) -> None:
    """Sets one existing field. Text is read as a literal of the type that the field has; values are checked alike."""
    flat = flatten(config)
    node, parts = config, field.split(".")
    for i, part in enumerate(parts):
        known = isinstance(node, ConfigDict) and part in node
        require(known, f"config.{field}", value, "unknown field" + nearest(field, flat))
        if i + 1 < len(parts):
            node = node[part]
    old = node[parts[-1]]
    if isinstance(old, ConfigDict):
        require(not len(old), f"config.{field}", value, "is a block; set one of its fields: " + ", ".join(flatten(old)))
        with old.unlocked():  # a block that is free to be filled takes {dotted field: value}
            old.update(nested(coerce(f"config.{field}", {}, value)))
        return
    with node.ignore_type():
        node[parts[-1]] = coerce(f"config.{field}", old, value)


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """{'optim': {'lr': .001}, ...} of dotted fields: what `flatten` flattens."""
    out: dict[str, Any] = {}
    for field, value in flat.items():
        *path, last = field.split(".")
        node = out
        for part in path:
            node = node.setdefault(part, {})
        node[last] = value
    return out


def coerce(field: str, old: Any, value: Any) -> Any:
    """`value`, or what its text says, in the type of `old`; ConfigError where it has another."""
    if isinstance(value, str) and not isinstance(old, str):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            known = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf"), "true": True, "false": False}
            value = known.get(value.lower(), value)
    if old is None or type(value) is type(old):
        return value
    if isinstance(old, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(old, tuple) and isinstance(value, list):
        return tuple(value)
    raise ConfigError(field, value, f"must be of type {type(old).__name__}, as {old!r} is")


def to_json(config: ConfigDict | Mapping) -> str:
    config = config.to_dict() if isinstance(config, ConfigDict) else dict(config)
    return json.dumps(config, indent=2, sort_keys=True) + "\n"


def from_json(text: str) -> ConfigDict:
    """The saved config; lists come back as tuples, as config files write them."""
    fields = json.loads(text)
    if not isinstance(fields, dict):
        raise ValueError("no object of fields")
    for block, kind, name, value in SINCE:  # at which a run from before the field was what it was
        below = lambda node, key: node.get(key) if isinstance(node, dict) else None
        at = functools.reduce(below, block.split("."), fields)
        if isinstance(at, dict) and kind in (None, at.get("name")):
            at.setdefault(name, value)
    for block, kind, name, value in GONE:
        found = fields.get(block)
        if isinstance(found, dict) and (found.get("name"), found.get(name)) == (kind, value):
            del found[name]
    return ConfigDict(_tuples(fields)).lock()


def _tuples(node: Any) -> Any:
    if isinstance(node, dict):
        return {k: _tuples(v) for k, v in node.items()}
    return tuple(_tuples(v) for v in node) if isinstance(node, list) else node


def differences(old: ConfigDict, new: ConfigDict) -> list[str]:
    """['optim.lr: 0.001 -> 0.01', ...] between a saved config and a new one."""
    a, b = flatten(from_json(to_json(old))), flatten(from_json(to_json(new)))
    return [f"{k}: {a.get(k, '(absent)')!r} -> {b.get(k, '(absent)')!r}" for k in sorted(a.keys() | b.keys())
            if k not in a or k not in b or a[k] != b[k]]
