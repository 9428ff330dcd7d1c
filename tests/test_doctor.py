"""`metalearn doctor`: what is there and what is missing."""

import sys

from metalearn import doctor
from metalearn.datasets.catalogue import entries


def test_it_says_what_is_there(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("METALEARN_DATA", str(tmp_path))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "none"))
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "train-images-idx3-ubyte.gz").write_bytes(b"cut short")
    found = doctor.report()
    assert found["places"]["METALEARN_DATA"] == str(tmp_path) and "not there" in found["places"]["prepared sets"]
    assert found["data"].keys() == entries().keys() and found["data"]["mnist"].startswith("BROKEN")
    assert found["data"]["omniglot"] == "not here"
    assert found["devices"] and found["versions"]["interpreter"] == sys.executable
    monkeypatch.setattr(sys, "argv", ["doctor"])
    assert doctor.main() == 0
    out = capsys.readouterr().out
    assert all(f"\n  {name} " in out for name in ("jax", "mnist", "METALEARN_DATA"))
