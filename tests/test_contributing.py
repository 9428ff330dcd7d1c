"""CONTRIBUTING.md: its examples, written to the letter into files, are found, train, act and keep their contracts."""

import importlib
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalearn import listing, lookup, train
from metalearn.nn import network
from metalearn.runtime import config as config_lib

ROOT = pathlib.Path(__file__).parent.parent
BLOCKS = re.findall(r"^```python\n# (\S+)\n(.*?)^```", (ROOT / "CONTRIBUTING.md").read_text(), re.S | re.M)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """The folder that the examples were written into; entries among them are found where the library looks."""
    for name, text in BLOCKS:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    for kind in lookup.KINDS:
        package = importlib.import_module(f"metalearn.{kind}")
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path / "metalearn" / kind)])
    return tmp_path


def test_there_is_one_of_every_kind():
    kinds = [name.split("/")[1] for name, _ in BLOCKS if name.startswith("metalearn/")]
    assert sorted(kinds) == sorted(lookup.KINDS)
    assert max(text.count("\n") for _, text in BLOCKS) <= 45, "an example is short"


def test_task_backbone_learner_and_evaluator_train(files, capsys):
    config = config_lib.load(f"{files}/my_configs/parity.py:smoke")
    numbers = train.run(config, str(files / "run"), quiet=True)
    assert 0.5 <= numbers["confidence"]["confidence"] <= 1 and "confidence on test" in capsys.readouterr().out
    assert "temperature: float" in listing.fields("learners", "nearest")


def test_the_network_steps_as_it_reads(files):
    net = lookup.build("networks", "fading", network.NetworkSpec(3, 4, "x", 8, "float32", 1), width=5, decay=0.5)
    tokens_BLI = jax.random.normal(jax.random.key(0), (2, 4, 7))
    params = net.init(jax.random.key(1), tokens_BLI)
    state, whole = net.apply(params, net.initial_state(params, 2, 4), tokens_BLI)
    again, parts = net.initial_state(params, 2, 4), []
    for t in range(4):
        again, out = net.step(params, again, tokens_BLI[:, t])
        parts.append(out)
    np.testing.assert_allclose(jnp.stack(parts, 1), whole, rtol=1e-5, atol=1e-6)


def test_the_environment_pays_its_expert(files):
    env = lookup.build("envs", "seesaw", length=8)
    angle_X = env.draw(jax.random.key(0))
    state, obs_S = env.reset(None, angle_X)
    for time in range(env.length):
        state, obs_S, reward, _ = env.step(None, state, env.expert(obs_S, time, angle_X), angle_X)
    assert abs(float(reward)) < 1e-6
