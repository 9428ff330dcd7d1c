"""What is kept of a run's task: once its data are gone, predictions are the same bits, and what needs them says so."""

import os
import shutil

import jax
import numpy as np
import pytest

from metalearn import api, eval, train
from metalearn.measure import frozen
from metalearn.runtime import config as config_lib, experiment as experiment_lib, stored
from metalearn.validate import ConfigError

CONFIGS = {
    "few": ("configs/fewshot.py:smoke,protonet", ["learner.backbone.norm=running", "learner.backbone.depth=1"]),
    "projected": ("configs/gpicl.py:smoke", ["task.pca=12", "evaluators.curves.episodes=16"]),
}


@pytest.fixture(params=CONFIGS, scope="module")
def gone(request, tmp_path_factory):
    """(work directory, batch, its images, what the run predicted of it while its data, an npz, were there)."""
    tmp_path = tmp_path_factory.mktemp("gone")
    rng, path = np.random.default_rng(0), tmp_path / "own.npz"
    y = np.repeat(np.arange(10), 12)
    x = ((rng.random((10, 8, 8))[y] + 0.3 * rng.random((120, 8, 8))) / 1.3).astype(np.float32)
    np.savez(path, x=x, y=y)
    spec, changes = CONFIGS[request.param]
    config = config_lib.load(spec, [f"task.dataset={path}", "train.steps=2", *changes])
    workdir = str(tmp_path / "run")
    train.run(config, workdir, quiet=True)
    trained = api.load(workdir)
    whole, split = trained.experiment, {"few": "test", "projected": "identity"}[request.param]
    batch = jax.device_get(next(iter(frozen.Frozen(whole.task, split, 2, 2, 3))))
    before = np.asarray(jax.jit(whole.learner.predict)(trained.params, trained.carry, batch))
    images = x[y >= 5] if request.param == "few" else x
    os.remove(path)
    return workdir, batch, images[np.asarray(batch.index_BT)], before


def test_predictions_need_no_data_and_are_the_same_bits(gone):
    workdir, batch, images_BTHW, before = gone
    trained = api.load(workdir)
    assert np.asarray(trained.outputs(batch)).tobytes() == before.tobytes()
    again = trained.normalise(images_BTHW.reshape(-1, 8, 8)).reshape(batch.x_BTX.shape)
    np.testing.assert_allclose(again, batch.x_BTX, rtol=1e-5, atol=1e-6)  # resized, normalised, projected
    with pytest.raises(ConfigError, match="own.npz.*predictions need no data"):
        trained.sample("test", 1)
    with pytest.raises(ConfigError, match="own.npz"):
        eval.run(workdir)


def test_a_damaged_file_is_said_and_the_data_are_read(gone, tmp_path, capsys):
    workdir = shutil.copytree(gone[0], tmp_path / "run")
    path = os.path.join(workdir, stored.FILE)
    with open(path, "rb+") as file:
        file.truncate(os.path.getsize(path) // 2)
    with pytest.raises(ConfigError, match="own.npz"):
        api.load(str(workdir))
    assert "task.npz is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["fewshot:smoke,pretrained", "memnet:smoke", "fewshot:sinusoid,maml"])
def test_specs_come_back(name, tmp_path):
    """With all that a learner is made of: the same shapes of a state."""
    config = config_lib.load(name)
    task = experiment_lib.build(config).task
    stored.save(str(tmp_path), task, config.train.batch)
    again = stored.read(str(tmp_path), config)
    jax.tree.map(np.testing.assert_array_equal, vars(again.spec), vars(task.spec))
    state = lambda task: jax.eval_shape(experiment_lib.build(config, task, evaluators=False).learner.init,
                                        jax.random.key(0), jax.eval_shape(
        lambda: task.sample(task.data, jax.random.key(1), task.splits[0], config.train.batch)))
    assert state(again) == state(task)
