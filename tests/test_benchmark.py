"""The benchmark's count of matrix products, by hand; and its one row on a tiny config."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from metalearn import benchmark


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


def test_one_row(monkeypatch):
    monkeypatch.setattr(benchmark, "_matmul", lambda shape: (lambda: None, 1.0))
    row = benchmark.measure("configs/gpicl.py:smoke", [], rounds=1)
    assert row["model_gflop_per_step"] > 0 and row["steps_per_second"] > 0


def test_the_memory_dial_turns():
    """Steps whose activations are computed again need less than steps that keep them; undifferentiated ones too."""
    small = ["task.image_size=8", "learner.backbone.width=8", "learner.backbone.depth=2", "learner.inner_steps=6",
             "train.batch=2"]
    used = {kind: benchmark.memory(f"configs/fewshot.py:memory,{kind}", small)["temp_bytes"]
            for kind in ("plain", "remat", "first")}
    assert used["remat"] < used["plain"] / 2 and used["first"] < used["plain"] / 2, used
