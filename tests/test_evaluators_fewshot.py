"""Accuracy on frozen episodes: by hand on made-up learners, the hash that must match, the same digits on 1 and 8."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalearn import cli, eval as eval_program, lookup
from metalearn.evaluators import fewshot
from metalearn.measure import frozen
from metalearn.runtime import config as config_lib, experiment as experiment_lib
from metalearn.types import Learner
from metalearn.validate import ConfigError


@functools.cache
def _task():
    return experiment_lib.build(config_lib.load("configs/fewshot.py:smoke")).task


def _learner(predict):
    return Learner(None, None, predict, lambda length: 0)


def _evaluate(predict, **changes):
    fields = dict(sets=("test",), episodes=8, chunk=4, seed=1, episodes_sha256=()) | changes
    return lookup.build("evaluators", "fewshot", _task(), _learner(predict), **fields).run({}, ())


def test_who_knows_the_labels_has_all_right_and_a_constant_has_chance():
    knows = _evaluate(lambda params, carry, batch: jax.nn.one_hot(batch.y_BT, 3))["headline"]
    assert (knows["accuracy"], knows["ci95"]) == (1.0, 0.0)
    constant = _evaluate(lambda params, carry, batch: jax.nn.one_hot(0 * batch.y_BT, 3))["headline"]
    assert constant["accuracy"] == pytest.approx(1 / 3)  # every class has as many queries
    assert 1 / 3 < constant["nearest_neighbour"] < 1
    assert constant["episodes"] == 8 and "3-way 1-shot" in constant["protocol"]


def test_a_source_counts_the_episodes_that_have_it():
    mask_EQ, hit_EQ = np.array([[1, 1, 0], [0, 0, 0]], bool), np.array([[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    num, learner, near = fewshot._of_source(mask_EQ, hit_EQ, 1 - hit_EQ)
    assert num == 1 and learner.startswith("0.5000") and near.startswith("0.5000")


def test_a_wrong_hash_is_one_clear_line():
    nothing = lambda params, carry, batch: jnp.zeros((*batch.y_BT.shape, 3))
    digest = _evaluate(nothing)["headline"]["episodes_sha256"]
    assert _evaluate(nothing, episodes_sha256=(digest[:16],))["headline"]["episodes_sha256"] == digest
    with pytest.raises(ConfigError) as error:
        _evaluate(nothing, episodes_sha256=("0000",))
    assert digest[:16] in str(error.value) and "\n" not in str(error.value)


def test_one_checkpoint_gives_the_same_digits_on_1_and_8_devices(tmp_path):
    """Trained on eight, where training's own evaluation runs too; evaluated again on this process's one."""
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    words = ["--config=configs/fewshot.py:smoke", f"--workdir={tmp_path}/run", "--config.train.batch=8", "--quiet",
             "--config.train.mesh.params=sharded", "--config.learner.backbone.depth=1"]
    done = subprocess.run([sys.executable, "-m", "metalearn.train", *words], capture_output=True, text=True,
                          env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"})
    assert done.returncode == 0, done.stderr[-2000:]
    trained = json.loads(done.stdout.rpartition("RESULT ")[2])
    assert jax.device_count() == 1
    again = cli.plain(eval_program.run(str(tmp_path / "run")))
    assert {k: again[k] for k in trained if k != "seconds"} == {k: v for k, v in trained.items() if k != "seconds"}


def _available(task: str) -> bool:
    try:
        experiment_lib.build(config_lib.load(f"configs/fewshot.py:{task}"))
    except ConfigError as error:
        if "is not here" not in str(error):
            raise
        return False
    return True


@pytest.mark.parametrize("name", ["digits", "cifar_fs_5w1s", *(pytest.param(name, marks=pytest.mark.slow) for name in (
    "omniglot_5w1s", "omniglot_20w1s", "cifar_fs_5w5s", "transfer"))])
def test_the_committed_episodes_are_those_that_are_drawn(name):
    if not _available(name):
        pytest.skip(f"the data of {name} are not here")
    config = config_lib.load(f"configs/fewshot.py:{name}")
    block, task = config.evaluators.fewshot, experiment_lib.build(config).task
    assert len(block.episodes_sha256) == len(block.sets)
    for split, wanted in zip(block.sets, block.episodes_sha256, strict=True):
        digest = frozen.Frozen(task, split, block.episodes, block.chunk, block.seed).digest
        assert len(wanted) >= 16 and digest.startswith(wanted), digest
