"""Convolution, pooling and normalisation, written so that per-task weights under `vmap` stay fast on every backend.

A vmapped `lax.conv` over its weights becomes a grouped convolution, many times slower; three shifted copies of the
image and a matmul for each row of the kernel become batched matmuls. The gradient of `reduce_window` max-pooling costs
as much as the convolutions; choosing the larger of two does not (see `max_pool`). `lax.conv` stays as an option for
weights that tasks share: it needs a third of the memory.

Batch statistics go in and out as values, so that a learner can say whose they are (see `nn.backbone`).
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from metalearn.types import Array

FEW = 8  # input channels below which nine shifted copies and one product are faster, as they are with strides


def conv3x3(x_NHWD: Array, kernel: Array, method: str, stride: int = 1) -> Array:
    """3x3 convolution with a border of zeros; `kernel` (3, 3, in, out); method patches | lax.

    Sides become ceil(side / stride); row i of the result is centred on row i * stride.
    """
    if method == "lax":
        return jax.lax.conv_general_dilated(x_NHWD, kernel, (stride, stride), ((1, 1), (1, 1)),
                                            dimension_numbers=("NHWC", "HWIO", "NHWC"))
    _, H, W, D = x_NHWD.shape
    padded = jnp.pad(x_NHWD, ((0, 0), (1, 1), (1, 1), (0, 0)))
    if D < FEW or stride > 1:
        patches = jnp.concatenate([padded[:, i:i + H:stride, j:j + W:stride] for i in range(3) for j in range(3)], -1)
        return patches @ kernel.reshape(-1, kernel.shape[-1])
    rows = jnp.concatenate([padded[:, :, j:j + W:stride] for j in range(3)], -1)
    return functools.reduce(jnp.add, (rows[:, i:i + H:stride] @ kernel[i].reshape(3 * D, -1) for i in range(3)))


def max_pool(x_NHWD: Array) -> Array:
    """2x2 maximum, stride 2; an odd last row or column is dropped.

    By selection, not by `max`, whose gradient goes to the entries *equal* to the maximum: where XLA fuses the input
    and computes it a second time with another rounding, none is equal, and the gradient is lost or 0 / 0.
    """
    N, H, W, D = x_NHWD.shape
    x = x_NHWD[:, : H // 2 * 2, : W // 2 * 2].reshape(N, H // 2, 2, W // 2, 2, D)
    larger = lambda a, b: jnp.where(a >= b, a, b)
    x = larger(x[:, :, 0], x[:, :, 1])
    return larger(x[:, :, :, 0], x[:, :, :, 1])


class Norm(nn.Module):
    """Normalises channels: kind `batch` by the given statistics, or by those of its input; `layer`; `none` (a bias)."""

    kind: str

    @nn.compact
    def __call__(self, x_NHWD: Array, stats=None):
        D = x_NHWD.shape[-1]
        bias = self.param("bias", nn.initializers.zeros, (D,))
        if self.kind == "none":
            return x_NHWD + bias, None
        scale = self.param("scale", nn.initializers.ones, (D,))
        if self.kind == "layer":
            mean, var = x_NHWD.mean((1, 2, 3), keepdims=True), x_NHWD.var((1, 2, 3), keepdims=True)
        elif stats is None:
            stats = mean, var = x_NHWD.mean((0, 1, 2)), x_NHWD.var((0, 1, 2))
        else:
            mean, var = stats
        # one multiply and one add per pixel: the statistics are folded into scale and bias first
        factor = scale * jax.lax.rsqrt(var + 1e-5)
        return x_NHWD * factor + (bias - mean * factor), stats


class Film(nn.Module):
    """Scale and shift of channels or features by a context vector (CAVIA); the identity while the context is zero."""

    @nn.compact
    def __call__(self, x: Array, context_C: Array):
        factor, shift = jnp.split(nn.Dense(2 * x.shape[-1], use_bias=False)(context_C), 2, axis=-1)
        return x * (1 + factor) + shift
