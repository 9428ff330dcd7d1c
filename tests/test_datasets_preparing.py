"""Preparation: refused before any work where input is bad; whole or not at all where TensorFlow is installed."""

import hashlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from metalearn import datasets
from metalearn.datasets import catalogue, originals, preparing, sources
from metalearn.validate import ConfigError
from tests.test_datasets_sources import GOLDEN, write_idx

HAS_TF = all(importlib.util.find_spec(m) for m in preparing.NEEDS)
needs_tf = pytest.mark.skipif(not HAS_TF, reason="needs the extra `data` (TensorFlow)")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Empty raw and prepared roots, and a known set `tiny` of two files."""
    monkeypatch.setenv("METALEARN_DATA", str(tmp_path / "raw"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "prepared"))
    sources.read.cache_clear()
    (tmp_path / "raw" / "tiny").mkdir(parents=True)
    files = {}
    for name in ("a.gz", "b.gz"):
        data = hashlib.sha256(name.encode()).digest() * 9
        (tmp_path / "raw" / "tiny" / name).write_bytes(data)
        files[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), "url": f"https://host/{name}"}
    monkeypatch.setitem(catalogue.entries(), "tiny", {"files": [files], "home": "https://host", "licence": "none"})
    return tmp_path


def refused(*words, **kw):
    with pytest.raises(ConfigError) as error:
        preparing.prepare(**kw)
    assert "\n" not in str(error.value) and all(w in str(error.value) for w in words), str(error.value)


def nothing_left(root):
    left = [p for p in root.glob("prepared/**/*") if p.is_file() and p.suffix != ".lock"]
    assert left == []


@pytest.mark.parametrize("content, word", [
    (b"<!DOCTYPE html><html>Sign in", "web page"), (b"short", "incomplete"), (b"z" * 288, "sha256"),
    (b"z" * 400, "another file")])
def test_bad_raw_files(place, content, word):
    (place / "raw" / "tiny" / "b.gz").write_bytes(content)
    refused(word, "b.gz", name="tiny")
    refused(word, "b.gz", name="tiny", raw=str(place / "raw" / "tiny"))
    nothing_left(place)
    assert preparing.check("tiny")["state"] == "broken"


def test_missing_raw_files(place):
    (place / "raw" / "tiny" / "b.gz").unlink()
    refused("must hold a.gz, b.gz", "missing here: b.gz", name="tiny", raw=str(place / "raw" / "tiny"))
    refused("no such folder", name="tiny", raw=str(place / "nowhere"))


def test_bad_names(place):
    for name in ("../../etc", "a b", "images/../x", "images/"):
        refused(name.split("/")[0], name=name)
    refused("must name the folder", name="images/mine")


def test_no_network_is_said_at_once(place, monkeypatch):
    catalogue.entries()["tiny"]["files"][0]["a.gz"]["url"] = "https://no-such-host.invalid/a.gz"
    for variable in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(ConfigError, match="cannot reach no-such-host.invalid.*check tiny"):
        preparing._reach("tiny")


@pytest.mark.skipif(HAS_TF, reason="TensorFlow is installed")
def test_without_tensorflow_the_line_says_what_to_install(place):
    refused("needs", "tensorflow-cpu", "pip install", name="tiny")
    nothing_left(place)


def test_what_is_prepared_is_not_made_again(place):
    assert preparing.prepare("images/tiny", raw=str(place), data_dir=GOLDEN) == os.path.join(
        GOLDEN, "images", "tiny", "1.0.0")


def test_check(place):
    report = preparing.check("tiny")
    assert report["state"] == "raw" and not report["problems"]
    text = "\n".join(report["place"])
    assert "a.gz" in text and "288 bytes" in text and "https://host/a.gz" in text and "prepare tiny" in text
    for file in ("a.gz", "b.gz"):
        (place / "raw" / "tiny" / file).unlink()
    assert preparing.check("tiny")["state"] == "missing"
    assert preparing.check("images/tiny", GOLDEN)["state"] == "ready"


def test_only_one_at_a_time_and_rubbish_is_swept(place):
    root = str(place / "prepared")
    with preparing._workshop(root, "tiny") as work:
        open(os.path.join(work, "half"), "w").close()
        with pytest.raises(ConfigError, match="another process"), preparing._workshop(root, "tiny"):
            pass
        assert os.path.isfile(os.path.join(work, "half"))  # the second one touched nothing
    assert not os.path.exists(work)
    os.makedirs(work)
    open(os.path.join(work, "left by a killed one"), "w").close()
    with preparing._workshop(root, "tiny") as work:
        assert os.listdir(work) == []


def test_unwritable_data_dir(place):
    (place / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"), preparing._workshop(str(place / "file"), "tiny"):
        pass


# --- with TensorFlow ------------------------------------------------------------------------------------------------


def images(folder, size=6, num=3, classes="abc"):
    from PIL import Image

    rng = np.random.default_rng(0)
    for c in classes:
        (folder / c).mkdir(parents=True)
        for i in range(num):
            Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(folder / c / f"{i}.png")


def test_image_folder(place):
    images(place / "mine")
    made = preparing.prepare("images/mine", str(place / "mine"))
    dataset = datasets.load("images/mine")
    assert made.endswith("images/mine/1.0.0") and dataset.x_NX.shape == (9, 6, 6, 3) and dataset.class_V == ("a", "b",
                                                                                                             "c")


def test_sets_made_of_given_files_need_no_tensorflow(place, monkeypatch):
    """What is fetched, verified and prepared is what the files hold, and lies where it always did."""
    for part, n in (("train", 52), ("test", 26)):
        write_idx(place / f"emnist-letters-{part}-images-idx3-ubyte.gz", np.arange(n * 784).reshape(n, 28, 28) % 251)
        write_idx(place / f"emnist-letters-{part}-labels-idx1-ubyte.gz", np.arange(n) % 26 + 1)
    files = {}
    for path in sorted(place.glob("*.gz")):
        data = path.read_bytes()
        files[path.name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), "url": path.as_uri()}
    entry = catalogue.entries()["emnist/letters"] | {"files": [files], "values": {}}
    monkeypatch.setitem(catalogue.entries(), "emnist/letters", entry)
    made = preparing.prepare("emnist/letters")
    assert made.endswith("prepared/metalearn_emnist_letters/1.0.0")
    assert sources.read_set("emnist/letters", made).sha256 == originals.read_files("emnist/letters", str(place)).sha256
    assert preparing.check("emnist/letters")["state"] == "ready"
    shutil.rmtree(place / "prepared")
    (place / "emnist-letters-test-labels-idx1-ubyte.gz").write_bytes(b"<html>")
    refused("web page", name="emnist/letters")
    (place / "emnist-letters-test-labels-idx1-ubyte.gz").unlink()
    refused("cannot fetch", "check emnist/letters", name="emnist/letters")
    nothing_left_but_downloads = [p for p in (place / "prepared").rglob("dataset_info.json")]
    assert nothing_left_but_downloads == []


def test_bad_image_folders(place):
    images(place / "mine")
    images(place / "mixed" / "one", size=6)
    images(place / "mixed" / "two", size=7)
    images(place / "bad")
    (place / "bad" / "a" / "9.png").write_bytes(b"<html>")
    refused("a/9.png", "not a readable image", name="images/bad", raw=str(place / "bad"))
    (place / "sizes" / "a").mkdir(parents=True)
    for i, c in enumerate("ac"):
        (place / "mixed" / ("one", "two")[i] / c / "0.png").rename(place / "sizes" / "a" / f"{i}.png")
    refused("single class", name="images/sizes", raw=str(place / "sizes"))
    nothing_left(place)
    images(place / "mine" / "d", size=7, classes="e")  # a folder in a class's folder is no image
    preparing.prepare("images/large", str(place / "mine"), image_size=9)
    assert datasets.load("images/large").x_NX.shape == (9, 9, 9, 3)


@needs_tf
def test_mnist_format_through_tfds_is_refused_on_a_wrong_checksum(place, monkeypatch):
    """TFDS's own builder and its own checksums: the last line of defence where catalogue.json has no entry."""
    monkeypatch.delitem(catalogue.entries(), "mnist")
    folder = place / "raw_mnist"
    folder.mkdir()
    for part, n in (("train", 60), ("t10k", 10)):
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", np.zeros((n, 28, 28)))
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", np.arange(n) % 10)
    refused("nothing was kept", "Checksum", name="mnist", raw=str(folder))
    nothing_left(place)


@needs_tf
@pytest.mark.slow
def test_real_sets_that_share_file_names(tmp_path, monkeypatch):
    """Fashion-MNIST after MNIST into one data_dir is Fashion-MNIST, and the same bits as its raw files."""
    root = datasets.data_root()
    for name in ("mnist", "fashion_mnist"):
        if not root or not os.path.isdir(os.path.join(root, name)):
            pytest.skip(f"METALEARN_DATA does not hold {name}")
    digest = {}
    for name in ("mnist", "fashion_mnist"):
        preparing.prepare(name, os.path.join(root, name), str(tmp_path))
        digest[name] = datasets.load(name).sha256  # raw files come before prepared ones
    monkeypatch.setenv("METALEARN_DATA", "")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert {name: datasets.load(name).sha256 for name in digest} == digest


def test_killed_preparation(place):
    """SIGKILL in the middle leaves no set; the next run completes and sweeps up."""
    images(place / "mine", num=60)
    command = [sys.executable, "-m", "metalearn.datasets", "prepare", "images/mine", f"--raw={place / 'mine'}"]
    # it waits before the set is whole, so that the kill always comes in the middle
    slow = ("import time; from metalearn.datasets import preparing, __main__ as m\n"
            "from metalearn import cli\n"
            "def wait(raw, folder):\n"
            f"    open(folder + '/half', 'w').close(); open({str(place / 'here')!r}, 'w').close(); time.sleep(100)\n"
            "preparing.sources.write_cache = wait; cli.main(m.main)")
    victim = subprocess.Popen([sys.executable, "-c", slow, *command[3:]], stderr=subprocess.DEVNULL)
    for _ in range(600):
        if (place / "here").exists():
            break
        time.sleep(0.1)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    assert (place / "here").exists() and list((place / "prepared" / ".preparing").glob("images_mine/*"))
    assert preparing.check("images/mine")["state"] == "missing"
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "RESULT {" in done.stdout.splitlines()[-1], done.stderr
    assert datasets.load("images/mine").x_NX.shape[0] == 180
    assert not list((place / "prepared" / ".preparing").glob("images_mine/*"))
