"""The collect program: one command makes a file that a config can name; nothing is overwritten."""

import pathlib

import numpy as np
import pytest

from metalearn import cli, collect, eval as eval_program, train
from metalearn.rl import behaviours, store
from metalearn.runtime import config
from metalearn.validate import ConfigError

SMALL = ("task.train_tasks=3", "task.test_tasks=2", "task.episodes=4")


def test_collect_and_use(tmp_path):
    settings = config.load("configs/metadt.py:smoke", SMALL)
    out = str(tmp_path / "point.npz")
    numbers = collect.run(settings, out)
    assert numbers["tasks"] == 5 and numbers["steps"] == 5 * 4 * 20
    param_BX, logs, header = store.load(out)
    assert header["env"]["name"] == "point_robot" and header["train_tasks"] == 3
    np.testing.assert_allclose(header["mean_return"], logs.rtg_BT[..., 0].mean(1), atol=1e-3)
    with pytest.raises(ConfigError, match="nothing was overwritten"):
        collect.run(settings, out)


def test_agents_that_learn(tmp_path):
    """Behaviour `sac`: its settings are in the file, and a config with others does not take it for its own."""
    few = ("task.sac.steps=40", "task.sac.random_steps=10", "task.sac.every=20", "task.sac.hidden=8")
    settings = config.load("configs/metadt.py:smoke", (*SMALL, "task.behaviour=sac", *few))
    out = str(tmp_path / "sac.npz")
    assert collect.run(settings, out)["steps"] == 5 * 4 * 20
    assert store.load(out)[2]["sac"]["steps"] == 40
    with pytest.raises(ConfigError, match="config.task.sac.every=15"):
        collect.run(config.load("configs/metadt.py:smoke", (*SMALL, "task.behaviour=sac", *few, "task.sac.every=15")),
                    str(tmp_path / "other.npz"))
    assert len(list(tmp_path.iterdir())) == 1


def test_only_offline_tasks(tmp_path):
    with pytest.raises(ConfigError, match="config.task.name=projected"):
        collect.run(config.load("configs/gpicl.py:smoke"), str(tmp_path / "a.npz"))
    settings = config.load("configs/metadt.py:smoke", ("task.behaviour=ppo",))
    with pytest.raises(ConfigError, match="config.task.behaviour=ppo"):
        collect.run(settings, str(tmp_path / "a.npz"))
    assert not list(tmp_path.iterdir())


def test_evaluating_a_run_reads_the_data_that_it_was_trained_on(tmp_path, monkeypatch):
    """Training collects into its work directory; evaluation finds them there and collects nothing."""
    few = (*SMALL, "train.steps=2", "evaluators.few.methods=('zero',)", "evaluators.few.rounds=1",
           "evaluators.few.after=()")
    printed = train.run(config.load("configs/metadt.py:smoke", few), str(tmp_path / "run"), quiet=True)
    assert len(list((tmp_path / "run").glob("offline-*.npz"))) == 1
    monkeypatch.setattr(behaviours, "collect", None)
    again = eval_program.run(str(tmp_path / "run"))
    assert again.pop("step") == 2 and again == {k: v for k, v in printed.items() if k != "seconds"}


@pytest.mark.parametrize("program, words, line", [
    (collect, ("task.behaviour=ppo",), "config.task.behaviour=ppo: must be one of"),
    (collect, ("task.behaviour=random", "task.quality=expert"), "config.task.quality=expert: must be mixed"),
    (collect, ("task.behaviour=gaits",), "behaviour=gaits: point_robot has no targets"),
    (train, ("task.data={other}",), "config.task.data={other}: was collected in"),
    (train, ("task.data={point}", "task.test_tasks=9"), "holds 5 tasks; train_tasks + test_tasks = 12"),
    (train, ("task.data={damaged}",), "config.task.data={damaged}: holds NaN or infinite values in rew"),
    (train, ("task.data={point}", "task.prompt_span=21"), "config.task.prompt_span=21: must be at most 20"),
    (train, ("task.window=21",), "config.task.window=21: must be at most 20"),
    (train, ("learner.prompt=21",), "config.learner.prompt=21: must be at most task.prompt_span=20")])
def test_one_line_and_nothing_written(tmp_path_factory, files, monkeypatch, capsys, program, words, line):
    """What a person sees: exit code 2, one line that names the field, and no file or directory made or changed."""
    place = tmp_path_factory.mktemp("out")
    words = [f"--config.{w.format(**files)}" for w in (*SMALL, *words)]
    where = f"--out={place / 'a.npz'}" if program is collect else f"--workdir={place / 'run'}"
    before = {p: pathlib.Path(p).read_bytes() for p in files.values()}
    monkeypatch.setattr("sys.argv", ["x", "--config=configs/metadt.py:smoke", where, *words])
    with pytest.raises(SystemExit) as stopped:
        cli.main(program.main)
    err = capsys.readouterr().err
    assert stopped.value.code == 2 and err.count("\n") == 1 and line.format(**files) in err, err
    assert not list(place.iterdir()) and {p: pathlib.Path(p).read_bytes() for p in files.values()} == before


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """{name: a data file}: of Point-Robot, of another environment, and one with a NaN."""
    place = tmp_path_factory.mktemp("data")
    found = {name: str(place / f"{name}.npz") for name in ("point", "other", "damaged")}
    collect.run(config.load("configs/metadt.py:smoke", SMALL), found["point"])
    collect.run(config.load("configs/metadt.py:velocity", SMALL), found["other"])
    with np.load(found["point"]) as file:
        arrays = dict(file)
    arrays["rew"][1, 1, 1] = np.nan
    np.savez(found["damaged"], **arrays)
    return found
