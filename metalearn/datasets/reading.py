"""Reading datasets: by name or by file, whole or the classes of one split."""

import dataclasses
import hashlib
import os
import re

import numpy as np

from metalearn.datasets import sources
from metalearn.datasets.catalogue import class_split, data_root, prepared_root
from metalearn.datasets.dataset import Dataset
from metalearn.validate import given, nearest, require

SPLITS = ("train", "val", "test")


def load(name: str, shape: tuple[int, int, int] | None = None) -> Dataset:
    """The whole dataset `name` (see the package's list), its images resized to `shape`, or as they are.

    ConfigError when unknown, absent or malformed.
    """
    raw = _raw(name)
    x_NX = _float(raw.x_NX) if shape is None else reshape_images(raw.x_NX, np.arange(len(raw.x_NX)), shape)
    return dataclasses.replace(raw, name=name, x_NX=x_NX)


def raw_shape(name: str) -> tuple[int, int, int]:
    """(height, width, channels) of a dataset's images as they are."""
    return _raw(name).x_NX.shape[1:]


def load_classes(name: str, split: str, image_size: int = 0, channels: int = 0) -> Dataset:
    """The classes of one split, labelled anew from 0 in the order of the dataset's classes.

    split       train, val or test of the dataset's committed class split (omniglot: Vinyals; cifar_fs: CIFAR-FS's own);
                of data of one's own three fifths, one and one, by a fixed draw; for every dataset `all`, or
                `classes:0-4,7` by label
    image_size  side to resize to, antialiased (0: as they are)
    channels    1 or 3 (0: as they are); colour to grey by the mean, grey to colour by copies
    """
    parse_split(split)
    raw = _raw(name)
    keep_V, split_sha256 = _split_labels(name, split, raw)
    rows = np.flatnonzero(np.isin(raw.y_N, keep_V))
    y_N = np.searchsorted(keep_V, raw.y_N[rows]).astype(np.int32)
    shape = target_shape(name, raw.x_NX.shape[1:], image_size, channels)
    digest = hashlib.sha256(f"{raw.sha256} {keep_V.tolist()} {shape}".encode()).hexdigest()
    pick = lambda names: tuple(names[v] for v in keep_V)
    return Dataset(name, reshape_images(raw.x_NX, rows, shape), y_N, None if raw.test_N is None else raw.test_N[rows],
                   pick(raw.class_V), pick(raw.source_V), raw.note, digest, split_sha256=split_sha256)


def _raw(name: str) -> Dataset:
    stamp = os.stat(name).st_mtime_ns if sources.is_own(name) and os.path.exists(name) else 0
    return sources.read(name, data_root(), prepared_root(), stamp)


def parse_split(split: str) -> list[int] | None:
    """The labels of `classes:0-4,7`; None for a named split; ConfigError for anything else."""
    if split in (*SPLITS, "all"):
        return None
    hint = nearest(split, (*SPLITS, "all"))
    match = given(re.fullmatch(r"classes:(\d+(-\d+)?(,\d+(-\d+)?)*)", split), "split", split,
                  f"must be train, val, test, all or classes:FIRST-LAST[,...]{hint}")
    labels: set[int] = set()
    for part in match[1].split(","):
        first, _, last = part.partition("-")
        require(int(first) <= int(last or first) < 100_000, "split", split, f"{part} runs backwards or is too long")
        labels |= set(range(int(first), int(last or first) + 1))
    return sorted(labels)


def _split_labels(name: str, split: str, raw: Dataset) -> tuple[np.ndarray, str]:
    """The labels of a split, ascending, and the hash of the class split ('' for ranges)."""
    labels, digest, class_V = parse_split(split), "", raw.class_V
    if split == "all":
        labels = range(len(class_V))
    if labels is None and raw.split_V:
        digest = hashlib.sha256(repr(list(zip(class_V, raw.split_V, strict=True))).encode()).hexdigest()
        labels = [v for v, part in enumerate(raw.split_V) if part == split]
        require(labels != [], "split", split, f"dataset {name} has no class in this split")
    if labels is None and sources.is_own(name):  # a person's own classes: a fifth each for val and test, drawn once
        require(len(class_V) >= 5, "split", split, f"dataset {name} has {len(class_V)} classes: 5 make three parts")
        fifth, order = len(class_V) // 5, np.random.default_rng(0).permutation(len(class_V))
        labels = np.split(order, [-2 * fifth, -fifth])[SPLITS.index(split)].tolist()
    if labels is None:
        committed = given(class_split(name), "split", split, f"dataset {name} has no committed class split; take "
                          f"classes:FIRST-LAST out of 0-{len(class_V) - 1}")
        digest, label_of = committed["sha256"], {c: v for v, c in enumerate(class_V)}
        # a class is written as its name, or as its number from 1
        labels = [c - 1 if isinstance(c, int) else label_of[c] for c in committed["classes"][split]]
    require(max(labels) < len(class_V), "split", split, f"dataset {name} has classes 0-{len(class_V) - 1}")
    return np.array(sorted(labels)), digest


def _float(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32) / np.float32(255.0 if x.dtype == np.uint8 else 1.0)


def target_shape(name: str, have: tuple[int, ...], image_size: int, channels: int) -> tuple[int, int, int]:
    """(height, width, channels) of dataset `name` after resizing; ConfigError where its inputs are no pictures.

    A dataset of (N, features) is stored as pictures of one row: resizing them would mix unrelated features.
    """
    require(have[0] > 1 or image_size == 0, "image_size", image_size,
            f"must be 0: dataset {name} has plain features, which cannot be resized")
    require(0 <= image_size <= 4096, "image_size", image_size, "must be 0 (as it is) or a side, at most 4096 pixels")
    require(channels in (0, 1, 3), "channels", channels, "must be 0 (as they are), 1 or 3")
    return image_size or have[0], image_size or have[1], channels or have[2]


def reshape_images(x: np.ndarray, rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The images `rows` of (N, H, W, C) as floats of `shape`.

    Resized by antialiased bilinear weights; colour to grey by the mean, grey to colour by copies.
    """
    high, wide = _resize(x.shape[1], shape[0]), _resize(x.shape[2], shape[1])
    out = np.empty((len(rows), *shape), np.float32)
    for i in range(0, len(rows), 2048):  # in pieces, so that the full-size floats never exist at once
        part = _float(x[rows[i:i + 2048]])
        if part.shape[1:3] != shape[:2]:
            part = np.einsum("hH,nHWc,wW->nhwc", high, part, wide, optimize=True)
        out[i:i + 2048] = part if part.shape[3] == shape[2] else part.mean(-1, keepdims=True)
    return out


def _resize(old: int, new: int) -> np.ndarray:
    """(new, old) weights of antialiased bilinear resampling, rows summing to 1."""
    scale = old / new
    centre = (np.arange(new) + 0.5) * scale - 0.5
    weights = np.maximum(0, 1 - np.abs(np.arange(old)[None] - centre[:, None]) / max(scale, 1))
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)
