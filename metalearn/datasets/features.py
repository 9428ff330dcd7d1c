"""Features of a dataset, split into meta-train and meta-test: what GPICL's tasks draw from."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np

from metalearn.datasets.reading import Dataset, load, reshape_images, target_shape
from metalearn.validate import fraction, one_of, require

SPLITS_BY = ("class", "example", "dataset")


@dataclasses.dataclass(frozen=True)
class Part:
    """Features of some examples, sorted by class: x_NX (N, X), with the first row and the count of each class."""

    x_NX: np.ndarray
    start_V: np.ndarray
    count_V: np.ndarray
    index_N: np.ndarray  # row of the raw dataset, so that an episode's pictures can be drawn

    @property
    def num_classes(self) -> int:
        return len(self.start_V)


@dataclasses.dataclass(frozen=True)
class Prepared:
    """train: meta-training examples; heldout: unseen examples of the same classes; new: classes or a set never used."""

    train: Part
    heldout: Part
    new: Part
    raw: dict[str, Dataset]  # which raw dataset each part's index_N points into
    sha256: str


def split_features(
    *,
    dataset: str,
    split_by: str,
    train_classes: int,
    heldout_frac: float,
    new_dataset: str,
    image_size: int,
    channels: int,
    pca: int,
    seed: int = 0,
) -> Prepared:
    """Splits a dataset and makes features of it.

    split_by       class: the first `train_classes` labels are for meta-training, the others are new
                   example: all classes are for meta-training; new is the held-out examples under fresh tasks
                   dataset: as `example`, and new is the test part of `new_dataset`
    heldout_frac   examples kept from meta-training where the dataset has no test part of its own
    image_size     side to resize to (0: as they are); channels 1 or 3 (0: as they are; grey is replicated)
    pca            features kept of a PCA fitted on the meta-training images, scaled by one number to unit std;
                   0 keeps the z-scored pixels

    Pixels are normalised, after resizing, by one scalar mean and std: those of the meta-training images, for the whole
    dataset. A `new_dataset`, of which nothing is meta-trained on, is brought to unit scale by its own: those of its
    training part, or of all its images where it makes no such division.
    A `new_dataset` given with any `split_by` replaces the new classes (that is what `eval --dataset` does); the
    training dataset itself is refused there (known by its hash: a copy with another dtype or order is not found out).
    """
    one_of(SPLITS_BY, split_by=split_by)
    fraction(heldout_frac=heldout_frac)
    one_of((0, 1, 3), channels=channels)
    require(image_size >= 0, "image_size", image_size, "must be 0 (as it is) or a side in pixels")
    require(new_dataset != "" or split_by != "dataset", "new_dataset", new_dataset,
            "must name a dataset when split_by=dataset")
    raw = load(dataset)
    require(train_classes <= raw.num_classes, "train_classes", train_classes,
            f"must be at most {raw.num_classes}, the classes of dataset {dataset}")
    require(train_classes >= 2 or split_by != "class", "train_classes", train_classes, "must be at least 2")

    test_N = raw.test_N
    if test_N is None:
        test_N = np.random.default_rng(seed).permutation(len(raw.y_N)) < round(heldout_frac * len(raw.y_N))
    train_class_N = raw.y_N < train_classes if split_by == "class" else np.ones(len(raw.y_N), bool)
    train_N = train_class_N & ~test_N
    require(bool(train_N.any()), "heldout_frac", heldout_frac, f"leaves no image of dataset {dataset} to meta-train on")
    shape = target_shape(dataset, raw.x_NX.shape[1:], image_size, channels)
    pixels_NX = _pixels(raw, shape, train_N)
    project = _fit_pca(pixels_NX[train_N], pca) if pca else lambda x: x
    features_NX = project(pixels_NX)

    part = lambda keep, labels=raw.y_N, x=features_NX: _part(x, labels, np.flatnonzero(keep))
    other = raw
    if new_dataset:
        other = load(new_dataset)
        require(other.sha256 != raw.sha256, "new_dataset", new_dataset,
                f"is what dataset {dataset} was meta-trained on: not new ('' scores the part of it that was held out)")
        fits = other.x_NX.shape[1:3] == shape[:2] or min(other.x_NX.shape[1], shape[0]) > 1
        require(fits, "new_dataset", new_dataset,
                f"has inputs of shape {other.x_NX.shape[1:]}, dataset {dataset} of {shape}: plain features cannot "
                "be resized")
        scored_N = np.ones(len(other.y_N), bool) if other.test_N is None else other.test_N
        fit_N = scored_N if scored_N.all() else ~scored_N
        new = part(scored_N, other.y_N, project(_pixels(other, shape, fit_N)))
    else:
        new = part(~train_class_N if split_by == "class" and not train_class_N.all() else train_class_N & test_N)
    digest = hashlib.sha256("".join([raw.sha256, other.sha256]).encode()).hexdigest()
    return Prepared(part(train_N), part(train_class_N & test_N), new,
                    {"train": raw, "heldout": raw, "new": other}, digest)


def _pixels(dataset: Dataset, shape: tuple[int, int, int], fit_N: np.ndarray) -> np.ndarray:
    """(N, height * width * channels), resized and z-scored by one scalar mean and std, those of the images `fit_N`."""
    x = reshape_images(dataset.x_NX, np.arange(len(dataset.x_NX)), shape)
    x = x.reshape(len(x), -1)
    fit = x[fit_N]
    return (x - fit.mean(dtype=np.float64).astype(np.float32)) / max(float(fit.std(dtype=np.float64)), 1e-8)


def _fit_pca(x_NX: np.ndarray, num: int):
    """A projection on the `num` leading directions, then one scalar scale to unit std; signs fixed."""
    require(num <= x_NX.shape[1], "pca", num, f"must be at most {x_NX.shape[1]}, the pixels of an image")
    mean = x_NX.mean(0, dtype=np.float64)
    _, vectors = np.linalg.eigh(np.cov((x_NX - mean).T))
    basis = vectors[:, ::-1][:, :num]
    basis *= np.sign(basis[np.abs(basis).argmax(0), np.arange(num)])  # eigenvectors come with either sign
    scale = ((x_NX - mean) @ basis).std()
    return lambda x: ((x - mean) @ basis / scale).astype(np.float32)


def _part(x_NX: np.ndarray, y_N: np.ndarray, index: np.ndarray) -> Part:
    """The rows `index`, sorted by class; classes without an example vanish."""
    index = index[np.argsort(y_N[index], kind="stable")]
    _, start, count = np.unique(y_N[index], return_index=True, return_counts=True)
    return Part(x_NX[index], start.astype(np.int32), count.astype(np.int32), index.astype(np.int32))
