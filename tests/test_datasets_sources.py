"""Every form on disk, with tiny files made here: read right, or refused in one line."""

import dataclasses
import gzip
import io
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pytest

from metalearn import datasets
from metalearn.datasets import catalogue, dataset, originals, sources
from metalearn.validate import ConfigError

pytestmark = pytest.mark.usefixtures("data_only")

GOLDEN = __file__.replace("test_datasets_sources.py", "golden/datasets")


def write_idx(path, array):
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    with gzip.open(path, "wb") as file:
        file.write(header + array.astype(np.uint8).tobytes())


def idx_folder(folder, seed=0, prefix="", test="t10k"):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 256, (30, 6, 5)), np.arange(30) % 3
    for part, rows in (("train", slice(0, 21)), (test, slice(21, 30))):
        write_idx(folder / f"{prefix}{part}-images-idx3-ubyte.gz", x[rows])
        write_idx(folder / f"{prefix}{part}-labels-idx1-ubyte.gz", y[rows])
    return x, y


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("METALEARN_DATA", str(tmp_path / "raw"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "prepared"))
    sources.read.cache_clear()
    return tmp_path


def refused(name, *words):
    sources.read.cache_clear()
    with pytest.raises(ConfigError) as error:
        datasets.load(name)
    assert "\n" not in str(error.value) and all(w in str(error.value) for w in words), str(error.value)


def test_idx_folder(root):
    x, y = idx_folder(root / "raw" / "mine")
    dataset = datasets.load("mine")
    assert dataset.x_NX.shape == (30, 6, 5, 1) and dataset.test_N.sum() == 9
    want = sorted(((x[i] / 255.0).round(4).tolist(), int(y[i]), i >= 21) for i in range(30))
    got = sorted((dataset.x_NX[i, ..., 0].astype(float).round(4).tolist(), int(dataset.y_N[i]), bool(dataset.test_N[i]))
                 for i in range(30))
    assert got == want


def test_order_of_the_file_does_not_matter():
    rng = np.random.default_rng(0)
    x, y, test = rng.integers(0, 9, (40, 3, 3)).astype(np.uint8), np.arange(40) % 4, np.arange(40) > 30
    mixed = rng.permutation(40)
    a, b = dataset.make_raw("a", x, y, test, order=True), dataset.make_raw("a", x[mixed], y[mixed], test[mixed],
                                                                           order=True)
    assert a.sha256 == b.sha256
    assert a.sha256 != dataset.make_raw("a", x, (y + (np.arange(40) == 5)) % 4, test, order=True).sha256


def test_emnist_is_turned_upright(root, monkeypatch):
    monkeypatch.delitem(catalogue.entries(), "emnist/letters")
    x, _ = idx_folder(root / "raw" / "emnist_letters", prefix="emnist-letters-", test="test")
    assert {tuple(i.ravel()) for i in (datasets.load("emnist_letters").x_NX * 255).round().astype(int)[..., 0]} == {
        tuple(i.T.ravel()) for i in x}


def test_another_set_under_this_name_is_refused(root, monkeypatch):
    """MNIST's digits prepared or placed as Fashion-MNIST: right sizes, right labels, wrong pictures."""
    idx_folder(root / "raw" / "fashion", seed=0)
    idx_folder(root / "other" / "digits", seed=1)
    raw = sources.read("fashion", str(root / "raw"), "", 0)
    monkeypatch.setitem(catalogue.entries(), "fashion", {"values": catalogue.values_of(raw.x_NX, raw.y_N, raw.test_N)})
    datasets.load("fashion")
    shutil.rmtree(root / "raw" / "fashion")
    shutil.copytree(root / "other" / "digits", root / "raw" / "fashion")
    refused("fashion", "holds other data than its name says", "mean is")


def test_damaged_idx(root):
    idx_folder(root / "raw" / "mine")
    path = root / "raw" / "mine" / "train-images-idx3-ubyte.gz"
    good = path.read_bytes()
    for bad in (good[:50], b"<html>404</html>", b"", good[:300] + bytes([good[300] ^ 255]) + good[301:]):
        path.write_bytes(bad)
        refused("mine", "train-images-idx3-ubyte.gz")
    write_idx(path, np.zeros((5, 6, 5)))
    refused("mine", "must be equal")
    path.unlink()
    (root / "raw" / "mine" / "train-labels-idx1-ubyte.gz").unlink()
    refused("mine", "metalearn datasets prepare mine")


def test_not_here_says_what_to_do(root, monkeypatch):
    monkeypatch.chdir(root)
    np.savez(root / "images_background.npz", images=np.zeros(3))  # of no root
    monkeypatch.setenv("METALEARN_DATA", "")
    refused("omniglot", "METALEARN_DATA is not set")
    monkeypatch.setenv("METALEARN_DATA", str(root / "raw"))
    refused("fashion_mnsit", "nearest: fashion_mnist")
    refused("kmnist", "metalearn datasets prepare kmnist")


def test_npz(root):
    x, y = np.arange(24.0).reshape(4, 2, 3) / 24, np.array([5, 9, 5, 9])
    np.savez(root / "a.npz", x=x, y=y, x_test=x, y_test=y)
    dataset = datasets.load(str(root / "a.npz"))
    assert dataset.test_N.tolist() == [False] * 4 + [True] * 4 and dataset.class_V == ("5", "9")
    for arrays, word in ((dict(x=x), "must hold arrays x and y"), (dict(x=x, y=y[:2]), "must be equal"),
                         (dict(x=x + np.nan, y=y), "NaN"), (dict(x=x, y=y / 2), "integers"),
                         (dict(x=x, y=y * 0), "single class"), (dict(x=x[0, 0], y=y[:3]), "shape"),
                         (dict(x=x, y=y, x_test=x[:, :1], y_test=y), "x_test"),
                         (dict(x=np.array([{}] * 4, object), y=y), "readable")):
        np.savez(root / "a.npz", **arrays)
        refused(str(root / "a.npz"), word)
    (root / "a.npz").write_bytes((root / "a.npz").read_bytes()[:-30])
    refused(str(root / "a.npz"), "readable")
    refused(str(root / "b.npz"), "no such file")


def test_omniglot_and_cifar_fs_files(root, monkeypatch):
    facts = catalogue.entries()
    monkeypatch.setitem(facts, "omniglot", facts["omniglot"] | {"values": {}})
    monkeypatch.setitem(facts, "cifar_fs", facts["cifar_fs"] | {"values_part": {}})
    folder = root / "raw" / "omniglot"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    paper = rng.random((1623, 2, 4, 4)) < 0.9
    np.savez(folder / "images_background.npz", images=paper[:964])
    np.savez(folder / "images_evaluation.npz", images=paper[964:])
    dataset = datasets.load_classes("omniglot", "val")
    assert dataset.num_classes == 172
    assert dataset.class_V[0] == "Armenian/character01" and dataset.source_V[0] == "Armenian"
    ink = {tuple(p.ravel()) for p in (~paper[26]).astype(int)}
    assert {tuple(p.ravel().astype(int)) for p in dataset.x_NX[dataset.y_N == 0]} == ink
    np.savez(folder / "images_background.npz", images=paper[:964].astype(np.uint8))
    refused("omniglot", "must be bool")
    (root / "raw" / "cifar_fs_100").mkdir()
    names = np.array(sorted(sum(datasets.class_split("cifar_fs")["classes"].values(), [])))
    np.savez(root / "raw" / "cifar_fs_100" / "cifar_fs_100.npz", images=rng.integers(0, 256, (100, 2, 4, 4, 3)).astype(
        np.uint8), class_names=names)
    dataset = datasets.load_classes("cifar_fs", "test")
    assert dataset.num_classes == 20 and dataset.class_V == tuple(datasets.class_split("cifar_fs")["classes"]["test"])
    assert dataset.note == "2 of the 600 images of each class"
    monkeypatch.undo()
    monkeypatch.setenv("METALEARN_DATA", str(root / "raw"))
    refused("cifar_fs", "holds other data than its name says")


def test_omniglot_from_npz_and_from_zips_agree(tmp_path):
    """Two forms of the same drawings; the official zips hold ALPHABET/characterNN/IIII_DD.png with 0 = ink."""
    from PIL import Image

    paper = np.random.default_rng(0).random((1623, 1, 5, 5)) < 0.8
    (tmp_path / "npz").mkdir()
    (tmp_path / "zip").mkdir()
    for part, own in (("background", paper[:964]), ("evaluation", paper[964:])):
        np.savez(tmp_path / "npz" / f"images_{part}.npz", images=own)
        with zipfile.ZipFile(tmp_path / "zip" / f"images_{part}.zip", "w") as file:
            file.writestr("__MACOSX/0001_01.png", b"not a picture")
            for i, image in enumerate(own[:, 0], 1 if part == "background" else 965):
                out = io.BytesIO()
                Image.fromarray(image).save(out, "png")
                file.writestr(f"images_{part}/Some/character01/{i:04d}_01.png", out.getvalue())
    npz = originals.read_files("omniglot", str(tmp_path / "npz"))
    zips = originals.read_archives("omniglot", str(tmp_path / "zip"))
    assert npz.sha256 == zips.sha256 and npz.class_V == zips.class_V and len(zips.y_N) == 1623
    assert (zips.x_NX[..., 0] == ~paper[zips.y_N, 0]).all()


def test_cifar_fs_from_the_archive(tmp_path):
    """Each row: coarse label, fine label, then red, green and blue planes."""
    binary = np.random.default_rng(0).integers(0, 256, (200, 3074), dtype=np.uint8)
    binary[:, 1] = np.arange(200) % 100
    with tarfile.open(tmp_path / "cifar-100-binary.tar.gz", "w:gz") as file:
        for name, part in (("train", binary[:150]), ("test", binary[150:])):
            info = tarfile.TarInfo(f"cifar-100-binary/{name}.bin")
            info.size = part.nbytes
            file.addfile(info, io.BytesIO(part.tobytes()))
    raw = originals.read_archives("cifar_fs", str(tmp_path))
    assert raw.x_NX.shape == (200, 32, 32, 3) and np.bincount(raw.y_N).tolist() == [2] * 100 and raw.test_N is None
    committed = datasets.class_split("cifar_fs")["classes"]
    assert sorted(raw.class_V) == list(raw.class_V) and set(committed["test"]) <= set(raw.class_V)
    at = 2 + 3 * 32 + 5
    want = binary[:, [at, at + 1024, at + 2048]].tolist()
    assert sorted(raw.x_NX[:, 3, 5].tolist()) == sorted(want)


def test_emnist_letters_from_files_and_from_the_archive_agree(tmp_path):
    for part, n in (("train", 52), ("test", 26)):
        write_idx(tmp_path / f"emnist-letters-{part}-images-idx3-ubyte.gz", np.arange(n * 784).reshape(n, 28, 28) % 251)
        write_idx(tmp_path / f"emnist-letters-{part}-labels-idx1-ubyte.gz", np.arange(n) % 26 + 1)
    (tmp_path / "zipped").mkdir()
    with zipfile.ZipFile(tmp_path / "zipped" / "gzip.zip", "w") as file:
        for path in tmp_path.glob("*.gz"):
            file.write(path, f"gzip/{path.name}")
    plain = originals.read_files("emnist/letters", str(tmp_path))
    zipped = originals.read_archives("emnist/letters", str(tmp_path / "zipped"))
    assert plain.sha256 == zipped.sha256 and len(plain.class_V) == 26
    assert len(plain.y_N) == 78 and plain.test_N.sum() == 26


def test_prepared_set_is_read_without_tensorflow():
    """golden/datasets holds a set prepared by the command in its README."""
    code = ("import sys; from metalearn import datasets; p = datasets.load_classes('images/tiny', 'test'); "
            "assert p.x_NX.shape == (4, 6, 6, 3) and p.class_V == ('e', 'f'), (p.x_NX.shape, p.class_V); "
            "assert len(p.split_sha256) == 64; "
            "assert datasets.load('images/tiny').num_classes == 6; assert 'tensorflow' not in sys.modules")
    env = {"TFDS_DATA_DIR": GOLDEN, "METALEARN_DATA": "", "PATH": "/usr/bin"}
    env["PYTHONPATH"] = ":".join([".", *filter(None, sys.path)])
    subprocess.run([sys.executable, "-c", code], env=env, check=True, timeout=100)


def test_kept_arrays_are_the_records(root):
    shutil.copytree(GOLDEN, root / "prepared", dirs_exist_ok=True)
    folder = root / "prepared" / "images" / "tiny" / "1.0.0"
    records = sources.read_prepared("images/tiny", str(folder))
    sources.write_cache(records, str(folder))
    for file in folder.glob("*array_record*"):
        file.unlink()
    kept = sources.read("images/tiny", "", str(root / "prepared"))
    assert (kept.sha256, kept.class_V, kept.source_V, kept.split_V) == (
        records.sha256, records.class_V, records.source_V, records.split_V)
    x = records.x_NX.copy()
    x[0, 0, 0, 0] ^= 1
    sources.write_cache(dataclasses.replace(records, x_NX=x), str(folder))
    refused("images/tiny", "metalearn_dataset.npz is damaged")
    (folder / sources.CACHE).write_bytes(b"PK")
    refused("images/tiny", "not a readable .npz")


def test_corrupt_record(root):
    shutil.copytree(GOLDEN, root / "prepared", dirs_exist_ok=True)
    datasets.load("images/tiny")
    [file] = (root / "prepared" / "images" / "tiny" / "1.0.0").glob("*train.array_record*")
    good = file.read_bytes()
    middle = len(good) // 2
    file.write_bytes(good[:middle - 200] + bytes(400) + good[middle + 200:])
    refused("images/tiny", "cannot be read", "prepare images/tiny")
    file.write_bytes(good[:middle])
    refused("images/tiny", "cannot be read")
    file.unlink()
    refused("images/tiny", "cannot be read")


def test_a_folder_and_an_npz_of_ones_own(tmp_path):
    """Text labels, pictures of two sizes, no TensorFlow; parts by folder or, where there are none, by a fixed draw."""
    from PIL import Image

    from metalearn.datasets import reading

    names = "ant bee cat dog elk fox".split()
    for i, name in enumerate(names * 2):
        (tmp_path / "pics" / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((6 + i % 2, 6), i * 20, np.uint8)).save(tmp_path / "pics" / name / f"{i:02d}.png")
    raw = sources.read(str(tmp_path / "pics"), "", "")
    assert raw.class_V == tuple(names) and raw.x_NX.shape == (12, 6, 6, 1) and raw.test_N is None
    assert raw.x_NX[:, 0, 0, 0].tolist() == [20 * (v + 6 * k) for v in range(6) for k in range(2)]
    np.savez(tmp_path / "mine.npz", x=raw.x_NX, y=np.array(names)[raw.y_N])
    same = sources.read(str(tmp_path / "mine.npz"), "", "")
    assert same.class_V == raw.class_V and same.sha256 == raw.sha256
    parts = {split: reading.load_classes(str(tmp_path / "mine.npz"), split).class_V for split in reading.SPLITS}
    assert sorted(sum(parts.values(), ())) == names and [len(v) for v in parts.values()] == [4, 1, 1]
    for split, name in (("train", "ant"), ("train", "bee"), ("test", "cat"), ("test", "dog")):
        (tmp_path / "split" / split).mkdir(parents=True, exist_ok=True)
        (tmp_path / "pics" / name).rename(tmp_path / "split" / split / name)
    assert sources.read(str(tmp_path / "split"), "", "").split_V == ("train", "train", "test", "test")
    (tmp_path / "split" / "test" / "cat" / "x.png").write_bytes(b"<html>")
    with pytest.raises(ConfigError, match="x.png: is not a readable image"):
        sources.read(str(tmp_path / "split"), "", "", 1)
