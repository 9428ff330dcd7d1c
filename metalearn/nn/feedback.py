"""Feedback models: from a boundary state and a context to the gradient that the future will send back to that state.

One head per group of the state (`nn.network`). A vector head is linear or has one hidden layer; the memory's head is
the same map for every row (so it commutes with permutations of the slots) and also sees the write controller. The last
layer starts at zero: a fresh feedback model says exactly nothing.

A message is what a head sees of the state: {group: (B, n)}, and (B, M, n) for `memory`. Predictions are per sample, in
units of the gradient of that sample's loss.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from metalearn.types import Array, PyTree
from metalearn.validate import require

UNCOVERED = ("link",)  # DNC's link matrix: (M, M) per episode, too large for a head; it gets no synthetic gradient


def covered(state: dict, heads: tuple[str, ...]) -> tuple[str, ...]:
    """The groups that get a head: `heads`, or with () every group that has a state and can be covered."""
    groups = [g for g in sorted(state) if g not in UNCOVERED and jax.tree.leaves(state[g])]
    for name in heads:
        require(name in groups, "heads", name, "must be one of " + ", ".join(groups) + " for this network")
    return tuple(heads) or tuple(groups)


def messages(state: dict, heads: tuple[str, ...]) -> dict[str, Array]:
    """The covered part of a state as one array per group."""
    out = {}
    for group in heads:
        axes = 2 if group == "memory" else 1
        leaves = [leaf.reshape(*leaf.shape[:axes], -1) for leaf in jax.tree.leaves(state[group])]
        out[group] = jnp.concatenate(leaves, -1)
    return out


def restore(message: dict[str, Array], state: dict) -> dict:
    """The inverse of `messages`, with zeros where no head is: a tree like `state`."""
    out = {}
    for group, leaves in state.items():
        flat, treedef = jax.tree.flatten(leaves)
        if group not in message:
            flat = [jnp.zeros_like(leaf) for leaf in flat]
        else:
            axes = 2 if group == "memory" else 1
            sizes = [leaf[:1].size // (leaf.shape[1] if axes == 2 else 1) for leaf in flat]
            parts = jnp.split(message[group], [sum(sizes[:i]) for i in range(1, len(sizes))], -1)
            flat = [part.reshape(leaf.shape) for part, leaf in zip(parts, flat, strict=True)]
        out[group] = jax.tree.unflatten(treedef, flat)
    return out


class Feedback(nn.Module):
    """messages, context (B, C) -> predictions of the same shapes as the messages. `hidden` 0 is linear."""

    hidden: int

    @nn.compact
    def __call__(self, message: dict[str, Array], context_BC: Array) -> dict[str, Array]:
        out = {}
        for group in sorted(message):
            inside = message[group]
            beside = context_BC
            if group == "memory":  # what is the same for every row enters beside it, computed once
                controller = next((message[g] for g in ("write", "output") if g in message), None)
                beside = context_BC if controller is None else jnp.concatenate([controller, context_BC], -1)
                beside = beside[:, None]
            size, zeros = inside.shape[-1], nn.initializers.zeros
            first = functools.partial(nn.Dense, self.hidden or size, **{} if self.hidden else {"kernel_init": zeros})
            y = first(name=f"{group}_in" if self.hidden else f"{group}_out")(inside)
            if beside.shape[-1]:
                y = y + first(use_bias=False, name=f"{group}_beside")(beside)
            out[group] = nn.Dense(size, name=f"{group}_out", kernel_init=zeros)(nn.relu(y)) if self.hidden else y
        return out


def init(key: Array, hidden: int, message: dict[str, Array], context_BC: Array) -> PyTree:
    return Feedback(hidden).init(key, message, context_BC)["params"]


def apply(params: PyTree, hidden: int, message: dict[str, Array], context_BC: Array) -> Any:
    return Feedback(hidden).apply({"params": params}, message, context_BC)


def sizes(params: PyTree) -> dict[str, int]:
    """{group: features of the message} that a model was made for."""
    first = lambda group: f"{group}_in" if f"{group}_in" in params else f"{group}_out"
    groups = [name.removesuffix("_out") for name in params if name.endswith("_out")]
    return {group: params[first(group)]["kernel"].shape[-2] for group in groups}


def from_table(params: PyTree, group: str, table_AC: Array) -> PyTree:
    """A linear vector head's (outputs, [state, context, 1]) matrix as a tree like its parameters."""
    size = sizes(params)[group]
    out = {f"{group}_out": {"kernel": table_AC[:, :size].T, "bias": table_AC[:, -1]}}
    if f"{group}_beside" in params:
        out[f"{group}_beside"] = {"kernel": table_AC[:, size:-1].T}
    return out


def init_adapter(message: dict[str, Array], shared: dict[str, Array]) -> PyTree:
    """{group: P (n_shared, n)}: the identity, cut or padded with zeros."""
    return {g: jnp.eye(shared[g].shape[-1], message[g].shape[-1]) for g in message}


def adapt(adapter: PyTree, message: dict[str, Array]) -> dict[str, Array]:
    """Into the shared sizes: P message."""
    return {g: message[g] @ adapter[g].T for g in message}


def adapt_back(adapter: PyTree, prediction: dict[str, Array]) -> dict[str, Array]:
    """Back by the transpose: a gradient changes its basis so."""
    return {g: prediction[g] @ adapter[g] for g in prediction}
