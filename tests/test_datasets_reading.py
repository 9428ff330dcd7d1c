"""Class splits, resizing, and the real sets (where METALEARN_DATA holds them) beside their built-in twins."""

import os

import numpy as np
import pytest

from metalearn import datasets
from metalearn.datasets.reading import parse_split, reshape_images
from metalearn.validate import ConfigError

REAL = {"mnist": (70000, 10), "fashion_mnist": (70000, 10), "emnist/letters": (145600, 26), "omniglot": (32460, 1623),
        "cifar_fs": (10000, 100)}


def need(name):
    folder = os.path.join(datasets.data_root(), {"cifar_fs": "cifar_fs_100"}.get(name, name.replace("/", "_")))
    if not datasets.data_root() or not os.path.isdir(folder):
        pytest.skip(f"METALEARN_DATA does not hold {name}")


def test_digits_by_class_range():
    whole = datasets.load("digits")
    a, b = datasets.load_classes("digits", "classes:0-4"), datasets.load_classes("digits", "classes:5,7-8")
    assert (a.num_classes, b.num_classes) == (5, 3) and b.class_V == ("5", "7", "8")
    np.testing.assert_array_equal(b.x_NX[b.y_N == 1], whole.x_NX[whole.y_N == 7])
    assert len({whole.sha256, a.sha256, b.sha256, datasets.load_classes("digits", "classes:0-4", 10).sha256}) == 4
    np.testing.assert_array_equal(datasets.load_classes("digits", "all").x_NX, whole.x_NX)


def test_resize_and_channels():
    p = datasets.load_classes("digits", "classes:0-1", 12, 3)
    assert p.x_NX.shape[1:] == (12, 12, 3) and p.x_NX.dtype == np.float32
    np.testing.assert_array_equal(p.x_NX[..., 0], p.x_NX[..., 2])
    flat = np.full((3, 9, 9, 1), 0.25)
    np.testing.assert_allclose(reshape_images(flat, np.arange(3), (4, 4, 1)), 0.25, rtol=1e-6)
    half = np.arange(16.0).reshape(1, 4, 4, 1)  # halving with a triangle is not a block mean, but keeps the mean
    assert abs(reshape_images(half, np.arange(1), (2, 2, 1)).mean() - 7.5) < 1e-5
    colour = np.stack([np.zeros((1, 2, 2)), np.ones((1, 2, 2)), np.full((1, 2, 2), 0.5)], -1)
    np.testing.assert_allclose(reshape_images(colour, np.arange(1), (2, 2, 1)), 0.5)


@pytest.mark.parametrize("split, word", [
    ("tran", "nearest: train"), ("classes:", "must be"), ("classes:5-2", "backwards"), ("classes:0-10", "classes 0-9"),
    ("train", "no committed class split")])
def test_bad_splits(split, word):
    with pytest.raises(ConfigError, match=word) as error:
        datasets.load_classes("digits", split)
    assert "\n" not in str(error.value)


def test_bad_shapes():
    with pytest.raises(ConfigError, match="channels"):
        datasets.load_classes("digits", "all", 0, 2)
    with pytest.raises(ConfigError, match="image_size"):
        datasets.load_classes("digits", "all", -1)
    assert parse_split("classes:3-4,0") == [0, 3, 4]


def test_arrays_are_protected_and_shared():
    with pytest.raises(ValueError):
        datasets.load("digits").y_N[0] = 3


@pytest.mark.parametrize("name, counts", [("omniglot", (1028, 172, 423)), ("cifar_fs", (64, 16, 20))])
def test_committed_splits_are_disjoint_and_complete(name, counts):
    classes = datasets.class_split(name)["classes"]
    assert tuple(len(classes[s]) for s in datasets.SPLITS) == counts
    every = sum((classes[s] for s in datasets.SPLITS), [])
    assert len(set(every)) == len(every) == sum(counts)
    if name == "omniglot":
        assert sorted(every) == list(range(1, 1624))


def test_a_changed_split_file_is_refused(monkeypatch):
    from metalearn.datasets import catalogue

    monkeypatch.setitem(catalogue.entries()["omniglot"], "split_sha256", "0" * 64)
    catalogue.class_split.cache_clear()
    with pytest.raises(ConfigError, match="has been changed"):
        datasets.class_split("omniglot")


@pytest.mark.parametrize("name", REAL)
def test_real_datasets(name):
    need(name)
    raw = datasets.reading._raw(name)
    assert (len(raw.y_N), len(raw.class_V)) == REAL[name]


def test_real_omniglot_split_and_ink():
    need("omniglot")
    test = datasets.load_classes("omniglot", "test", 28)
    assert test.x_NX.shape == (423 * 20, 28, 28, 1) and len(set(test.source_V)) > 1
    assert test.split_sha256.startswith("dc3ae8ea")
    assert (np.bincount(test.y_N) == 20).all()
    assert 0.02 < test.x_NX.mean() < 0.2  # ink is little, and it is 1
    assert test.x_NX[:, 0, 0].mean() < 0.05


def test_real_emnist_stands_upright():
    """An L has its foot below and a T its bar above; transposed, both would stand at the side."""
    need("emnist/letters")
    letters = datasets.load_classes("emnist_letters", "classes:11")
    mean = letters.x_NX.mean(0)[..., 0] if letters.class_V == ("L",) else None
    assert mean[14:24, 4:24].sum() > 1.2 * mean[4:14, 4:24].sum()  # the foot
    t = datasets.load_classes("emnist/letters", "classes:19").x_NX.mean(0)[..., 0]
    assert t[4:10].sum() > 1.2 * t[18:24].sum()  # T has its bar above


def test_real_cifar_fs_says_that_it_is_a_part():
    need("cifar_fs")
    assert datasets.load_classes("cifar_fs", "val").note == "100 of the 600 images of each class"
    assert datasets.load_classes("cifar_fs", "test").x_NX.shape == (2000, 32, 32, 3)
