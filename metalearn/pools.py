"""Pools: labelled images on the host, by name or by file. The only file that imports tensorflow_datasets.

  digits                 scikit-learn's 1,797 digits of 8x8, built in
  mnist, fashion_mnist   the original idx files under METALEARN_DATA/<name>, else TFDS
  FILE.npz               `x` (N, height, width[, channels]) or (N, features), `y` (N,); optional x_test, y_test
  anything else          a TFDS image-classification set, read through `tfds.data_source` (prepared beforehand)

`load` gives raw pixels with the dataset's own train/test division; `prepare` splits a pool into meta-train and
meta-test and turns pixels into the features that tasks draw from.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import os
import struct
import zipfile

import numpy as np

from metalearn.validate import ConfigError, fraction, one_of, require

SPLITS_BY = ("class", "example", "dataset")


@dataclasses.dataclass(frozen=True)
class Pool:
    """Raw images of one dataset: x_NX f32 in [0, 1], shape (N, height, width, channels); y_N int32 from 0.

    test_N   bool, the dataset's own test examples; None where it makes no such division
    sha256   of pixels and labels, so that a result can say what it was measured on
    """

    name: str
    x_NX: np.ndarray
    y_N: np.ndarray
    test_N: np.ndarray | None
    sha256: str

    @property
    def num_classes(self) -> int:
        return int(self.y_N.max()) + 1


@dataclasses.dataclass(frozen=True)
class Part:
    """Features of some examples, sorted by class: x_NX (N, X), with the first row and the count of each class."""

    x_NX: np.ndarray
    start_V: np.ndarray
    count_V: np.ndarray
    index_N: np.ndarray  # row of the raw pool, so that an episode's pictures can be drawn

    @property
    def num_classes(self) -> int:
        return len(self.start_V)


@dataclasses.dataclass(frozen=True)
class Prepared:
    """train: meta-training examples; heldout: unseen examples of the same classes; new: classes or a set never used."""

    train: Part
    heldout: Part
    new: Part
    raw: dict[str, Pool]  # which raw pool each part's index_N points into
    sha256: str


def data_root() -> str:
    """Where raw files lie: METALEARN_DATA, else ../shared/data when it exists, else ''."""
    default = os.path.join(os.path.dirname(__file__), "..", "..", "shared", "data")
    return os.environ.get("METALEARN_DATA", os.path.abspath(default) if os.path.isdir(default) else "")


def load(name: str) -> Pool:
    """The pool called `name` (see the module's list); ConfigError when it is unknown, absent or malformed."""
    if name == "digits":
        from sklearn.datasets import load_digits

        raw = load_digits()
        return _pool(name, raw.images / 16.0, raw.target, None)
    if name.endswith(".npz"):
        return _load_npz(name)
    folder = os.path.join(data_root(), name.replace("/", "_"))
    if data_root() and os.path.isfile(os.path.join(folder, "train-images-idx3-ubyte.gz")):
        return _load_idx(name, folder)
    return _load_tfds(name)


def _pool(name: str, x, y, test) -> Pool:
    x, y = np.asarray(x), np.asarray(y)
    require(len(x) == len(y) > 0, "pool", name, f"has {len(x)} images and {len(y)} labels; both must be equal and above 0")
    require(x.ndim in (2, 3, 4), "pool", name, f"x has shape {x.shape}; must be (N, features) or (N, height, width[, channels])")
    require(np.issubdtype(y.dtype, np.integer) and y.ndim == 1, "pool", name, f"y is {y.dtype}{list(y.shape)}; must be integers of shape (N,)")
    x = x.astype(np.float32) / (255.0 if x.dtype == np.uint8 else 1.0)
    require(bool(np.isfinite(x).all()), "pool", name, "x holds NaN or infinite values")
    if x.ndim == 2:  # plain features are one row of pixels
        x = x[:, None, :]
    if x.ndim == 3:
        x = x[..., None]
    classes, y = np.unique(y, return_inverse=True)
    require(len(classes) >= 2, "pool", name, "has a single class; at least 2 are needed")
    digest = hashlib.sha256(x.tobytes() + y.astype(np.int32).tobytes()).hexdigest()
    return Pool(name, x, y.astype(np.int32), None if test is None else np.asarray(test, bool), digest)


def _load_npz(path: str) -> Pool:
    require(os.path.isfile(path), "pool", path, "no such file")
    try:
        with np.load(path, allow_pickle=False) as file:
            require({"x", "y"} <= set(file.files), "pool", path, f"must hold arrays x and y; it has {sorted(file.files)}")
            x, y, test = file["x"], file["y"], None
            if {"x_test", "y_test"} <= set(file.files):
                test = np.arange(len(y) + len(file["y_test"])) >= len(y)
                x, y = np.concatenate([x, file["x_test"]]), np.concatenate([y, file["y_test"]])
    except ConfigError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError) as error:
        raise ConfigError("pool", path, f"is not a readable .npz ({error})") from None
    return _pool(path, x, y, test)


def _load_idx(name: str, folder: str) -> Pool:
    read = lambda stem: _read_idx(os.path.join(folder, stem))
    x = [read(f"{part}-images-idx3-ubyte.gz") for part in ("train", "t10k")]
    y = [read(f"{part}-labels-idx1-ubyte.gz") for part in ("train", "t10k")]
    test = np.arange(len(y[0]) + len(y[1])) >= len(y[0])
    return _pool(name, np.concatenate(x), np.concatenate(y).astype(np.int32), test)


def _read_idx(path: str) -> np.ndarray:
    """The array of one gzipped idx file of unsigned bytes."""
    require(os.path.isfile(path), "pool", path, "no such file")
    try:
        with gzip.open(path) as file:
            zero, kind, rank = struct.unpack(">HBB", file.read(4))
            shape = struct.unpack(f">{rank}I", file.read(4 * rank))
            data = np.frombuffer(file.read(), np.uint8)
    except (OSError, EOFError, struct.error) as error:
        raise ConfigError("pool", path, f"is not a readable gzipped idx file ({error})") from None
    require(zero == 0 and kind == 8 and data.size == np.prod(shape, dtype=np.int64), "pool", path,
            f"is not an idx file of unsigned bytes: header says {shape}, body has {data.size} bytes")
    return data.reshape(shape)


def _load_tfds(name: str) -> Pool:
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name)
    except Exception:  # TFDS answers an unknown name with several kinds of error
        raise ConfigError("pool", name, "unknown; must be digits, an .npz file, or a TFDS image-classification set") from None
    try:
        parts = {split: builder.as_data_source(split) for split in ("train", "test") if split in builder.info.splits}
    except Exception as error:
        raise ConfigError("pool", name, f"is not prepared as ArrayRecord under {builder.data_dir} "
                          f"({' '.join(str(error).split())[:120]})") from None
    require(bool(parts), "pool", name, f"is not prepared under {builder.data_dir}: prepare it with TFDS, file_format='array_record'")
    rows = [(row["image"], row["label"], split == "test") for split, part in parts.items() for row in part]
    x, y, test = (np.stack([row[i] for row in rows]) for i in range(3))
    return _pool(name, x, y, test if {"train", "test"} <= parts.keys() else None)


def prepare(
    *,
    pool: str,
    split_by: str,
    train_classes: int,
    heldout_frac: float,
    new_pool: str,
    image_size: int,
    channels: int,
    pca: int,
    seed: int = 0,
) -> Prepared:
    """Splits a pool and makes features of it.

    split_by       class: the first `train_classes` labels are for meta-training, the others are new
                   example: all classes are for meta-training; new is the held-out examples under fresh tasks
                   dataset: as `example`, and new is the test part of `new_pool`
    heldout_frac   examples kept from meta-training where the dataset has no test part of its own
    image_size     side to resize to (0: as they are); channels 1 or 3 (0: as they are; grey is replicated)
    pca            features kept of a PCA fitted on the meta-training images, scaled by one number to unit std;
                   0 keeps the z-scored pixels

    Each dataset is normalised by one scalar mean and std over all its examples and pixels, after resizing.
    A `new_pool` given with any `split_by` replaces the new classes (that is what `eval --pool` does).
    """
    one_of(SPLITS_BY, split_by=split_by)
    fraction(heldout_frac=heldout_frac)
    one_of((0, 1, 3), channels=channels)
    require(image_size >= 0, "image_size", image_size, "must be 0 (as it is) or a side in pixels")
    require(new_pool != "" or split_by != "dataset", "new_pool", new_pool, "must name a pool when split_by=dataset")
    raw = load(pool)
    require(train_classes <= raw.num_classes, "train_classes", train_classes,
            f"must be at most {raw.num_classes}, the classes of pool {pool}")
    require(train_classes >= 2 or split_by != "class", "train_classes", train_classes, "must be at least 2")

    test_N = raw.test_N
    if test_N is None:
        test_N = np.random.default_rng(seed).permutation(len(raw.y_N)) < round(heldout_frac * len(raw.y_N))
    train_class_N = raw.y_N < train_classes if split_by == "class" else np.ones(len(raw.y_N), bool)
    shape = (image_size or raw.x_NX.shape[1], image_size or raw.x_NX.shape[2], channels or raw.x_NX.shape[3])
    pixels_NX = _pixels(raw, shape)
    project = _fit_pca(pixels_NX[train_class_N & ~test_N], pca) if pca else lambda x: x
    features_NX = project(pixels_NX)

    part = lambda keep, labels=raw.y_N, x=features_NX: _part(x, labels, np.flatnonzero(keep))
    other = raw
    if new_pool:
        other = load(new_pool)
        keep = np.ones(len(other.y_N), bool) if other.test_N is None else other.test_N
        new = part(keep, other.y_N, project(_pixels(other, shape)))
    else:
        new = part(~train_class_N if split_by == "class" and not train_class_N.all() else train_class_N & test_N)
    digest = hashlib.sha256("".join([raw.sha256, other.sha256]).encode()).hexdigest()
    return Prepared(part(train_class_N & ~test_N), part(train_class_N & test_N), new,
                    {"train": raw, "heldout": raw, "new": other}, digest)


def _pixels(pool: Pool, shape: tuple[int, int, int]) -> np.ndarray:
    """(N, height * width * channels), resized and z-scored by the dataset's own scalar mean and std."""
    x = pool.x_NX
    if x.shape[1:3] != shape[:2]:
        x = np.einsum("hH,nHWc,wW->nhwc", _resize(x.shape[1], shape[0]), x, _resize(x.shape[2], shape[1]), optimize=True)
    if x.shape[3] != shape[2]:
        x = np.repeat(x.mean(-1, keepdims=True), shape[2], axis=-1)
    x = x.reshape(len(x), -1).astype(np.float32)
    return (x - x.mean(dtype=np.float64).astype(np.float32)) / max(float(x.std(dtype=np.float64)), 1e-8)


def _resize(old: int, new: int) -> np.ndarray:
    """(new, old) weights of antialiased bilinear resampling, rows summing to 1."""
    scale = old / new
    centre = (np.arange(new) + 0.5) * scale - 0.5
    weights = np.maximum(0, 1 - np.abs(np.arange(old)[None] - centre[:, None]) / max(scale, 1))
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


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
