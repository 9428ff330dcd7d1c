"""Sources: a dataset by name or path, from wherever it is: built in, one's own, original files, a prepared set."""

import functools
import os
import re
from typing import Any

import numpy as np

from metalearn.datasets import patterns, strokes
from metalearn.datasets.catalogue import canonical, entries, raw_folder
from metalearn.datasets.dataset import Absent, Dataset, checked, division, make_raw, open_npz
from metalearn.datasets.originals import class_names, omniglot_names, read_archives, read_files
from metalearn.validate import ConfigError, nearest, require

CACHE = "metalearn_dataset.npz"  # the arrays of a prepared set, beside its records where it has any
MADE_UP = {"strokes": lambda: (*strokes.draw(), 16, ()),  # (x, y, white, split of each class)
           "textures": lambda: (*patterns.textures(), 255, patterns.SPLIT_V),
           "blobs": lambda: (*patterns.blobs(), 255, patterns.SPLIT_V)}


@functools.lru_cache(maxsize=3)  # callers load the splits of one dataset one after another
def read(name: str, root: str, prepared: str, stamp: int = 0) -> Dataset:
    """The dataset `name`: raw files under `root`, else a prepared set under `prepared`. `stamp` only dates a file."""
    if name == "digits":
        from sklearn.datasets import load_digits

        raw: Any = load_digits()
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


# --- numpy files ----------------------------------------------------------------------------------------------------


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
    test, split_V = division(y, part, splits)
    return make_raw(path, x, y, test, split_V=split_V)


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
                for row in builder.as_data_source(split)]  # pyright: ignore[reportCallIssue]: decorated
        x, y, part = (np.stack([row[i] for row in rows]) for i in range(3))
        features: Any = builder.info.features
        names = tuple(features["label"].names or ())
    except Exception as error:  # TFDS, array_record and the image decoder each have errors of their own
        raise ConfigError("dataset", name, f"the set under {folder} cannot be read ({type(error).__name__}: "
                          f"{' '.join(str(error).split())[:160]}); remove that folder and prepare it again: "
                          f"metalearn datasets prepare {name}") from None
    y = y.astype(np.int64)
    test, split_V = division(y, part, splits)
    if name == "omniglot":
        return make_raw(name, x[..., :1] < 128, y, None, *omniglot_names(), order=True)
    if name == "cifar_fs":
        per_class = np.bincount(y).max()
        note = f"{per_class} of the 600 images of each class" if per_class < 600 else ""
        return make_raw(name, x, y, None, names, note=note, order=True)
    x = x.swapaxes(1, 2) if name.startswith("emnist") else x
    seen = np.unique(y)
    names = class_names(name) or (tuple(names[v] for v in seen) if len(names) > seen.max() else None)
    return make_raw(name, x, y, test, names, order=True, split_V=split_V)


def write_cache(raw: Dataset, folder: str) -> None:
    """Leaves the arrays beside the records: decoding 70,000 images takes ten seconds, reading this takes one."""
    perhaps: dict[str, Any] = {} if raw.test_N is None else {"test": raw.test_N}
    np.savez(os.path.join(folder, CACHE), x=raw.x_NX, y=raw.y_N, class_V=raw.class_V, source_V=raw.source_V,
             split_V=np.array(raw.split_V, str), note=raw.note, sha256=raw.sha256, **perhaps)


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
