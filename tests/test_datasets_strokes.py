"""Made-up characters: the same ones every time, many, and a drawing is nearer to its own kind than to others."""

import numpy as np

from metalearn import datasets
from metalearn.datasets import strokes


def test_the_same_characters_every_time():
    (x, y), (again, _) = strokes.draw(20, 5), strokes.draw(20, 5)
    np.testing.assert_array_equal(x, again)
    assert x.shape == (100, 8, 8) and x.max() == 16 and np.bincount(y).tolist() == [5] * 20
    assert (strokes.draw(20, 5, seed=1)[0] != x).any()


def test_drawings_of_a_character_are_alike_and_none_is_a_copy():
    x, y = strokes.draw(50, 6)
    flat = x.reshape(len(x), -1).astype(float)
    far = ((flat[:, None] - flat[None]) ** 2).sum(-1) + np.eye(len(x)) * 1e9
    assert far.min() > 0
    assert 0.3 < (y[far.argmin(1)] == y).mean() < 1  # neither hopeless nor trivial for the nearest neighbour


def test_as_a_dataset():
    dataset = datasets.load("strokes")
    assert dataset.x_NX.shape[1:] == (8, 8, 1) and dataset.num_classes == strokes.CLASSES
    assert 0 <= dataset.x_NX.min() < dataset.x_NX.max() == 1 and (np.bincount(dataset.y_N) == strokes.DRAWINGS).all()
