"""Two hidden layers on x_t alone: what cannot learn in context, for comparison."""

import flax.linen as nn

from metalearn import validate
from metalearn.nn import network


class MLP(nn.Module):
    """ReLU layers of equal width on the first `features` entries of each token."""

    outputs: int
    width: int
    features: int

    @nn.compact
    def __call__(self, state, tokens_BLI):
        h = nn.relu(nn.Dense(self.width)(tokens_BLI[..., : self.features]))
        return {}, nn.Dense(self.outputs)(nn.relu(nn.Dense(self.width)(h)))

    def initial_state(self, num, length):
        return {}


def make(spec: network.NetworkSpec, *, width: int) -> network.Network:
    """width: units of each hidden layer."""
    validate.positive(width=width)
    return network.of(MLP(spec.outputs, width, spec.features), recurrent=True)
