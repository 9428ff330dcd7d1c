"""Learning by gradient descent along the episode: GPICL's SGD and MAML baselines (online form).

A classifier answers each position, then takes one step on it. With `meta=True` its initial weights are meta-learned
through the whole episode (MAML, online: not the two-loop support/query form); with `meta=False` they are a random
draw that never changes, and meta-training only passes the time.
"""

import jax
import jax.numpy as jnp
import optax

from metalearn.learning.gradients import grads_from_loss
from metalearn.measure import losses
from metalearn.types import Array, Episodes, Learner
from metalearn.validate import one_of, positive, require


def make(spec, *, meta: bool, hidden: tuple[int, ...], inner_optimiser: str, inner_lr: float) -> Learner:
    """An online learner.

    hidden           widths of hidden ReLU layers; () is softmax regression
    inner_optimiser  adam | sgd, its state starting anew with each episode
    inner_lr         step size along the episode; GPICL found Adam, 1e-3, no hidden layer the most sample-efficient
    """
    one_of(("adam", "sgd"), inner_optimiser=inner_optimiser)
    positive(inner_lr=inner_lr)
    require(all(h > 0 for h in hidden), "hidden", hidden, "must hold widths above 0")
    ways = spec.outputs
    sizes = [spec.features, *hidden, ways]
    inner = (optax.adam if inner_optimiser == "adam" else optax.sgd)(inner_lr)

    def init(key, batch: Episodes):
        keys = jax.random.split(key, len(sizes) - 1)
        layers = [{"kernel": jax.random.normal(k, (a, b)) * (2 / a) ** 0.5 * (0.1 if b == ways else 1.0),
                   "bias": jnp.zeros(b)} for k, a, b in zip(keys, sizes[:-1], sizes[1:], strict=True)]
        return {f"layer_{i}": layer for i, layer in enumerate(layers)}, ()

    def step(state, x_X: Array, y: Array):
        """Answers with the weights as they are, then learns from the label."""
        weights, inner_state = state

        def loss(weights):
            logits_V = _apply(weights, x_X)
            return losses.cross_entropy(logits_V, y), logits_V

        g, logits_V = jax.grad(loss, has_aux=True)(weights)
        updates, inner_state = inner.update(g, inner_state, weights)
        return (optax.apply_updates(weights, updates), inner_state), logits_V

    def logits(params, batch: Episodes) -> Array:
        episode = lambda x_TX, y_T: jax.lax.scan(
            lambda s, xy: step(s, *xy), (params, inner.init(params)), (x_TX, y_T))[1]
        return jax.vmap(episode)(batch.x_BTX, batch.y_BT)

    def loss(params, carry, batch: Episodes, key):
        value, means = losses.classification(logits(params, batch), batch.y_BT, batch.mask_BT)
        return value, (carry, means)

    def no_grads(params, carry, batch: Episodes, key):
        _, means = losses.classification(logits(params, batch), batch.y_BT, batch.mask_BT)
        return jax.tree.map(jnp.zeros_like, params), carry, means

    weights = sum(a * b + b for a, b in zip(sizes[:-1], sizes[1:], strict=True))
    size = weights * (3 if inner_optimiser == "adam" else 1) + (1 if inner_optimiser == "adam" else 0)
    return Learner(init, grads_from_loss(loss) if meta else no_grads,
                   lambda params, carry, batch: logits(params, batch), lambda length: size)


def _apply(weights, x_X: Array) -> Array:
    h = x_X
    for i in range(len(weights)):
        layer = weights[f"layer_{i}"]
        h = (h if i == 0 else jax.nn.relu(h)) @ layer["kernel"] + layer["bias"]
    return h
