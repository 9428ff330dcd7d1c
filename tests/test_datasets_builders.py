"""Own builders: what they yield, without writing a record (that is test_datasets_preparing's part)."""

import io
import tarfile
import zipfile

import numpy as np

from metalearn.datasets import builders, class_split


def rows(made, **kw):
    return {split: list(generator) for split, generator in made._split_generators(None).items()}


def test_omniglot_from_npz_and_from_zips_agree(tmp_path, monkeypatch):
    """Two characters of each half; the official zips hold ALPHABET/characterNN/IIII_DD.png with 0 = ink."""
    from PIL import Image

    paper = np.random.default_rng(0).random((1623, 1, 5, 5)) < 0.8
    (tmp_path / "npz").mkdir()
    (tmp_path / "zip").mkdir()
    for part, own in (("background", paper[:964]), ("evaluation", paper[964:])):
        np.savez(tmp_path / "npz" / f"images_{part}.npz", images=own)
        with zipfile.ZipFile(tmp_path / "zip" / f"images_{part}.zip", "w") as file:
            for i, image in enumerate(own[:, 0], 1 if part == "background" else 965):
                out = io.BytesIO()
                Image.fromarray(image).save(out, "png")
                file.writestr(f"images_{part}/Some/character01/{i:04d}_01.png", out.getvalue())
    made = []
    for kind in ("npz", "zip"):
        monkeypatch.setattr(builders.MetalearnOmniglot, "SHAPE", (5, 5, 1))
        made.append(rows(builders.MetalearnOmniglot(source=str(tmp_path / kind), data_dir=str(tmp_path / "d"))))
    for split, want in (("train", 1028), ("validation", 172), ("test", 423)):
        a, b = (m[split] for m in made)
        assert len(a) == len(b) == want
        for (key_a, x), (key_b, y) in zip(a, b, strict=True):
            assert key_a == key_b and x["label"] == y["label"] and x["alphabet"] == y["alphabet"]
            np.testing.assert_array_equal(x["image"], y["image"])
    ids = [record["label"] + 1 for _, record in made[0]["validation"]]
    assert sorted(ids) == sorted(class_split("omniglot")["classes"]["val"])
    first = made[0]["test"][0][1]
    np.testing.assert_array_equal(first["image"][..., 0] == 255, paper[first["label"], 0])


def test_cifar_fs_from_the_archive(tmp_path):
    """Each row: coarse label, fine label, then red, green and blue planes."""
    rng = np.random.default_rng(0)
    binary = rng.integers(0, 256, (200, 3074), dtype=np.uint8)
    binary[:, 1] = np.arange(200) % 100
    with tarfile.open(tmp_path / "cifar-100-binary.tar.gz", "w:gz") as file:
        for name, part in (("train", binary[:150]), ("test", binary[150:])):
            info = tarfile.TarInfo(f"cifar-100-binary/{name}.bin")
            info.size = part.nbytes
            file.addfile(info, io.BytesIO(part.tobytes()))
    made = rows(builders.MetalearnCifarFs(source=str(tmp_path), data_dir=str(tmp_path / "d")))
    assert {k: len(v) for k, v in made.items()} == {"train": 128, "validation": 32, "test": 40}
    committed = class_split("cifar_fs")["classes"]
    assert {r["label"] for _, r in made["test"]} == set(committed["test"])
    keys = [key for part in made.values() for key, _ in part]
    assert len(set(keys)) == 200
    key, record = made["train"][0]
    row, at = binary[int(key.rsplit("_", 1)[1])], 2 + 3 * 32 + 5
    assert record["image"][3, 5].tolist() == [row[at], row[at + 1024], row[at + 2048]]


def test_emnist_letters(tmp_path):
    from tests.test_datasets_sources import write_idx

    for part, n in (("train", 52), ("test", 26)):
        write_idx(tmp_path / f"emnist-letters-{part}-images-idx3-ubyte.gz", np.arange(n * 784).reshape(n, 28, 28) % 251)
        write_idx(tmp_path / f"emnist-letters-{part}-labels-idx1-ubyte.gz", np.arange(n) % 26 + 1)
    plain = rows(builders.MetalearnEmnistLetters(source=str(tmp_path), data_dir=str(tmp_path / "d")))
    (tmp_path / "zipped").mkdir()
    with zipfile.ZipFile(tmp_path / "zipped" / "gzip.zip", "w") as file:
        for path in tmp_path.glob("*.gz"):
            file.write(path, f"gzip/{path.name}")
    zipped = rows(builders.MetalearnEmnistLetters(source=str(tmp_path / "zipped"), data_dir=str(tmp_path / "d")))
    for part, n in (("train", 52), ("test", 26)):
        assert len(plain[part]) == n and [r["label"] for _, r in plain[part]] == [i % 26 for i in range(n)]
        for (_, a), (_, b) in zip(plain[part], zipped[part], strict=True):
            np.testing.assert_array_equal(a["image"], b["image"])
