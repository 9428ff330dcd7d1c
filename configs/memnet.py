"""Memory networks with synthetic gradients: a reconstruction of "Fast & Slow Learning: Incorporating Synthetic Gradients
in Neural Memory Controllers" (arXiv 2011.05438) from its abstract and sources. No number here is that paper's.

  bash launch/local.sh sweep --config=configs/memnet.py:gated_recall --out=runs/gated_recall    the arms, 3 seeds each
  bash launch/local.sh --config=configs/memnet.py:cdni --workdir=runs/cdni                      one of its arms, L = 24
"""

from __future__ import annotations

import json
import os

from ml_collections import ConfigDict

from configs import common

ARMS = {
    "tbptt": dict(rule="tbptt"),
    "dni": dict(rule="synthetic"),
    "cdni": dict(rule="synthetic", feedback=dict(context="label")),
    "bptt": dict(rule="bptt"),
    "bptt_equal_updates": dict(rule="bptt_equal_updates"),
}
LENGTHS = (12, 24, 48)
BATCHES = 1500


def get_config(arg: str = "") -> ConfigDict:
    variants = {"gated_recall": gated_recall, "smoke": smoke}
    return ConfigDict(common.choose(arg, variants, "gated_recall")())


def feedback(**changes) -> dict:
    """A linear feedback model that sees the state alone; see metalearn.learners.memnet."""
    return dict(context="none", clock=False, hidden=0, heads=(), gamma=1.0, clip=0.0, gate=False) | changes


def learner(network: dict, **changes) -> dict:
    return dict(name="memnet", network=network, inputs="x", rule="synthetic", window=3, feedback=feedback(),
                curriculum=dict(start=0, bits=0.15), replicas=1, unroll=4, remat=False) | changes


def optim(lr: float, feedback_lr: float, **changes) -> dict:
    """Adam for the network, Adam for its feedback model; norms are taken, and clipped, within each."""
    return common.adam(lr, groups=dict(feedback=dict(match="^feedback/", lr=feedback_lr, clip=0.0)), **changes)


def gated_recall(arm: str = "cdni", length: int = 24) -> dict:
    """One arm: 3 seeds side by side, 64 episodes each per batch, evaluated every 50 batches."""
    changes = dict(ARMS[arm])
    changes["feedback"] = feedback(**changes.get("feedback", {}))
    updates = 1 if arm == "bptt" else length // 3
    every = 50 * updates
    return dict(
        seed=0,
        init_from="",
        task=dict(name="gated_recall", symbols=8, length=length, rare_frac=0.1, task_seed=0),
        learner=learner(dict(name="gated", width=8, bias=-3.0), replicas=3, window=3, **changes),
        optim=optim(5e-3, 5e-3, clip=0.0),
        train=common.train(batch=192, steps=BATCHES * updates, steps_per_call=every, log_every=every,
                           save_every=BATCHES * updates, eval_every=every),
        evaluators=dict(rare=dict(name="rare_recall", split="balanced", episodes=512, seed=1)),
    )


def smoke() -> dict:
    config = gated_recall("cdni", 6)
    config["learner"] |= dict(network=dict(name="nse", slots=4, width=5, hidden=6, controller="lstm", similarity="dot",
                                           memory="learned"), replicas=2)
    config["train"] |= dict(batch=8, steps=4, steps_per_call=2, log_every=2, save_every=2, eval_every=0)
    config["evaluators"]["rare"] |= dict(episodes=16)
    return config
