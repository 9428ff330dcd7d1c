"""What every dataset is read into, whatever its format on disk: checked arrays with a hash."""

import dataclasses
import hashlib
import os

import numpy as np

from metalearn.datasets.catalogue import unlike, values_of
from metalearn.validate import NO_NPZ, ConfigError, require


class Absent(ConfigError):
    """A dataset with a known name that is not on this machine."""


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Images of one dataset, the same from every source.

    x_NX          (N, height, width, channels): uint8, bool or float as they lie on disk; f32 in [0, 1] of `load`
    y_N           int32 from 0
    test_N        bool, the dataset's own test examples; None where it makes no such division
    class_V       name of each class
    source_V      where each class comes from: the alphabet of an Omniglot character, else the dataset's name
    note          what a reader of the numbers must know ('100 of the 600 images of each class'), or ''
    sha256        of pixels, labels and what was done to them, so that a result can say what it was measured on
    split_V       train, val or test of each class, where the dataset itself divides its classes
    split_sha256  hash of the committed class split that the classes were taken from, or ''
    """

    name: str
    x_NX: np.ndarray
    y_N: np.ndarray
    test_N: np.ndarray | None
    class_V: tuple[str, ...]
    source_V: tuple[str, ...]
    note: str
    sha256: str
    split_V: tuple[str, ...] = ()
    split_sha256: str = ""

    @property
    def num_classes(self) -> int:
        return int(self.y_N.max()) + 1


def make_raw(name, x, y, test, class_V=None, source_V=None, note="", order=False, split_V=()) -> Dataset:
    """Checks shapes and types, numbers the classes from 0; `order` puts the examples into an order of their own.

    TFDS shuffles what it prepares. Ordered by (test, class, pixels), a dataset has the same bits from every source.
    """
    need = lambda ok, problem: require(ok, "dataset", name, problem)
    x, y = np.asarray(x), np.asarray(y)
    need(len(x) == len(y) > 0, f"has {len(x)} images and {len(y)} labels; both must be equal and above 0")
    need(x.ndim in (2, 3, 4), f"x has shape {x.shape}; must be (N, features) or (N, height, width[, channels])")
    need(y.dtype.kind in "uiUS" and y.ndim == 1, f"y is {y.dtype}{list(y.shape)}; must be integers or text, (N,)")
    y = np.char.decode(y, "utf-8", "replace") if y.dtype.kind == "S" else y
    need(x.dtype.kind in "buif", f"x is {x.dtype}; must be numbers")
    need(x.dtype.kind != "f" or bool(np.isfinite(x).all()), "x holds NaN or infinite values")
    low, high = x.min(), x.max()
    need(low < high, f"all values of x are {low}: nothing to learn from")
    need(max(-float(low), float(high)) <= 1e18, f"x reaches from {low:.3g} to {high:.3g}; squares must fit float32")
    if x.ndim == 2:  # plain features are one row of pixels
        x = x[:, None, :]
    if x.ndim == 3:
        x = x[..., None]
    labels, y = np.unique(y, return_inverse=True)
    need(len(labels) >= 2, "has a single class; at least 2 are needed")
    y, test = y.astype(np.int32), None if test is None else np.asarray(test, bool)
    if order:
        bytes_N = np.ascontiguousarray(x).reshape(len(x), -1).view(f"V{x[0].nbytes}")[:, 0]
        index = np.argsort(bytes_N, kind="stable")
        index = index[np.lexsort((y[index], np.zeros(len(y)) if test is None else test[index]))]
        x, y, test = x[index], y[index], None if test is None else test[index]
    digest = hashlib.sha256(f"{x.dtype} {x.shape}".encode())
    for part in (x, y, test):
        if part is not None:
            digest.update(np.ascontiguousarray(part))  # pyright: ignore[reportArgumentType]: an array is a buffer
    x.flags.writeable = y.flags.writeable = False  # shared by everyone who loads the dataset
    class_V, source_V = class_V or tuple(str(v) for v in labels), source_V or (name,) * len(labels)
    need(len(class_V) == len(source_V) == len(labels), f"has {len(labels)} classes; {len(class_V)} are named")
    return Dataset(name, x, y, test, class_V, source_V, note, digest.hexdigest(), split_V)


def checked(name: str, raw: Dataset) -> Dataset:
    """`raw`, if its mean, std and class counts are the committed ones of that dataset."""
    problem = unlike(name, values_of(raw.x_NX, raw.y_N, raw.test_N), part=raw.note != "")
    require(not problem, "dataset", name, f"holds other data than its name says: {problem}; remove it and get it anew")
    return raw


def open_npz(path: str, *names: str, perhaps: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """Arrays of an .npz, without pickle; those of `perhaps` that are there too."""
    require(os.path.isfile(path), "dataset", path, "no such file")
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [n for n in names if n not in file.files]
            require(not missing, "dataset", path,
                    f"must hold arrays {' and '.join(names)}; it has {sorted(file.files)}")
            return {n: file[n] for n in (*names, *perhaps) if n in file.files}
    except ConfigError:
        raise
    except NO_NPZ as error:
        raise ConfigError("dataset", path, f"is not a readable .npz ({error})") from None


def division(y: np.ndarray, part: np.ndarray, splits: list[str]) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """(which examples are for testing, the split of each class): the second where no class is in two splits and there
    are two, else the first, where one split is the test's; None and () where there is no such thing."""
    pairs = sorted(set(zip(y.tolist(), part.tolist(), strict=True)))
    if len(splits) > 1 and len(pairs) == len(set(y.tolist())):
        return None, tuple("val" if splits[i] == "validation" else splits[i] for _, i in pairs)
    return part == splits.index("test") if len(splits) > 1 and "test" in splits else None, ()
