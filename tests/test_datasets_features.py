"""GPICL's division of a dataset: no example on two sides, features normalised, bad requests refused."""

import numpy as np
import pytest

from metalearn import datasets
from metalearn.validate import ConfigError

BASE = dict(dataset="digits", split_by="class", train_classes=5, heldout_frac=0.25, new_dataset="",
            image_size=0, channels=0, pca=0)


def test_by_class():
    got = datasets.split_features(**BASE)
    train, heldout, new = (set(p.index_N.tolist()) for p in (got.train, got.heldout, got.new))
    assert not train & heldout and not (train | heldout) & new and len(train | heldout | new) == 1797
    y = datasets.load("digits").y_N
    assert set(y[got.new.index_N]) == {5, 6, 7, 8, 9} and set(y[got.train.index_N]) == set(range(5))
    for part in (got.train, got.heldout, got.new):
        for v in range(part.num_classes):
            rows = slice(part.start_V[v], part.start_V[v] + part.count_V[v])
            assert len(set(y[part.index_N[rows]])) == 1
        assert part.count_V.sum() == len(part.x_NX) == len(part.index_N)


def test_by_example_and_dataset(tmp_path):
    got = datasets.split_features(**BASE | {"split_by": "example"})
    assert set(got.new.index_N.tolist()) == set(got.heldout.index_N.tolist())
    np.savez(tmp_path / "a.npz", x=np.random.default_rng(0).random((20, 5, 5)), y=np.arange(20) % 2)
    got = datasets.split_features(**BASE | {"split_by": "dataset", "new_dataset": str(tmp_path / "a.npz")})
    assert got.new.x_NX.shape == (20, 64) and got.new.num_classes == 2
    assert got.sha256 != datasets.split_features(**BASE).sha256


def test_normalised_and_pca():
    got = datasets.split_features(**BASE | {"image_size": 6, "channels": 3})
    train = got.train.x_NX
    assert train.shape[1] == 108 and abs(train.mean()) < 1e-4 and abs(train.std() - 1) < 1e-4
    few = datasets.split_features(**BASE | {"pca": 7}).train.x_NX
    assert few.shape[1] == 7 and abs(few.std() - 1) < 0.02
    covariance = np.cov(few.T)
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 1e-3
    assert (np.diff(np.diag(covariance)) < 0).all()


@pytest.mark.parametrize("pca", [0, 4])
def test_scored_images_have_no_say_in_the_statistics(tmp_path, pca):
    """Nine times as bright, held-out images and new classes leave the meta-training features as they are to the bit;
    scored images of a new dataset leave each other's."""
    x_NHW, y_N = np.random.default_rng(0).random((24, 5, 5)), np.arange(24) % 4  # the last 8 are the test part

    def split(name, new, bright_N):
        x = np.where(bright_N[:, None, None], 9 * x_NHW, x_NHW)
        path = str(tmp_path / f"{name}.npz")
        np.savez(path, x=x[:16], y=y_N[:16], x_test=x[16:], y_test=y_N[16:])
        trained, new = (BASE["dataset"], path) if new else (path, "")
        return datasets.split_features(**BASE | dict(dataset=trained, train_classes=2, new_dataset=new, pca=pca))

    none_N = np.zeros(24, bool)
    plain, bright = split("a", False, none_N), split("b", False, (y_N >= 2) | (np.arange(24) >= 16))
    np.testing.assert_array_equal(plain.train.x_NX, bright.train.x_NX)
    assert not np.array_equal(plain.new.x_NX, bright.new.x_NX)
    plain, bright = split("c", True, none_N).new, split("d", True, (y_N == 0) & (np.arange(24) >= 16)).new
    assert plain.count_V.tolist() == [2, 2, 2, 2]
    np.testing.assert_array_equal(plain.x_NX[2:], bright.x_NX[2:])
    assert not np.array_equal(plain.x_NX[:2], bright.x_NX[:2])


def test_a_mixture_and_a_pool_are_other_datasets_in_the_same_features(tmp_path):
    rng = np.random.default_rng(0)
    path = str(tmp_path / "a.npz")
    np.savez(path, x=rng.random((20, 5, 5)), y=np.arange(20) % 4, x_test=rng.random((8, 5, 5)), y_test=np.arange(8) % 4)
    plain, got = datasets.split_features(**BASE | {"pca": 7}), datasets.split_features(
        **BASE | {"pca": 7}, mixture=(path, "textures"))
    np.testing.assert_array_equal(got.train.x_NX, plain.train.x_NX)
    np.testing.assert_array_equal(plain.mixture.x_NX, plain.train.x_NX)
    assert got.sha256 != plain.sha256 and plain.mixture.first_P.tolist() == [0]
    mix, first = got.mixture, 5 + 4
    assert mix.first_P.tolist() == [0, 5, first] and mix.num_classes == first + 180  # the training classes of 300
    assert mix.start_V[5] == len(plain.train.x_NX) and mix.count_V[5:first].tolist() == [5] * 4  # without the test part
    assert (np.diff(mix.start_V) == mix.count_V[:-1]).all() and mix.count_V.sum() == len(mix.x_NX) == len(mix.index_N)
    alone, _ = got.pool("textures")
    of = np.array(datasets.load("textures").split_V)
    y_N = datasets.load("textures").y_N
    assert set(of[y_N[alone.index_N]]) == {"test"} and set(of[y_N[mix.index_N[mix.start_V[first]:]]]) == {"train"}
    as_new = datasets.split_features(**BASE | {"pca": 7, "new_dataset": path}).new
    np.testing.assert_array_equal(got.pool(path)[0].x_NX, as_new.x_NX)  # as `eval --dataset` shows it
    with pytest.raises(ConfigError, match="mixture.*meta-trained"):
        datasets.split_features(**BASE, mixture=("digits",))


def test_the_training_dataset_is_never_new():
    with pytest.raises(ConfigError, match="new_dataset.*meta-trained"):
        datasets.split_features(**BASE | {"new_dataset": "digits"})


def test_plain_features_are_not_resized(tmp_path):
    np.savez(tmp_path / "flat.npz", x=np.random.default_rng(0).random((20, 6)), y=np.arange(20) % 2)
    name = str(tmp_path / "flat.npz")
    got = datasets.split_features(**BASE | {"dataset": name, "split_by": "example", "train_classes": 2})
    assert got.train.x_NX.shape[1] == 6
    with pytest.raises(ConfigError, match="image_size.*plain features"):
        datasets.split_features(**BASE | {"dataset": name, "split_by": "example", "train_classes": 2, "image_size": 4})
    with pytest.raises(ConfigError, match="image_size.*plain features"):
        datasets.load_classes(name, "all", 4)
    with pytest.raises(ConfigError, match="new_dataset.*plain features"):
        datasets.split_features(**BASE | {"new_dataset": name})


@pytest.mark.parametrize("change", [
    dict(split_by="clas"), dict(train_classes=11), dict(train_classes=1), dict(heldout_frac=2.0),
    dict(heldout_frac=1.0), dict(channels=2), dict(image_size=-1), dict(pca=65), dict(split_by="dataset")])
def test_bad(change):
    with pytest.raises(ConfigError):
        datasets.split_features(**BASE | change)
