"""Titans with attention: what stands where."""

import jax
import numpy as np
import pytest

from metalearn.nn import network

SIZES = dict(name="titans", depth=1, width=8, num_heads=1, mlp=8, conv=3, chunk=12, layers=1, momentum=True, decay=True,
             rate=1e-6, clip=1.0, persistent=2, window=12)


@pytest.mark.parametrize("variant", ["mac", "mag"])
def test_attention_knows_the_order_of_tokens_that_lie_further_back_than_a_convolution(variant):
    """With step sizes next to nothing the memory writes nothing, so that attention alone can tell."""
    net = network.make(SIZES | dict(variant=variant), network.NetworkSpec(3, 5, "x", 12, "float32", 1))
    tokens = np.asarray(jax.random.normal(jax.random.key(0), (1, 12, 5)))
    swapped = tokens[:, [0, 1, 2, 4, 3, 5, 6, 7, 8, 9, 10, 11]]
    params = net.init(jax.random.key(1), tokens)
    params["mixers_0"]["conv"] += 0.5  # at the start each token is alone
    said, other = (net.apply(params, None, each)[1][0, -1] for each in (tokens, swapped))
    assert np.abs(said - other).max() > 1e-2 * np.abs(said).max()


def test_steps_start_small_where_a_key_can_come_again_before_it_was_learned():
    """On gated recall, by synthetic gradients, the recurrence learned in no seed at a twentieth, at half in each."""
    def start(chunk):
        sizes = SIZES | dict(variant="lmm", chunk=chunk)
        net = network.make(sizes, network.NetworkSpec(3, 5, "x", 12, "float32", 1))
        return float(net.init(jax.random.key(0), np.zeros((1, 12, 5)))["mixers_0"]["rate_bias"][0])
    assert (start(1), start(2)) == (0.0, -3.0)
