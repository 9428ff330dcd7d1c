"""Hostile and broken archives: refused in one line, nothing unpacked."""

import hashlib
import io
import stat
import tarfile
import zipfile

import pytest

from metalearn.datasets import archives
from metalearn.validate import ConfigError


def make_zip(path, name, data=b"x", mode=0):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        info = zipfile.ZipInfo(name)
        info.external_attr, info.compress_type = mode << 16, zipfile.ZIP_DEFLATED
        file.writestr(info, data)


def make_tar(path, name, kind=tarfile.REGTYPE, data=b"x"):
    with tarfile.open(path, "w:gz") as file:
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.size = kind, "/etc/passwd", len(data) if kind == tarfile.REGTYPE else 0
        file.addfile(info, io.BytesIO(data))


HOSTILE = {
    "zip up": lambda p: make_zip(p, "../evil"), "zip absolute": lambda p: make_zip(p, "/etc/evil"),
    "zip deep up": lambda p: make_zip(p, "a/../../evil"), "zip backslash": lambda p: make_zip(p, "..\\evil"),
    "zip drive": lambda p: make_zip(p, "C:/evil"),
    "zip link": lambda p: make_zip(p, "a", b"/etc", stat.S_IFLNK | 0o777),
    "zip bomb": lambda p: make_zip(p, "a", bytes(30 << 20)),
    "tar up": lambda p: make_tar(p, "../evil"), "tar absolute": lambda p: make_tar(p, "/evil"),
    "tar symlink": lambda p: make_tar(p, "a", tarfile.SYMTYPE),
    "tar hard link": lambda p: make_tar(p, "a", tarfile.LNKTYPE),
    "tar device": lambda p: make_tar(p, "a", tarfile.CHRTYPE), "tar fifo": lambda p: make_tar(p, "a", tarfile.FIFOTYPE),
    "web page": lambda p: p.write_bytes(b"<!DOCTYPE html><p>quota exceeded"), "empty": lambda p: p.write_bytes(b""),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile(kind, tmp_path):
    path = tmp_path / "a"
    HOSTILE[kind](path)
    with pytest.raises(ConfigError) as error:
        list(archives.members(str(path), lambda name: True))
    assert "\n" not in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_good_archives_and_truncation(tmp_path):
    for make in (make_zip, make_tar):
        make(tmp_path / "a", "b/c.png", data=bytes(range(256)) * 4)
        path = str(tmp_path / "a")
        assert list(archives.members(path, lambda n: n.endswith(".png"))) == [("b/c.png", bytes(range(256)) * 4)]
        assert list(archives.members(path, lambda n: False)) == []
        (tmp_path / "a").write_bytes((tmp_path / "a").read_bytes()[:40])
        with pytest.raises(ConfigError):
            list(archives.members(path, lambda n: True))


def test_verify(tmp_path):
    path, data = tmp_path / "a.gz", b"data" * 100
    digest = hashlib.sha256(data).hexdigest()
    for content, word in ((data[:100], "incomplete"), (data + b"x", "another file"), (data[:-1] + b"X", "sha256"),
                          (b"  <!doctype HTML><html>", "web page")):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=word):
            archives.verify(str(path), 400, digest)
    path.write_bytes(data)
    archives.verify(str(path), 400, digest)
    path.unlink()
    with pytest.raises(ConfigError, match="no such file"):
        archives.verify(str(path), 400, digest)
