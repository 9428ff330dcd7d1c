"""A sweep: expanded and printed, run with a failure that does not stop the others, gone on with, summed up."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from metalearn import sweep


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "configs" / "tiny.py"
    path.parent.mkdir()
    path.write_text("""
from ml_collections import ConfigDict

def get_config(arg=""):
    return ConfigDict(dict(seed=0, init_from=""))

def sweep():
    for seed in range(3):
        yield {"seed": seed}
    yield {"seed": 3, "init_from": "{dir}/000", "_stage": 1}

def summarise(results):
    return {"headline": {"seeds": [overrides["seed"] for overrides, _, _ in results]}}
""")
    return str(path)


def test_numbered_and_staged(config, tmp_path):
    runs = sweep.expand(config, str(tmp_path / "out"))
    assert [run["name"] for run in runs] == ["000", "001", "002", "003"]
    assert [run["stage"] for run in runs] == [0, 0, 0, 1]
    assert runs[3]["overrides"]["init_from"] == str(tmp_path / "out" / "000")
    assert f"--config.init_from={tmp_path}/out/000" in runs[3]["command"]


def test_a_failure_is_named_and_the_rest_goes_on(config, tmp_path, capsys):
    out = tmp_path / "out"
    runs = sweep.expand(config, str(out))
    for run in runs:  # a stand-in for training: fails once for 001, counts its starts
        program = (f"import os, sys; d = {run['workdir']!r}; os.makedirs(d, exist_ok=True); "
                   f"n = open(d + '/starts', 'a').write('x'); first = os.path.getsize(d + '/starts') == 0; "
                   f"open(d + '/result.json', 'w').write('{{}}') if {run['name']!r} != '001' or "
                   f"os.path.exists(d + '/again') else (open(d + '/again', 'w'), sys.exit(3))")
        run["command"] = [sys.executable, "-c", program]
    assert sweep.run_local(runs, str(out), jobs=2) == ["001"]
    assert "001  FAILED with exit code 3: seed=1" in capsys.readouterr().out
    assert sweep.run_local(runs, str(out), jobs=1) == []
    assert [len((out / run["name"] / "starts").read_text()) for run in runs] == [1, 2, 1, 1], "done ones are skipped"
    assert sweep.summarise(config, runs, str(out)) == {"seeds": [0, 1, 2, 3], "runs": 4}
    assert json.loads((out / "sweep.json").read_text())["headline"] == {"seeds": [0, 1, 2, 3]}


def test_print_gives_commands_and_a_config_without_a_sweep_is_refused(config, tmp_path):
    call = lambda *words: subprocess.run([sys.executable, "-m", "metalearn.sweep", *words, "--on=print",
                                          f"--out={tmp_path}/out"], capture_output=True, text=True, check=False)
    done = call(f"--config={config}")
    assert done.returncode == 0 and done.stdout.count("metalearn.train") == 4
    assert not os.path.exists(tmp_path / "out")
    refused = call("--config=configs/common.py")
    assert refused.returncode == 2 and refused.stderr.startswith("error: --config=")
    assert "Traceback" not in refused.stderr
