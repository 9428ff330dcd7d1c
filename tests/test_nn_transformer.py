"""The Transformer against a loop in numpy; the attention weights that pictures show are those it computes with."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalearn.nn import network, taps, transformer

TOKENS = jax.random.normal(jax.random.key(0), (2, 4, 3))
MASK = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 1]], bool)


@pytest.fixture(scope="module")
def made():
    sizes = dict(name="transformer", depth=2, width=8, num_heads=2, mlp=8, positions=False, remat="none")
    net = network.make(sizes, network.NetworkSpec(2, 3, "shifted", 4, "float32", 1))
    return net, jax.jit(net.init)(jax.random.key(1), TOKENS)


@pytest.mark.parametrize("mask_LL", [None, MASK])
def test_weights_are_distributions_over_what_the_mask_lets_through(made, mask_LL):
    net, params = made
    seen = np.tri(4, dtype=bool) if mask_LL is None else mask_LL
    _, values = taps.read(net.apply)(params, None, TOKENS, mask_LL=mask_LL)
    blocks = [values[f"blocks_{i}/attention/weights_BHLL"] for i in range(2)]
    assert [w.shape for w in blocks] == [(2, 2, 4, 4)] * 2
    for weights_BHLL in blocks:
        np.testing.assert_allclose(weights_BHLL.sum(-1), 1.0, atol=1e-5)
        assert (np.asarray(weights_BHLL)[..., ~seen] == 0).all()
        assert (np.asarray(weights_BHLL)[..., seen] > 0).all()


@pytest.mark.parametrize("mask_LL", [None, MASK])
def test_weighing_the_values_by_them_gives_what_the_layer_gives(made, mask_LL):
    layer = transformer.Attention(num_heads=2, depth=1)
    x_BLD = 3 * jax.random.normal(jax.random.key(2), (2, 4, 8))
    params = layer.init(jax.random.key(3), x_BLD)
    (y_BLD, _), left = layer.apply(params, x_BLD, mask_LL, mutable="intermediates")
    (weights_BHLL,) = left["intermediates"]["weights_BHLL"]
    qkv = params["params"]["qkv"]
    v_BLHK = (x_BLD @ qkv["kernel"] + qkv["bias"])[..., 16:].reshape(2, 4, 2, 4)
    mixed_BLD = jnp.einsum("bhlm,bmhk->blhk", weights_BHLL, v_BLHK).reshape(2, 4, 8)
    out = params["params"]["out"]
    np.testing.assert_allclose(mixed_BLD @ out["kernel"] + out["bias"], y_BLD, atol=1e-5)


def test_nothing_is_kept_unless_asked_for(made):
    net, params = made
    read = lambda p: net.apply(p, None, TOKENS)
    formed = str(jax.make_jaxpr(read)(params)).count("dot_general")
    asked = str(jax.make_jaxpr(taps.read(read))(params)).count("dot_general")
    assert asked > formed


def test_logits_are_those_of_a_loop_in_numpy(made):
    """Pre-LN blocks, one head and one query at a time, in float64."""
    net, params = made
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    rng = np.random.default_rng(0)  # norms and biases start as ones and zeros: move them, so that they count
    p = jax.tree.map(lambda a: a + 0.3 * rng.normal(size=a.shape), p)
    dense = lambda p, x: x @ p["kernel"] + p["bias"]
    gelu = lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    def norm(p, x):
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * p["scale"] + p["bias"]

    def one(tokens_LI):
        x = dense(p["embed"], tokens_LI)
        for block in (p["blocks_0"], p["blocks_1"]):
            q, k, v = np.split(dense(block["attention"]["qkv"], norm(block["norm_attention"], x)), 3, -1)
            mixed = np.zeros_like(x)
            for head in (slice(0, 4), slice(4, 8)):
                for t in range(len(x)):
                    score = np.exp(k[: t + 1, head] @ q[t, head] / 2)  # sqrt of 4, a head's width
                    mixed[t, head] = score / score.sum() @ v[: t + 1, head]
            x = x + dense(block["attention"]["out"], mixed)
            x = x + dense(block["down"], gelu(dense(block["up"], norm(block["norm_mlp"], x))))
        return dense(p["head"], norm(p["norm"], x))

    expected = np.stack([one(np.asarray(tokens, np.float64)) for tokens in TOKENS])
    got = net.apply(jax.tree.map(jnp.float32, p), None, TOKENS)[1]
    np.testing.assert_allclose(got, expected, atol=2e-5)
    assert np.abs(expected).max() > 0.5


@pytest.mark.parametrize("mask_LL", [None, MASK])
def test_the_last_positions_alone_are_those_of_all(made, mask_LL):
    net, params = made
    full, last, second = (net.apply(params, None, TOKENS, mask_LL=mask_LL, last=last)[1]
                          for last in (None, 2, slice(1, None, 2)))
    assert last.shape == second.shape == (2, 2, 2)
    np.testing.assert_allclose(last, full[:, 2:], atol=1e-6)
    np.testing.assert_allclose(second, full[:, 1::2], atol=1e-6)


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("bfloat16", 3e-2)])
def test_attention_and_its_gradient_are_those_of_jax(dtype, tolerance):
    """Of a mask shared by all rows and of one for each, with fewer queries than keys."""
    q, k, v = (jax.random.normal(key, (2, length, 3, 8), dtype) for key, length in
               zip(jax.random.split(jax.random.key(0), 3), (4, 6, 6), strict=True))
    each = np.random.default_rng(0).random((2, 1, 4, 6)) < 0.5
    each[..., 0] = True

    @functools.partial(jax.jit, static_argnums=0)
    def with_gradient(fn, q, k, v):
        out, pull = jax.vjp(fn, q, k, v)
        return out, *pull(q)

    for mask in (np.tri(4, 6, 2, dtype=bool)[None, None], each):
        found = with_gradient(lambda *a, mask=mask: transformer.attend(*a, mask), q, k, v)
        theirs = with_gradient(lambda *a, mask=mask: jax.nn.dot_product_attention(*a, mask=jnp.asarray(mask)), q, k, v)
        for a, b in zip(found, theirs, strict=True):
            assert a.dtype == b.dtype == dtype
            np.testing.assert_allclose(np.float32(a), np.float32(b), atol=tolerance)


def test_remat_gives_the_same_gradient_from_less_memory():
    """Depth 4 at length 64: activations count; `products` lies between keeping everything and keeping nothing."""
    tokens = jax.random.normal(jax.random.key(0), (2, 64, 3))
    found, params = {}, None
    for remat in transformer.REMAT:
        sizes = dict(name="transformer", depth=4, width=16, num_heads=2, mlp=32, positions=False, remat=remat)
        net = network.make(sizes, network.NetworkSpec(2, 3, "shifted", 64, "float32", 1))
        params = jax.jit(net.init)(jax.random.key(1), tokens) if params is None else params
        step = jax.jit(jax.grad(lambda p, net=net: (net.apply(p, None, tokens)[1] ** 2).mean())).lower(params).compile(
            {"xla_disable_hlo_passes": "cse_barrier_expander"})  # else the CPU's compiler undoes it
        found[remat] = step(params), step.memory_analysis().temp_size_in_bytes
    assert found["none"][1] > 1.2 * found["products"][1] > 1.2 * found["blocks"][1], {k: v[1] for k, v in found.items()}
    for remat in ("products", "blocks"):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found["none"][0], found[remat][0])


def test_dropout_drops_the_same_when_a_block_is_computed_again():
    x_BLD, block = jax.random.normal(jax.random.key(0), (2, 4, 8)), transformer.Block(2, 8, 1, dropout=0.5)
    params = jax.jit(block.init)(jax.random.key(1), x_BLD)

    def grad(remat):
        run = lambda p: block.apply(p, x_BLD, rngs={"dropout": jax.random.key(2)},
                                    method=lambda module, x: transformer.run(module, remat, x, train=True)).std()
        return jax.jit(jax.grad(run))(params)

    first, *others = (grad(remat) for remat in transformer.REMAT)
    for other in others:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), first, other)
