"""A sweep: expanded and printed, run with a failure that does not stop the others, gone on with, summed up."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from metalearn import sweep
from metalearn.runtime import config as config_lib
from metalearn.validate import ConfigError


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
        yield {"_label": f"seed {seed}", "seed": seed}
    yield {"_label": "last, from 0", "seed": 3, "init_from": "{run:seed 0}::^a/", "_stage": 1}
""")
    return str(path)


def test_numbered_and_staged(config, tmp_path):
    runs = sweep.expand(config, str(tmp_path / "out"))
    assert [run["name"] for run in runs] == ["000-seed-0", "001-seed-1", "002-seed-2",
                                                "003-last-from-0"]
    assert [run["stage"] for run in runs] == [0, 0, 0, 1]
    assert runs[3]["overrides"]["init_from"] == f"{tmp_path}/out/000-seed-0::^a/"
    assert f"--config.init_from={tmp_path}/out/000-seed-0::^a/" in runs[3]["command"]


def test_a_failure_is_named_and_the_rest_goes_on(config, tmp_path, capsys):
    out = tmp_path / "out"
    runs = sweep.expand(config, str(out))
    for run in runs:  # a stand-in for training: fails once for 001, counts its starts
        program = (f"import os, sys; d = {run['workdir']!r}; os.makedirs(d, exist_ok=True); "
                   f"n = open(d + '/starts', 'a').write('x'); first = os.path.getsize(d + '/starts') == 0; "
                   f"(open(d + '/result.json', 'w').write('{{}}'), open(d + '/config.json', 'w').write("
                   f"{config_lib.to_json(run['config'])!r})) if {run['label']!r} != 'seed 1' or "
                   f"os.path.exists(d + '/again') else (open(d + '/again', 'w'), sys.exit(3))")
        run["command"] = [sys.executable, "-c", program]
    assert sweep.run_local(runs, str(out), jobs=2) == ["001-seed-1"]
    assert "001-seed-1  FAILED with exit code 3: seed=1" in capsys.readouterr().out
    assert sweep.summarise(config, runs, str(out)) == {"runs": 3}
    listed = json.loads((out / "sweep.json").read_text())["runs"]
    assert [(run["label"], run["overrides"]["seed"]) for run in listed] == [("seed 0", 0), ("seed 2", 2),
                                                                            ("last, from 0", 3)]
    assert sweep.run_local(runs, str(out), jobs=1) == []
    assert [len((out / run["name"] / "starts").read_text()) for run in runs] == [1, 2, 1, 1], "done ones are skipped"
    assert sweep.summarise(config, runs, str(out)) == {"runs": 4}


def finish(runs, config_of=lambda run: run["config"]) -> None:
    """What training would leave behind, as if each run had finished under `config_of` it."""
    for run in runs:
        os.makedirs(run["workdir"])
        for name, text in (("config.json", config_lib.to_json(config_of(run))), ("result.json", '{"a": 1.0}')):
            with open(os.path.join(run["workdir"], name), "w", encoding="utf-8") as file:
                file.write(text)


def test_an_edited_sweep_shows_no_old_numbers_under_new_settings(config, tmp_path, capsys):
    out = str(tmp_path / "out")
    runs = sweep.expand(config, out)
    finish(runs)
    with open(config, encoding="utf-8") as file:
        edited = file.read().replace('"seed": seed}', '"seed": seed + 5 * (seed == 1)}')
    with open(config, "w", encoding="utf-8") as file:
        file.write(edited)
    runs = sweep.expand(config, out)
    assert sweep.run_local(runs, out, jobs=1) == ["001-seed-1"]
    assert "001-seed-1  FAILED: its directory was made by another config; these differ: seed: 1 -> 6" in (
        capsys.readouterr().out)
    assert sweep.summarise(config, runs, out) == {"runs": 3}


def test_the_config_names_the_table_by_its_argument(config, tmp_path):
    with open(config, "a", encoding="utf-8") as file:
        file.write("\nSUMMARY = {'': 'memnet.copy'}\n")
    out = str(tmp_path / "out")
    runs = sweep.expand(config, out)
    finish(runs)
    for run in runs:
        run["overrides"]["learner.segment"] = 2
        with open(os.path.join(run["workdir"], "result.json"), "w", encoding="utf-8") as file:
            json.dump({"length_generalisation": {"difficulty": run["overrides"]["seed"] + 2}}, file)
    assert sweep.summarise(config, runs, out)["longest_solved"]["seed 2"] == {"2": [3]}


@pytest.mark.parametrize("yields, text", [
    ('{"seed": 1}', "_label"), ('{"_label": "seed 0", "seed": 1}', "_label"),
    ('{"_label": "x", "init_from": "{run:seed 9}"}', "must be one of seed 0")])
def test_labels_are_unique_and_those_named_exist(config, tmp_path, yields, text):
    with open(config, "a", encoding="utf-8") as file:
        file.write(f"\n_three = sweep\n\ndef sweep():\n    yield from _three()\n    yield {yields}\n")
    with pytest.raises(ConfigError, match=text):
        sweep.expand(config, str(tmp_path / "out"))


def test_print_gives_commands_and_a_config_without_a_sweep_is_refused(config, tmp_path):
    call = lambda *words: subprocess.run([sys.executable, "-m", "metalearn.sweep", *words, "--on=print",
                                          f"--out={tmp_path}/out"], capture_output=True, text=True, check=False)
    done = call(f"--config={config}")
    assert done.returncode == 0 and done.stdout.count("metalearn.train") == 4
    assert not os.path.exists(tmp_path / "out")
    refused = call("--config=configs/common.py")
    assert refused.returncode == 2 and refused.stderr.startswith("error: --config=")
    assert "Traceback" not in refused.stderr
