"""The file format: what is written comes back, and nothing damaged or foreign gets in."""

import json
import zipfile

import jax
import numpy as np
import pytest

from metalearn import lookup
from metalearn.rl import behaviours, store
from metalearn.validate import ConfigError

pytestmark = pytest.mark.usefixtures("data_only")


@pytest.fixture(scope="module")
def logs():
    env = lookup.build("envs", "velocity", length=8)
    return behaviours.collect(env, "history", np.arange(3), 4, 0, 0)


def write(path, logs, **changes):
    """A file whose arrays are replaced by `changes` behind the header's back."""
    param_BX, steps = logs
    arrays = {name: np.asarray(getattr(steps, field)) for name, field in store.FIELDS.items()}
    arrays |= {"param": param_BX}
    header = {"format": 2, "env": {"name": "velocity", "length": 8}, "sha256": store.digest(arrays)}
    np.savez(path, **({"header": np.array(json.dumps(header))} | arrays | changes))
    return str(path)


def test_round_trip(tmp_path, logs):
    path = str(tmp_path / "a.npz")
    sha = store.save(path, *logs, {"env": {"name": "velocity", "length": 8}, "behaviour": "history"})
    param_BX, steps, header = store.load(path)
    assert header["sha256"] == sha and header["behaviour"] == "history" and header["format"] == 2
    np.testing.assert_array_equal(param_BX, logs[0])
    jax.tree.map(np.testing.assert_array_equal, steps, logs[1])
    with np.load(path, allow_pickle=False) as file:
        assert all(file[name].dtype != object for name in file)


def test_an_existing_file_stays(tmp_path, logs):
    path = tmp_path / "a.npz"
    path.write_bytes(b"mine")
    with pytest.raises(ConfigError, match="nothing was overwritten"):
        store.save(str(path), *logs, {})
    assert path.read_bytes() == b"mine" and list(tmp_path.iterdir()) == [path]


def test_of_two_that_write_one_file_the_second_is_told(tmp_path, logs, monkeypatch):
    """Both found nothing there when they began; the file of the first to end stays."""
    path, savez = tmp_path / "a.npz", np.savez_compressed

    def slow(*args, **arrays):
        savez(*args, **arrays)
        path.write_bytes(b"the first's")

    monkeypatch.setattr(np, "savez_compressed", slow)
    with pytest.raises(ConfigError, match="nothing was overwritten"):
        store.save(str(path), *logs, {})
    assert path.read_bytes() == b"the first's" and list(tmp_path.iterdir()) == [path]


def test_refusals(tmp_path, logs):
    rew = np.array(logs[1].rew_BT)
    nan = rew.copy()
    nan[0, 0, 0] = np.nan
    flipped = rew.copy()
    flipped[0, 0, 0] += 1
    for name, changes, text in (("nan", {"rew": nan}, "NaN or infinite values in rew"),
                                ("flip", {"rew": flipped}, "SHA-256"),
                                ("old", {"header": np.array(json.dumps({"format": 1}))}, "format 1, this reads 2"),
                                ("pickle", {"obs": np.array([{}], object)}, "without pickles")):
        with pytest.raises(ConfigError, match=text):
            store.load(write(tmp_path / f"{name}.npz", logs, **changes))
    (tmp_path / "text.npz").write_text("<html>")
    with pytest.raises(ConfigError, match="cannot be read"):
        store.load(str(tmp_path / "text.npz"))
    with pytest.raises(ConfigError, match="no such file"):
        store.load(str(tmp_path / "absent.npz"))
    np.savez(tmp_path / "other.npz", x=np.zeros(3), y=np.zeros(3))
    with pytest.raises(ConfigError, match="lacks header"):
        store.load(str(tmp_path / "other.npz"))


def test_damaged_anywhere_it_is_refused_in_one_line_or_reads_the_same(tmp_path, logs):
    path, whole = tmp_path / "a.npz", logs[1].rew_BT
    store.save(str(path), *logs, {})
    data, refused = path.read_bytes(), 0
    places = [*range(0, len(data), len(data) // 60), *range(len(data) - 300, len(data), 7)]  # its index is at its end
    for content in [data[:place] + bytes([data[place] ^ 9]) + data[place + 1:] for place in places] + [data[:-50], b""]:
        path.write_bytes(content)
        try:
            np.testing.assert_array_equal(store.load(str(path))[1].rew_BT, whole)
        except ConfigError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > len(places) / 2


def test_an_array_that_is_larger_than_memory_by_its_own_word_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file, file.open("header.npy", "w") as entry:
        np.lib.format.write_array_header_1_0(entry, {"descr": "<f8", "fortran_order": False, "shape": (2**50,)})
    with pytest.raises(ConfigError, match="cannot be read"):
        store.load(str(tmp_path / "a.npz"))
