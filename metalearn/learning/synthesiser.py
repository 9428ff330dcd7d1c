"""The synthesiser of synthetic gradients: what is injected at a segment's end, and how the feedback model learns it.

One feedback model G may serve several networks: each hands it its message through an adapter P (a matrix per group of
the state) and gets the answer back through the transpose, which is how a gradient changes its basis.

`inner` is what a network carries from segment to segment: `context` (what G saw at this boundary), `energy`
(running means of |target|^2 and of what prediction leaves of it: the gate's R^2), `trace` (BP(lambda)).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from metalearn.learning import synthetic
from metalearn.nn import feedback as feedback_nn
from metalearn.types import Array, Episodes, Mean, PyTree
from metalearn.validate import fraction, nonnegative, one_of, require, within

LARGEST_TRACE = 128  # floats of a state: a trace holds their cube per episode


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """The block `feedback` of a learner.

    context  what G sees besides the state: none | label (see `context`)
    time_remaining   G also sees how much of the episode is left
    hidden   width of G's hidden layer; 0: linear
    heads    groups of the state that get a head; (): all
    gamma    discount on what comes after the next boundary
    clip     largest per-sample norm of what is injected; 0: as it is
    gate     inject only while the running R^2 is above 0
    trace    BP(lambda)'s lambda; 0 learns from the next boundary alone (DNI)
    aux      weight of the auxiliary loss (DNI+Aux): after a segment's first step the network predicts the synthetic
             gradient at its end, and learns from being wrong; 0: none
    adapter  none | identity (fixed; cut or padded with zeros between sizes) | learned (starts there)
    """

    context: str
    time_remaining: bool
    hidden: int
    heads: tuple
    gamma: float
    clip: float
    gate: bool
    trace: float
    aux: float
    adapter: str

    def check(self, targets: str, segment: int, networks: int) -> None:
        """ConfigError unless they suit `networks` networks that read segments of `segment` steps."""
        one_of(("none", "label"), context=self.context)
        one_of(("none", "identity", "learned"), adapter=self.adapter)
        labelled = self.context != "label" or targets != "real"
        require(labelled, "context", self.context, "needs a task with labels; this one has none")
        nonnegative(hidden=self.hidden, clip=self.clip, aux=self.aux)
        fraction(gamma=self.gamma, trace=self.trace)
        need = lambda ok, what: require(not self.trace or ok, "trace", self.trace, "needs " + what)
        need(not self.hidden, "a linear model: hidden = 0")
        need(networks == 1 and self.adapter == "none", "one network and no adapter")
        require(not self.aux or segment > 1, "aux", self.aux, "needs a segment of at least 2 steps")


def check_states(options: Options, states: list[PyTree]) -> None:
    """Whether one model can serve networks with these states (shapes are enough); heads are refused by name."""
    with within("feedback"):
        sizes = [jax.eval_shape(lambda s: feedback_nn.messages(s, heads(options, s)), s) for s in states]
        flat = [{g: m.shape[-1] for g, m in size.items()} for size in sizes]
        for other in flat[1:]:
            require(other.keys() == flat[0].keys(), "heads", options.heads,
                    f"the networks' states differ: {', '.join(flat[0])} against {', '.join(other)}")
            require(other == flat[0] or options.adapter != "none", "adapter", options.adapter,
                    f"must be identity or learned: the networks' messages have sizes {flat[0]} and {other}")
        if options.trace:
            total = sum(flat[0].values())
            require(len(flat[0]) == 1 and "memory" not in flat[0] and total <= LARGEST_TRACE, "trace", options.trace,
                    f"needs a state of one vector group, at most {LARGEST_TRACE} floats, such as a small lstm")


def heads(options: Options, state: PyTree) -> tuple[str, ...]:
    return feedback_nn.covered(state, options.heads)


def init(options: Options, key: Array, states: list[PyTree], context_BC: Array) -> dict[str, PyTree]:
    """The feedback path's parameters: G for the first network's message, adapters and auxiliary heads for each."""
    key_path, *keys = jax.random.split(key, 1 + len(states))
    messages = [feedback_nn.messages(s, heads(options, s)) for s in states]
    params = {"feedback": feedback_nn.init(key_path, options.hidden, messages[0], context_BC)}
    if options.adapter == "learned":
        params["adapter"] = {str(i): feedback_nn.init_adapter(m, messages[0]) for i, m in enumerate(messages)}
    if options.aux:
        params["aux"] = {str(i): feedback_nn.init(k, options.hidden, m, context_BC[:, :0])
                         for i, (k, m) in enumerate(zip(keys, messages, strict=True))}
    return params


def initial_inner(options: Options, message: dict[str, Array], context_BC: Array) -> dict[str, Any]:
    inner: dict[str, Any] = {"energy": jnp.zeros(2)}
    inner |= {"context": context_BC} if context_BC.size else {}  # checkpoints hold no empty arrays
    if options.trace:
        num, size = next(iter(message.values())).shape
        inner["trace"] = jnp.zeros((num, size, size, size + context_BC.shape[1] + 1))
    return inner


def query(options: Options, model: PyTree, adapter: PyTree | None, state: PyTree, context_BC: Array) -> PyTree:
    """G's answer as a tree like the state."""
    message = feedback_nn.messages(state, heads(options, state))
    if options.adapter == "identity":
        sizes = feedback_nn.sizes(model)
        adapter = {g: jnp.eye(sizes[g], m.shape[-1]) for g, m in message.items()}
    inside = message if adapter is None else feedback_nn.adapt(adapter, message)
    said = feedback_nn.apply(model, options.hidden, inside, context_BC)
    said = said if adapter is None else feedback_nn.adapt_back(adapter, said)
    return feedback_nn.restore(said, state)


def inject(options: Options, delta: PyTree, energy: Array, future_B: Array) -> PyTree:
    """What is injected of G's answer: clipped, discounted, nothing where nothing is to come or where G does harm.

    energy  of `inner`, for the gate; future_B  1 where something that counts is still to come
    """
    by_B = options.gamma * future_B
    if options.gate:
        by_B = by_B * (energy[1] < energy[0])
    return synthetic.scale_B(synthetic.clip(delta, options.clip), by_B)


def no_context(options: Options, outputs: int, num: int) -> Array:
    """What G sees besides the state before anything is known: zeros (num, C)."""
    return jnp.zeros((num, outputs * (options.context == "label") + options.time_remaining))


def context(options: Options, batch: Episodes, label_sum, boundary: Array | int) -> Array:
    """What G sees besides the state at `boundary`, the first position not read yet: (B, C). Training-time information.

    label     the mean label (one-hot, or bits) of the positions that still count: privileged, from the future
    time_remaining   the fraction of the episode's counted positions' span that is still to come

    label_sum(weight_BT) -> (B, V) is the weighted sum of the episode's labels.
    """
    steps, mask_BT, out = batch.mask_BT.shape[1], batch.mask_BT, []
    if options.context == "label":
        ahead_BT = mask_BT * (jnp.arange(steps) >= boundary)
        out.append(label_sum(ahead_BT) / jnp.maximum(ahead_BT.sum(1), 1.0)[:, None])
    if options.time_remaining:
        last_B = jnp.max(mask_BT * jnp.arange(1, steps + 1), axis=1)
        out.append((jnp.maximum(last_B - boundary, 0.0) / steps)[:, None])
    return jnp.concatenate(out, -1) if out else no_context(options, 0, len(mask_BT))


def learn(options: Options, model: PyTree, adapter: PyTree | None, before: dict, target: PyTree, counts_B: Array):
    """(gradients {feedback[, adapter]}, inner, means): regression at the boundary where the segment began, on what came
    of it. counts_B: samples for which G was queried there."""
    context_BC = before.get("context", jnp.zeros((len(counts_B), 0)))

    def loss(params):
        said = query(options, params["feedback"], params.get("adapter"), before["state"], context_BC)
        return synthetic.regression(said, target, counts_B), said

    params = {"feedback": model} | ({} if adapter is None else {"adapter": adapter})
    grads, said = jax.grad(loss, has_aux=True)(params)
    covered = heads(options, target)
    target = feedback_nn.restore(feedback_nn.messages(target, covered), target)
    means = synthetic.health(said, target, counts_B)
    energy = jnp.stack([means["sg_r2"].count, means["sg_r2"].count - means["sg_r2"].total])
    energy = jnp.where(counts_B.sum() > 0, 0.99 * before["energy"] + 0.01 * energy, before["energy"])
    if options.trace:
        gap = jax.tree.map(lambda t, p: (t - p) * counts_B.reshape(-1, *[1] * (t.ndim - 1)), target, said)
        group, = covered
        error_BI = feedback_nn.messages(gap, covered)[group]
        table_AC = synthetic.traced_gradient(before["trace"], error_BI) / len(counts_B)
        grads["feedback"] = feedback_nn.from_table(model, group, table_AC)
    return grads, {"energy": energy}, means


def trace(options: Options, read, before: dict, after: PyTree, context_BC: Array, k: Array) -> Array:
    """The eligibility trace at the end of segment k; read(state) -> state is that segment."""
    covered = heads(options, after)
    group, = covered
    flat = lambda state: feedback_nn.messages(state, covered)[group]
    pushed = synthetic.jacobian(lambda x_BI: flat(read(feedback_nn.restore({group: x_BI}, before["state"]))),
                                flat(before["state"]))
    input_BC = jnp.concatenate([flat(after), context_BC, jnp.ones((len(context_BC), 1))], -1)
    # G is not queried at boundary 0, whose state is a constant: the first trace is boundary 1's own term
    return synthetic.advance(before["trace"], pushed, input_BC, options.gamma * options.trace, k == 0)


def auxiliary(options: Options, model: PyTree, first: PyTree, delta: PyTree, counts_B: Array) -> Array:
    """(B,) weighted squared error of what the state after a segment's first step predicts for its end."""
    message = feedback_nn.messages(first, heads(options, first))
    said = feedback_nn.apply(model, options.hidden, message, jnp.zeros((len(counts_B), 0)))
    gap = jax.tree.map(jnp.subtract, said, feedback_nn.messages(delta, heads(options, delta)))
    return options.aux * counts_B * (jnp.square(synthetic.norm_B(gap)) - synthetic.EPS)


def warn(numbers) -> list[str]:
    if numbers.get("sg_r2", 0.0) < 0:
        return ["synthetic gradients do harm, their R^2 is below 0: lower the feedback's learning rate or gate them"]
    return []


def merge(grads: Sequence[dict], means: Sequence[dict[str, Mean]]) -> tuple[dict, dict[str, Mean]]:
    """One model's gradient: the mean over the networks it serves; adapters each their own."""
    total = {"feedback": jax.tree.map(lambda *g: sum(g[1:], g[0]) / len(g), *(g["feedback"] for g in grads))}
    if "adapter" in grads[0]:
        total["adapter"] = {str(i): g["adapter"] for i, g in enumerate(grads)}
    return total, jax.tree.map(lambda *m: sum(m[1:], m[0]), *means)
