"""Sine waves to be regressed from a few points (Finn et al. 2017, section 5.1): y = a sin(x - p) + noise."""

import jax
import jax.numpy as jnp

from metalearn.tasks import _ids
from metalearn.types import TaskDist
from metalearn.validate import nonnegative, require


def make(*, shots: int, queries: int, amplitude: tuple[float, ...], phase: tuple[float, ...],
         x_range: tuple[float, ...], noise: float, num_tasks: int, task_seed: int) -> TaskDist:
    """The distribution: `shots` support and `queries` query points per episode.

    amplitude, phase, x_range   (low, high) of three uniform distributions; the paper's are (.1, 5), (0, pi), (-5, 5)
    noise                       std of the noise on all targets (the paper: 0)
    num_tasks                   meta-training tasks; 0 is unlimited
    """
    nonnegative(noise=noise)
    for field, value in dict(amplitude=amplitude, phase=phase, x_range=x_range).items():
        require(len(value) == 2 and value[0] < value[1], field, value, "must be (low, high)")
    between = lambda key, shape, low_high: jax.random.uniform(key, shape, minval=low_high[0], maxval=low_high[1])

    def draw(key, T):
        key_a, key_p, key_x, key_noise = jax.random.split(key, 4)
        x_TX = between(key_x, (T, 1), x_range)
        wave_TY = between(key_a, (), amplitude) * jnp.sin(x_TX - between(key_p, (), phase))
        return x_TX, wave_TY + noise * jax.random.normal(key_noise, (T, 1))

    return _ids.regression(draw, shots=shots, queries=queries, num_tasks=num_tasks, task_seed=task_seed,
                           features=1, protocol="sinusoid")
