"""Exported weights give a run's own logits to the bit, without its data; a damaged file is one line."""

import json
import sys

import jax
import numpy as np
import pytest

import metalearn
from metalearn import api, cli, export, train
from metalearn.runtime import config as config_lib, exported, pretrained
from metalearn.types import named_leaves
from metalearn.validate import ConfigError

pytest.importorskip("safetensors")
RUNS = {  # by what a learner carries: nothing; batch-norm statistics; memories, in two replicas
    "none": ("gpicl:smoke", "evaluators.curves.sets=('unseen',)"),
    "statistics": ("fewshot:smoke,protonet", "learner.backbone.norm=running", "learner.backbone.depth=1"),
    "memory": ("memnet:smoke,network=lstm",),
}


def exported_run(kind, folder):
    """(work directory, exported directory)."""
    spec, *overrides = RUNS[kind]
    train.run(config_lib.load(spec, [*overrides, "train.steps=2"]), str(folder / "run"), quiet=True)
    export.run(str(folder / "run"), str(folder / "out"), replica=int(kind == "memory"))
    return folder / "run", folder / "out"


def same_logits(kind, workdir, out):
    mine, again = api.load(str(workdir), replica=int(kind == "memory")), api.load(str(out))
    batch = mine.sample(mine.task.splits[0], 2)
    assert jax.tree.leaves(mine.outputs(batch))[0].tobytes() == jax.tree.leaves(again.outputs(batch))[0].tobytes()
    ours, theirs = (named_leaves((one.params, one.carry)) for one in (mine, again))
    assert ours.keys() == theirs.keys() and bool(jax.tree.leaves(mine.carry)) == (kind != "none")
    assert all(np.asarray(leaf).tobytes() == np.asarray(theirs[name]).tobytes() for name, leaf in ours.items())
    return again


@pytest.mark.parametrize("kind", ["statistics", "memory"])
def test_the_same_logits_to_the_bit(kind, tmp_path):
    again = same_logits(kind, *exported_run(kind, tmp_path))
    if kind == "memory":
        assert again.config.replicas.num == 1 and again.config.seed == 1


def test_it_is_evaluated_and_taken_from_and_not_trained_in(tmp_path):
    workdir, out = exported_run("none", tmp_path)
    learner = same_logits("none", workdir, out)
    numbers = json.loads((workdir / "result.json").read_text())
    assert cli.plain(metalearn.evaluate(str(out))["curves"]) == numbers["curves"]
    card = (out / "README.md").read_text()
    assert "## Evaluation\n\n### curves" in card and "| unseen |" in card and "episodes_sha256" in card
    assert f"{learner.parameters:,} parameters" in card and "training data, SHA-256" in card
    taken = pretrained.params(str(out), jax.tree.map(np.zeros_like, learner.params), (), learner.plan)
    jax.tree.map(np.testing.assert_array_equal, taken, learner.params)
    with pytest.raises(ConfigError, match="init_from"):
        train.run(learner.config, str(out))
    with pytest.raises(ConfigError, match="is there already"):
        export.run(str(workdir), str(out))


@pytest.mark.parametrize("damage", ["cut", "bit", "other", "library", "shape"])
def test_a_bad_file_is_one_line_and_exit_2(damage, tmp_path, monkeypatch, capsys):
    exported.write(str(tmp_path), {"params": {"w": np.arange(6.0)}, "carry": np.int32(3)}, 7)
    template = {"params": {"w": np.zeros(5 if damage == "shape" else 6)}, "carry": np.int32(0)}
    state, meta = exported.of(str(tmp_path)).restore(template | {"params": {"w": np.zeros(6)}})
    assert state["carry"] == 3 and state["params"]["w"][5] == 5 and meta == {"step": 7}
    path = tmp_path / exported.FILE
    whole = path.read_bytes()
    bad = {"cut": whole[:-9], "bit": whole[:-1] + bytes([whole[-1] ^ 1]), "other": b"PK" * 99}
    path.write_bytes(bad.get(damage, whole))
    if damage == "library":
        monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(SystemExit) as ended:
        cli.main(lambda: exported.of(str(tmp_path)).restore(template))
    error = capsys.readouterr().err
    words = {"bit": "does not have the SHA-256", "library": 'pip install "metalearn-jax[export]"', "shape": "params/w"}
    assert ended.value.code == 2 and error.count("\n") == 1 and words.get(damage, "is damaged") in error
