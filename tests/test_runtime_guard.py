"""Diverging runs: one roll-back to other batches, then a stop with the refused update left to be replayed."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import RUN, final, same, settings, toy

from metalearn import train
from metalearn.runtime import experiment as experiment_lib, guard, loop, manifest, replicas, sharding
from metalearn.runtime.checkpoint import Checkpoints

FEW = (*RUN, "train.log_every=2", "train.max_bad_steps=3")


def breaking(monkeypatch, bad):
    """Toys whose batch of a key is NaN where bad(draw, step) says so; the draw is uniform and the key's own."""

    def build(config):
        experiment = toy(config)
        sample = experiment.task.sample

        def broken(data, key, split, num):
            return sample({"bad": jnp.where(bad(jax.random.uniform(jax.random.fold_in(key, 1))), 2.0, 0.0)}, key, split,
                          num)

        return dataclasses.replace(experiment, task=dataclasses.replace(experiment.task, sample=broken))

    monkeypatch.setattr(experiment_lib, "build", build)


def draws(attempt, steps=12):
    """What `breaking` tests, of every step."""
    experiment = toy(settings(*FEW))
    _, key = replicas.split(experiment.plan, replicas.roots(experiment.plan))
    key = replicas.keys(experiment.plan, key, attempt)
    batch = lambda n: jax.random.split(jax.random.fold_in(key, n))[0]
    return [float(jax.random.uniform(jax.random.fold_in(batch(n), 1))) for n in range(steps)]


def test_rolls_back_once_and_goes_on_with_other_batches(monkeypatch, tmp_path, capsys):
    """The batches of steps 5 to 8 are broken, in the first attempt alone."""
    those = jnp.asarray(draws(0)[5:9])
    breaking(monkeypatch, lambda draw: (jnp.abs(those - draw) < 1e-6).any())
    train.run(settings(*FEW), str(tmp_path / "a"), quiet=True)
    err = capsys.readouterr().err
    assert "3 updates in a row were not finite at step 8; going back to step 4 and on with other batches" in err
    step, _, metrics, history = final(tmp_path / "a")
    assert step == 12 and [json.loads(line)["step"] for line in metrics.splitlines()] == [2, 4, 6, 8, 10, 12]
    assert not any(json.loads(line)["skipped"] for line in metrics.splitlines())
    assert [json.loads(line)["step"] for line in history.splitlines()] == [4, 8, 12]
    assert manifest.rolled_back(str(tmp_path / "a")) == (1, None)
    assert Checkpoints(str(tmp_path / "a" / "checkpoints")).meta()["guard"]["attempt"] == 1


@pytest.mark.parametrize("killed", ["drop", "save"])
def test_killed_while_rolling_back(monkeypatch, tmp_path, killed):
    those = jnp.asarray(draws(0)[5:9])
    breaking(monkeypatch, lambda draw: (jnp.abs(those - draw) < 1e-6).any())
    train.run(settings(*FEW), str(tmp_path / "a"), quiet=True)
    function = getattr(Checkpoints, killed)

    def die(self, *args, **kw):
        if killed == "drop" or manifest.rolled_back(str(tmp_path / "b"))[0]:
            raise MemoryError("killed")
        return function(self, *args, **kw)

    monkeypatch.setattr(Checkpoints, killed, die)
    with pytest.raises(MemoryError):
        train.run(settings(*FEW), str(tmp_path / "b"), quiet=True)
    monkeypatch.setattr(Checkpoints, killed, function)
    train.run(settings(*FEW), str(tmp_path / "b"), quiet=True)
    assert final(tmp_path / "a") == final(tmp_path / "b")


def test_diverging_again_it_stops_and_the_refused_update_can_be_made_again(monkeypatch, tmp_path):
    breaking(monkeypatch, lambda draw: draw < 0.7)
    with pytest.raises(guard.Diverged, match="after one roll-back.*metalearn checkpoint replay"):
        train.run(settings(*FEW), str(tmp_path / "a"), quiet=True)
    report = json.loads((tmp_path / "a" / "diverged" / "report.json").read_text())
    assert draws(1)[report["step"]] < 0.7 and report["not_finite"]["batch"]["x_BX"] > 0
    assert report["numbers"]["loss"] == "nan" and not report["not_finite"]["parameters"]
    again = guard.replay(str(tmp_path / "a"), experiment_lib.build(settings(*FEW)))
    assert again["step"] == report["step"] and np.asarray(again["key"]).tolist() == report["key"]


def test_the_state_before_a_streak_is_found_again():
    experiment = toy(settings())
    key = jax.random.key(1)
    state = loop.make_init(experiment)(experiment.task.data, key)
    update = loop.make_update(experiment, sharding.make_mesh(1))
    state, _ = update(state, {"bad": np.float32(0)}, key, 2)
    before = jax.device_get(state)
    state, _ = update(state, {"bad": np.float32(2)}, key, 2)
    state = jax.device_get(state)
    assert same(guard._rewound(state, state.opt_state.streak), before)


def test_many_refused_here_and_there_count_as_well():
    look = guard.Guard(limit=6, refused=[0])
    lines = [(2, 8), (0, 8), (2, 8), (2, 8), (1, 8), (2, 8), (3, 8)]
    assert [look.line([line], np.array([0])) for line in lines] == [""] * 7, "two stretches, a line below a quarter"
    assert look.line([(2, 8)], np.array([1])) == "7 updates were not finite of late"
    two = guard.Guard(limit=6, refused=[0, 0])
    assert two.line([(8, 8), (0, 8)], np.array([8, 0])) == "", "of several replicas one still learns"


def test_a_run_that_ends_with_half_of_all_refused_is_no_success(monkeypatch, tmp_path):
    breaking(monkeypatch, lambda draw: True)
    with pytest.raises(guard.Diverged, match="4 of 4 updates were not finite"):
        train.run(settings(), str(tmp_path / "a"), quiet=True)
    assert not (tmp_path / "a" / "result.json").exists()


@pytest.mark.parametrize("broken, shares", [([6], [0, 0, 0, 0.5, 0, 0, *[0] * 6]),
                                            (range(6, 16), [0, 0, 0, *[1] * 5, 0, 0, 0, 0])])
def test_broken_batches_change_their_steps_alone(monkeypatch, tmp_path, broken, shares):
    """One, and ten in a row where a run may have so many."""
    those = jnp.asarray(draws(0, 24))[jnp.asarray(broken)]
    breaking(monkeypatch, lambda draw: (jnp.abs(those - draw) < 1e-6).any())
    train.run(settings(*FEW, "train.steps=24", "train.max_bad_steps=11"), str(tmp_path / "a"), quiet=True)
    step, _, metrics, _ = final(tmp_path / "a")
    assert step == 24 and [json.loads(line)["skipped"] for line in metrics.splitlines()] == shares
    assert manifest.rolled_back(str(tmp_path / "a")) == (0, None)
