"""Files from elsewhere: verified by size and hash, archives read member by member without ever being unpacked."""

import hashlib
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator

from metalearn.validate import ConfigError, require

MAX_BYTES, MAX_RATIO, MAX_MEMBERS = 8 << 30, 200, 2_000_000


def verify(path: str, size: int, sha256: str) -> None:
    """ConfigError unless the file is there, whole and the one expected."""
    require(os.path.isfile(path), "file", path, f"no such file; must have {size:,} bytes, sha256 {sha256}")
    with open(path, "rb") as file:
        head = file.read(512).lstrip().lower()
        require(not head.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")), "file", path,
                "is a web page, not the data: a log-in or error page was saved under this name; fetch it again")
        got = os.path.getsize(path)
        what = "is incomplete" if got < size else "is another file"
        require(got == size, "file", path, f"{what}: {got:,} bytes, must be {size:,}; fetch it again")
    digest = sha256_of(path)
    require(digest == sha256, "file", path, f"has sha256 {digest}, must be {sha256}: damaged or another version")


def sha256_of(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def members(path: str, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of the wanted members of a zip or tar; refuses paths that escape, links, devices and bombs."""
    refuse = lambda ok, name, problem: require(ok, "archive", path, f"member {name!r} {problem}")
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as file:
                infos = file.infolist()
                sizes = [(i.filename, i.file_size, i.compress_size, i.external_attr >> 16) for i in infos]
                _check(refuse, path, sizes)
                for info in infos:
                    if not info.is_dir() and wanted(info.filename):
                        yield info.filename, file.read(info)
            return
        with tarfile.open(path) as file:
            infos = file.getmembers()
            for info in infos:
                refuse(info.isfile() or info.isdir(), info.name, "is a link or a device")
            _check(refuse, path, [(i.name, i.size, max(os.path.getsize(path), 1), 0) for i in infos])
            for info in infos:
                if info.isfile() and wanted(info.name):
                    yield info.name, file.extractfile(info).read()  # pyright: ignore[reportOptionalMemberAccess]: a regular file
    except (OSError, EOFError, zipfile.BadZipFile, tarfile.TarError, zlib.error, RuntimeError) as error:
        raise ConfigError("archive", path, f"cannot be read ({' '.join(str(error).split())[:160]})") from None


def _check(refuse, path: str, sizes: list[tuple[str, int, int, int]]) -> None:
    require(len(sizes) <= MAX_MEMBERS, "archive", path, f"has {len(sizes):,} members")
    for name, size, packed, mode in sizes:
        parts = name.replace("\\", "/").split("/")
        refuse(not name.startswith(("/", "\\")) and ".." not in parts and ":" not in parts[0], name, "leads out of it")
        refuse(not stat.S_ISLNK(mode), name, "is a link or a device")
        refuse(size <= MAX_BYTES and size <= max(MAX_RATIO * packed, 1 << 20), name, f"unpacks to {size:,} bytes")
    require(sum(s[1] for s in sizes) <= MAX_BYTES, "archive", path, f"unpacks to more than {MAX_BYTES:,} bytes")
