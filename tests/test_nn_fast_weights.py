"""Chunked forms against their recurrences, and the equivalences between the families, in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalearn.nn import fast_weights

B, H, L, K, V = 2, 2, 11, 4, 3
close = functools.partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-10)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


def tokens(width=V):
    unit = lambda a: a / jnp.linalg.norm(a, axis=-1, keepdims=True)
    return (draw(B, H, L, K, seed=1), unit(draw(B, H, L, K, seed=2)), draw(B, H, L, width, seed=3))


gate = lambda seed: jax.nn.sigmoid(draw(B, H, L, seed=seed))


def delta_by_token(S, q, k, v, log_decay, beta, erase):
    """The published recurrence, token by token; the error is that of the decayed memory."""
    out = []
    for t in range(L):
        S = jnp.exp(log_decay[:, :, t])[..., None, None] * S
        error = v[:, :, t] - (jnp.einsum("bhk,bhkv->bhv", k[:, :, t], S) if erase else 0)
        S = S + beta[:, :, t, None, None] * jnp.einsum("bhk,bhv->bhkv", k[:, :, t], error)
        out.append(jnp.einsum("bhk,bhkv->bhv", q[:, :, t], S))
    return S, jnp.stack(out, 2)


@pytest.mark.parametrize("erase", [True, False])
def test_delta_is_its_recurrence_in_every_chunk_with_its_gradient(erase, monkeypatch):
    inputs = (draw(B, H, K, V), *tokens(), jnp.log(gate(4)), gate(5))
    of = lambda form: jax.vjp(lambda *a: form(*a, erase=erase), *inputs)
    want, pull = of(delta_by_token)
    asked = jax.tree.map(lambda a: draw(*a.shape, seed=6), want)
    for chunk, piece in ((1, 256), (4, 256), (64, 256), (2, 2)):
        monkeypatch.setattr(fast_weights, "PIECE", piece)
        found, mine = of(functools.partial(fast_weights.delta, chunk=chunk))
        jax.tree.map(close, found, want)
        jax.tree.map(close, mine(asked), pull(asked))


def test_equal_keys_that_are_written_whole_cost_no_digits_in_float32():
    """Where powers of what is below the diagonal would grow to 1e8: the last value alone stays."""
    ones, values = np.ones((1, 1, 32, 1), np.float32), np.random.default_rng(0).standard_normal((1, 1, 32, 5))
    S, out = fast_weights.delta(np.zeros((1, 1, 1, 5), np.float32), ones, ones, values.astype(np.float32),
                                0 * ones[..., 0], ones[..., 0], erase=True, chunk=32)
    np.testing.assert_allclose(S[:, :, 0], values[:, :, -1], rtol=1e-5)
    np.testing.assert_allclose(out, values, rtol=1e-4, atol=1e-5)


def test_no_call_of_lapack_is_in_the_delta_rule():
    """Two at once wait for each other forever where there are two cores (jaxlib 0.10)."""
    inputs = (draw(B, H, K, V), *tokens(), jnp.log(gate(4)), gate(5))
    grad = jax.jit(jax.grad(lambda *a: (fast_weights.delta(*a, erase=True, chunk=4)[1] ** 2).sum(), argnums=(0, 1, 2)))
    assert "custom-call" not in grad.lower(*inputs).compile().as_text()


@pytest.mark.parametrize("chunk", [1, 4])
def test_mesa_in_as_many_steps_as_keys_have_entries_is_the_linear_solve(chunk):
    """Also where a sequence is cut; in fewer steps it is another answer."""
    (q, k, v), decay, beta, ridge = tokens(), gate(4), gate(5), 0.3 + gate(6)[0, :, :K]
    start = jnp.zeros((B, H, K, K)), jnp.zeros((B, H, K, V))
    H_BHKK, S, want = *start, []
    for t in range(L):
        put = lambda old, value, t=t: (decay[:, :, t, None, None] * old + beta[:, :, t, None, None]
                                       * jnp.einsum("bhk,bhv->bhkv", k[:, :, t], value))
        H_BHKK, S = put(H_BHKK, k[:, :, t]), put(S, v[:, :, t])
        x = jnp.linalg.solve(H_BHKK + jax.vmap(jnp.diag)(ridge), q[:, :, t][..., None])[..., 0]
        want.append(jnp.einsum("bhk,bhkv->bhv", x, S))
    all_ = q, k, v, jnp.log(decay), beta
    read = lambda state, part, steps=K: fast_weights.mesa(*state, *(a[:, :, part] for a in all_), ridge, steps=steps,
                                                          chunk=chunk)
    whole = read(start, slice(None))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-7, atol=1e-7), whole,
                 (H_BHKK, S, jnp.stack(want, 2)))
    *middle, first = read(start, slice(0, 5))
    close(jnp.concatenate([first, read(middle, slice(5, None))[2]], 2), whole[2])
    assert np.abs(read(start, slice(None), 1)[2] - whole[2]).max() > 1e-3


def layers(depth):
    return [draw(B, H, K, K, seed=10 + i) / 2 for i in range(depth)]


def say(M, x):
    for i, layer in enumerate(M):
        x = (x if i == 0 else jax.nn.silu(x)) @ layer
    return x


def descend_by_token(M, S, q, k, v, rates, chunk):
    """Titans' equations, a token at a time, with autodiff: the gradient is taken at the memory of the chunk's start."""
    out, frozen = [], M
    loss = lambda M, t: ((say(M, k[:, :, t, None]) - v[:, :, t, None]) ** 2).sum()
    for t in range(L):
        if t % chunk == 0:
            frozen = M
        at = lambda name, t=t: rates[name][:, :, t, None, None] if name in rates else 0.0
        S = [at("momentum") * s - at("rate") * u for s, u in zip(S, jax.grad(loss)(frozen, t), strict=True)]
        M = [(1 - at("forget")) * m + s for m, s in zip(M, S, strict=True)]
        out.append(say(M, q[:, :, t, None])[:, :, 0])
    return M, S, jnp.stack(out, 2)


def by_chunks(memory, q, k, v, rates, chunk, cuts=(L,)):
    """`descend` over a sequence that comes in pieces."""
    body = lambda memory, now: _body(memory, now)
    first = lambda a: a.swapaxes(1, 2)

    def _body(memory, now):
        new, o = fast_weights.descend(memory, *(first(now[n]) for n in "qkv"), {r: first(now[r]) for r in rates})
        return new, first(o)

    all_tokens = {n: first(a) for n, a in (dict(q=q, k=k, v=v) | rates).items()}
    tails = {n: a.shape[2:] for n, a in all_tokens.items()}
    state = {"inner": memory, "begun": fast_weights.begun(B, chunk, **tails)}
    at, out = 0, []
    for length in cuts:
        part = {n: a[:, at:at + length] for n, a in all_tokens.items()}
        state, o = fast_weights.by_chunks(body, chunk, state, part, at == 0)
        at, out = at + length, [*out, first(o)]
    return state, jnp.concatenate(out, 2)


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("chunk", [1, 4])
def test_a_memory_that_descends_is_its_recurrence_with_gradients_from_the_chunks_start(depth, chunk):
    rates = {"rate": 0.3 * gate(4), "momentum": gate(5), "forget": 0.3 * gate(6)}
    M, S = layers(depth), [0.1 * layer for layer in layers(depth)]
    new_M, new_S, want = descend_by_token(M, S, *tokens(K), rates, chunk)
    state, found = by_chunks({"M": M, "S": S}, *tokens(K), rates, chunk)
    close(found, want)
    if L % chunk == 0:
        jax.tree.map(close, state["inner"], {"M": new_M, "S": new_S})
    _, cut = by_chunks({"M": M, "S": S}, *tokens(K), rates, chunk, (1, 1, 5, 3, 1))  # within and across chunks
    close(cut, want)


@pytest.mark.parametrize("logit", [-150.0, 40.0])
def test_gates_that_are_shut_or_open_altogether_have_finite_gradients(logit):
    """In float32 sigmoid(-150) is 0 and sigmoid(40) is 1: what is kept of a memory or its momentum has no logarithm."""
    def loss(logit):
        gates = {name: jax.nn.sigmoid(jnp.full((B, H, L), logit)) for name in ("momentum", "forget")}
        rates = jax.tree.map(jnp.float32, {"rate": 0.3 * gate(4)} | gates)
        single = jax.tree.map(jnp.float32, ({"M": layers(2), "S": layers(2)}, *tokens(K)))
        return by_chunks(*single, rates, 4)[1].sum()

    assert np.isfinite(jax.grad(loss)(jnp.float32(logit)))


def test_chunks_of_a_memory_that_descends_are_not_the_recurrence():
    rates = {"rate": 0.3 * gate(4)}
    one, four = (by_chunks({"M": layers(1), "S": [None]}, *tokens(K), rates, chunk)[1] for chunk in (1, 4))
    close(one[:, :, 0], four[:, :, 0])
    assert np.abs(one - four).max() > 1e-3


def test_titans_without_momentum_and_forgetting_is_the_delta_rule_at_twice_the_rate():
    """d|M k - v|^2 / dM = 2 (M k - v) k^T: a linear memory in chunks of one token."""
    (q, k, v), rate = tokens(K), 0.3 * gate(4)
    state, found = by_chunks({"M": layers(1), "S": [None]}, q, k, v, {"rate": rate}, 1)
    S, want = fast_weights.delta(layers(1)[0], q, k, v, jnp.zeros((B, H, L)), 2 * rate, erase=True, chunk=4)
    close(found, want)
    close(state["inner"]["M"][0], S)


def test_a_linear_memory_that_starts_at_zero_in_one_chunk_is_linear_attention():
    (q, k, v), rate = tokens(K), 0.3 * gate(4)
    _, found = by_chunks({"M": [jnp.zeros((B, H, K, K))], "S": [None]}, q, k, v, {"rate": rate}, L)
    want = fast_weights.delta(jnp.zeros((B, H, K, K)), q, k, v, jnp.zeros((B, H, L)), 2 * rate, erase=False, chunk=4)[1]
    close(found, want)
