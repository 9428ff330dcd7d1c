"""One compilation cache for the whole run: workers and tests that compile the same program share it."""

from __future__ import annotations

import os
import tempfile

if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # before anything imports jax
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    os.environ["JAX_COMPILATION_CACHE_DIR"] = os.path.join(tempfile.gettempdir(), f"metalearn-tests-{run}")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"


def pytest_sessionfinish(session):
    import shutil

    if not hasattr(session.config, "workerinput"):  # the last one out
        folder = os.environ["JAX_COMPILATION_CACHE_DIR"]
        if os.path.basename(folder).startswith("metalearn-tests-"):
            shutil.rmtree(folder, ignore_errors=True)
