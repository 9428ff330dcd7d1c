"""What configs share: parsing of their argument, and blocks that most of them start from."""

from __future__ import annotations

from metalearn.validate import ConfigError, nearest


def choose(arg: str, variants: dict, default: str):
    """The variant that `arg` names (`configs/gpicl.py:smoke`); '' is `default`, anything else is refused."""
    name = arg or default
    if name not in variants:
        raise ConfigError("--config argument", name, "must be one of " + ", ".join(variants) + nearest(name, variants))
    return variants[name]


def replicas(num: int = 1, at_once: int = 0, **vary: dict | tuple) -> dict:
    """Runs side by side in one program, with the seeds seed, seed + 1, ...

    at_once  how many are computed together; 0: all
    vary     seed=(...) or block={field: (...)}, a value for each. See metalearn.runtime.replicas
    """
    return dict(num=num, at_once=at_once, vary=vary)


def adam(lr: float, **changes) -> dict:
    """Adam with the house's defaults; see metalearn.runtime.optimiser.make."""
    return dict(name="adam", lr=lr, warmup_steps=0, decay="constant", clip=1.0, weight_decay=0.0, b1=0.9, b2=0.999,
                eps=1e-8, freeze="") | changes


def train(batch: int, steps: int, **changes) -> dict:
    """The loop: batch in tasks, everything else in updates.

    eval_every     0: evaluate at the end only
    keep           newest checkpoints kept
    max_bad_steps  non-finite updates in a row after which the run stops
    devices        0: all
    """
    return dict(batch=batch, steps=steps, steps_per_call=50, log_every=50, save_every=500, eval_every=0, keep=2,
                max_bad_steps=50, devices=0) | changes
