"""Builders for what TensorFlow Datasets lacks. Imported by `preparing` alone; writing records needs TensorFlow.

  metalearn_omniglot        all 1,623 characters with alphabet and drawer; splits are Vinyals' classes
  metalearn_cifar_fs        CIFAR-FS's classes of CIFAR-100; from the complete archive, or from 100 images per class
  metalearn_emnist_letters  all 145,600 letters (TFDS's own leaves out 42,000)

Each takes the files of one of the alternatives in catalogue.json, found by name in `source`.
"""

import io
import os
import re

import numpy as np
import tensorflow_datasets as tfds

from metalearn.datasets.archives import members
from metalearn.datasets.catalogue import class_split, entries
from metalearn.datasets.sources import idx_stems, omniglot_names, open_npz, read_idx

PARTS = {"train": "train", "val": "validation", "test": "test"}


class _Builder(tfds.core.GeneratorBasedBuilder):
    """What the builders share: they read files that have been verified, from the folder `source`."""

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "metalearn datasets check says which files and where from"
    TITLE, SHAPE, EXTRA = "", (None, None, 1), {}

    def __init__(self, *, source: str = "", **kw):
        self.source = source
        super().__init__(**kw)

    def _names(self) -> list[str]:
        raise NotImplementedError

    def _info(self):
        label = tfds.features.ClassLabel(names=self._names())
        image = tfds.features.Image(shape=self.SHAPE, encoding_format="png")
        features = tfds.features.FeaturesDict({"image": image, "label": label, **self.EXTRA})
        return tfds.core.DatasetInfo(builder=self, description=self.TITLE, features=features)

    def _generate_examples(self):  # an abstract method of TFDS; `_split_generators` gives generators instead
        raise NotImplementedError

    def _path(self, name: str) -> str:
        return os.path.join(self.source, name)

    def _has(self, name: str) -> bool:
        return os.path.isfile(self._path(name))


def _by_class(rows, committed):
    """{split: generator} of the rows (key, class, record) whose class the committed split puts there."""

    def of(classes):
        return ((key, record) for key, c, record in rows() if c in classes)

    return {PARTS[split]: of(classes) for split, classes in committed.items()}


class MetalearnOmniglot(_Builder):
    TITLE, SHAPE = "Omniglot, complete, by Vinyals' class split; 0 is ink", (105, 105, 1)
    EXTRA = {"alphabet": tfds.features.Text(), "drawer": np.int64}

    def _names(self):
        return list(omniglot_names()[0])

    def _split_generators(self, dl_manager):
        committed = {s: set(ids) for s, ids in class_split("omniglot")["classes"].items()}
        return _by_class(self._rows, committed)

    def _rows(self):
        alphabets = omniglot_names()[1]
        for number, drawer, image in self._drawings():
            yield f"{number:04d}_{drawer:02d}", number, {
                "image": image, "label": number - 1, "alphabet": alphabets[number - 1], "drawer": drawer}

    def _drawings(self):
        """(character from 1, drawer from 1, uint8 with 0 = ink)."""
        number = 0
        if self._has("images_background.npz"):
            for part in ("background", "evaluation"):
                for drawings in open_npz(self._path(f"images_{part}.npz"), "images")[0]:
                    number += 1
                    for drawer, image in enumerate(drawings, 1):
                        yield number, drawer, image[..., None].astype(np.uint8) * 255
            return
        from PIL import Image

        for part in ("background", "evaluation"):
            for name, data in members(self._path(f"images_{part}.zip"), lambda n: n.endswith(".png")):
                match = re.search(r"(\d{4})_(\d{2})\.png$", name)
                if match and "__MACOSX" not in name:
                    image = np.asarray(Image.open(io.BytesIO(data)).convert("L"))
                    yield int(match[1]), int(match[2]), np.where(image < 128, 0, 255).astype(np.uint8)[..., None]


class MetalearnCifarFs(_Builder):
    TITLE, SHAPE = "CIFAR-FS: CIFAR-100 by Bertinetto's class split", (32, 32, 3)

    def _names(self):
        return sorted(c for classes in class_split("cifar_fs")["classes"].values() for c in classes)

    def _split_generators(self, dl_manager):
        return _by_class(self._rows, {s: set(c) for s, c in class_split("cifar_fs")["classes"].items()})

    def _rows(self):
        names = self._names()  # CIFAR-100 numbers its classes in this alphabetical order
        if self._has("cifar_fs_100.npz"):
            images, own = open_npz(self._path("cifar_fs_100.npz"), "images", "class_names")
            for name, of_class in zip(own, images, strict=True):
                for i, image in enumerate(of_class):
                    yield f"{name}_{i}", str(name), {"image": image, "label": str(name)}
            return
        wanted = lambda n: n.endswith(("/train.bin", "/test.bin"))
        for member, data in members(self._path("cifar-100-binary.tar.gz"), wanted):
            for i, row in enumerate(np.frombuffer(data, np.uint8).reshape(-1, 3074)):
                image = np.ascontiguousarray(row[2:].reshape(3, 32, 32).transpose(1, 2, 0))
                yield f"{os.path.basename(member)}_{i}", names[row[1]], {"image": image, "label": names[row[1]]}


class MetalearnEmnistLetters(_Builder):
    TITLE, SHAPE = "EMNIST letters, complete, transposed as in the official files", (28, 28, 1)

    def _names(self):
        return entries()["emnist/letters"]["class_names"]

    def _split_generators(self, dl_manager):
        return {part: self._rows(part) for part in ("train", "test")}

    def _rows(self, part):
        x, y = (self._array(f"emnist-letters-{part}-{stem}-ubyte.gz") for stem in ("images-idx3", "labels-idx1"))
        for i in range(len(y)):
            yield i, {"image": x[i][..., None], "label": int(y[i]) - 1}

    def _array(self, name):
        if idx_stems(self.source) and self._has(name):
            return read_idx(self._path(name))
        data = next(members(self._path("gzip.zip"), lambda n: n.endswith("/" + name)))[1]
        return read_idx(name, io.BytesIO(data))


OWN = {"omniglot": MetalearnOmniglot, "cifar_fs": MetalearnCifarFs, "emnist/letters": MetalearnEmnistLetters}
