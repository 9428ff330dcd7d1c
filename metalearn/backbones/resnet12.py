"""The deeper embedding of few-shot papers."""

import flax.linen as nn

from metalearn import validate
from metalearn.nn import backbone, conv as conv_lib, taps
from metalearn.types import Array


class ResNet12(nn.Module):
    """Four residual blocks of three convolutions, leaky ReLU, max-pool; the mean over pixels (Oreshkin et al. 2018).

    Sites (`nn.taps`): `blocks_0`, ..., their outputs.
    """

    widths: tuple[int, ...]
    norm: str
    method: str

    @nn.compact
    def __call__(self, x_NHWD: Array, stats: backbone.Stats | None = None, context_C: Array | None = None):
        given, out = iter(stats or []), []

        def norm(x, name):
            x, used = conv_lib.Norm(self.norm, name=name)(x, next(given) if stats else None)
            out.append(used)
            return x

        for b, width in enumerate(self.widths):
            kernel = self.param(f"skip_{b}", nn.initializers.he_normal(), (x_NHWD.shape[-1], width))
            skip = norm(x_NHWD @ kernel, f"norm_skip_{b}")
            for i in range(3):
                shape = (3, 3, x_NHWD.shape[-1], width)
                kernel = self.param(f"kernel_{b}{i}", nn.initializers.he_normal(), shape)
                x_NHWD = conv_lib.conv3x3(x_NHWD, kernel, self.method)
                x_NHWD = norm(x_NHWD, f"norm_{b}{i}")
                x_NHWD = nn.leaky_relu(x_NHWD, 0.1) if i < 2 else x_NHWD
            x_NHWD = x_NHWD + skip
            if context_C is not None:
                x_NHWD = conv_lib.Film(name=f"film_{b}")(x_NHWD, context_C)
            x_NHWD = nn.leaky_relu(conv_lib.max_pool(x_NHWD), 0.1)  # increasing, so it commutes with the maximum
            x_NHWD = taps.Site(name=f"blocks_{b}")(x_NHWD)
        return x_NHWD.mean((1, 2)), out


def make(spec, *, widths: tuple[int, ...], norm: str, conv: str) -> backbone.Backbone:
    """One residual block for each entry of `widths`; norm and conv as in `nn.backbone`."""
    validate.require(min(widths, default=0) >= 1, "widths", widths, "must be widths of at least one block")
    backbone.check_image(spec, norm, conv, len(widths))
    return backbone.of(ResNet12(tuple(widths), backbone.kind(norm), conv), widths[-1], norm)
