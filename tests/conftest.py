"""One compilation cache for the whole run: workers and tests that compile the same program share it."""

from __future__ import annotations

import gc
import json
import os
import pathlib
import shutil
import sys
import tempfile

import pytest

if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # before anything imports jax
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    os.environ["JAX_COMPILATION_CACHE_DIR"] = os.path.join(tempfile.gettempdir(), f"metalearn-tests-{run}")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"

# tracing leaves many small objects that stay, and looking through them again and again was a tenth of the suite
gc.set_threshold(100_000, 50, 50)


def pytest_sessionfinish(session):
    if not hasattr(session.config, "workerinput"):  # the last one out
        folder = os.environ["JAX_COMPILATION_CACHE_DIR"]
        if os.path.basename(folder).startswith("metalearn-tests-"):
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module", autouse=True)
def few_maps():
    """A compiled program keeps pages mapped, of which Linux gives a process 65,530: one with the whole suite died."""
    yield
    maps = pathlib.Path("/proc/self/maps")
    if "jax" in sys.modules and maps.exists() and len(maps.read_text().splitlines()) > 40_000:
        sys.modules["jax"].clear_caches()
        gc.collect()


@pytest.fixture
def data_only(monkeypatch):
    """Whatever turns data into code raises: unpickling by anybody, eval and exec by the library."""
    import builtins
    import pickle

    def refuse(*args, **kw):
        raise AssertionError("a load path unpickles")

    for name in ("load", "loads", "_load", "_loads", "Unpickler", "_Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    for name in ("eval", "exec"):
        function = getattr(builtins, name)

        def ours_refused(*args, _function=function, **kw):
            frame = sys._getframe(1)
            assert not frame.f_globals.get("__name__", "").startswith("metalearn"), "a load path runs text"
            if len(args) < 2:  # both take their caller's names
                args = (*args, kw.pop("globals", frame.f_globals), kw.pop("locals", frame.f_locals))
            return _function(*args, **kw)

        monkeypatch.setattr(builtins, name, ours_refused)


GOLDEN = pathlib.Path(__file__).parent / "golden"


@pytest.fixture
def golden():
    """golden(name, tree): every leaf's sum, norm and last entry are those of tests/golden/<name>.json.

    A learner's first gradients, so that no rewrite changes what it computes unseen. METALEARN_GOLDEN=write records
    them anew: do so only with the reason in the commit's message.
    """
    return _golden


def _golden(name: str, tree) -> None:
    import jax
    import numpy as np

    from metalearn.types import leaf_name

    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        leaf = np.asarray(leaf, np.float64)
        found[leaf_name(path)] = [leaf.sum(), np.linalg.norm(leaf), leaf.ravel()[-1], leaf.size]
    path = GOLDEN / f"{name}.json"
    if os.environ.get("METALEARN_GOLDEN") == "write":
        rows = ",\n".join(f"  {json.dumps(k)}: {json.dumps([float(f'{x:.7g}') for x in v])}" for k, v in found.items())
        path.write_text("{\n" + rows + "\n}\n")
    expected = json.loads(path.read_text())
    assert set(found) == set(expected)
    for leaf, (total, norm, last, size) in expected.items():
        # rounding differs between machines; a sum gathers that of all its terms
        off = 1e-6 + 1e-3 * norm
        np.testing.assert_allclose(found[leaf][1:], [norm, last, size], rtol=2e-3, atol=off, err_msg=leaf)
        np.testing.assert_allclose(found[leaf][0], total, rtol=0, atol=off * size**0.5, err_msg=leaf)


@pytest.fixture
def handlers():
    """A program leaves signals ignored once it has answered one: put back what they meant."""
    import signal

    from metalearn.runtime import signals

    kept = {number: signal.getsignal(number) for number in signals.NUMBERS}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def shared(monkeypatch, build=None, made=None) -> None:
    """Runs of one config have one experiment, whose programs are compiled once.

    build  makes one, of a config; made  what was made before, by others who keep to it
    """
    from metalearn.runtime import config as config_lib, experiment, loop, session

    made = {} if made is None else made

    def once(function, key):
        def cached(*args, **kw):
            at = function, key(*args, **kw)
            if at not in made:  # with its arguments, whose ids are in the keys
                made[at] = function(*args, **kw), args
            return made[at][0]

        return cached

    text = lambda config, task=None, evaluators=True: (config_lib.to_json(config), id(task), evaluators)
    monkeypatch.setattr(experiment, "build", once(build or experiment.build, text))
    with_data = once(experiment.with_data, lambda experiment, directory: id(experiment))
    for module in (experiment, session, loop):
        monkeypatch.setattr(module, "with_data", with_data)
    monkeypatch.setattr(loop, "make_init", once(loop.make_init, id))
    monkeypatch.setattr(loop, "make_update", once(loop.make_update, lambda experiment, mesh: (id(experiment), mesh)))


@pytest.fixture
def compiled_once(monkeypatch):
    """Runs of one config within the test have one experiment."""
    shared(monkeypatch)


TOYS = {}  # what `shared` made for tests of toys.py


@pytest.fixture
def toys(monkeypatch):
    """Every config builds the task and the learner of toys.py."""
    from toys import toy

    shared(monkeypatch, toy, TOYS)


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory):
    from toys import RUN, settings, toy

    from metalearn import train

    path = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as monkeypatch:
        shared(monkeypatch, toy, TOYS)
        train.run(settings(*RUN), str(path), quiet=True)
    return path


@pytest.fixture
def whole(toys, whole_run, tmp_path):
    """What an uninterrupted run of toys.RUN leaves, in `whole`."""
    from toys import final

    shutil.copytree(whole_run, tmp_path / "whole")
    return final(tmp_path / "whole")
