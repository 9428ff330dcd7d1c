"""Fast and slow learning: how far synthetic gradients move a network's weights, and for how long.

  persistent  (DNI) one set of weights: theta <- theta - fast_rate 2 (1 - mix) (dh/dtheta)^T delta
              - slow_rate 2 mix dL/dtheta
  episodic    (as MetaNet's fast weights) theta + Delta: Delta is 0 at an episode's start, moves after every segment
              by the synthetic gradient alone, Delta <- leak Delta - fast_rate (dh/dtheta)^T delta, for each episode
              apart, in training as in testing, and is then forgotten. Slow weights get their gradient at theta + Delta
              with Delta held fixed (first order).
"""

import dataclasses
import re

import jax
import jax.numpy as jnp

from metalearn.learning import segments
from metalearn.nn.network import Network
from metalearn.types import Array, PyTree, leaf_name, named_leaves
from metalearn.validate import fraction, nonnegative, one_of, regex, require

SCOPES = ("persistent", "episodic")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """The block `fast_weights` of a learner.

    scope      persistent | episodic
    fast_rate  rate of the synthetic gradient; episodic: a learning rate, persistent: a factor on the gradient
    slow_rate  factor on the gradient of the segment's own loss (episodic: of everything the optimiser gets)
    mix        lambda, 0 to 1: own loss against the synthetic gradient; .5 takes both as they are
    leak       episodic: what is kept of Delta from segment to segment
    match      episodic: regular expression on the paths of the weights that move; '' is all
    """

    scope: str
    fast_rate: float
    slow_rate: float
    mix: float
    leak: float
    match: str

    def check(self, rule: str, context: str, networks: int) -> None:
        """ConfigError unless a learner with this rule, feedback context and number of networks can have them."""
        one_of(SCOPES, scope=self.scope)
        nonnegative(fast_rate=self.fast_rate, slow_rate=self.slow_rate)
        fraction(mix=self.mix, leak=self.leak)
        regex(match=self.match)
        need = lambda ok, what: require(ok or self.scope != "episodic", "scope", self.scope, "needs " + what)
        need(rule == "synthetic", "the rule synthetic: its gradients move the fast weights")
        need(context == "none", "feedback.context none: fast weights move at test time too, when labels are not known")
        need(networks == 1, "a single network")


def rates(options: Options) -> tuple[float, float]:
    """Weights of the segment's own loss and of the synthetic gradient in what the optimiser gets."""
    both = options.slow_rate if options.scope == "episodic" else options.fast_rate
    return 2 * options.mix * options.slow_rate, 2 * (1 - options.mix) * both


def initial(options: Options, params: PyTree, num: int) -> dict[str, Array]:
    """{leaf's path: zeros (B, ...)} for the weights that move."""
    named = named_leaves(params)
    chosen = {name: leaf for name, leaf in named.items() if re.search(options.match, name)}
    require(bool(chosen), "match", options.match, "matches none of " + ", ".join(named))
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
    """The fast weights after a segment from `state`, moved by `delta`, the synthetic gradient at its end."""
    _, pull = jax.vjp(lambda w: unroll(net, params, w, state, x_TBX)[0], weights)
    grads, = pull(delta)
    return jax.tree.map(lambda w, g: options.leak * w - options.fast_rate * g, weights, grads)
