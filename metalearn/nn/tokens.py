"""Tokens made of parts that have the same say.

A linear layer drawn with variance 1 / fan-in adds up what a token's entries bring, so a part speaks as loud as its
length. A one-hot label has length 1 and 32 features of unit spread have length 5.7: beside them it is a fortieth of the
sum, and learners that have to bind labels to inputs stay on their plateau for it.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from metalearn.types import Array


def join(parts: Sequence[Array], powers: Sequence[float], scales: Sequence[float] | None = None) -> Array:
    """Concatenates parts (..., X_i) into tokens (..., sum of X_i) of unit RMS, each part with an equal share of it.

    powers   the mean squared length of each part as it comes: X of features with zero mean and unit spread, 1 of a
             one-hot label or of a vector of unit length
    scales   factors on top, where a method wants one part louder; 1 where it does not
    """
    each = sum(part.shape[-1] for part in parts) / len(parts)  # the mean squared length that every part gets
    scales = scales or [1.0] * len(parts)
    gains = [float(np.sqrt(each / power)) * scale for power, scale in zip(powers, scales, strict=True)]
    return jnp.concatenate([part * gain for part, gain in zip(parts, gains, strict=True)], -1)
