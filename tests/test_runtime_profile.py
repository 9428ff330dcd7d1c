"""A trace of some updates: written after the calls that compile, and the run's bits are the same."""

import gzip
import json

from toys import RUN, final, settings

from metalearn import train
from metalearn.runtime.profile import Profile


def test_a_run_with_a_trace_is_the_same_run(whole, tmp_path, capsys):
    train.run(settings(*RUN), str(tmp_path / "run"), quiet=True, profile=4)
    assert final(tmp_path / "run") == whole
    (path,) = (tmp_path / "run" / "profile").rglob("*.xplane.pb")
    (trace,) = path.parent.glob("*.trace.json.gz")
    assert json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"] and path.stat().st_size > 1000
    assert "trace: " in capsys.readouterr().err


def test_whole_calls_after_the_first_two(monkeypatch, capsys):
    told = []
    monkeypatch.setattr("jax.profiler.start_trace", lambda folder: told.append("start"))
    monkeypatch.setattr("jax.profiler.stop_trace", lambda: told.append("stop"))
    with Profile("folder", 5) as profile:
        for call in range(6):
            with profile.call(2, lambda: ()):
                told.append(call)
    assert told == [0, 1, "start", 2, 3, 4, "stop", 5] and "warning" not in capsys.readouterr().err
    with Profile("folder", 5) as profile:
        with profile.call(2, lambda: ()):
            pass
    assert "5 updates too early" in capsys.readouterr().err
    with Profile("folder", 0) as profile:  # none is asked for
        for _ in range(4):
            with profile.call(2, lambda: ()):
                pass
    assert told[-1] == 5 and capsys.readouterr().err == ""
