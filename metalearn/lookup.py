"""Find a thing by its name: a folder listing is the registry.

`build("tasks", "projected", **kw)` imports `metalearn.tasks.projected` and calls its `make(**kw)`; `of_block` takes the
name out of a config's block. Folders `tasks/`, `networks/`, ... beside the built-in configs, and in every folder that
METALEARN_PATH names (several with ':' between), hold entries too: a new task of one's own needs no change here.
An unknown name lists its neighbours; an unknown, missing or mistyped keyword is a `ConfigError`.
"""

import importlib
import os
import pkgutil
from collections.abc import Mapping
from typing import Any

from metalearn import validate

KINDS = ("tasks", "envs", "networks", "backbones", "learners", "evaluators")
_PACKAGE = os.path.dirname(os.path.abspath(__file__))
# where the built-in configs lie: inside an installed package, beside the package in the repository
CONFIGS = next((d for d in (os.path.join(_PACKAGE, "configs"), os.path.join(os.path.dirname(_PACKAGE), "configs"))
                if os.path.isdir(d)), "")


def names(kind: str) -> list[str]:
    """The entries of one kind, sorted: every module in its folders that is not private."""
    package = importlib.import_module(f"metalearn.{kind}")
    for root in filter(None, (CONFIGS, *os.environ.get("METALEARN_PATH", "").split(os.pathsep))):
        validate.require(os.path.isdir(root), "METALEARN_PATH", root, "no such folder")
        folder = os.path.join(os.path.abspath(root), kind)
        package.__path__ += [folder] if folder not in package.__path__ else []
    return sorted({m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_")})


def module(kind: str, name: str):
    """The module behind `name`; raises ConfigError that lists the nearest names."""
    known = names(kind)
    if name not in known:
        raise validate.ConfigError("name", name, "one of " + ", ".join(known) + validate.nearest(name, known))
    return importlib.import_module(f"metalearn.{kind}.{name}")


def build(kind: str, name: str, /, *context: Any, **kw: Any) -> Any:
    """Calls `make(*context, **kw)` of the entry; the keywords are checked against its signature first."""
    return validate.call(module(kind, name).make, *context, **kw)


def of_block(kind: str, block: Mapping[str, Any], /, *context: Any) -> Any:
    """The entry that `block` = {"name": ..., its fields} describes."""
    validate.require("name" in block, "name", "", "one of " + ", ".join(names(kind)))
    fields = {field: value for field, value in block.items() if field != "name"}
    return build(kind, block["name"], *context, **fields)
