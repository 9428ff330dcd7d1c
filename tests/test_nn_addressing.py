"""Invariants of addressing and of the memories that use it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalearn.nn import addressing as a

B, M, W = 3, 6, 4
KEY = jax.random.key(0)


def simplex(i, *shape):
    return jax.nn.softmax(jax.random.normal(jax.random.fold_in(KEY, i), shape))


MEMORY = jax.random.normal(KEY, (B, M, W))


def test_reads_lie_in_the_hull_of_the_rows():
    r_BW = a.read(MEMORY, simplex(1, B, M))
    assert (r_BW <= MEMORY.max(1) + 1e-6).all() and (r_BW >= MEMORY.min(1) - 1e-6).all()


def test_a_one_hot_overwrite_replaces_one_row_exactly_and_keeps_the_others_bitwise():
    v_BW = jax.random.normal(jax.random.key(2), (B, W))
    after = np.asarray(a.overwrite(MEMORY, jax.nn.one_hot(jnp.array([0, 2, 5]), M), v_BW))
    for b, row in enumerate((0, 2, 5)):
        assert (after[b, row] == np.asarray(v_BW[b])).all()
        assert (np.delete(after[b], row, 0) == np.delete(np.asarray(MEMORY[b]), row, 0)).all()


def test_cosine_is_safe_at_zero_rows():
    f = lambda memory: a.cosine(memory, jnp.ones((B, W))).sum()
    value, grad = jax.value_and_grad(f)(jnp.zeros((B, M, W)))
    assert value == 0 and np.isfinite(grad).all()
    np.testing.assert_allclose(a.cosine(MEMORY, MEMORY[:, 0])[:, 0], 1, atol=1e-4)


def test_ntm_pieces():
    w, before = simplex(3, B, M), simplex(4, B, M)
    zeros, ones = jnp.zeros((B, W)), jnp.ones((B, W))
    hot = jax.nn.one_hot(jnp.array([1, 3, 4]), M)
    erased = np.asarray(a.erase_add(MEMORY, hot, ones, zeros))
    assert (erased[0, 1] == 0).all() and (erased[0, 2] == np.asarray(MEMORY[0, 2])).all()
    added = a.erase_add(MEMORY, hot, zeros, ones) - MEMORY
    np.testing.assert_allclose(added, hot[..., None] * jnp.ones((1, 1, W)), atol=1e-6)
    np.testing.assert_array_equal(a.interpolate(w, before, jnp.zeros((B, 1))), before)
    np.testing.assert_allclose(a.shift(w, jax.nn.one_hot(jnp.full(B, 2), 3)), jnp.roll(w, 1, -1), rtol=1e-6)
    np.testing.assert_allclose(a.sharpen(w, jnp.full((B, 1), 1e4)), jax.nn.one_hot(w.argmax(-1), M), atol=1e-3)
    mixed, sharp = a.interpolate(w, before, jnp.full((B, 1), 0.3)), a.sharpen(w, jnp.full((B, 1), 3.0))
    for out in (mixed, a.shift(w, simplex(5, B, 3)), sharp):
        np.testing.assert_allclose(out.sum(-1), 1, rtol=1e-5)
        assert (out >= 0).all()


def test_several_heads_at_once_are_each_alone():
    keys, before, beta = jax.random.normal(jax.random.key(7), (B, 3, W)), simplex(6, B, 3, M), jnp.ones((B, 3, 1)) * 2
    moves = simplex(8, B, 3, 3)
    at_once = [a.content(MEMORY, keys, beta), a.interpolate(before, 1 - before, beta / 3), a.shift(before, moves),
               a.sharpen(before, beta)]
    for h in range(3):
        w, b = before[:, h], beta[:, h]
        alone = [a.content(MEMORY, keys[:, h], b), a.interpolate(w, 1 - w, b / 3), a.shift(w, moves[:, h]),
                 a.sharpen(w, b)]
        for many, one in zip(at_once, alone, strict=True):
            np.testing.assert_allclose(many[:, h], one, rtol=1e-5, atol=1e-7)


def test_least_used_marks_exactly_n():
    usage = jnp.asarray([[0.0, 0.0, 1.0, 2.0, 0.0, 3.0]])
    for n in (1, 2, 3):
        assert a.least_used(usage, n).sum() == n
    np.testing.assert_array_equal(a.least_used(usage, 2), [[[1, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0]]])


def test_dnc_pieces():
    usage = jnp.zeros((B, M))
    link, order = jnp.zeros((B, M, M)), jnp.zeros((B, M))
    for step in range(12):
        write = simplex(10 + step, B, M) * jax.random.uniform(jax.random.key(step), (B, 1))
        usage = a.retain_usage(usage, write, jax.random.uniform(jax.random.key(step + 50), (B, 2)),
                               jnp.stack([simplex(step, B, M), simplex(step + 1, B, M)], -1))
        link = a.link(link, order, write)
        order = a.precedence(order, write)
        assert (usage >= 0).all() and (usage <= 1).all()
        free = a.allocate(usage)
        assert (free >= 0).all() and (free.sum(-1) <= 1 + 1e-5).all()
        assert (jnp.diagonal(link, axis1=1, axis2=2) == 0).all()
        assert (link.sum(1) <= 1 + 1e-5).all() and (link.sum(2) <= 1 + 1e-5).all()
    full = jnp.ones((1, 3)).at[0, 1].set(0.0)
    np.testing.assert_allclose(a.allocate(full), [[0, 1, 0]], atol=1e-4)


@pytest.mark.parametrize("f", [a.allocate, lambda u: a.least_used(u, 2).sum(1),
                               lambda u: a.sharpen(u, jnp.full((B, 1), 2.0))])
def test_permuting_slots_permutes_weights(f):
    w, order = simplex(30, B, M), jnp.array([3, 1, 5, 0, 4, 2])
    np.testing.assert_allclose(f(w[:, order]), f(w)[:, order], rtol=1e-5, atol=1e-6)


def test_unit_vectors_and_the_slope_at_zero():
    x_BD = jnp.array([[3.0, 4.0], [0.0, 0.0]])
    np.testing.assert_allclose(a.unit(x_BD), [[0.6, 0.8], [0.0, 0.0]], rtol=1e-6)
    slope = jax.grad(lambda x: a.unit(x)[:, 0].sum())(x_BD)
    np.testing.assert_allclose(slope[0], [16 / 125, -12 / 125], rtol=1e-5)  # along the sphere
    assert np.isfinite(np.asarray(slope)).all()
