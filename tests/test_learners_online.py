"""Learning by gradient descent along an episode: against a loop by hand, and MAML's gradient against differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalearn import lookup
from metalearn.types import Episodes, EpisodeSpec
from metalearn.validate import ConfigError

V, X, T, LR = 3, 4, 5, 0.1
SPEC = EpisodeSpec(length=T, features=X, targets="classes", outputs=V)
BASE = dict(meta=True, hidden=(), inner_optimiser="sgd", inner_lr=LR)


def build(**changes):
    return lookup.build("learners", "online", SPEC, **BASE | changes)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    return Episodes(jnp.asarray(rng.normal(size=(2, T, X)), jnp.float32), jnp.asarray(rng.integers(0, V, (2, T))),
                    jnp.ones((2, T)), jnp.zeros(2, jnp.int32), jnp.zeros((2, T), jnp.int32))


@pytest.fixture(scope="module")
def start(batch):
    return build().init(jax.random.key(1), batch)[0]


def by_hand(params, batch, optimiser):
    """Softmax regression in numpy, float64: answer, then one step; logits (B, T, V)."""
    w0 = np.concatenate([params["layer_0"]["kernel"], params["layer_0"]["bias"][None]]).astype(np.float64)
    out = np.zeros((*batch.y_BT.shape, V))
    for b in range(len(out)):
        w, m, v = w0.copy(), 0.0, 0.0
        for t in range(T):
            x = np.append(np.asarray(batch.x_BTX[b, t], np.float64), 1.0)
            out[b, t] = x @ w
            p = np.exp(out[b, t] - out[b, t].max())
            g = np.outer(x, p / p.sum() - np.eye(V)[batch.y_BT[b, t]])
            if optimiser == "adam":
                m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
                g = m / (1 - 0.9 ** (t + 1)) / (np.sqrt(v / (1 - 0.999 ** (t + 1))) + 1e-8)
            w = w - LR * g
    return out


def loss_by_hand(params, batch):
    logits = by_hand(params, batch, "sgd")
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return -np.take_along_axis(log_p, np.asarray(batch.y_BT)[..., None], -1).mean()


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_answers_then_one_step_per_position(batch, start, optimiser):
    got = jax.jit(build(inner_optimiser=optimiser).predict)(start, (), batch)
    expected = by_hand(start, batch, optimiser)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert np.abs(expected[:, -1] - by_hand(start, batch.replace(y_BT=0 * batch.y_BT), optimiser)[:, -1]).max() > 0.05


def test_maml_s_gradient_is_that_of_the_whole_episode(batch, start, golden):
    """Central differences of the numpy loop in float64: through the inner steps, not only through the answers."""
    grads, carry, means = jax.jit(build().grads)(start, (), batch, jax.random.key(0))
    np.testing.assert_allclose(means["loss"].compute(), loss_by_hand(start, batch), rtol=1e-5)
    golden("online", grads)
    wide = jax.tree.map(lambda a: np.asarray(a, np.float64), start)
    for name, leaf in wide["layer_0"].items():
        for at in np.ndindex(leaf.shape):
            ends = []
            for sign in (1, -1):
                moved = {"layer_0": {k: a.copy() for k, a in wide["layer_0"].items()}}
                moved["layer_0"][name][at] += sign * 1e-5
                ends.append(loss_by_hand(moved, batch))
            np.testing.assert_allclose(grads["layer_0"][name][at], (ends[0] - ends[1]) / 2e-5, rtol=1e-3, atol=1e-5)
    assert carry == ()


def test_sgd_never_moves_its_initial_weights(batch, start):
    grads, _, means = jax.jit(build(meta=False).grads)(start, (), batch, jax.random.key(0))
    assert jax.tree.structure(grads) == jax.tree.structure(start)
    assert all((np.asarray(g) == 0).all() for g in jax.tree.leaves(grads))
    np.testing.assert_allclose(means["loss"].compute(), loss_by_hand(start, batch), rtol=1e-5)


def test_the_state_is_weights_and_moments(batch):
    for changes in (dict(), dict(inner_optimiser="adam"), dict(hidden=(6,), inner_optimiser="adam")):
        learner = build(**changes)
        params, _ = jax.eval_shape(learner.init, jax.random.key(0), batch)
        weights = sum(leaf.size for leaf in jax.tree.leaves(params))
        assert learner.state_size(T) == (3 * weights + 1 if changes else weights)


@pytest.mark.parametrize("changes, text", [(dict(inner_optimiser="rmsprop"), "inner_optimiser=rmsprop"),
                                           (dict(inner_lr=0.0), "inner_lr=0.0"), (dict(hidden=(0,)), "hidden"),
                                           (dict(meta=1), "meta=1: must be of type bool")])
def test_refusals(changes, text):
    with pytest.raises(ConfigError, match=text):
        build(**changes)
