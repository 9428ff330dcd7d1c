"""What holds for every network of the listing, the day its file exists: one compiled program for each."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalearn import lookup
from metalearn.nn import network
from metalearn.validate import ConfigError

B, L, X, V = 2, 6, 4, 3
SLOTS = dict(slots=5, width=3, hidden=4, controller="lstm", memory="learned")
STACK_ALONE = dict(depth=1, width=8, num_heads=2, mlp=8, conv=2)
STACK = STACK_ALONE | dict(chunk=2)
TITANS = STACK | dict(layers=2, momentum=True, decay=True, rate=0.5, clip=1.0, persistent=1, window=4)
PMI = STACK | dict(window=6, slots=2, long=3, top=1, keep=0.7)
# name of the entry, and of its variant: (its sizes, floats of its state by hand)
NETWORKS = {
    "transformer": (dict(depth=2, width=8, num_heads=2, mlp=8, positions=True, remat="none"), 2 * 2 * L * 8),
    "transformer, unplaced": (dict(depth=2, width=8, num_heads=2, mlp=8, positions=False, remat="none"), 2 * 2 * L * 8),
    "lstm": (dict(hidden=6), 2 * 6),
    "outer_lstm": (dict(size=3, num_heads=2), 2 * 9 + 2 * 3),
    "vsml": (dict(hidden=3, messages=2, ticks=2), X * V * 2 * 3 + (X + V) * 2),
    "vsml_nosym": (dict(grid=2, hidden=3, messages=2, ticks=2), 4 * 2 * 3 + 4 * 2),
    "mlp": (dict(width=6), 0),
    "nse": (SLOTS | dict(similarity="cosine"), 4 * 2 * 4 + 3 + 5 * 3),
    "ntm": (SLOTS | dict(reads=2, shifts=1), 2 * 4 + 2 * 3 + 5 * (3 + 2 + 1)),
    "lrua": (SLOTS | dict(reads=2, decay=0.95, adds="own"), 2 * 4 + 2 * 3 + 5 * (3 + 2 + 1)),
    "dnc": (SLOTS | dict(reads=2, links=True), 2 * 4 + 2 * 3 + 5 * (3 + 2 + 3) + 5 * 5),
    "gated": (dict(width=4, bias=-1.0), 4),
    "delta": (STACK | dict(decay="token", erase=True, depth=2), 2 * (32 + 24)),
    "delta, retention": (STACK | dict(decay="head", erase=False), 32 + 24),
    "window_attention": (STACK_ALONE | dict(window=6), 5 * 2 * 8 + 5 + 24),
    "ttt": (STACK | dict(layers=2, rate=0.5), 2 * 32 + 33 + 24),
    "mesa": (STACK | dict(steps=4, ridge=0.25), 2 * 32 + 24),
    "pmi": (PMI | dict(outer="code", reads="corrected"), 5 * 2 * 8 + 5 + 24 + 2 * 8 + 3 * 2 * 8 + 9),
    "pmi, uncorrected": (PMI | dict(outer="full", reads="sum"), 5 * 2 * 8 + 5 + 24 + 2 * 8 + 3 * 2 * 8 + 9),
    "global_workspace": (dict(width=4, hidden=3, maps=2, ticks=2), 2 * 3 + 4),
    "titans": (TITANS | dict(variant="lmm"), 4 * 32 + 33 + 24),
    "titans, mac": (TITANS | dict(variant="mac"), 4 * 32 + 25 + 24),
    "titans, mag": (TITANS | dict(variant="mag"), 4 * 32 + 33 + 24 + 3 * 17),
    "titans, mal": (TITANS | dict(variant="mal"), 4 * 32 + 33 + 24 + 3 * 17),
}


def spec(name, dtype="float32"):
    return network.NetworkSpec(V, X, "x" if name == "gated" else "shifted", L, dtype, 2)


def make(name, dtype="float32", **changes):
    return network.make({"name": name.partition(",")[0]} | NETWORKS[name][0] | changes, spec(name, dtype))


def test_every_network_of_the_listing_is_here():
    assert sorted({name.partition(",")[0] for name in NETWORKS}) == lookup.names("networks")


@pytest.fixture(scope="module", params=NETWORKS)
def seen(request):
    """What one network does with one batch, in one compiled program."""
    net = make(request.param)
    tokens = jax.random.normal(jax.random.key(0), (B, L, X + V))
    weight_V = jnp.asarray([1.0, -0.3, 0.5])
    ask_LBLV = jnp.eye(L)[:, None, :, None] * jnp.eye(B)[0][:, None, None] * weight_V  # position t of sequence 0

    @jax.jit
    def everything(key, tokens):
        params = net.init(key, tokens)
        whole, pull = jax.vjp(lambda params, tokens: net.apply(params, None, tokens)[1], params, tokens)
        grads, slope = jax.vmap(pull)(jnp.concatenate([ask_LBLV, 2 * whole[None] / whole.size]))
        state, pieces, at = net.initial_state(params, B, L), [], 0
        for length in (1, 3, 2):
            state, piece = net.apply(params, state, tokens[:, at:at + length])
            pieces, at = [*pieces, piece], at + length
        last, steps = jax.lax.scan(lambda s, token: net.step(params, s, token), net.initial_state(params, B, L),
                                   tokens.swapaxes(0, 1))
        return dict(params=params, whole=whole, slope=slope[:-1], grads=jax.tree.map(lambda g: g[-1], grads),
                    pieces=jnp.concatenate(pieces, 1), steps=steps.swapaxes(0, 1), states=(state, last))

    program = everything.lower(jax.random.key(1), tokens).compile()
    found = program(jax.random.key(1), tokens)
    blank = program(jax.random.key(1), tokens.at[:, ::2].set(0.0))["grads"]
    text = program.as_text()
    return types.SimpleNamespace(name=request.param, net=net, tokens=tokens, blank=blank, text=text, **found)


def test_step_repeated_is_apply_at_once_is_apply_in_segments(seen):
    assert seen.whole.shape == (B, L, V) and seen.whole.dtype == jnp.float32
    assert np.abs(np.asarray(seen.whole)).max() > 1e-3  # else any two forms would agree
    for other in (seen.steps, seen.pieces):
        np.testing.assert_allclose(other, seen.whole, rtol=1e-4, atol=1e-5)
    for a, b in zip(*map(jax.tree.leaves, seen.states), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_causality_by_gradient(seen):
    """d output_t / d token_s is zero for s > t, and (but for the MLP) not for s <= t."""
    read_LL = np.abs(np.asarray(seen.slope)[:, 0]).sum(-1)
    assert seen.net.causal and (np.triu(read_LL, 1) == 0).all() and (np.diag(read_LL) > 0).all()
    before = read_LL[np.tri(L, k=-1, dtype=bool)]
    assert (before == 0).all() if seen.name == "mlp" else (before > 0).all()


def test_sequences_do_not_touch_each_other(seen):
    """d output of sequence 0 / d tokens of sequence 1."""
    assert not np.asarray(seen.slope)[:, 1].any() and np.asarray(seen.slope)[:, 0].any()


def test_compiled_is_eager(seen):
    with jax.disable_jit():
        eager = seen.net.apply(seen.params, None, seen.tokens)[1]
    np.testing.assert_allclose(eager, seen.whole, rtol=1e-4, atol=1e-5)


def test_another_segment_of_the_same_length_does_not_compile_again(seen):
    step = jax.jit(seen.net.step)
    state = seen.net.initial_state(seen.params, B, L)
    for t in range(3):
        state, _ = step(seen.params, state, seen.tokens[:, t])
    assert step._cache_size() == 1


def test_the_state_is_as_large_as_said(seen):
    assert seen.net.state_size(seen.params, L) == NETWORKS[seen.name][1]
    longer = seen.net.state_size(seen.params, 2 * L)
    assert (longer == seen.net.state_size(seen.params, L)) == seen.net.recurrent
    state = seen.net.initial_state(seen.params, B, L)
    assert all(len(leaf) == B for group in state.values() for leaf in group.values())


def test_tokens_of_zeros_make_no_gradient_large(seen):
    """Norms of vectors that are zero, one after another, multiply it by a thousand each."""
    size = lambda grads: np.sqrt(sum(np.square(leaf).sum() for leaf in jax.tree.leaves(grads)))
    assert 0 < size(seen.blank) < 10 * size(seen.grads)


def test_no_kernel_waits_for_threads_of_the_pool_that_it_runs_on(seen):
    """Batched LAPACK does, and two such calls at once wait for each other forever, at the flags that users have."""
    assert seen.text and "lapack" not in seen.text and " fft(" not in seen.text


def test_golden_update(seen, golden):
    golden(f"networks/{seen.name.replace(', ', '_')}", seen.grads)


@pytest.mark.parametrize("name", NETWORKS)
def test_bfloat16_where_claimed_and_a_refusal_elsewhere(name):
    if "bfloat16" not in make(name).dtypes:
        entry = name.partition(",")[0]
        with pytest.raises(ConfigError, match=f"dtype=bfloat16: network.name={entry} computes in float32 only"):
            make(name, "bfloat16")
        return
    full, half = make(name), make(name, "bfloat16")
    tokens = jax.random.normal(jax.random.key(0), (B, L, X + V))

    @jax.jit
    def both(key):
        params = half.init(key, tokens)
        return params, *(net.apply(params, None, tokens)[1] for net in (full, half))

    params, a, b = both(jax.random.key(1))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")} and b.dtype == jnp.float32
    off = np.abs(np.asarray(a - b)).max() / np.abs(np.asarray(a)).max()
    assert 1e-5 < off < 0.05  # below the former the option would do nothing


@pytest.mark.parametrize("name, changes, text", [
    ("transformer", dict(num_heads=3), "network.width=8.*num_heads"), ("transformer", dict(depth=0), "network.depth=0"),
    ("transformer", dict(heads=2), "network.heads.*num_heads"), ("lstm", dict(hidden=-1), "network.hidden=-1"),
    ("outer_lstm", dict(size=0), "network.size=0"), ("vsml", dict(ticks=0), "network.ticks=0"),
    ("mlp", dict(width=0), "network.width=0"), ("vsml_nosym", dict(grid=0), "network.grid=0"),
    ("nse", dict(slots=0), "network.slots"), ("nse", dict(controller="gru"), "network.controller"),
    ("nse", dict(memory="flat"), "network.memory"), ("nse", dict(similarity="l2"), "network.similarity"),
    ("ntm", dict(shifts=3), "network.shifts"), ("ntm", dict(memory="ones"), "network.memory"),
    ("lrua", dict(decay=2.0), "network.decay"), ("lrua", dict(adds="sum"), "network.adds"),
    ("lrua", dict(reads=6), "network.reads"), ("dnc", dict(reads=0), "network.reads"),
    ("gated", dict(width=0), "network.width"), ("global_workspace", dict(ticks=0), "network.ticks=0"),
    ("pmi", dict(top=3), "network.top=3.*chunk=2"), ("pmi", dict(outer="half"), "network.outer"),
    ("pmi", dict(keep=1.5), "network.keep"), ("pmi", dict(reads="all"), "network.reads"),
    ("mesa", dict(ridge=0.0), "network.ridge"), ("mesa", dict(steps=0), "network.steps")])
def test_bad_sizes_are_one_clear_line(name, changes, text):
    with pytest.raises(ConfigError, match=text):
        make(name, **changes)


def test_unknown_names_and_layouts_that_a_network_cannot_read_are_refused():
    with pytest.raises(ConfigError, match=r"network.name=ntn: .*nearest: ntm"):
        network.make(dict(name="ntn"), spec("ntm"))
    with pytest.raises(ConfigError, match="network.name=: one of"):
        network.make({}, spec("ntm"))
    with pytest.raises(ConfigError, match="network.name=gated: needs a marker"):
        network.make(dict(name="gated") | NETWORKS["gated"][0], spec("lstm"))
    with pytest.raises(ConfigError, match="network.name=vsml: needs layout=shifted"):
        network.make(dict(name="vsml") | NETWORKS["vsml"][0], spec("gated"))
