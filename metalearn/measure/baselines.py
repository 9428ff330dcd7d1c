"""Simple learners as baselines: what each would have answered at every position, from the positions before it.

Each maps one episode (x_TX, y_T) to answers_TV, scores whose argmax is the answer; all are pure and run under vmap.
At the first position nothing is known and the answer is arbitrary (class 0), so its accuracy is that of a constant.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from metalearn.types import Array


def nearest_neighbour(x_TX: Array, y_T: Array, ways: int) -> Array:
    """1-NN in Euclidean distance, the earliest of equals."""
    before_TT = jnp.tri(len(y_T), k=-1, dtype=bool)
    nearest_T = jnp.argmin(jnp.where(before_TT, _distances(x_TX, x_TX), jnp.inf), axis=1)
    return jnp.where(before_TT.any(1)[:, None], jax.nn.one_hot(y_T[nearest_T], ways), 0.0)


def class_mean(x_TX: Array, y_T: Array, ways: int) -> Array:
    """The nearest class mean; classes not seen yet are out of the question. Inner products only: no (T, V, X)."""
    y_TV = jax.nn.one_hot(y_T, ways)
    gram_TT = x_TX @ x_TX.T
    own_T = jnp.diagonal(gram_TT)
    cross_TV = (gram_TT * jnp.tri(len(y_T), k=-1)) @ y_TV  # x_t . (sum of the class so far)
    added_TV = y_TV * (2 * cross_TV + own_T[:, None])  # what example t adds to |sum of its class|^2
    before = lambda a_TV: jnp.cumsum(a_TV, 0) - a_TV
    count_TV = before(y_TV)
    n_TV = jnp.maximum(count_TV, 1)
    distance_TV = own_T[:, None] - 2 * cross_TV / n_TV + before(added_TV) / n_TV**2
    return jnp.where(count_TV > 0, -distance_TV, -jnp.inf)


def ridge(x_TX: Array, y_T: Array, ways: int, penalty: float = 1.0) -> Array:
    """Least squares on one-hot labels with a penalty and a constant feature, in its kernel form at each position."""
    y_TV = jax.nn.one_hot(y_T, ways)
    gram_TT = x_TX @ x_TX.T + 1.0

    def at(before_T, k_T):
        K = gram_TT * before_T[:, None] * before_T[None]
        # positions not seen yet keep only the penalty on the diagonal, so they weigh nothing
        alpha = jnp.linalg.solve(K + penalty * jnp.eye(len(y_T)), y_TV * before_T[:, None])
        return (k_T * before_T) @ alpha

    return jax.lax.map(lambda args: at(*args), (jnp.tri(len(y_T), k=-1), gram_TT))


def online_softmax(x_TX: Array, y_T: Array, ways: int, lr: float = 1e-3) -> Array:
    """Softmax regression from zero, one Adam step per example (GPICL's most sample-efficient SGD baseline)."""

    def step(state, example):
        w, m, v, t = state
        x, y = example
        x = jnp.append(x, 1.0)
        logits = x @ w
        g = jnp.outer(x, jax.nn.softmax(logits) - jax.nn.one_hot(y, ways))
        t, m, v = t + 1, 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        w = w - lr * (m / (1 - 0.9**t)) / (jnp.sqrt(v / (1 - 0.999**t)) + 1e-8)
        return (w, m, v, t), logits

    zero = jnp.zeros((x_TX.shape[1] + 1, ways))
    return jax.lax.scan(step, (zero, zero, zero, 0.0), (x_TX, y_T))[1]


ALL = {"1nn": nearest_neighbour, "class_mean": class_mean, "ridge": ridge, "online_softmax": online_softmax}


def _distances(a_NX: Array, b_MX: Array) -> Array:
    return (a_NX**2).sum(-1)[:, None] + (b_MX**2).sum(-1)[None] - 2 * a_NX @ b_MX.T
