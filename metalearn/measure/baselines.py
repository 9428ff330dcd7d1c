"""Simple learners as baselines: what each would have answered at every position, from the positions before it.

Each maps one episode (x_TX, y_T) to answers_TV, scores whose argmax is the answer; all are pure and run under vmap.
At the first position nothing is known and the answer is arbitrary (class 0), so its accuracy is that of a constant.
"""

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


def lda(x_TX: Array, y_T: Array, ways: int) -> Array:
    """Linear discriminant analysis, classes equally likely: the nearest class mean in the metric of the covariance
    within classes, shrunk towards a multiple of the identity by Ledoit and Wolf's rule (2004). Inner products only."""
    y_TV = jax.nn.one_hot(y_T, ways)
    gram_TT, X = x_TX @ x_TX.T, x_TX.shape[1]

    def at(before_T, asked_T):
        seen_TV = y_TV * before_T[:, None]
        count_V, n = seen_TV.sum(0), jnp.maximum(before_T.sum(), 1)
        mean_TV = seen_TV / jnp.maximum(count_V, 1)  # the class means are mean_TV.T @ x
        residual_TT = jnp.diag(before_T) - mean_TV @ seen_TV.T  # what they leave of the examples: residual_TT @ x
        inner_TT = residual_TT @ gram_TT @ residual_TT.T
        power = jnp.trace(inner_TT) / (n * X)  # the mean eigenvalue of the covariance
        squared = (inner_TT**2).sum() / n**2
        noise, spread = ((jnp.diagonal(inner_TT) ** 2).sum() / n - squared) / n, squared - X * power**2
        shrunk = jnp.where(spread > 0, jnp.clip(noise / spread, 1e-3, 1.0), 1.0)
        # covariance = floor * identity + part * (residuals' inner products), inverted by Woodbury's identity;
        # where every class has one example there is no covariance and the metric is the plain one
        floor, part = jnp.where(power > 0, shrunk * power, 1.0), (1 - shrunk) / n
        away_TV = asked_T[:, None] - mean_TV
        r_TV = residual_TT @ gram_TT @ away_TV
        explained_TV = _solve(floor * jnp.eye(len(y_T)) + part * inner_TT, r_TV)
        distance_V = (away_TV * (gram_TT @ away_TV)).sum(0) - part * (r_TV * explained_TV).sum(0)
        return jnp.where(count_V > 0, -distance_V / floor, -jnp.inf)

    return jax.lax.map(lambda rows: at(*rows), (jnp.tri(len(y_T), k=-1), jnp.eye(len(y_T))))


def ridge(x_TX: Array, y_T: Array, ways: int, penalty: float = 1.0) -> Array:
    """Least squares on one-hot labels with a penalty and a constant feature, in its kernel form at each position."""
    return _kernel_ridge(x_TX @ x_TX.T + 1.0, y_T, ways, penalty, lambda K_TT, seen_TT: K_TT)


def rbf_ridge(x_TX: Array, y_T: Array, ways: int, penalty: float = 0.1) -> Array:
    """Kernel ridge regression on one-hot labels with exp(-|a - b|^2 / s), s the mean of |a - b|^2 over the pairs of
    examples seen so far."""

    def kernel(distance_TT, seen_TT):
        pairs_TT = seen_TT * (1 - jnp.eye(len(y_T)))
        mean = (distance_TT * pairs_TT).sum() / jnp.maximum(pairs_TT.sum(), 1)
        return jnp.exp(-distance_TT / jnp.where(mean > 0, mean, 1.0))

    return _kernel_ridge(jnp.maximum(_distances(x_TX, x_TX), 0.0), y_T, ways, penalty, kernel)


def _kernel_ridge(from_TT: Array, y_T: Array, ways: int, penalty: float, kernel) -> Array:
    """Kernel ridge regression at each position; kernel(from_TT, seen_TT) is the kernel with 1s at the seen pairs."""
    y_TV = jax.nn.one_hot(y_T, ways)

    def at(before_T, asked_T):
        seen_TT = before_T[:, None] * before_T[None]
        K_TT = kernel(from_TT, seen_TT)
        # positions not seen yet keep only the penalty on the diagonal, so they weigh nothing
        alpha_TV = _solve(K_TT * seen_TT + penalty * jnp.eye(len(y_T)), y_TV * before_T[:, None])
        return (asked_T @ K_TT * before_T) @ alpha_TV

    return jax.lax.map(lambda rows: at(*rows), (jnp.tri(len(y_T), k=-1), jnp.eye(len(y_T))))


def _solve(A_TT: Array, b_TV: Array) -> Array:
    """Of a positive definite system."""
    return jax.scipy.linalg.cho_solve((jnp.linalg.cholesky(A_TT), True), b_TV)


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


ALL = {"1nn": nearest_neighbour, "class_mean": class_mean, "lda": lda, "ridge": ridge, "rbf_ridge": rbf_ridge,
       "online_softmax": online_softmax}


def _distances(a_NX: Array, b_MX: Array) -> Array:
    return (a_NX**2).sum(-1)[:, None] + (b_MX**2).sum(-1)[None] - 2 * a_NX @ b_MX.T
