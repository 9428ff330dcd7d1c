"""Sources: every format in which a dataset can lie on disk, read into the same arrays. Never imports TensorFlow."""

import dataclasses
import functools
import gzip
import hashlib
import io
import os
import re
import struct
import zlib
from typing import IO

import numpy as np

from metalearn.datasets import patterns, strokes
from metalearn.datasets.archives import members
from metalearn.datasets.catalogue import canonical, class_split, entries, raw_folder, unlike, values_of
from metalearn.validate import NO_NPZ, ConfigError, nearest, require

CACHE = "metalearn_dataset.npz"  # the arrays of a prepared set, beside its records where it has any
HALVES = ("background", "evaluation")  # of Omniglot's files, characters numbered through
MADE_UP = {"strokes": lambda: (*strokes.draw(), 16, ()),  # (x, y, white, split of each class)
           "textures": lambda: (*patterns.textures(), 255, patterns.SPLIT_V),
           "blobs": lambda: (*patterns.blobs(), 255, patterns.SPLIT_V)}


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


@functools.lru_cache(maxsize=3)  # callers load the splits of one dataset one after another
def read(name: str, root: str, prepared: str, stamp: int = 0) -> Dataset:
    """The dataset `name`: raw files under `root`, else a prepared set under `prepared`. `stamp` only dates a file."""
    if name == "digits":
        from sklearn.datasets import load_digits

        raw = load_digits()
        return make_raw(name, raw.images / 16.0, raw.target, None)
    if name in MADE_UP:
        x, y, white, split_V = MADE_UP[name]()
        return make_raw(name, x / np.float32(white), y, None, split_V=split_V)
    if is_own(name):
        return read_folder(name) if os.path.isdir(name) else _read_npz(name)
    name = canonical(name)
    folder, ready = raw_folder(name, root), prepared_folders(name, prepared)
    raw = read_files(name, folder) if folder else None
    if raw is None and ready:
        raw = read_set(name, ready[0])
    elif raw is None and folder:
        raw = read_archives(name, folder)
    if raw is not None:
        return checked(name, raw)
    names = made_or_listed()
    hint, error = ("", Absent) if name in entries() else (nearest(name, names), ConfigError)
    where = f"no raw files under {os.path.abspath(root)}" if root else "METALEARN_DATA is not set"
    raise error("dataset", name, f"is not here ({where}, not prepared under {prepared}); "
                      f"prepare it: metalearn datasets prepare {name}; known: {', '.join(names)}{hint}")


def is_own(name: str) -> bool:
    """Whether a name is that of a person's own data: an .npz, or a folder of images by its path."""
    return name.endswith(".npz") or name not in made_or_listed() and os.path.isdir(name)


def made_or_listed() -> tuple[str, ...]:
    """Every name that `read` knows: built in, made up, or of the catalogue."""
    return ("digits", *MADE_UP, *entries())


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
        digest.update(b"" if part is None else np.ascontiguousarray(part))
    x.flags.writeable = y.flags.writeable = False  # shared by everyone who loads the dataset
    class_V, source_V = class_V or tuple(str(v) for v in labels), source_V or (name,) * len(labels)
    need(len(class_V) == len(source_V) == len(labels), f"has {len(labels)} classes; {len(class_V)} are named")
    return Dataset(name, x, y, test, class_V, source_V, note, digest.hexdigest(), split_V)


def checked(name: str, raw: Dataset) -> Dataset:
    """`raw`, if its mean, std and class counts are the committed ones of that dataset."""
    problem = unlike(name, values_of(raw.x_NX, raw.y_N, raw.test_N), part=raw.note != "")
    require(not problem, "dataset", name, f"holds other data than its name says: {problem}; remove it and get it anew")
    return raw


# --- numpy files ----------------------------------------------------------------------------------------------------


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


def _read_npz(path: str) -> Dataset:
    found = open_npz(path, "x", "y", perhaps=("x_test", "y_test"))
    if len(found) < 4:
        return make_raw(path, found["x"], found["y"], None)
    x, y, x_test, y_test = found.values()
    require(x.shape[1:] == x_test.shape[1:], "dataset", path, f"x has shape {x.shape} and x_test {x_test.shape}")
    test = np.arange(len(y) + len(y_test)) >= len(y)
    return make_raw(path, np.concatenate([x, x_test]), np.concatenate([y, y_test]), test)


def read_folder(path: str, image_size: int = 0) -> Dataset:
    """Images by class: CLASS/*.png, or {train,val,test}/CLASS/*.png, where classes that differ between the parts are
    the class split and those of `test` else are test examples. Links are not followed.

    image_size   side to scale to; 0: as they are, or where sizes differ the smallest side of all
    """
    from PIL import Image

    below = lambda *parts: sorted(e.name for e in os.scandir(os.path.join(path, *parts)) if not e.is_symlink())
    folders = lambda *parts: [n for n in below(*parts) if os.path.isdir(os.path.join(path, *parts, n))]
    splits = [s for s in ("train", "val", "test") if s in folders()]
    splits = splits if set(folders()) == set(splits) else [""]
    found = [(part, label, file) for part, split in enumerate(splits) for label in folders(split)
             for file in below(split, label) if file.lower().endswith((".png", ".jpg", ".jpeg", ".bmp", ".gif"))]
    require(bool(found), "dataset", path, "holds no CLASS/*.png (jpg, bmp, gif), nor {train,val,test}/CLASS/*.png")
    images = []
    for part, label, file in found:
        file = os.path.join(path, splits[part], label, file)
        try:
            with Image.open(file) as image:
                images.append(image.convert("L" if image.mode in ("1", "L", "I;16") else "RGB"))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise ConfigError("dataset", file, f"is not a readable image ({error})") from None
    mode = "RGB" if any(i.mode == "RGB" for i in images) else "L"
    alike = len({i.size for i in images}) == 1 and not image_size
    size = images[0].size if alike else (image_size or min(min(i.size) for i in images),) * 2
    x = np.stack([np.asarray(i.convert(mode).resize(size, Image.Resampling.BILINEAR)) for i in images])
    part, y = np.array([f[0] for f in found]), np.array([f[1] for f in found])
    test, split_V = _division(y, part, splits)
    return make_raw(path, x, y, test, split_V=split_V)


# --- original files -------------------------------------------------------------------------------------------------


def read_files(name: str, folder: str) -> Dataset | None:
    """Files that are read as fast as a prepared set, arrays of Omniglot and idx files; None where they are not."""
    if name == "omniglot" and os.path.isfile(os.path.join(folder, "images_background.npz")):
        return _read_omniglot(folder)
    if stems := idx_stems(folder):
        return _from_idx(name, {key: read_idx(os.path.join(folder, stem)) for key, stem in stems.items()})
    return None


def read_archives(name: str, folder: str) -> Dataset | None:
    """Files as they are given out, which take longer, and the part of CIFAR-FS; None where they are not there."""
    at = lambda file: os.path.join(folder, file)
    if name == "omniglot" and os.path.isfile(at("images_background.zip")):
        return _read_drawings([at(f"images_{half}.zip") for half in HALVES])
    if name == "emnist/letters" and os.path.isfile(at("gzip.zip")):
        stems = {f"{part}_{key}": f"emnist-letters-{part}-{kind}-ubyte.gz" for part in ("train", "test")
                 for key, kind in (("x", "images-idx3"), ("y", "labels-idx1"))}
        packed = {os.path.basename(member): io.BytesIO(data) for member, data in members(
            at("gzip.zip"), lambda n: os.path.basename(n) in stems.values())}
        return _from_idx(name, {key: read_idx(stem, packed[stem]) for key, stem in stems.items()})
    if name == "cifar_fs" and os.path.isfile(at("cifar-100-binary.tar.gz")):
        parts = members(at("cifar-100-binary.tar.gz"), lambda n: n.endswith(("/train.bin", "/test.bin")))
        row_ND = np.concatenate([np.frombuffer(data, np.uint8).reshape(-1, 3074) for _, data in parts])
        x = np.ascontiguousarray(row_ND[:, 2:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))  # behind two labels
        names = sorted(c for classes in class_split(name)["classes"].values() for c in classes)  # as CIFAR-100 has them
        return make_raw(name, x, row_ND[:, 1], None, tuple(names), order=True)
    if name == "cifar_fs" and os.path.isfile(at("cifar_fs_100.npz")):
        return _read_cifar_fs(at("cifar_fs_100.npz"))
    return None


def _read_omniglot(folder: str) -> Dataset:
    """The complete set: label = character id - 1; stored True = paper, here 1 = ink."""
    parts = [open_npz(os.path.join(folder, f"images_{half}.npz"), "images")["images"] for half in HALVES]
    for part in parts:
        require(part.ndim == 4 and part.dtype == bool, "dataset", "omniglot",
                f"images are {part.dtype}{list(part.shape)}; must be bool (characters, drawings, height, width)")
    x = ~np.concatenate([part.reshape(-1, *part.shape[2:]) for part in parts])
    y = np.repeat(np.arange(sum(len(part) for part in parts)), parts[0].shape[1])
    return make_raw("omniglot", x, y, None, *omniglot_names(), order=True)


def _read_drawings(paths: list[str]) -> Dataset:
    """The same from the archives of ALPHABET/characterNN/IIII_DD.png with 0 = ink; IIII is the character's id."""
    from PIL import Image

    drawn = re.compile(r".*(\d{4})_\d{2}\.png")
    wanted = lambda n: drawn.fullmatch(n) is not None and "__MACOSX" not in n
    found = [pair for path in paths for pair in members(path, wanted)]
    x = np.stack([np.asarray(Image.open(io.BytesIO(data)).convert("L")) < 128 for _, data in found])
    y = np.array([int(drawn.fullmatch(name)[1]) - 1 for name, _ in found])
    return make_raw("omniglot", x, y, None, *omniglot_names(), order=True)


@functools.cache
def omniglot_names() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(alphabet/characterNN, alphabet) of every character id from 1 on."""
    alphabets = class_split("omniglot")["alphabets"]
    names = [(f"{a}/character{i - first + 1:02d}", a) for a, first, last in alphabets for i in range(first, last + 1)]
    return tuple(n for n, _ in names), tuple(a for _, a in names)


def _read_cifar_fs(path: str) -> Dataset:
    images, names = open_npz(path, "images", "class_names").values()
    require(images.ndim == 5 and len(images) == len(names), "dataset", path,
            f"images have shape {images.shape} for {len(names)} classes")
    y = np.repeat(np.arange(len(images)), images.shape[1])
    return make_raw("cifar_fs", images.reshape(-1, *images.shape[2:]), y, None, tuple(str(n) for n in names),
                    note=f"{images.shape[1]} of the 600 images of each class", order=True)


def idx_stems(folder: str) -> dict[str, str] | None:
    """The file names of a folder in MNIST's format, whatever stands before 'train-images'."""
    if not os.path.isdir(folder):
        return None
    for file in sorted(os.listdir(folder)):
        if match := re.fullmatch(r"(.*)train-images-idx3-ubyte\.gz", file):
            image, label = "-images-idx3-ubyte.gz", "-labels-idx1-ubyte.gz"
            test = match[1] + "test"
            test = test if os.path.isfile(os.path.join(folder, test + image)) else match[1] + "t10k"
            return dict(train_x=file, train_y=match[1] + "train" + label, test_x=test + image, test_y=test + label)
    return None


def _from_idx(name: str, part: dict[str, np.ndarray]) -> Dataset:
    x = np.concatenate([part["train_x"], part["test_x"]])
    y = np.concatenate([part["train_y"], part["test_y"]]).astype(np.int32)
    x = x.swapaxes(1, 2) if name.startswith("emnist") else x  # stored transposed, in the official files and in TFDS
    return make_raw(name, x, y, np.arange(len(y)) >= len(part["train_y"]), _class_names(name), order=True)


def _class_names(name: str) -> tuple[str, ...] | None:
    names = entries().get(name, {}).get("class_names")
    return tuple(names) if names else None


def read_idx(path: str, packed: IO[bytes] | None = None) -> np.ndarray:
    """The array of one gzipped idx file of unsigned bytes, or of `packed`, what it holds."""
    require(packed is not None or os.path.isfile(path), "dataset", path, "no such file")
    try:
        with gzip.open(packed or path) as file:
            zero, kind, rank = struct.unpack(">HBB", file.read(4))
            shape = struct.unpack(f">{rank}I", file.read(4 * rank))
            data = np.frombuffer(file.read(), np.uint8)
    except (OSError, EOFError, struct.error, zlib.error) as error:
        raise ConfigError("dataset", path, f"is not a readable gzipped idx file ({error})") from None
    require(zero == 0 and kind == 8 and data.size == np.prod(shape, dtype=np.int64), "dataset", path,
            f"is not an idx file of unsigned bytes: header says {shape}, body has {data.size} bytes")
    return data.reshape(shape)


# --- prepared sets --------------------------------------------------------------------------------------------------


def prepared_folders(name: str, prepared: str) -> list[str]:
    """Folders of the prepared sets that can serve as `name`, best first; of each the highest version."""
    found = []
    for set_name in entries().get(name, {}).get("prepared", [name]):
        folder = os.path.join(prepared, set_name)
        versions = [v for v in (os.listdir(folder) if os.path.isdir(folder) else ())
                    if re.fullmatch(r"\d+\.\d+\.\d+", v)]
        versions = [v for v in versions if os.path.isfile(os.path.join(folder, v, "dataset_info.json"))]
        if versions:
            found.append(os.path.join(folder, max(versions, key=lambda v: [int(n) for n in v.split(".")])))
    return found


def read_set(name: str, folder: str) -> Dataset:
    """A prepared set: the arrays that are kept in it, else its records."""
    return read_cache(name, folder) or read_prepared(name, folder)


def read_prepared(name: str, folder: str) -> Dataset:
    """A set that TFDS prepared as ArrayRecord. Class splits (of omniglot, cifar_fs, images/...) are not test parts."""
    name = canonical(name)
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(folder)
        splits = [s for s in ("train", "validation", "test") if s in builder.info.splits]
        rows = [(row["image"], row["label"], i) for i, split in enumerate(splits)
                for row in builder.as_data_source(split)]
        x, y, part = (np.stack([row[i] for row in rows]) for i in range(3))
        names = tuple(builder.info.features["label"].names or ())
    except Exception as error:  # TFDS, array_record and the image decoder each have errors of their own
        raise ConfigError("dataset", name, f"the set under {folder} cannot be read ({type(error).__name__}: "
                          f"{' '.join(str(error).split())[:160]}); remove that folder and prepare it again: "
                          f"metalearn datasets prepare {name}") from None
    y = y.astype(np.int64)
    test, split_V = _division(y, part, splits)
    if name == "omniglot":
        return make_raw(name, x[..., :1] < 128, y, None, *omniglot_names(), order=True)
    if name == "cifar_fs":
        per_class = np.bincount(y).max()
        note = f"{per_class} of the 600 images of each class" if per_class < 600 else ""
        return make_raw(name, x, y, None, names, note=note, order=True)
    x = x.swapaxes(1, 2) if name.startswith("emnist") else x
    seen = np.unique(y)
    names = _class_names(name) or (tuple(names[v] for v in seen) if len(names) > seen.max() else None)
    return make_raw(name, x, y, test, names, order=True, split_V=split_V)


def write_cache(raw: Dataset, folder: str) -> None:
    """Leaves the arrays beside the records: decoding 70,000 images takes ten seconds, reading this takes one."""
    np.savez(os.path.join(folder, CACHE), x=raw.x_NX, y=raw.y_N, class_V=raw.class_V, source_V=raw.source_V,
             split_V=np.array(raw.split_V, str), note=raw.note, sha256=raw.sha256,
             **({} if raw.test_N is None else {"test": raw.test_N}))


def read_cache(name: str, folder: str) -> Dataset | None:
    """What `write_cache` left, if it did; its hash is verified."""
    path = os.path.join(folder, CACHE)
    if not os.path.isfile(path):
        return None
    found = open_npz(path, "x", "y", "class_V", "source_V", "split_V", "note", "sha256", perhaps=("test",))
    class_V, source_V, split_V = (tuple(map(str, found[part])) for part in ("class_V", "source_V", "split_V"))
    raw = make_raw(name, found["x"], found["y"], found.get("test"), class_V, source_V, str(found["note"]),
                   split_V=split_V)
    require(raw.sha256 == str(found["sha256"]), "dataset", name,
            f"{path} is damaged; remove it (the records beside it remain)")
    return raw


def _division(y: np.ndarray, part: np.ndarray, splits: list[str]) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """(which examples are for testing, the split of each class): the second where no class is in two splits and there
    are two, else the first, where one split is the test's; None and () where there is no such thing."""
    pairs = sorted(set(zip(y.tolist(), part.tolist(), strict=True)))
    if len(splits) > 1 and len(pairs) == len(set(y.tolist())):
        return None, tuple({"validation": "val"}.get(splits[i], splits[i]) for _, i in pairs)
    return part == splits.index("test") if len(splits) > 1 and "test" in splits else None, ()
