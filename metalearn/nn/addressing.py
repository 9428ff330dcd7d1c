"""How a memory M_BMW is addressed, read and written: pure functions, one per rule.

Weightings are non-negative; those that say so sum to 1 over slots. `n` slots, M letters them. Weights and keys may be
those of several heads, (B, H, M) and (B, H, W): one product over the memory then serves all.
"""

import jax
import jax.numpy as jnp

from metalearn.types import Array

EPS = 1e-6


def unit(x: Array, eps: float = 1e-12) -> Array:
    """Vectors (last axis) at length one; zero stays zero, with a finite gradient there, which a norm has not."""
    return x * jax.lax.rsqrt(jnp.square(x).sum(-1, keepdims=True) + eps)


def cosine(M_BMW: Array, k_BW: Array) -> Array:
    """Cosine similarity of each row with the key; 0 at a zero row, with a finite gradient there.

    The small constant stands under the root: a norm has no gradient at zero.
    """
    dot_BM = jnp.einsum("bmw,b...w->b...m", M_BMW, k_BW)
    size_BM = jnp.square(M_BMW).sum(-1).reshape(len(M_BMW), *(1,) * (k_BW.ndim - 2), -1)
    return dot_BM * jax.lax.rsqrt((size_BM + EPS) * (jnp.square(k_BW).sum(-1, keepdims=True) + EPS))


def content(M_BMW: Array, k_BW: Array, beta: Array) -> Array:
    """softmax(beta cos): beta is a scalar or (B, 1); on the simplex."""
    return jax.nn.softmax(beta * cosine(M_BMW, k_BW))


def read(M_BMW: Array, w_BM: Array) -> Array:
    return jnp.einsum("bm,bmw->bw", w_BM, M_BMW)


def overwrite(M_BMW: Array, z_BM: Array, v_BW: Array) -> Array:
    """NSE: each row moves towards v by its weight. A one-hot z replaces one row exactly and leaves the others alone."""
    z_BM1 = z_BM[..., None]
    return M_BMW * (1 - z_BM1) + z_BM1 * v_BW[:, None]


def erase_add(M_BMW: Array, w_BM: Array, erase_BW: Array, add_BW: Array) -> Array:
    """NTM: M (1 - w e) + w a, e in [0, 1]."""
    w_BM1 = w_BM[..., None]
    return M_BMW * (1 - w_BM1 * erase_BW[:, None]) + w_BM1 * add_BW[:, None]


def interpolate(w_BM: Array, before_BM: Array, gate_B1: Array) -> Array:
    """NTM: g w + (1 - g) w_before."""
    return gate_B1 * w_BM + (1 - gate_B1) * before_BM


def shift(w_BM: Array, shift_BS: Array) -> Array:
    """NTM: circular convolution with a distribution over shifts -k..k, S = 2k + 1."""
    reach = shift_BS.shape[-1] // 2
    rolled = [jnp.roll(w_BM, by, axis=-1) for by in range(-reach, reach + 1)]
    return jnp.einsum("s...m,...s->...m", jnp.stack(rolled), shift_BS)


def sharpen(w_BM: Array, gamma_B1: Array) -> Array:
    """NTM: w^gamma, renormalised; by the largest weight first, so that a large gamma does not underflow to 0/0."""
    # the scale cancels, so no gradient through the maximum (which recomputed inputs could lose, see nn.conv.max_pool)
    scaled_BM = w_BM / (jax.lax.stop_gradient(w_BM.max(-1, keepdims=True)) + EPS)
    powered_BM = jnp.power(scaled_BM + EPS, gamma_B1)
    return powered_BM / powered_BM.sum(-1, keepdims=True)


def least_used(usage_BM: Array, num: int) -> Array:
    """MANN: (B, num, M), a one at each of the `num` least used slots (the first among equals), zeros elsewhere."""
    return jax.nn.one_hot(jax.lax.top_k(-usage_BM, num)[1], usage_BM.shape[-1])


def retain_usage(usage_BM: Array, write_BM: Array, free_BH: Array, read_BMH: Array) -> Array:
    """DNC: usage after the last write, and after the free gates let go of what was read; stays in [0, 1]."""
    kept_BM = jnp.prod(1 - free_BH[:, None] * read_BMH, -1)
    return (usage_BM + write_BM - usage_BM * write_BM) * kept_BM


def allocate(usage_BM: Array) -> Array:
    """DNC: weights on free slots, least used first: (1 - u) times the product of the usages below; sum at most 1."""
    usage_BM = EPS + (1 - EPS) * usage_BM  # at exactly 0 the product has no gradient
    order_BM = jnp.argsort(usage_BM, axis=-1)
    sorted_BM = jnp.take_along_axis(usage_BM, order_BM, -1)
    below_BM = jnp.cumprod(jnp.pad(sorted_BM, ((0, 0), (1, 0)), constant_values=1.0)[:, :-1], -1)
    return jnp.take_along_axis((1 - sorted_BM) * below_BM, jnp.argsort(order_BM, axis=-1), -1)


def link(link_BMM: Array, precedence_BM: Array, write_BM: Array) -> Array:
    """DNC: link[i, j] = how far i was written right after j; diagonal 0, rows and columns sum to at most 1."""
    forget_BMM = 1 - write_BM[:, :, None] - write_BM[:, None]
    link_BMM = forget_BMM * link_BMM + write_BM[:, :, None] * precedence_BM[:, None]
    return link_BMM * (1 - jnp.eye(write_BM.shape[-1]))


def precedence(precedence_BM: Array, write_BM: Array) -> Array:
    """DNC: how far each slot was the last one written."""
    return (1 - write_BM.sum(-1, keepdims=True)) * precedence_BM + write_BM
