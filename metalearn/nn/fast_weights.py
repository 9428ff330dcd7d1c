"""Matrices that a sequence writes as it is read, a chunk at a time: the linear and the delta family, and memories that
learn by gradient descent (Titans, TTT).

B sequences, H heads, L tokens, C tokens of a chunk, K entries of a key, V of a value; o_V = q_K S_KV. Sources:
2406.06484, 2412.06464 (delta rule and its chunks), 2506.05233 (mesa), 2501.00663 (Titans), 2407.04620 (TTT).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metalearn.types import Array, PyTree

PIECE = 256  # chunks at once: memory stays flat past it


def delta(S_BHKV: Array, q_BHLK: Array, k_BHLK: Array, v_BHLV: Array, log_decay_BHL: Array, beta_BHL: Array, *,
          erase: bool, chunk: int) -> tuple[Array, Array]:
    """(S, o_BHLV): S_t = a_t S_{t-1} + b_t k_t (v_t - e_t)^T and o_t = q_t S_t, with a = exp(log_decay) and
    e_t = k_t a_t S_{t-1}, what the decayed memory says already, where `erase`; else 0 (linear attention).

    Exact for every chunk. Within one, (I + tril(diag(b) K K^T * A, -1)) U = diag(b) (V - diag(A_0) K S) gives all
    writes U at once (the WY form), where A holds the decays between two tokens; chunks follow each other in a scan.
    """
    length, chunk = q_BHLK.shape[2], min(chunk, q_BHLK.shape[2])
    if length > PIECE * chunk:
        pieces = tuple(_cut(a, PIECE * chunk) for a in (q_BHLK, k_BHLK, v_BHLV, log_decay_BHL, beta_BHL))
        one_piece = jax.checkpoint(lambda S, now: delta(S, *now, erase=erase, chunk=chunk))
        S_BHKV, o = jax.lax.scan(one_piece, S_BHKV, pieces)
        return S_BHKV, _join(o)[:, :, :length]
    q, k, v, g, b = (_cut(a, chunk) for a in (q_BHLK, k_BHLK, v_BHLV, log_decay_BHL, beta_BHL))
    g = jnp.cumsum(g, -1)  # (N, B, H, C): from here on N chunks first
    below, upto = (np.tri(chunk, k=i, dtype=bool) for i in (-1, 0))
    between = jnp.exp(jnp.where(upto, g[..., :, None] - g[..., None, :], -jnp.inf))
    from_start, to_end = jnp.exp(g)[..., None], jnp.exp(g[..., -1:] - g)[..., None]
    written, by_state = b[..., None] * v, b[..., None] * from_start * k
    if erase:
        within = jnp.where(below, b[..., None] * between * jnp.einsum("...tk,...sk->...ts", k, k), 0.0)
        both = jnp.concatenate([written, by_state], -1)
        written, by_state = jnp.split(_solve(within, both), [v.shape[-1]], -1)
    inside = between * jnp.einsum("...tk,...sk->...ts", q, k)
    decay = jnp.exp(g[..., -1])[..., None, None]

    def one(S, now):
        written, by_state, q, k, inside, decay = now
        U = written - by_state @ S if erase else written
        return decay * S + k.swapaxes(-1, -2) @ U, q @ S + inside @ U

    S_BHKV, o = jax.lax.scan(one, S_BHKV, (written, by_state, q * from_start, k * to_end, inside, decay))
    return S_BHKV, _join(o)[:, :, :length]


def _solve(below_CC: Array, right_CX: Array) -> Array:
    """(I + below)^-1 right, by inverses of ever larger blocks. Not by LAPACK: on two cores, two such calls at once wait
    for each other forever."""
    inverse, at = np.eye(below_CC.shape[-1], dtype=below_CC.dtype), np.arange(below_CC.shape[-1])
    for size in 2 ** np.arange((len(at) - 1).bit_length()):
        joins_CC = (at // size == at[:, None] // size - 1) & (at[:, None] // size % 2 == 1)
        inverse -= inverse @ jnp.where(joins_CC, jax.lax.stop_gradient(below_CC), 0.0) @ inverse
    return jax.lax.custom_linear_solve(lambda x: x + below_CC @ x, right_CX, lambda _, b: inverse @ b,
                                       lambda _, b: inverse.swapaxes(-1, -2) @ b)


def mesa(H_BHKK: Array, S_BHKV: Array, q_BHLK: Array, k_BHLK: Array, v_BHLV: Array, log_decay_BHL: Array,
         beta_BHL: Array, ridge_HK: Array, *, steps: int, chunk: int) -> tuple[Array, Array, Array]:
    """(H, S, o_BHLV): o_t = q_t (H_t + diag(ridge))^-1 S_t by so many conjugate gradients for each token, where linear
    attention writes H of (k, k) and S of (k, v): the least-squares answer to all that was read, exact in K steps."""
    sums = lambda S, q, v: delta(S, q, k_BHLK, v, log_decay_BHL, beta_BHL, erase=False, chunk=chunk)
    dot = lambda a, b: (a * b).sum(-1, keepdims=True)

    @jax.checkpoint
    def one(found, _):
        x, rest, way, size = found
        image = sums(H_BHKK, way, k_BHLK)[1] + ridge_HK[:, None] * way
        rate = size / (dot(way, image) + 1e-12)  # of a token that is done 0
        x, rest = x + rate * way, rest - rate * image
        return (x, rest, rest + dot(rest, rest) / (size + 1e-12) * way, dot(rest, rest)), None

    start = jnp.zeros_like(q_BHLK), q_BHLK, q_BHLK, dot(q_BHLK, q_BHLK)
    (x_BHLK, *_), _ = jax.lax.scan(one, start, length=steps)
    S_BHKV, o_BHLV = sums(S_BHKV, x_BHLK, v_BHLV)
    return sums(H_BHKK, q_BHLK, k_BHLK)[0], S_BHKV, o_BHLV


def descend(memory: dict[str, Any], q_BHCK: Array, k_BHCK: Array, v_BHCV: Array, rates: dict[str, Array],
            finish: Callable = lambda h, x: h, clip: float = 0.0) -> tuple[dict[str, Any], Array]:
    """(memory, o_BHCV) after one chunk: an MLP learns that its keys go to their values, and each token's query is read
    from it as it is after that token.

    memory    {M: its layers [(B, H, K, V), ...], S: their momentum}: l(M; t) = |finish(M(k_t), k_t) - v_t|^2, and
              S_t = momentum_t S_{t-1} - rate_t dl/dM, M_t = (1 - forget_t) M_{t-1} + S_t    (Titans, eqs. 13, 14)
    rates     rate and, where there is such, momentum and forget, (B, H, C) each
    finish    what is made of the last layer's output (TTT: a norm, and the input added)
    clip      largest norm of a token's error at each layer's output; 0: as it is

    All gradients are taken where the chunk starts (the chunk of one token is the recurrence). A token's gradient of a
    layer is an outer product, input times error, so no token's matrices are ever formed: the memory after token t
    applied to h is b_t h M + f_t h S - sum over j <= t of G_tj (h . a_j) d_j.
    """
    M, S = memory["M"], memory["S"]
    inputs_of = lambda h, i: h if i == 0 else jax.nn.silu(h)

    def loss(probes):
        h, inputs = k_BHCK, []
        for i, (layer, probe) in enumerate(zip(M, probes, strict=True)):
            inputs.append(inputs_of(h, i))
            h = inputs[-1] @ layer + probe
        return ((finish(h, k_BHCK) - v_BHCV) ** 2).sum(), inputs

    probes = [jnp.zeros((*k_BHCK.shape[:3], layer.shape[-1]), k_BHCK.dtype) for layer in M]
    errors, inputs = jax.grad(loss, has_aux=True)(probes)
    if clip:
        errors = [d * jnp.minimum(1.0, clip * jax.lax.rsqrt((d**2).sum(-1, keepdims=True) + 1e-12)) for d in errors]
    kept, from_start = _products(rates.get("forget"), rates["rate"], lambda forget: jnp.log1p(-forget))
    if "momentum" in rates:
        moved, moved_from_start = _products(rates["momentum"], rates["rate"], jnp.log)
        weights = (kept @ moved) * rates["rate"][..., None, :]
        by_momentum = (kept @ moved_from_start[..., None])[..., 0]
    else:
        moved, weights = None, kept * rates["rate"][..., None, :]
    h, new_M, new_S = q_BHCK, [], []
    for i, (layer, speed, a, d) in enumerate(zip(M, S, inputs, errors, strict=True)):
        h = inputs_of(h, i)
        out = from_start[..., None] * (h @ layer) - (weights * (h @ a.swapaxes(-1, -2))) @ d
        gathered = lambda w, a=a, d=d: (w[..., None] * a).swapaxes(-1, -2) @ d
        after = from_start[..., -1, None, None] * layer - gathered(weights[..., -1, :])
        if moved is not None:
            out += by_momentum[..., None] * (h @ speed)
            after += by_momentum[..., -1, None, None] * speed
            speed = moved_from_start[..., -1, None, None] * speed - gathered(moved[..., -1, :] * rates["rate"])
        h, new_M, new_S = out, [*new_M, after], [*new_S, speed]
    return {"M": new_M, "S": new_S}, finish(h, q_BHCK)


def _products(factor_BHC: Array | None, like_BHC: Array, log: Callable) -> tuple[Array, Array]:
    """(prod over (j, t] of a factor, (B, H, C, C), zero above the diagonal; prod over [0, t], (B, H, C))."""
    C = like_BHC.shape[-1]
    if factor_BHC is None:
        return jnp.broadcast_to(np.tri(C, dtype=like_BHC.dtype), (*like_BHC.shape, C)), jnp.ones_like(like_BHC)
    # logarithms, since quotients of products underflow; 0 is as 1e-26, or all differences, and gradients, would be NaN
    gone = log(factor_BHC) < -60.0
    total = jnp.cumsum(jnp.where(gone, -60.0, log(jnp.where(gone, 0.5, factor_BHC))), -1)
    steps = jnp.where(np.tri(C, dtype=bool), total[..., :, None] - total[..., None, :], -jnp.inf)
    return jnp.exp(steps), jnp.exp(total)


def by_chunks(body: Callable, chunk: int, state: PyTree, tokens: dict[str, Array],
              fresh: bool) -> tuple[PyTree, PyTree]:
    """(state, what `body(inner, tokens of one chunk) -> (inner, out)` gave), wherever the segments are cut.

    tokens   arrays (B, L, ...); `out` alike, and of a token it must depend on tokens up to its own alone
    state    {inner, begun}: what `body` has after whole chunks, and the tokens since then, see `begun`
    fresh    nothing was read before: no chunk is under way

    A chunk begun in an earlier segment is computed again from its start: `inner` moves on by whole chunks.
    """
    batch, length = jax.tree.leaves(tokens)[0].shape[:2]
    tokens = tokens | {"on": jnp.ones((batch, length))}
    kept = state["begun"] or jax.tree.map(lambda a: a[:, :0], tokens)
    first = 0 if fresh else kept["on"][0].sum().astype(jnp.int32)
    num = -(-(length if fresh else chunk - 1 + length) // chunk)
    put = lambda into, a, at: jax.lax.dynamic_update_slice_in_dim(into, a.astype(into.dtype), at, 1)

    def lay(begun, new):
        room = jnp.zeros((batch, (num + 1) * chunk, *new.shape[2:]), new.dtype)
        return put(put(room, begun, 0), new, first)

    laid = jax.tree.map(lay, kept, tokens)
    full = (first + length) // chunk  # chunks
    split = lambda a: jnp.moveaxis(a[:, :num * chunk].reshape(batch, num, chunk, *a.shape[2:]), 1, 0)

    def one(inner, now):
        number, part = now
        new, out = body(inner, part)
        return jax.tree.map(lambda a, b: jnp.where(number < full, a, b), new, inner), out

    now = jnp.arange(num), {k: split(a) for k, a in laid.items() if k != "on"}
    inner, out = jax.lax.scan(jax.checkpoint(one), state["inner"], now)
    take = lambda a, at, size: jax.lax.dynamic_slice_in_dim(a, at, size, 1)
    join = lambda a: take(jnp.moveaxis(a, 0, 1).reshape(batch, num * chunk, *a.shape[3:]), first, length)
    begun = {k: take(a, full * chunk, chunk - 1) for k, a in laid.items() if chunk > 1}
    return {"inner": inner, "begun": begun}, jax.tree.map(join, out)


def begun(num: int, chunk: int, **tails: tuple[int, ...]) -> dict[str, Array]:
    """The state `begun` of `by_chunks` at first, by shapes of one token; no empty arrays, which cannot be stored."""
    return {k: jnp.zeros((num, chunk - 1, *tail)) for k, tail in (tails | {"on": ()}).items() if chunk > 1}


def _cut(a: Array, chunk: int) -> Array:
    """(B, H, L, ...) as (N, B, H, C, ...), the last chunk filled with zeros: tokens that write and forget nothing."""
    over = -a.shape[2] % chunk
    a = jnp.pad(a, ((0, 0), (0, 0), (0, over)) + ((0, 0),) * (a.ndim - 3))
    return jnp.moveaxis(a.reshape(*a.shape[:2], -1, chunk, *a.shape[3:]), 2, 0)


def _join(a: Array) -> Array:
    return jnp.moveaxis(a, 0, 2).reshape(*a.shape[1:3], -1, *a.shape[4:])
