"""How sure a number is: 95 % intervals over episodes, tasks and seeds.

The unit of an interval is what was drawn independently: an episode under one network, a task (windows or repeats of one
task are not independent), a seed. `interval` is Student's t over such units. Where one network plays all tasks, see
`rows_half_width` in configs/tables/metadt.py.
"""

from typing import Any

import numpy as np
from scipy import special

MANY = 1000  # values past which 1.96, which papers use, is within .13 % of Student's factor


def factor(n: int) -> float:
    """Half a 95 % interval of a mean in standard errors, of n independent values: Student's t. NaN with one."""
    return float("nan") if n < 2 else 1.96 if n > MANY else float(special.stdtrit(n - 1, 0.975))


def interval(values, axis: int = 0) -> tuple[Any, Any]:
    """(mean, half of its 95 % interval) over independent values along `axis`, in double precision.

    Floats where nothing else is left, else arrays. NaN counts as not measured; the half is NaN with a single value.
    """
    values = np.moveaxis(np.asarray(values, np.float64), axis, 0)
    known = ~np.isnan(values)
    n = known.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(known, values, 0.0).sum(0) / n
        spread = np.sqrt(np.where(known, (values - mean) ** 2, 0.0).sum(0) / (n - 1))
        half = np.vectorize(factor, otypes=[float])(n) * spread / np.sqrt(n)
    return (mean, half) if mean.ndim else (float(mean), float(half))


def text(mean: float, half: float, digits: int) -> str:
    """The mean with its interval, where there is one."""
    return f"{mean:.{digits}f}" if np.isnan(half) else f"{mean:.{digits}f} ± {half:.{digits}f}"


def interquartile(values) -> float:
    """Mean of the middle half."""
    values, quarter = np.sort(values), len(values) // 4
    return float(values[quarter: len(values) - quarter].mean())
