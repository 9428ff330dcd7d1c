"""Parameters that a run takes from another: `config.init_from`."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from metalearn.runtime import config as config_lib, exported, optimiser, replicas, workdir as workdir_lib
from metalearn.types import PyTree
from metalearn.validate import require


def check(init_from: str, pretrained: Mapping[str, Mapping[str, Any]]) -> None:
    """Whether `init_from` can give what the learner needs from another run, before anything is written."""
    need, source = ", ".join(pretrained), init_from.partition("::")[0]
    require(bool(source) or not need, "config.init_from", "", f"name the work directory that {need} comes from")
    if not source:
        return
    steps = exported.of(source).steps()
    require(bool(steps), "config.init_from", source, "holds no checkpoint")
    trained = config_lib.flatten(workdir_lib.read_config(source))
    for field, value in (pair for wanted in pretrained.values() for pair in wanted.items()):
        require(trained.get(field) == value, "config.init_from", source,
                f"was trained with {field}={trained.get(field)!r}; this config needs {value!r}")


def params(source: str, template: PyTree, parts: tuple[str, ...], plan: replicas.Plan) -> PyTree:
    """`template` with parameters of another run's newest checkpoint: `WORKDIR`, or `WORKDIR::REGEX` for the leaves
    whose path matches. Without a pattern, the learner's `pretrained` parts, or everything when it names none.

    Every leaf that is asked for must be there with its shape. Each replica takes from the same replica of that run, or
    all of them from its only one.
    """
    workdir, _, pattern = source.partition("::")
    pattern = pattern or "|".join(f"^{part}/" for part in parts)
    chosen = optimiser.label(template, wanted=pattern)
    asked = jax.tree.map(lambda leaf, name: leaf if name == "wanted" else None, template, chosen)
    require(bool(jax.tree.leaves(asked)), "config.init_from", source, f"no parameter's path matches {pattern}")
    spread = plan.num > 1 and workdir_lib.read_config(workdir).replicas.num == 1
    if spread:
        asked = jax.eval_shape(lambda tree: replicas.one(plan, tree, 0), asked)
    found, _ = exported.of(workdir).restore({"params": asked})
    if spread:
        found = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (plan.num, *leaf.shape)), found)
    return jax.tree.map(lambda leaf, new: leaf if new is None else new, template, found["params"],
                        is_leaf=lambda leaf: leaf is None)
