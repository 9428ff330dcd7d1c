"""Test-time training layers (2407.04620): a linear model or MLP per head, one gradient step per token."""

from metalearn import validate
from metalearn.nn import mixing, network
from metalearn.nn.neural_memory import NeuralMemory


def make(spec: network.NetworkSpec, *, depth: int, width: int, num_heads: int, mlp: int, conv: int, chunk: int,
         layers: int, rate: float) -> network.Network:
    """layers of the inner model (1: linear), whose output is normed before its input is added.

    chunk   tokens whose gradients are all taken before the first of them (the paper's mini-batch, 16): part of the
            method, not of its speed alone
    rate    largest step size (1 for a linear model, .1 for an MLP)
    """
    validate.positive(chunk=chunk, layers=layers, rate=rate)
    return mixing.make(spec, NeuralMemory, depth=depth, width=width, num_heads=num_heads, mlp=mlp, conv=conv,
                       chunk=chunk, layers=layers, momentum=False, decay=False, rate=rate, clip=0.0, by_place=True,
                       normed=True)
