"""Made-up patterns: the same ones every time, divided by class, neither hopeless nor trivial."""

import numpy as np
import pytest

from metalearn import datasets
from metalearn.datasets import patterns


@pytest.mark.parametrize("draw", [patterns.textures, patterns.blobs])
def test_drawings_are_alike_within_a_class_and_none_is_a_copy(draw):
    (x, y), (again, _) = draw(40, 6), draw(40, 6)
    np.testing.assert_array_equal(x, again)
    assert (draw(40, 6, seed=1)[0] != x).any()
    assert x.shape == (240, 8, 8) and x.dtype == np.uint8 and np.bincount(y).tolist() == [6] * 40
    flat = x.reshape(len(x), -1).astype(float)
    far = ((flat[:, None] - flat[None]) ** 2).sum(-1) + np.eye(len(x)) * 1e9
    assert far.min() > 0
    assert 0.3 < (y[far.argmin(1)] == y).mean() < 0.95
    assert ((x == 0) | (x == 255)).mean() < 0.2, "the range of bytes is wide enough"


@pytest.mark.parametrize("name", ["textures", "blobs"])
def test_as_a_dataset_divided_by_class(name):
    classes = {split: datasets.load_classes(name, split) for split in datasets.SPLITS}
    assert {split: of.num_classes for split, of in classes.items()} == {"train": 180, "val": 60, "test": 60}
    assert not set(classes["train"].class_V) & set(classes["test"].class_V)
    assert 0 <= classes["test"].x_NX.min() < classes["test"].x_NX.max() <= 1
