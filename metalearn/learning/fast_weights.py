"""Fast and slow learning: how fast the feedback model's word moves a network, and for how long.

  persistent  (DNI) one set of weights: theta <- theta - fast 2 (1 - mix) (dh/dtheta)^T delta - slow 2 mix dL/dtheta
  episodic    (as MetaNet's fast weights) theta + Delta: Delta is 0 at an episode's start, moves after every window by
              the feedback model's word alone, Delta <- leak Delta - fast (dh/dtheta)^T delta, for each episode apart,
              in training as in testing, and is then forgotten. Slow weights get their gradient at theta + Delta with
              Delta held fixed (first order).
"""

from __future__ import annotations

import re
from typing import NamedTuple

import jax
import jax.numpy as jnp

from metalearn.learning import segments
from metalearn.nn.network import Network
from metalearn.types import Array, PyTree, leaf_name
from metalearn.validate import ConfigError, fraction, nonnegative, one_of, require

SCOPES = ("persistent", "episodic")


class Options(NamedTuple):
    """What `make` was told, in one value."""

    scope: str
    fast: float
    slow: float
    mix: float
    leak: float
    match: str


def make(rule: str, context: str, members: int, *, scope: str, fast: float, slow: float, mix: float, leak: float,
         match: str) -> Options:
    """The speeds of a learner with this rule, feedback context and number of members.

    scope  persistent | episodic
    fast   rate of what the feedback model says; episodic: a learning rate, persistent: a factor on the gradient
    slow   factor on the gradient of what the window itself cost (episodic: of everything the optimiser gets)
    mix    lambda, 0 to 1: own loss against the feedback model's word; .5 takes both as they are
    leak   episodic: what is kept of Delta from window to window
    match  episodic: regular expression on the paths of the weights that move; '' is all
    """
    one_of(SCOPES, scope=scope)
    nonnegative(fast=fast, slow=slow)
    fraction(mix=mix, leak=leak)
    try:
        re.compile(match)
    except re.error as error:
        raise ConfigError("match", match, f"must be a regular expression: {error}") from None
    if scope == "episodic":
        require(rule == "synthetic", "scope", scope, "needs the rule synthetic: its word moves the fast weights")
        require(context == "none", "scope", scope,
                "needs feedback.context none: fast weights move at test time too, when labels are not known")
        require(members == 1, "scope", scope, "needs a single network: no members")
    return Options(scope, fast, slow, mix, leak, match)


def rates(options: Options) -> tuple[float, float]:
    """Weights of the window's own loss and of the feedback model's word in what the optimiser gets."""
    both = options.slow if options.scope == "episodic" else options.fast
    return 2 * options.mix * options.slow, 2 * (1 - options.mix) * both


def start(options: Options, params: PyTree, num: int) -> dict[str, Array]:
    """{leaf's path: zeros (B, ...)} for the weights that move."""
    named = [(leaf_name(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(params)]
    chosen = {name: leaf for name, leaf in named if re.search(options.match, name)}
    require(bool(chosen), "match", options.match, "matches none of " + ", ".join(name for name, _ in named))
    return {name: jnp.zeros((num, *leaf.shape), leaf.dtype) for name, leaf in chosen.items()}


def unroll(net: Network, params: PyTree, weights: dict[str, Array], state: PyTree, x_TBX: Array):
    """(state, logits_TBV) with each sample's own weights."""

    def one(weights, state, x_TX):
        add = lambda path, leaf: leaf + weights[leaf_name(path)] if leaf_name(path) in weights else leaf
        own = jax.tree_util.tree_map_with_path(add, params)
        state, logits_T1V = segments.run(net, own, jax.tree.map(lambda a: a[None], state), x_TX[:, None])
        return jax.tree.map(lambda a: a[0], state), logits_T1V[:, 0]

    return jax.vmap(one, in_axes=(0, 0, 1), out_axes=(0, 1))(weights, state, x_TBX)


def step(options: Options, net: Network, params: PyTree, weights: dict, state: PyTree, x_TBX: Array,
         delta: PyTree) -> dict[str, Array]:
    """The fast weights after a window from `state`, moved by `delta`, what was said of its end."""
    _, pull = jax.vjp(lambda w: unroll(net, params, w, state, x_TBX)[0], weights)
    grads, = pull(delta)
    return jax.tree.map(lambda w, g: options.leak * w - options.fast * g, weights, grads)
