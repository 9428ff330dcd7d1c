"""What holds for every backbone of the listing, the day its file exists."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalearn import lookup
from metalearn.nn import backbone
from metalearn.types import EpisodeSpec
from metalearn.validate import ConfigError

IMAGE = dict(norm="batch", conv="patches")
# name of the entry: (its sizes, features of an 8x8 image by hand)
BACKBONES = {
    "conv4": (IMAGE | dict(width=4, depth=2, down="max"), 2 * 2 * 4),
    "resnet12": (IMAGE | dict(widths=(3, 5)), 5),
    "mlp": (dict(widths=(6, 4)), 4),
    "pixels": ({}, 64),
}
SPEC = EpisodeSpec(length=2, features=64, targets="classes", outputs=2, image_shape=(8, 8, 1))
X_NX = jax.random.normal(jax.random.key(0), (3, 8, 8, 1))


def make(name, **changes):
    return backbone.make({"name": name} | BACKBONES[name][0] | changes, SPEC)


def test_every_backbone_of_the_listing_is_here():
    assert sorted(BACKBONES) == lookup.names("backbones")


@pytest.mark.parametrize("name", BACKBONES)
def test_shape_gradient_statistics_and_golden_update(name, golden):
    net = make(name)

    @jax.jit
    def everything(key):
        params = net.init(key, X_NX)
        loss = lambda params: jnp.square(net.apply(params, X_NX)[0]).mean()
        h_ND, stats = net.apply(params, X_NX)
        again = net.apply(params, X_NX[:1], stats)[0]  # with the statistics of all: one example knows no other
        return h_ND, stats, again, jax.grad(loss)(params)

    h_ND, stats, again, grads = everything(jax.random.key(1))
    assert h_ND.shape == (3, net.features) == (3, BACKBONES[name][1]) and h_ND.dtype == jnp.float32
    assert bool(stats) == (net.norm == "batch")
    np.testing.assert_allclose(again[0], h_ND[0], rtol=1e-4, atol=1e-5)
    golden(f"backbones/{name}", grads)


@pytest.mark.parametrize("name", ["conv4", "resnet12"])
def test_norms_of_image_networks(name):
    """layer and none keep no statistics, and each image is by itself."""
    for norm in ("layer", "none"):
        net = make(name, norm=norm)
        params = net.init(jax.random.key(1), X_NX)
        np.testing.assert_allclose(net.apply(params, X_NX[:1])[0], net.apply(params, X_NX)[0][:1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name, changes, text", [
    ("conv4", dict(norm="group"), "backbone.norm=group"), ("conv4", dict(depth=4), "backbone.image_size=8x8"),
    ("conv4", dict(down="mean"), "backbone.down=mean"), ("resnet12", dict(widths=()), "backbone.widths"),
    ("mlp", dict(widths=(0,)), "backbone.widths"), ("mlp", dict(width=3), "backbone.width.*nearest: widths")])
def test_refusals(name, changes, text):
    with pytest.raises(ConfigError, match=text):
        make(name, **changes)


def test_unknown_names_and_images_that_are_vectors_are_refused():
    with pytest.raises(ConfigError, match=r"backbone.name=conv: .*nearest: conv4"):
        backbone.make(dict(name="conv"), SPEC)
    with pytest.raises(ConfigError, match="backbone.name=: one of conv4"):
        backbone.make({}, SPEC)
    with pytest.raises(ConfigError, match="plain vectors"):
        backbone.make({"name": "conv4"} | BACKBONES["conv4"][0], dataclasses.replace(SPEC, image_shape=None))
