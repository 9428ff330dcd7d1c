"""The benchmark's count of matrix products, by hand; and its one row on a tiny config."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
import torch_reference

from docs import fields, records
from metalearn.validate import ConfigError
from tests import benchmark, measured


def test_count_matmuls_by_hand():
    a, b = jnp.ones((4, 3)), jnp.ones((3, 5))
    inside = lambda c, _: (c @ b @ b.T, None)
    found = benchmark.count_matmuls(jax.make_jaxpr(lambda a: jax.lax.scan(inside, a, None, length=7))(a).jaxpr)
    assert found == {(1, 4, 3, 5): 7, (1, 4, 5, 3): 7}
    assert benchmark.flop(found) == 7 * 2 * 4 * 3 * 5 * 2


def test_batched_products_count_their_batch():
    f = lambda a, b: jnp.einsum("bmk,bkn->bmn", a, b)
    found = benchmark.count_matmuls(jax.make_jaxpr(jax.jit(f))(jnp.ones((2, 3, 4)), jnp.ones((2, 4, 5))).jaxpr)
    assert found == {(2, 3, 4, 5): 1}


def test_a_convolution_counts_as_products():
    f = lambda x, w: jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    found = benchmark.count_matmuls(jax.make_jaxpr(f)(jnp.ones((2, 4, 4, 3)), jnp.ones((3, 3, 3, 5))).jaxpr)
    assert found == {(1, 32, 27, 5): 1}


def test_rows_are_stored_by_name(monkeypatch, tmp_path):
    """A row takes the place of the one of its name; the record is one that the documents can show."""
    monkeypatch.setattr(benchmark, "_matmul", lambda size: (lambda: None, 1.0))
    monkeypatch.setattr(torch_reference, "lacks", lambda config: None)
    row = benchmark.measure("configs/gpicl.py:smoke", [], rounds=1)
    assert row["model_gflop_per_step"] > 0 and row["tasks_per_second"] > 0 and "torch_best" not in row
    for name, ms in (("one", 1.0), ("two", 2.0), ("one", 3.0)):
        records.store_row(str(tmp_path), "speed", name, row | {"ms_per_step": ms}, f"benchmark {name}", "0" * 16, 1.0)
    record = fields.load(str(tmp_path))["speed"]
    assert [r[:2] for r in record["tables"][0]["rows"]] == [["one", 3.0], ["two", 2.0]]
    assert record["commands"] == ["benchmark one", "benchmark two"] and "| one |" in records.section(record)


def test_an_arm_that_fails_is_left_out(capsys):
    def broken():
        raise RuntimeError("no compiler here")

    assert set(benchmark._rounds({"good": lambda: None, "broken": broken}, 2)) == {"good"}
    assert "broken is left out: no compiler here" in capsys.readouterr().err


def test_the_memory_dial_turns():
    """Steps whose activations are computed again need less than steps that keep them; undifferentiated ones too."""
    small = ["task.image_size=8", "learner.backbone.width=8", "learner.backbone.depth=2", "learner.inner_steps=6",
             "train.batch=2"]
    used = {kind: benchmark.memory(f"configs/fewshot.py:memory,{kind}", small)["temp_bytes"]
            for kind in ("plain", "remat", "first")}
    assert used["remat"] < used["plain"] / 2 and used["first"] < used["plain"] / 2, used


def test_it_is_measured_on_the_mesh_that_training_would_have():
    with pytest.raises(ConfigError, match="config.train.mesh.model=2: must divide devices=1"):
        benchmark.memory("configs/gpicl.py:smoke", ["train.devices=1", "train.mesh.model=2"])


def test_a_table_that_is_not_measured_is_refused(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["latency", "--only=startup,evalation"])
    with pytest.raises(SystemExit) as stopped:
        measured.main("", "latency", "", "", "", {"startup": lambda: {"title": "", "columns": [], "rows": []},
                                                  "evaluation": None}, digits=1)
    assert stopped.value.code == 2 and "--only=evalation: must be one of startup, evaluation" in capsys.readouterr().err
