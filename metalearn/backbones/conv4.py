"""Blocks of convolutions, the embedding of most few-shot papers."""

import flax.linen as nn

from metalearn import validate
from metalearn.nn import backbone, conv as conv_lib, taps
from metalearn.types import Array


class Conv4(nn.Module):
    """`depth` blocks of conv 3x3, norm, ReLU, max-pool (Vinyals et al. 2016): x_NHWC -> (features_ND, stats).

    down=stride: convolutions of stride 2 instead of max-pools (Finn et al. 2017, on Omniglot): a quarter of the work.
    A context modulates the channels of every block and the features. Sites (`nn.taps`): `blocks_0`, ..., their outputs.
    """

    depth: int
    width: int
    norm: str
    method: str
    down: str

    @nn.compact
    def __call__(self, x_NHWD: Array, stats: backbone.Stats | None = None, context_C: Array | None = None):
        out = []
        for i in range(self.depth):
            shape = (3, 3, x_NHWD.shape[-1], self.width)
            kernel = self.param(f"kernel_{i}", nn.initializers.he_normal(), shape)
            x_NHWD = conv_lib.conv3x3(x_NHWD, kernel, self.method, 2 if self.down == "stride" else 1)
            x_NHWD, used = conv_lib.Norm(self.norm, name=f"norm_{i}")(x_NHWD, stats and stats[i])
            out.append(used)
            if context_C is not None:
                x_NHWD = conv_lib.Film(name=f"film_{i}")(x_NHWD, context_C)
            # ReLU and max commute, and pooled pixels are a quarter as many
            x_NHWD = nn.relu(conv_lib.max_pool(x_NHWD) if self.down == "max" else x_NHWD)
            x_NHWD = taps.Site(name=f"blocks_{i}")(x_NHWD)
        h_ND = x_NHWD.reshape(x_NHWD.shape[0], -1)
        # channels are too few to say which of V classes is which: each class gets a share of them. Features are not
        return h_ND if context_C is None else conv_lib.Film(name="film")(h_ND, context_C), out


def make(spec, *, width: int, depth: int, norm: str, conv: str, down: str) -> backbone.Backbone:
    """depth blocks, `width` channels each; norm and conv as in `nn.backbone`; down max (as most papers) or stride."""
    validate.positive(width=width, depth=depth)
    validate.one_of(("max", "stride"), down=down)
    sides = backbone.check_image(spec, norm, conv, depth)
    if down == "stride":  # halves are rounded up
        sides = tuple(-(-side // 2**depth) for side in spec.image_shape[:2])
    return backbone.of(Conv4(depth, width, backbone.kind(norm), conv, down), sides[0] * sides[1] * width, norm)
