"""A sweep: expanded and printed, run with a failure that does not stop the others, gone on with, summed up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time

import jax
import pytest

from metalearn import sweep, train
from metalearn.runtime import config as config_lib, packs, stored, writer
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


def local(runs, out, jobs=1, program=None):
    """Runs them with `program` in the place of training, {run} and {config} being its own; the names of failed ones."""
    for run in runs if program else ():
        own = f"d, config = {run['workdir']!r}, {config_lib.to_json(run['config'])!r}\n"
        run["command"] = [sys.executable, "-c", own + program]
    trainers = sweep.Trainers(out, jobs)
    trainers.run(runs)
    return trainers.failed


# fails once for seed 1, counts its starts
FAILS_ONCE = """
import os, sys
os.makedirs(d, exist_ok=True)
open(d + "/config.json", "w").write(config)
open(d + "/starts", "a").write("x")
if "seed-1" in d and not os.path.exists(d + "/again"):
    open(d + "/again", "w")
    sys.exit(3)
open(d + "/result.json", "w").write("{}")
"""


def test_a_failure_is_named_and_the_rest_goes_on(config, tmp_path, capsys):
    out = tmp_path / "out"
    runs = sweep.expand(config, str(out))
    assert local(runs, str(out), 2, FAILS_ONCE) == ["001-seed-1"]
    assert "001-seed-1  FAILED with exit code 3: seed=1" in capsys.readouterr().out
    assert sweep.summarise(config, runs, str(out)) == {"runs": 3}
    listed = json.loads((out / "sweep.json").read_text())["runs"]
    assert [(run["label"], run["overrides"]["seed"]) for run in listed] == [("seed 0", 0), ("seed 2", 2),
                                                                            ("last, from 0", 3)]
    assert local(runs, str(out)) == []
    assert [len((out / run["name"] / "starts").read_text()) for run in runs] == [1, 2, 1, 1], "done ones are skipped"
    assert sweep.summarise(config, runs, str(out)) == {"runs": 4}


@pytest.mark.parametrize("named", ["nowhere.phases", "tables.gpicl.phase", "phases"])
def test_a_table_that_is_not_there_is_one_line(named):
    with pytest.raises(ConfigError, match=f"SUMMARY={named}: must be MODULE.FUNCTION, as tables.gpicl.arms: .+"):
        sweep.summariser(named)


@pytest.mark.parametrize("text", ["", '{"a": 1', "[1]"])
def test_a_cut_result_is_made_again(config, tmp_path, text):
    out = tmp_path / "out"
    runs = sweep.expand(config, str(out))
    finish(runs)
    (out / "000-seed-0" / "result.json").write_text(text)
    assert sweep.summarise(config, runs, str(out)) == {"runs": 3}
    assert local(runs, str(out), 1, FAILS_ONCE) == []
    assert [run["name"] for run in runs if os.path.exists(os.path.join(run["workdir"], "starts"))] == ["000-seed-0"]


WAITS = """
import os, signal, sys, time
def stop(*_):
    open(d + "/saved", "w")
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
os.makedirs(d, exist_ok=True)
open(d + "/config.json", "w").write(config)
time.sleep(60)
"""


def wait_for(path):
    for _ in range(1000):
        if os.path.exists(path):
            return
        time.sleep(0.02)
    pytest.fail(f"no {path}")


def test_a_signal_is_handed_on_and_nothing_else_is_started(config, tmp_path, capsys):
    out = str(tmp_path / "out")
    runs = sweep.expand(config, out)
    trainers = sweep.Trainers(out, 2)
    for run in runs:
        run["command"] = [sys.executable, "-c", f"d, config = {run['workdir']!r}, ''\n" + WAITS]

    def end():
        for run in runs[:2]:
            wait_for(os.path.join(run["workdir"], "config.json"))
        trainers.end()

    thread = threading.Thread(target=end)
    thread.start()
    trainers.run(runs)
    thread.join()
    assert trainers.failed == [] and trainers.stopped == [run["name"] for run in runs]
    assert [os.path.exists(os.path.join(run["workdir"], "saved")) for run in runs] == [True, True, False, False]
    assert "002-seed-2  not started" in capsys.readouterr().out


def test_one_sweep_at_a_time_even_when_its_launcher_was_killed(config, tmp_path, monkeypatch):
    """A launcher killed for good leaves its runs: nobody joins them as long as they live."""
    out = str(tmp_path / "out")
    launch = f"""
import sys
from metalearn import sweep
from metalearn.runtime import workdir
runs = sweep.expand({config!r}, {out!r})
for run in runs:
    run["command"] = [sys.executable, "-c", f"d, config = {{run['workdir']!r}}, ''\\nimport os\\nprint(os.getpid(), "
                      "flush=True)\\n" + {WAITS!r}]
with workdir.lock({out!r}, "--out") as lock:
    sweep.Trainers({out!r}, 1, (lock.fileno(),)).run(runs)
"""
    again = ["sweep", f"--config={config}", f"--out={out}"]
    monkeypatch.setattr(sys, "argv", again)
    launcher = subprocess.Popen([sys.executable, "-c", launch])
    wait_for(os.path.join(out, "000-seed-0", "config.json"))
    with pytest.raises(ConfigError, match=f"--out=.*in use by pid {launcher.pid} on"):
        sweep.main()
    launcher.kill()
    launcher.wait()
    with open(os.path.join(out, "logs", "000-seed-0.txt"), encoding="utf-8") as log:
        trainer = int(log.readline())
    try:
        with pytest.raises(ConfigError, match=f"in use by processes that pid {launcher.pid}, which is gone, has"):
            sweep.main()
    finally:
        os.kill(trainer, signal.SIGTERM)
    wait_for(os.path.join(out, "000-seed-0", "saved"))



def test_a_directory_that_leads_elsewhere_is_refused(config, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "logs").symlink_to(tmp_path)
    monkeypatch.setattr(sys, "argv", ["sweep", f"--config={config}", f"--out={tmp_path}/out"])
    with pytest.raises(ConfigError, match="--out=.*is a link"):
        sweep.main()


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
    assert local(runs, out) == ["001-seed-1"]
    assert "001-seed-1  FAILED: its directory was made by another config; these differ: seed: 1 -> 6" in (
        capsys.readouterr().out)
    assert sweep.summarise(config, runs, out) == {"runs": 3}


def test_the_config_names_the_table_by_its_argument(config, tmp_path):
    with open(config, "a", encoding="utf-8") as file:
        file.write("\nSUMMARY = {'': 'tables.memnet.copy'}\n")
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


def test_packed_runs_are_the_runs_that_they_would_be_alone(tmp_path):
    """Two seeds and a rate in one program; a wider network has none to be packed with. One is done before."""
    path = tmp_path / "configs" / "tiny.py"
    path.parent.mkdir()
    path.write_text("""
from configs import gpicl

def get_config(arg=""):
    config = gpicl.get_config("smoke")
    config.learner.network.update(depth=1, width=8, num_heads=1, mlp=8)
    config.evaluators.curves.update(sets=("unseen",), episodes=16)
    config.train.update(steps=2, steps_per_call=1, log_every=1, save_every=1, eval_every=1)
    return config

def sweep():
    yield from ({"_label": f"seed {seed}", "seed": seed} for seed in range(3))
    yield {"_label": "slow", "optim.lr": 1e-4}
    yield {"_label": "wide", "learner.network.width": 9}
""")
    alone, out = sweep.expand(str(path), str(tmp_path / "alone")), sweep.expand(str(path), str(tmp_path / "out"))
    finish(out[:1])
    packed = packs.pack([run for run in out if sweep.done(run) is None])
    assert [[m["label"] for m in p.get("members", ())] for p in packed] == [["seed 1", "seed 2", "slow"], []]
    assert config_lib.load(packed[0]["command"][3].removeprefix("--config="), [
        word.removeprefix("--config.") for word in packed[0]["command"][5:]]).to_dict() == packed[0]["config"].to_dict()
    train.run(packed[0]["config"], packed[0]["workdir"], quiet=True)
    packs.unpack(packed[0])
    for run, same in zip(out[2:4], alone[2:4], strict=True):
        train.run(same["config"], same["workdir"], quiet=True)
        assert sweep.done(run) is not None
        kept, wanted = (stored.read(d["workdir"], d["config"]) for d in (run, same))
        assert kept.spec == wanted.spec and kept.facts == wanted.facts
        for name in ("result.json", "metrics.jsonl", "eval/history.jsonl", "eval/curves.json"):
            ours, theirs = (numbers_of(os.path.join(d["workdir"], name)) for d in (run, same))
            assert ours.keys() == theirs.keys(), name
            assert {k for k in ours if ours[k] != pytest.approx(theirs[k], abs=1e-5)} <= {"['seconds']"}, name
    longer = config_lib.load(str(path), ["seed=2", "train.steps=3"])
    train.run(longer, out[2]["workdir"], quiet=True)
    assert [line["step"] for line in writer.read(os.path.join(out[2]["workdir"], "metrics.jsonl"))] == [1, 2, 3]


def numbers_of(path):
    """{where: what} of a .json file, or of the lines of a .jsonl."""
    with open(path, encoding="utf-8") as file:
        found = [json.loads(line) for line in file] if path.endswith("l") else json.load(file)
    return {jax.tree_util.keystr(where): leaf for where, leaf in jax.tree_util.tree_leaves_with_path(found)}
