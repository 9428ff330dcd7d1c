"""PMI's memories against the equations, written once more in numpy and float64."""

import jax
import numpy as np
import pytest

from metalearn.networks import pmi

B, C, N, M, D, HEADS = 2, 5, 3, 4, 6, 2


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def module(**changes):
    return pmi.Pmi(**dict(width=D, num_heads=HEADS, depth=1, conv=1, window=4, chunk=C, slots=N, long=M, top=2,
                          keep=0.7, outer="code", reads="corrected") | changes)


def norm(a):
    a = a - a.mean(-1, keepdims=True)
    return a / np.sqrt((a**2).mean(-1, keepdims=True) + 1e-6)


sigmoid = lambda a: 1 / (1 + np.exp(-a))
relu = lambda a: np.maximum(a, 0)


def softmax(a):
    a = np.exp(a - a.max(-1, keepdims=True))
    return a / a.sum(-1, keepdims=True)


def case(**changes):
    """(a function that calls a method with drawn parameters, those, a memory, the tokens of a segment)."""
    net, rng = module(**changes), np.random.default_rng(0)
    draw = lambda *shape: rng.standard_normal(shape)
    memory, h_BCD = {"working": draw(B, N, D), "long": draw(B, M * N, D)}, draw(B, C, D)
    params = net.init(jax.random.key(0), B, method="initial_memory")["params"]
    params = jax.tree.map(lambda a: draw(*a.shape), params)
    call = lambda method: net.apply({"params": params}, memory, h_BCD, method=method)
    return call, params, memory, h_BCD


@pytest.mark.parametrize("outer", ("code", "full"))
@pytest.mark.parametrize("top", [2, C])
def test_a_segment_is_written_as_the_equations_say(outer, top):
    call, p, memory, h = case(outer=outer, top=top)
    found, old, long = call("write"), memory["working"], memory["long"].reshape(B, M, N, D)
    share = softmax((old @ p["ask"]) @ (h @ p["key"]).swapaxes(1, 2))
    won = np.zeros_like(share)
    for b, n in np.ndindex(B, N):  # of every slot its `top` tokens, not renormalised; all of them: dense attention
        best = np.argsort(share[b, n])[-top:]
        won[b, n, best] = share[b, n, best]
    new = norm(old + won @ (h @ p["value"]))
    new = norm(new + relu(relu(new @ p["up"]) @ p["down"]) @ p["again"])
    put, stay = np.split(relu(p["tokens"] * h).mean(1, keepdims=True) @ p["by_tokens"] + np.tanh(old) @ p["by_slot"],
                         2, -1)
    np.testing.assert_allclose(found["working"], sigmoid(stay + 1) * old + sigmoid(put) * np.tanh(new), rtol=1e-10)
    if outer == "code":
        added = np.einsum("bmnd,bnf->bmnf", long, new)  # the published einsum
    else:
        added = np.einsum("bmnd,bmkd,bkf->bmnf", long, long, new) / N
    np.testing.assert_allclose(found["long"], norm(long + added).reshape(B, M * N, D), rtol=1e-10, atol=1e-12)


def heads(q, k, v, mask):
    """Softmax attention, a loop over heads."""
    out, size = [], D // HEADS
    for i in range(HEADS):
        part = slice(i * size, (i + 1) * size)
        scores = np.where(mask, q[..., part] @ k[..., part].swapaxes(1, 2) * size**-0.5, -np.inf)
        out.append(softmax(scores) @ v[..., part])
    return np.concatenate(out, -1)


@pytest.mark.parametrize("reads", ("corrected", "sum", "working", "long"))
def test_tokens_hear_what_the_equations_say(reads):
    call, p, memory, h = case(reads=reads)

    def hear(name, ask, slots, mask):
        k, v = np.split(slots @ p[f"{name}_kv"], 2, -1)
        return heads(ask @ p[f"{name}_q"], k, v, mask) @ p[f"{name}_out"]

    every = np.ones((C, N), bool)
    mean = memory["long"].reshape(B, M, N, D).mean(1)
    if reads == "working":
        want = hear("working", h, memory["working"], every)
    elif reads == "long":
        want = hear("long", h, mean, every)
    else:
        working, long = hear("working", h, memory["working"], every), hear("long", h, mean, every)
        long = hear("both", long, working, np.tri(C, dtype=bool)) if reads == "corrected" else long
        want = 0.7 * working + 0.3 * long
    np.testing.assert_allclose(call("read"), want, rtol=1e-4, atol=1e-5)  # attention weights are in f32
