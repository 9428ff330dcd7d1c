"""Baselines against brute force: at each position, from the positions before it alone."""

import jax
import numpy as np
import pytest
from sklearn import covariance, kernel_ridge

from metalearn.measure import baselines

V, X, T = 3, 4, 9


@pytest.fixture(scope="module")
def episode():
    rng = np.random.default_rng(0)
    y_T = np.array([2, 0, 0, 1, 2, 1, 0, 2, 1])
    return (rng.normal(size=(T, X)) + y_T[:, None]).astype(np.float32), y_T


@pytest.fixture(scope="module")
def answers(episode):
    return jax.tree.map(np.asarray, jax.jit(lambda x, y: {n: f(x, y, V) for n, f in baselines.ALL.items()})(*episode))


def test_nearest_neighbour(episode, answers):
    x, y = episode
    assert (answers["1nn"][0] == 0).all()
    for t in range(1, T):
        assert answers["1nn"][t].tolist() == np.eye(V)[y[np.linalg.norm(x[:t] - x[t], axis=1).argmin()]].tolist()


def test_class_mean(episode, answers):
    x, y = episode
    assert (answers["class_mean"][0] == -np.inf).all()
    for t in range(1, T):
        for v in range(V):
            known = x[:t][y[:t] == v]
            expected = -((x[t] - known.mean(0)) ** 2).sum() if len(known) else -np.inf
            np.testing.assert_allclose(answers["class_mean"][t, v], expected, rtol=1e-3, atol=1e-4)


def test_ridge(episode, answers):
    """The kernel form is the usual one, with the constant feature penalised like the others."""
    x, y = episode
    x1 = np.concatenate([x, np.ones((T, 1))], 1).astype(np.float64)
    assert np.abs(answers["ridge"][0]).max() < 1e-6
    for t in range(1, T):
        w = np.linalg.solve(x1[:t].T @ x1[:t] + np.eye(X + 1), x1[:t].T @ np.eye(V)[y[:t]])
        np.testing.assert_allclose(answers["ridge"][t], x1[t] @ w, atol=1e-4)


def test_lda(episode, answers):
    """scikit-learn's shrinkage of the covariance within classes; the plain metric while every class has one example."""
    x, y = episode
    for t in range(1, T):
        known = {v: x[:t][y[:t] == v].astype(np.float64) for v in set(y[:t])}
        residuals = np.concatenate([rows - rows.mean(0) for rows in known.values()])
        found = covariance.ledoit_wolf(residuals, assume_centered=True)[0] if residuals.any() else np.eye(X)
        for v in range(V):
            away = x[t] - known[v].mean(0) if v in known else None
            expected = -np.inf if away is None else -away @ np.linalg.solve(found, away)
            np.testing.assert_allclose(answers["lda"][t, v], expected, rtol=2e-3, atol=1e-3)
    assert (answers["lda"][0] == -np.inf).all()


def test_rbf_ridge(episode, answers):
    x, y = episode
    assert np.abs(answers["rbf_ridge"][0]).max() < 1e-6
    for t in range(1, T):
        pairs = ((x[:t, None] - x[None, :t]) ** 2).sum(-1)[~np.eye(t, dtype=bool)]
        model = kernel_ridge.KernelRidge(alpha=0.1, kernel="rbf", gamma=1 / pairs.mean() if t > 1 else 1.0)
        expected = model.fit(x[:t], np.eye(V)[y[:t]]).predict(x[t:t + 1])[0]
        np.testing.assert_allclose(answers["rbf_ridge"][t], expected, atol=1e-4)


def test_online_softmax_takes_one_adam_step_per_example(episode, answers):
    """Adam's first step is lr times the sign of the gradient, whatever its size."""
    x, y = episode
    got = answers["online_softmax"]
    assert (got[0] == 0).all()
    x1 = np.append(x, np.ones((T, 1)), 1)
    w = -1e-3 * np.sign(np.outer(x1[0], np.full(V, 1 / V) - np.eye(V)[y[0]]))
    np.testing.assert_allclose(got[1], x1[1] @ w, atol=1e-6)
    assert got[1, y[0]] == got[1].max() or x1[1] @ x1[0] < 0


def test_no_baseline_sees_the_future(episode, answers):
    x, y = episode
    later = (x.copy(), y.copy())
    later[0][6:], later[1][5:] = 9.0, 0  # labels of position 5 and after, inputs after it
    changed = jax.jit(lambda x, y: {n: f(x, y, V) for n, f in baselines.ALL.items()})(*later)
    for name, expected in answers.items():
        np.testing.assert_array_equal(np.asarray(changed[name])[:6], expected[:6], err_msg=name)
        assert (np.asarray(changed[name])[7:] != expected[7:]).any()
