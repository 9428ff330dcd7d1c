"""Original files: arrays and archives as a dataset's authors give them out, read without TensorFlow."""

import functools
import gzip
import io
import os
import re
import struct
import zlib
from typing import IO

import numpy as np

from metalearn.datasets.archives import members
from metalearn.datasets.catalogue import class_split, entries
from metalearn.datasets.dataset import Dataset, make_raw, open_npz
from metalearn.validate import ConfigError, require

HALVES = ("background", "evaluation")  # of Omniglot's files, characters numbered through


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
        split = (class_split(name) or {})["classes"]
        names = sorted(c for classes in split.values() for c in classes)  # as CIFAR-100 has them
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
    y = np.array([int(drawn.findall(name)[0]) - 1 for name, _ in found])
    return make_raw("omniglot", x, y, None, *omniglot_names(), order=True)


@functools.cache
def omniglot_names() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(alphabet/characterNN, alphabet) of every character id from 1 on."""
    alphabets = (class_split("omniglot") or {})["alphabets"]
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
    return make_raw(name, x, y, np.arange(len(y)) >= len(part["train_y"]), class_names(name), order=True)


def class_names(name: str) -> tuple[str, ...] | None:
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
