"""One compilation cache for the whole run: workers and tests that compile the same program share it."""

from __future__ import annotations

import gc
import json
import os
import pathlib
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
    import shutil

    if not hasattr(session.config, "workerinput"):  # the last one out
        folder = os.environ["JAX_COMPILATION_CACHE_DIR"]
        if os.path.basename(folder).startswith("metalearn-tests-"):
            shutil.rmtree(folder, ignore_errors=True)


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


@pytest.fixture
def toys(monkeypatch):
    """Every config builds the task and the learner of toys.py."""
    from toys import toy

    from metalearn.runtime import experiment

    monkeypatch.setattr(experiment, "build", toy)


@pytest.fixture
def whole(toys, tmp_path):
    """What an uninterrupted run of toys.RUN leaves, in `whole`."""
    from toys import RUN, final, settings

    from metalearn import train

    train.run(settings(*RUN), str(tmp_path / "whole"), quiet=True)
    return final(tmp_path / "whole")
