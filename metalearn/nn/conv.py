"""Conv4 and ResNet-12, written so that per-task weights under `vmap` stay fast on every backend.

A vmapped `lax.conv` over its weights becomes a grouped convolution, many times slower; nine shifted copies of the
image and one matmul become a batched matmul. The gradient of `reduce_window` max-pooling costs as much as the
convolutions; choosing the larger of two does not (see `max_pool`). `lax.conv` stays as an option for weights that
tasks share: it needs a ninth of the memory.

Batch statistics go in and out as values, so that a learner can say whose they are (see `nn.backbone`).
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from metalearn.types import Array

Stats = list[tuple[Array, Array]]  # (mean_D, var_D) of each normalisation layer, in the order of the layers


def conv3x3(x_NHWD: Array, kernel: Array, method: str, stride: int = 1) -> Array:
    """3x3 convolution with a border of zeros; `kernel` (3, 3, in, out); method patches | lax.

    Sides become ceil(side / stride); row i of the result is centred on row i * stride.
    """
    if method == "lax":
        return jax.lax.conv_general_dilated(x_NHWD, kernel, (stride, stride), ((1, 1), (1, 1)),
                                            dimension_numbers=("NHWC", "HWIO", "NHWC"))
    _, H, W, _ = x_NHWD.shape
    padded = jnp.pad(x_NHWD, ((0, 0), (1, 1), (1, 1), (0, 0)))
    patches = jnp.concatenate([padded[:, i:i + H:stride, j:j + W:stride] for i in range(3) for j in range(3)], -1)
    return patches @ kernel.reshape(-1, kernel.shape[-1])


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


class Conv4(nn.Module):
    """`depth` blocks of conv 3x3, norm, ReLU, max-pool (Vinyals et al. 2016): x_NHWC -> (features_ND, stats).

    down=stride: convolutions of stride 2 instead of max-pools (Finn et al. 2017, on Omniglot): a quarter of the work.
    A context modulates the channels of every block and the features.
    """

    depth: int
    width: int
    norm: str
    method: str
    down: str

    @nn.compact
    def __call__(self, x_NHWD: Array, stats: Stats | None = None, context_C: Array | None = None):
        out = []
        for i in range(self.depth):
            shape = (3, 3, x_NHWD.shape[-1], self.width)
            kernel = self.param(f"kernel_{i}", nn.initializers.he_normal(), shape)
            x_NHWD = conv3x3(x_NHWD, kernel, self.method, 2 if self.down == "stride" else 1)
            x_NHWD, used = Norm(self.norm, name=f"norm_{i}")(x_NHWD, stats and stats[i])
            out.append(used)
            if context_C is not None:
                x_NHWD = Film(name=f"film_{i}")(x_NHWD, context_C)
            # ReLU and max commute, and pooled pixels are a quarter as many
            x_NHWD = nn.relu(max_pool(x_NHWD) if self.down == "max" else x_NHWD)
        h_ND = x_NHWD.reshape(x_NHWD.shape[0], -1)
        # channels are too few to say which of V classes is which: each class gets a share of them. Features are not
        return h_ND if context_C is None else Film(name="film")(h_ND, context_C), out


class ResNet12(nn.Module):
    """Four residual blocks of three convolutions, leaky ReLU, max-pool; the mean over pixels (Oreshkin et al. 2018)."""

    widths: tuple[int, ...]
    norm: str
    method: str

    @nn.compact
    def __call__(self, x_NHWD: Array, stats: Stats | None = None, context_C: Array | None = None):
        given, out = iter(stats or []), []

        def norm(x, name):
            x, used = Norm(self.norm, name=name)(x, next(given) if stats else None)
            out.append(used)
            return x

        for b, width in enumerate(self.widths):
            kernel = self.param(f"skip_{b}", nn.initializers.he_normal(), (x_NHWD.shape[-1], width))
            skip = norm(x_NHWD @ kernel, f"norm_skip_{b}")
            for i in range(3):
                shape = (3, 3, x_NHWD.shape[-1], width)
                x_NHWD = conv3x3(x_NHWD, self.param(f"kernel_{b}{i}", nn.initializers.he_normal(), shape), self.method)
                x_NHWD = norm(x_NHWD, f"norm_{b}{i}")
                x_NHWD = nn.leaky_relu(x_NHWD, 0.1) if i < 2 else x_NHWD
            x_NHWD = x_NHWD + skip
            if context_C is not None:
                x_NHWD = Film(name=f"film_{b}")(x_NHWD, context_C)
            x_NHWD = nn.leaky_relu(max_pool(x_NHWD), 0.1)  # increasing, so it commutes with the maximum
        return x_NHWD.mean((1, 2)), out


class MLP(nn.Module):
    """Hidden layers with ReLU on flattened inputs; a context is a further input of the first one (as CAVIA has it)."""

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, x_NX: Array, stats: Stats | None = None, context_C: Array | None = None):
        h = x_NX.reshape(x_NX.shape[0], -1)
        if context_C is not None:
            h = jnp.concatenate([h, jnp.broadcast_to(context_C, (h.shape[0], context_C.shape[0]))], -1)
        for width in self.widths:
            h = nn.relu(nn.Dense(width)(h))
        return h, []
