"""A backbone with a linear head, cut into fast parameters (adapted to each task) and slow ones (shared by all).

  adapt=all      body and head are fast (MAML)
  adapt=head     the head alone (ANIL, Raghu et al. 2020)
  adapt=context  a vector that starts at zero and modulates the body (CAVIA, Zintgraf et al. 2019)
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from metalearn.nn import backbone as backbone_lib
from metalearn.types import Array, PyTree
from metalearn.validate import one_of, require


@dataclasses.dataclass(frozen=True)
class Adaptable:
    """A network as functions of (fast, slow).

    init(key, x_NX) -> (params, carry)            carry: moving statistics under norm=running, else ()
    split(params) -> (fast, slow)
    apply(fast, slow, x_NX) -> out_NV             normalised by the statistics of x itself
    answer(fast, slow, x_SX, x_QX, carry=None) -> (out_QV, stats)   queries, under the norm's policy; `carry` is
                                                  given in prediction only; `stats` are those that were used
    moved(carry, stats) -> carry
    """

    init: Callable
    split: Callable
    apply: Callable
    answer: Callable
    moved: Callable


def make(backbone: dict, spec, num_outputs: int, adapt: str, context: int) -> Adaptable:
    """`context` is the length of the context vector, above 0 exactly where adapt=context."""
    one_of(("all", "head", "context"), adapt=adapt)
    require((context > 0) == (adapt == "context"), "context", context, "must be above 0 with adapt=context, else 0")
    net = backbone_lib.make(backbone, spec)
    running = net.norm == "running"

    def no_context():
        return jnp.zeros(context) if context else None

    def split(params: PyTree) -> tuple[PyTree, PyTree]:
        fast = {"all": ("body", "head"), "head": ("head",), "context": ()}[adapt]
        chosen = {name: params[name] for name in fast} or {"context": no_context()}
        return chosen, {name: params[name] for name in ("body", "head") if name not in fast}

    def forward(fast: PyTree, slow: PyTree, x_NX: Array, stats=None) -> tuple[Array, PyTree]:
        both = {**slow, **fast}
        h_ND, stats = net.apply(both["body"], x_NX, stats, both.get("context"))
        return h_ND @ both["head"]["kernel"] + both["head"]["bias"], stats

    def init(key, x_NX: Array) -> tuple[PyTree, PyTree]:
        key_body, key_head = jax.random.split(key)
        kernel = jax.random.normal(key_head, (net.features, num_outputs)) * net.features**-0.5
        params = {"body": net.init(key_body, x_NX, no_context()),
                  "head": {"kernel": kernel, "bias": jnp.zeros(num_outputs)}}
        return params, (forward(*split(params), x_NX)[1] if running else ())

    def answer(fast, slow, x_SX, x_QX, carry=None):
        if net.norm == "episode":
            return forward(fast, slow, x_QX, forward(fast, slow, x_SX)[1])
        return forward(fast, slow, x_QX, carry if running else None)

    return Adaptable(init, split, lambda fast, slow, x_NX: forward(fast, slow, x_NX)[0], answer,
                     lambda carry, stats: backbone_lib.moving(carry, stats) if running else carry)
