"""Preparing a dataset once, as arrays or through TensorFlow Datasets; and saying what is there.

A set appears under its name complete and checked, or not at all: it is made in a hidden folder, read back, compared
with the committed values and only then renamed. What a killed preparation left behind is removed by the next one.
"""

import contextlib
import fcntl
import importlib.util
import os
import shutil
import socket
import urllib.parse
import urllib.request

from metalearn.datasets import dataset, originals, sources
from metalearn.datasets.archives import verify
from metalearn.datasets.catalogue import canonical, data_root, entries, prepared_root, raw_folder
from metalearn.validate import ConfigError, given, nearest, one_of, require

NEEDS = {"tensorflow": "tensorflow-cpu", "PIL": "pillow", "importlib_resources": "importlib_resources",
         "array_record": "array_record"}


def prepare(name: str, raw: str = "", data_dir: str = "", image_size: int = 0) -> str:
    """Prepares `name` and returns the folder of the set; does nothing where it is prepared already.

    raw         folder with the original files; '' takes METALEARN_DATA's files where they are complete, else downloads
    data_dir    where prepared sets lie ('': TFDS_DATA_DIR, else TFDS's default)
    image_size  for `images/NAME`: side to scale to
    """
    name, root = canonical(name), os.path.abspath(data_dir or prepared_root())
    require(not name.startswith("images/") or name[7:].isidentifier(), "name", name, "must be images/ and a word")
    require(name in entries() or name.replace("/", "_").isidentifier(), "name", name, "is not a dataset's name")
    require(image_size >= 0, "--image_size", image_size, "must be 0 (as they are) or a side in pixels")
    require(not raw or os.path.isdir(raw), "--raw", raw, "no such folder")
    ready = sources.prepared_folders(name, root)
    if ready:
        return ready[0]
    source = _source(name, raw)
    own = name.startswith("images/")
    arrays = own or entries().get(name, {}).get("builder") == "own"
    missing = [package for module, package in NEEDS.items() if importlib.util.find_spec(module) is None and not arrays]
    require(not missing, "prepare", name, f"needs {', '.join(missing)}, which reading does not; install them: "
            "pip install 'metalearn-jax[data]' (in a checkout: pip install -e '.[data]')")
    with _workshop(root, name) as work:
        downloads = os.path.join(root, "downloads", name.replace("/", "_"))
        if not source:
            _reach(name)
        if arrays:
            source = source or _download(name, downloads)
            if own:
                found = sources.read_folder(source, image_size)
            else:
                files = originals.read_files(name, source) or originals.read_archives(name, source)
                found = dataset.checked(name, given(files, "--raw", source, "holds no original files"))
            made = os.path.join(work, entries().get(name, {}).get("prepared", [name])[0], "1.0.0")
            os.makedirs(made)
            with open(os.path.join(made, "dataset_info.json"), "w", encoding="utf-8") as file:
                file.write("{}")  # where TFDS puts what a set is; of this one the arrays say it
        else:
            made = _make(name, source, work, downloads)
            found = dataset.checked(name, sources.read_prepared(name, made))
        sources.write_cache(found, made)
        target = os.path.join(root, os.path.relpath(made, work))
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)  # only what is no prepared set comes here, see `ready`
        os.rename(made, target)
    return target


def _source(name: str, raw: str) -> str:
    """The folder of verified raw files, or '' to let the builder download them."""
    if name.startswith("images/"):
        require(raw != "", "--raw", raw, "must name the folder that holds the images")
        return raw
    alternatives = entries().get(name, {}).get("files", [])
    folder = raw or raw_folder(name, data_root())
    here = set(_listing(folder))
    chosen = next((files for files in alternatives if set(files) <= here), {})
    if raw and not chosen:
        nearly = min(alternatives or [{}], key=lambda files: len(set(files) - here))
        require(not alternatives, "--raw", raw, "must hold " + "; or ".join(map(", ".join, alternatives))
                + "; missing here: " + ", ".join(f for f in nearly if f not in here))
        return raw  # a set that only TFDS knows: it verifies its files itself
    for file, facts in chosen.items():
        verify(os.path.join(folder, file), facts["bytes"], facts["sha256"])
    return folder if chosen else ""


def _listing(folder: str) -> list[str]:
    return os.listdir(folder) if os.path.isdir(folder) else []


def _reach(name: str) -> None:
    """ConfigError where the first host of a known set has no address here: TFDS would try for minutes."""
    urls = [f["url"] for files in entries().get(name, {}).get("files", []) for f in files.values() if "url" in f]
    host = urllib.parse.urlparse(urls[0]).hostname if urls else None
    if host and not urllib.request.getproxies():
        try:
            socket.getaddrinfo(host, 443)
        except OSError as error:
            raise ConfigError("prepare", name, f"cannot reach {host} ({error.strerror}); place its files by hand, "
                              f"`metalearn datasets check {name}` says which, whence and where to") from None


@contextlib.contextmanager
def _workshop(root: str, name: str):
    """An empty hidden folder for this process alone, emptied before and after. The lock ends with its process."""
    try:
        os.makedirs(os.path.join(root, ".preparing"), exist_ok=True)
        work = os.path.join(root, ".preparing", name.replace("/", "_"))
        lock = open(work + ".lock", "w")
    except OSError as error:
        raise ConfigError("--data_dir", root, f"cannot be written to ({error.strerror})") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError("prepare", name, f"another process is preparing it under {root}") from None
        shutil.rmtree(work, ignore_errors=True)
        os.makedirs(work)
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _make(name: str, source: str, work: str, downloads: str) -> str:
    """Runs TFDS's builder inside `work`; returns the folder that it made."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    try:
        builder = _tfds_builder(tfds, name, work)
        # MNIST, Fashion-MNIST and KMNIST share their file names, and TFDS caches extracted files by name: each set
        # has download and extraction folders of its own, those of --raw are deleted after the preparation
        config = tfds.download.DownloadConfig(manual_dir=os.path.abspath(source) if source else None)
        builder.download_and_prepare(download_config=config, file_format="array_record",
                                     download_dir=os.path.join(work, "downloads") if source else downloads)
    except ConfigError:
        raise
    except Exception as error:  # builders, downloads and TensorFlow raise whatever they like
        text = " ".join(str(error).split())[:240]
        home = entries().get(name, {}).get("home", "")
        raise ConfigError("prepare", name, f"failed, nothing was kept ({type(error).__name__}: {text}); place the "
                          f"files by hand and give --raw=DIR{': see ' + home if home else ''}") from None
    return str(builder.data_dir)


def _tfds_builder(tfds, name: str, work: str):
    try:
        return tfds.builder(name, data_dir=work)
    except (ValueError, AssertionError):  # how TFDS answers an unknown name or config, and an unknown version
        raise ConfigError("name", name, "is unknown here and to TFDS; known: " + ", ".join(entries())
                          + ", images/NAME, or a TFDS image-classification set" + nearest(name, entries())) from None


def _download(name: str, folder: str) -> str:
    """Fetches the files of the one alternative that has addresses into `folder`, each whole and verified."""
    os.makedirs(folder, exist_ok=True)
    for file, facts in next(a for a in entries()[name]["files"] if all("url" in f for f in a.values())).items():
        path = os.path.join(folder, file)
        if not os.path.exists(path):
            try:
                with urllib.request.urlopen(facts["url"], timeout=60) as there, open(path + ".part", "wb") as here:
                    shutil.copyfileobj(there, here)
            except OSError as error:
                raise ConfigError("prepare", name, f"cannot fetch {facts['url']} ({error}); place its files by hand, "
                                  f"`metalearn datasets check {name}` says where to") from None
            verify(path + ".part", facts["bytes"], facts["sha256"])
            os.replace(path + ".part", path)
    return folder


def check(name: str, data_dir: str = "", full: bool = True) -> dict:
    """State of one dataset: {"state": built in, own, ready, raw, missing or broken; "where"; "problems"; "place"}.

    full  decodes every record of a prepared set that has records; else the arrays kept in it are verified
    """
    name, facts = canonical(name), entries().get(canonical(name), {})
    problems, folder = [], raw_folder(name, data_root())
    if name == "digits" or name in sources.MADE_UP or sources.is_own(name):
        raw = sources.read(name, "", "")
        where = f"{len(raw.y_N):,} images of {raw.x_NX.shape[1:]}, {len(raw.class_V)} classes"
        return {"name": name, "state": "own" if sources.is_own(name) else "built in", "where": where, "problems": [],
                "place": []}
    here = [files for files in facts.get("files", []) if folder and set(files) & set(_listing(folder))]
    for files in here[:1]:
        for file, want in files.items():
            try:
                verify(os.path.join(folder, file), want["bytes"], want["sha256"])
            except ConfigError as error:
                problems.append(str(error))
    ready = sources.prepared_folders(name, os.path.abspath(data_dir or prepared_root()))
    if not facts and not ready and not name.startswith("images/"):
        one_of(sources.made_or_listed(), name=name)
    for made in ready[:1]:
        try:
            records = full and any("array_record" in file for file in os.listdir(made))
            raw = sources.read_prepared(name, made) if records else sources.read_cache(name, made)
            if raw is not None:
                dataset.checked(name, raw)
        except ConfigError as error:
            problems.append(str(error))
    state = "broken" if problems else "ready" if ready else "raw" if here else "missing"
    return {"name": name, "state": state, "where": (ready or ([folder] if here else [""]))[0], "problems": problems,
            "place": how_to_place(name)}


def how_to_place(name: str) -> list[str]:
    """Lines that say which files to put where, with size and hash, and what to run then."""
    facts, lines = entries().get(name, {}), []
    folder = raw_folder(name, data_root() or "$METALEARN_DATA")
    for i, files in enumerate(facts.get("files", [])):
        lines.append(f"{'or' if i else 'place'} in {folder} (or any folder, with --raw=DIR):")
        for file, want in files.items():
            lines.append(f"  {file}  {want['bytes']:,} bytes  sha256 {want['sha256']}"
                         + (f"\n    {want['url']}" if "url" in want else ""))
    return [*lines, f"then: metalearn datasets prepare {name}"]
