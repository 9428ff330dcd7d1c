"""Features of a dataset, split into meta-train and meta-test: what GPICL's tasks draw from."""

import dataclasses
import hashlib
from collections.abc import Callable

import numpy as np

from metalearn.datasets.reading import Dataset, load, raw_shape, reshape_images, target_shape
from metalearn.validate import fraction, one_of, require

SPLITS_BY = ("class", "example", "dataset")


@dataclasses.dataclass(frozen=True)
class Part:
    """Features of some examples, sorted by class.

    x_NX              (N, X)
    start_V, count_V  first row and number of rows of each class
    index_N           row of the raw dataset, so that an episode's pictures can be drawn
    first_P           first class of each of the datasets that it was put together from
    """

    x_NX: np.ndarray
    start_V: np.ndarray
    count_V: np.ndarray
    index_N: np.ndarray
    first_P: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(1, np.int32))

    @property
    def num_classes(self) -> int:
        return len(self.start_V)


@dataclasses.dataclass(frozen=True)
class Inputs:
    """From images to what a task gives to its learner.

    shape       (height, width, channels) that they are resized to
    mean, std   of pixels: of the meta-training images
    flat        whether a learner gets vectors
    centre_X, basis_XF, scale   a projection of the normalised pixels, where there is one: (x - centre) @ basis / scale
    """

    shape: tuple[int, ...]
    mean: float
    std: float
    flat: bool
    centre_X: np.ndarray | None = None
    basis_XF: np.ndarray | None = None
    scale: float = 1.0

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """images (N, height, width[, channels]) in 0 to 1, or 0 to 255 as uint8, with channels also under several axes;
        (N, features) where the task has plain features. ConfigError for other shapes."""
        x = np.asarray(images)
        x = x[:, None] if x.ndim == 2 else x
        x = x[..., None] if x.ndim == 3 else x
        plain = self.shape[0] == 1
        fits = x.ndim >= 4 and (x.shape[-3:-1] == self.shape[:2] if plain else min(x.shape[-3:-1]) > 1)
        allowed = f"(N, {self.shape[1]})" if plain else "(N, height, width[, channels])"
        require(fits, "images", np.shape(images), f"must be {allowed}")
        flat = x.reshape(-1, *x.shape[-3:])
        out = (reshape_images(flat, np.arange(len(flat)), self.shape) - self.mean) / self.std
        out = self.project(out.reshape(len(out), -1)) if self.flat else out
        return out.reshape(*x.shape[:-3], *out.shape[1:])

    def project(self, x_NX: np.ndarray) -> np.ndarray:
        """Normalised pixels (N, X) in the task's features."""
        if self.basis_XF is None:
            return x_NX
        return ((x_NX - self.centre_X) @ self.basis_XF / self.scale).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A dataset's parts for meta-training and for tests.

    train       meta-training examples
    heldout     unseen examples of the same classes
    new         classes or a dataset never used
    mixture     `train` and the training parts of the datasets in `mixture`, one after another; `train` without these
    raw         {part: the dataset that its index_N points into}
    sha256      of all of them
    inputs      from images to these features
    pool(name)  (examples, dataset) of another dataset in the same features; ConfigError where it is unfit
    """

    train: Part
    heldout: Part
    new: Part
    mixture: Part
    raw: dict[str, Dataset]
    sha256: str
    inputs: Inputs
    pool: Callable[[str], tuple[Part, Dataset]]


def split_features(*, dataset: str, split_by: str, train_classes: int, heldout_frac: float, new_dataset: str,
                   image_size: int, channels: int, pca: int, mixture: tuple[str, ...] = (), seed: int = 0) -> Prepared:
    """Splits a dataset and makes features of it.

    split_by       class: the first `train_classes` labels are for meta-training, the others are new
                   example: all classes are for meta-training; new is the held-out examples under fresh tasks
                   dataset: as `example`, and new is the test part of `new_dataset`
    heldout_frac   examples kept from meta-training where the dataset has no test part of its own
    image_size     side to resize to (0: as they are); channels 1 or 3 (0: as they are; grey is replicated)
    pca            features kept of a PCA fitted on the meta-training images, scaled by one number to unit std;
                   0 keeps the z-scored pixels
    mixture        datasets to meta-train on as well, in the features of `dataset`: their training classes where they
                   divide their classes, else their training examples, else all

    Pixels are normalised, after resizing, by one scalar mean and std: those of the meta-training images, for the whole
    dataset. A `new_dataset`, of which nothing is meta-trained on, is brought to unit scale by its own: those of its
    training part, or of all its images where it makes no such division; so is a pool. Shown are its test classes where
    it divides its classes, else its test examples, else all.
    A `new_dataset` given with any `split_by` replaces the new classes (that is what `eval --dataset` does); the
    training dataset itself is refused there (known by its hash: a copy with another dtype or order is not found out).
    """
    one_of(SPLITS_BY, split_by=split_by)
    fraction(heldout_frac=heldout_frac)
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
    pixels_NX, mean, std = _pixels(raw, shape, train_N)
    inputs = Inputs(shape, mean, std, True, *(_fit_pca(pixels_NX[train_N], pca) if pca else (None, None, 1.0)))
    features_NX = inputs.project(pixels_NX)

    part = lambda keep: _part(features_NX, raw.y_N, np.flatnonzero(keep))

    def foreign(field: str, name: str, split: str = "test") -> tuple[Part, Dataset]:
        have = raw_shape(name)
        require(have[:2] == shape[:2] or min(have[0], shape[0]) > 1, field, name,
                f"has inputs of shape {have}, dataset {dataset} of {shape}: plain features cannot be resized")
        other = load(name, shape)
        require(other.sha256 != raw.sha256, field, name,
                f"is what dataset {dataset} was meta-trained on: not new ('' scores the part of it that was held out)")
        scored_N = chosen(other, "test")
        x_NX = inputs.project(_pixels(other, shape, scored_N if scored_N.all() else ~scored_N)[0])
        return _part(x_NX, other.y_N, np.flatnonzero(chosen(other, split))), other

    if new_dataset:
        new, other = foreign("new_dataset", new_dataset)
    else:
        new = part(~train_class_N if split_by == "class" and not train_class_N.all() else train_class_N & test_N)
        other = raw
    train, members = part(train_N), [foreign("mixture", name, "train") for name in mixture]
    digest = hashlib.sha256("".join([raw.sha256, other.sha256, *(of.sha256 for _, of in members)]).encode()).hexdigest()
    pictures = {"train": raw, "heldout": raw, "new": load(new_dataset) if new_dataset else raw}
    return Prepared(train, part(train_class_N & test_N), new, _joined([train, *(p for p, _ in members)]), pictures,
                    digest, inputs, lambda name: foreign("sets", name))


def chosen(dataset: Dataset, split: str) -> np.ndarray:
    """Bool (N,): the classes of `split` (train or test) where the dataset divides its classes, else its examples for
    that where it has test examples, else all."""
    if dataset.split_V:
        return np.array([of == split for of in dataset.split_V])[dataset.y_N]
    if dataset.test_N is None:
        return np.ones(len(dataset.y_N), bool)
    return dataset.test_N if split == "test" else ~dataset.test_N


def _joined(parts: list[Part]) -> Part:
    """One after another, the classes numbered on."""
    rows = np.cumsum([0, *(len(p.x_NX) for p in parts)])
    classes = np.cumsum([0, *(p.num_classes for p in parts)])
    return Part(np.concatenate([p.x_NX for p in parts]),
                np.concatenate([p.start_V + r for p, r in zip(parts, rows[:-1], strict=True)]).astype(np.int32),
                np.concatenate([p.count_V for p in parts]), np.concatenate([p.index_N for p in parts]),
                classes[:-1].astype(np.int32))


def _pixels(dataset: Dataset, shape: tuple[int, int, int], fit_N: np.ndarray) -> tuple[np.ndarray, float, float]:
    """((N, height * width * channels), mean, std): resized and z-scored by one mean and std, of the images `fit_N`."""
    x = reshape_images(dataset.x_NX, np.arange(len(dataset.x_NX)), shape)
    x = x.reshape(len(x), -1)
    fit = x[fit_N]
    mean = float(fit.mean(dtype=np.float64).astype(np.float32))
    std = max(float(fit.std(dtype=np.float64)), 1e-8)
    return (x - mean) / std, mean, std


def _fit_pca(x_NX: np.ndarray, num: int) -> tuple[np.ndarray, np.ndarray, float]:
    """(centre_X, basis_XF, scale) of a projection on the `num` leading directions, then one scalar scale to unit std;
    signs fixed."""
    require(0 <= num <= x_NX.shape[1], "pca", num, f"must lie between 0 and {x_NX.shape[1]}, the pixels of an image")
    mean = x_NX.mean(0, dtype=np.float64)
    _, vectors = np.linalg.eigh(np.cov((x_NX - mean).T))
    basis = vectors[:, ::-1][:, :num]
    basis *= np.sign(basis[np.abs(basis).argmax(0), np.arange(num)])  # eigenvectors come with either sign
    return mean, basis, float(((x_NX - mean) @ basis).std())


def _part(x_NX: np.ndarray, y_N: np.ndarray, index: np.ndarray) -> Part:
    """The rows `index`, sorted by class; classes without an example vanish."""
    index = index[np.argsort(y_N[index], kind="stable")]
    _, start, count = np.unique(y_N[index], return_index=True, return_counts=True)
    return Part(x_NX[index], start.astype(np.int32), count.astype(np.int32), index.astype(np.int32))
