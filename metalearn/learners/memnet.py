"""Memory networks trained online, segment by segment: truncated BPTT, synthetic gradients (DNI, cDNI), or full BPTT.

One update of the train loop is one *segment* of T = `window` steps, not one episode: the optimiser then steps as
often as the controllers do, with all of its own settings (clipping, schedule, refused updates), and what a run holds at
any moment is one window. The carry keeps the recurrent state and the place in the episode; `pace` keeps the loop on the
same batch until no position that counts is left, so a batch of short episodes costs few updates. Every position is read
in order; an episode that does not fill its last window is padded with positions that do not count.

  rule     tbptt               no credit crosses a boundary
           synthetic           a feedback model says what credit will come (see `synthetic`)
           bptt                the whole episode, one update per batch
           bptt_equal_updates  the whole episode, as many updates on each batch as the other rules make

A reconstruction of "Fast & Slow Learning" (arXiv 2011.05438) from its abstract and sources: read, write (with memory
itself) and output states each have a feedback head. Feedback models live in the parameters beside the network, under
`feedback/`, so that they checkpoint, freeze and transfer like the rest; give them an optimiser group of their own.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from metalearn import metrics, synthetic
from metalearn.nn import feedback as feedback_nn
from metalearn.nn import memory
from metalearn.types import Array, Episodes, Learner, Mean, PyTree, Stream
from metalearn.validate import fraction, nonnegative, one_of, positive, require, within

RULES = ("tbptt", "synthetic", "bptt", "bptt_equal_updates")
INPUTS = ("x", "x_and_last_label")
NATS = 0.6931471805599453  # per bit


def make(facts, *, network: dict, inputs: str, rule: str, window: int, feedback: dict, curriculum: dict,
         replicas: int, unroll: int, remat: bool) -> Learner:
    """A memory network and the rule that trains it.

    network     {"name": nse | ntm | lrua | dnc | lstm | outer_lstm | gated, ...its sizes}, see `nn.memory`
    inputs      x | x_and_last_label (MANN's protocol: the label comes one step late)
    rule        see the module; `window` is T, at most the episode's length
    feedback    context, clock, hidden, heads, gamma, clip, gate: see `_check_feedback`
    curriculum  start (0: off), bits: a replica's task level rises by one when its loss falls below `bits`
    replicas    independent copies (seeds) trained side by side, each on its own part of the batch
    unroll      steps per iteration of the compiled scan
    remat       recompute each window in the backward pass of full BPTT: memory by window instead of by step
    """
    one_of(RULES, rule=rule)
    one_of(INPUTS, inputs=inputs)
    positive(replicas=replicas, unroll=unroll)
    length, targets = facts["length"], facts.get("targets", "classes")
    require(1 <= window <= length, "window", window, f"must lie between 1 and the episode's length {length}")
    outputs = facts["ways"] if targets == "classes" else facts["outputs"]
    core = memory.make(network, outputs=outputs)
    with within("feedback"):
        _check_feedback(targets=targets, **feedback)
    with within("curriculum"):
        _check_curriculum(facts, **curriculum)
    curriculum = curriculum | {"most": facts.get("max_level", 0)}
    setup = Setup(core, inputs, rule, window, feedback, curriculum, targets, outputs, unroll, remat)

    def init(key, batch: Episodes):
        mine = _part(batch, replicas, 0)
        params = [_init(setup, k, mine) for k in jax.random.split(key, replicas)]
        inner = [_start(setup, p, mine) for p in params]
        carry = {"batch": jnp.zeros((), jnp.int32), "segment": jnp.zeros((), jnp.int32),
                 "mark": jnp.zeros((), jnp.uint32), "inner": _stack(inner)}
        return _stack(params), carry

    def grads(params, carry, batch: Episodes, key):
        mark = _mark(batch)
        k = jnp.where(mark == carry["mark"], carry["segment"], 0)
        ahead_BT = batch.mask_BT * (jnp.arange(batch.mask_BT.shape[1]) >= (k + 1) * window)
        done = (rule == "bptt") | (ahead_BT.sum() == 0)
        one = functools.partial(_grads, setup)
        if replicas == 1:
            g, inner, means = one(params, carry["inner"], batch, k, done)
        else:
            split = jax.tree.map(lambda leaf: leaf.reshape(replicas, -1, *leaf.shape[1:]), batch)
            g, inner, means = jax.vmap(one, in_axes=(0, 0, 0, None, None))(params, carry["inner"], split, k, done)
            means = jax.tree.map(lambda leaf: leaf.sum(0), means)
        carry = {"batch": carry["batch"] + done, "segment": jnp.where(done, 0, k + 1), "mark": mark, "inner": inner}
        return g, carry, means

    def pace(data, carry):
        if curriculum["start"]:
            data = data | {"level": jnp.atleast_1d(carry["inner"]["level"])}
        return data, carry["batch"]

    def predict(params, carry, batch: Episodes):
        one = functools.partial(_predict, setup)
        return one(params, batch) if replicas == 1 else jax.vmap(one, in_axes=(0, None))(params, batch)

    def _stack(trees):
        return trees[0] if replicas == 1 else jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)

    features = facts["features"] + (outputs if inputs == "x_and_last_label" else 0)
    shape = jax.ShapeDtypeStruct((1, 1, features), jnp.float32)
    size = lambda: memory.state_size(core, jax.eval_shape(core.init, jax.random.key(0), shape))
    stream = _stream(setup) if replicas == 1 else None
    return Learner(init, grads, predict, lambda length: size(), stream, pace=pace, warn=_warn)


class Setup(NamedTuple):
    """What `make` was told, in one value."""

    core: memory.Core
    inputs: str
    rule: str
    window: int
    feedback: dict
    curriculum: dict
    targets: str
    outputs: int
    unroll: int
    remat: bool


def _check_feedback(*, targets: str, context: str, clock: bool, hidden: int, heads: tuple, gamma: float, clip: float,
                    gate: bool) -> None:
    """context, clock: what G sees besides the state (`synthetic.context`); hidden: 0 is linear; heads: groups of the
    state that get one, () all; gamma: discount on what comes after the next boundary; clip: largest per-sample norm of
    what is injected, 0 is none; gate: inject only while the running R^2 is above 0."""
    one_of(synthetic.CONTEXTS, context=context)
    require(context != "label" or targets != "real", "context", context, "needs a task with labels; this one has none")
    nonnegative(hidden=hidden, clip=clip)
    fraction(gamma=gamma)


def _check_curriculum(facts, *, start: int, bits: float) -> None:
    nonnegative(start=start, bits=bits)
    require(not start or "max_level" in facts, "start", start, "must be 0: this task has no levels")
    require(start <= facts.get("max_level", 0), "start", start, f"must be at most {facts.get('max_level', 0)}")


def _warn(numbers) -> list[str]:
    if numbers.get("sg_r2", 0.0) < 0:
        return ["synthetic gradients do harm, their R^2 is below 0: lower the feedback's learning rate or gate them"]
    return []


def _mark(batch: Episodes) -> Array:
    """A number that tells batches apart, so that a new one starts from a fresh state whatever came before it."""
    total = jnp.zeros((), jnp.uint32)
    for leaf in (batch.task_B, batch.index_BT, batch.y_BT):
        bits = jax.lax.bitcast_convert_type(leaf, jnp.uint32).reshape(-1)
        total = total * 31 + (bits * (2 * jnp.arange(bits.size, dtype=jnp.uint32) + 1)).sum()
    return total


def _part(batch: Episodes, parts: int, i: int) -> Episodes:
    return jax.tree.map(lambda leaf: leaf.reshape(parts, -1, *leaf.shape[1:])[i], batch)


def _labels(setup: Setup, y_BT: Array) -> Array:
    return jax.nn.one_hot(y_BT, setup.outputs) if setup.targets == "classes" else y_BT


class Window(NamedTuple):
    """Some steps of a batch, time-major; weight_TB makes the sum over a batch its mean loss times its size."""

    x_TBX: Array
    y_TB: Array
    mask_TB: Array
    weight_TB: Array


def _window(setup: Setup, batch: Episodes, start: Array, steps: int) -> Window:
    def cut(a_BT):
        short = -a_BT.shape[1] % steps
        a_BT = jnp.pad(a_BT, ((0, 0), (0, short), *[(0, 0)] * (a_BT.ndim - 2))) if short else a_BT
        return jnp.swapaxes(jax.lax.dynamic_slice_in_dim(a_BT, start, steps, axis=1), 0, 1)

    x_TBX = cut(batch.x_BTX.reshape(*batch.x_BTX.shape[:2], -1))
    if setup.inputs == "x_and_last_label":
        before_BT = jnp.roll(batch.y_BT, 1, axis=1)
        seen_TBV = _labels(setup, cut(before_BT))
        first_T = (start + jnp.arange(steps) == 0)[:, None, None]
        x_TBX = jnp.concatenate([x_TBX, jnp.where(first_T, 0.0, seen_TBV)], -1)
    mask_TB = cut(batch.mask_BT)
    scale = batch.mask_BT.shape[0] / jnp.maximum(batch.mask_BT.sum(), 1.0)
    return Window(x_TBX, cut(batch.y_BT), mask_TB, mask_TB * scale)


def _init(setup: Setup, key: Array, batch: Episodes) -> PyTree:
    key_net, key_feedback = jax.random.split(key)
    net = setup.core.init(key_net, _window(setup, batch, jnp.int32(0), 1).x_TBX)
    params = {"net": net}
    if setup.rule == "synthetic":
        message, context = _shapes(setup, net, batch.mask_BT.shape[0])
        params["feedback"] = feedback_nn.init(key_feedback, setup.feedback["hidden"], message, context)
    return params


def _shapes(setup: Setup, net: PyTree, num: int):
    """(message, context) of `num` fresh episodes."""
    state = setup.core.start(net, num)
    size = synthetic.context_size(setup.feedback["context"], setup.feedback["clock"], setup.outputs)
    return feedback_nn.messages(state, _heads(setup, state)), jnp.zeros((num, size))


def _start(setup: Setup, params: PyTree, batch: Episodes) -> PyTree:
    """What one replica carries from update to update."""
    inner: dict[str, Any] = {}
    num = batch.mask_BT.shape[0]
    if setup.rule in ("tbptt", "synthetic"):
        inner["state"] = setup.core.start(params["net"], num)
    if setup.rule == "synthetic":
        context = _shapes(setup, params["net"], num)[1]
        inner |= {"context": context} if context.size else {}  # checkpoints hold no empty arrays
        inner["energy"] = jnp.zeros(2)  # running means of |target|^2 and of what is left of it: the gate's R^2
    if setup.curriculum["start"]:
        inner |= {"level": jnp.int32(setup.curriculum["start"]), "bits": jnp.ones(()), "sums": jnp.zeros(2)}
    return inner


def _read(setup: Setup, net: PyTree, state: PyTree, window: Window):
    """(loss_B, state, extras) of one window: the segment function of `synthetic`."""
    state, logits_TBV = memory.unroll(setup.core, net, state, window.x_TBX, unroll=setup.unroll)
    loss_TB = metrics.position_loss(logits_TBV, window.y_TB, setup.targets)
    return (loss_TB * window.weight_TB).sum(0), state, {"logits": logits_TBV, "loss": loss_TB}


def _read_all(setup: Setup, net: PyTree, state: PyTree, window: Window):
    """`_read` over a whole episode; with `remat` the backward pass keeps only the states between windows."""
    steps, T = len(window.mask_TB), setup.window
    if not setup.remat or steps <= T:
        return _read(setup, net, state, window)
    pad = lambda a: jnp.pad(a, ((0, -steps % T), *[(0, 0)] * (a.ndim - 1)))
    pieces = jax.tree.map(lambda a: pad(a).reshape(-1, T, *a.shape[1:]), window)

    def body(state, piece):
        loss_B, state, extras = jax.checkpoint(functools.partial(_read, setup))(net, state, piece)
        return state, (loss_B, extras)

    state, (loss_SB, extras) = jax.lax.scan(body, state, pieces)
    joined = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:steps], extras)
    return loss_SB.sum(0), state, joined


def _grads(setup: Setup, params: PyTree, inner: PyTree, batch: Episodes, k: Array, done: Array):
    """One update's gradient of one replica: (grads, inner, means)."""
    num, T = batch.mask_BT.shape[0], setup.window
    core, rule, before = setup.core, setup.rule, inner
    if rule in ("bptt", "bptt_equal_updates"):
        window = _window(setup, batch, jnp.int32(0), batch.mask_BT.shape[1])
        whole = lambda net, _: _read_all(setup, net, core.start(net, num), window)
        out = synthetic.grads_by_synthetic(whole, params["net"], (), None)
    else:
        window = _window(setup, batch, k * T, T)

        def segment(net, state):
            fresh = core.start(net, num)
            state = jax.tree.map(lambda new, old: jnp.where(k == 0, new, old), fresh, state)
            return _read(setup, net, state, window)

        feedback = None
        if rule == "synthetic":
            feedback = functools.partial(_feedback, setup, params, inner, batch, window, k)
        out = synthetic.grads_by_synthetic(segment, params["net"], inner["state"], feedback)
        inner = inner | {"state": out.state}

    grads = {"net": jax.tree.map(lambda g: g / num, out.grads)}
    right_TB = metrics.position_correct(out.aux["logits"], window.y_TB, setup.targets)
    means = {"loss": Mean.of(out.aux["loss"], window.mask_TB), "accuracy": Mean.of(right_TB, window.mask_TB)}
    if rule == "synthetic":
        grads["feedback"], inner, more = _learn_feedback(setup, params, before, inner, batch, window, k, out)
        means |= more
    if setup.curriculum["start"]:
        inner = inner | _climb(setup, inner, out.aux["loss"], window.mask_TB, done)
        means["level"] = Mean.of(inner["level"])
    return grads, inner, means


def _ahead(batch: Episodes, boundary: Array) -> Array:
    """1.0 for samples with something that counts at or after the boundary; the others' future gradient is 0."""
    return ((jnp.arange(batch.mask_BT.shape[1]) >= boundary) * batch.mask_BT).max(1)


def _next_context(setup: Setup, batch: Episodes, window: Window, k: Array, aux: PyTree) -> Array:
    error_TBV = metrics.position_error(aux["logits"], window.y_TB, setup.targets)
    return jax.lax.stop_gradient(synthetic.context(
        setup.feedback["context"], setup.feedback["clock"], _labels(setup, batch.y_BT), batch.mask_BT,
        (k + 1) * setup.window, error_TBV, aux["loss"], window.mask_TB))


def _heads(setup: Setup, state: PyTree) -> tuple[str, ...]:
    with within("feedback"):
        return feedback_nn.covered(state, tuple(setup.feedback["heads"]))


def _ask(setup: Setup, params: PyTree, state: PyTree, context_BC: Array) -> PyTree:
    """The feedback model's answer as a tree like the state."""
    message = feedback_nn.messages(state, _heads(setup, state))
    said = feedback_nn.apply(params["feedback"], setup.feedback["hidden"], message, context_BC)
    return feedback_nn.restore(said, state)


def _feedback(setup: Setup, params, inner, batch, window, k, state, aux) -> PyTree:
    """What is injected at the end of window k."""
    options = setup.feedback
    delta = _ask(setup, params, state, _next_context(setup, batch, window, k, aux))
    by_B = options["gamma"] * _ahead(batch, (k + 1) * setup.window)
    if options["gate"]:
        by_B = by_B * (inner["energy"][1] < inner["energy"][0])
    return synthetic.scale_B(synthetic.clip(delta, options["clip"]), by_B)


def _learn_feedback(setup: Setup, params, before, inner, batch, window, k, out: synthetic.Segment):
    """(feedback's gradient, inner, means): regression at the boundary where window k began, on what came of it."""
    counts_B = _ahead(batch, k * setup.window) * (k > 0)  # the first state is a constant: nobody asks about it

    context = before.get("context", jnp.zeros((len(counts_B), 0)))

    def loss(feedback):
        said = _ask(setup, params | {"feedback": feedback}, before["state"], context)
        return synthetic.regression(said, out.target, counts_B), said

    grads, said = jax.grad(loss, has_aux=True)(params["feedback"])
    covered = feedback_nn.restore(feedback_nn.messages(out.target, _heads(setup, out.target)), out.target)
    means = synthetic.health(said, covered, counts_B)
    energy = jnp.stack([means["sg_r2"].count, means["sg_r2"].count - means["sg_r2"].total])
    energy = jnp.where(counts_B.sum() > 0, 0.99 * before["energy"] + 0.01 * energy, before["energy"])
    inner = inner | {"energy": energy}
    if "context" in before:
        inner = inner | {"context": _next_context(setup, batch, window, k, out.aux)}
    return grads, inner, means


def _climb(setup: Setup, inner, loss_TB: Array, mask_TB: Array, done: Array) -> dict:
    """The curriculum's state: bits per position of this batch so far, their running mean over batches, the level."""
    sums = inner["sums"] + jnp.stack([(loss_TB * mask_TB).sum() / NATS, mask_TB.sum()])
    bits = jnp.where(done, 0.9 * inner["bits"] + 0.1 * sums[0] / jnp.maximum(sums[1], 1.0), inner["bits"])
    solved = done & (bits < setup.curriculum["bits"])
    level = jnp.minimum(inner["level"] + solved, setup.curriculum["most"])
    return {"level": level, "bits": jnp.where(solved, 1.0, bits), "sums": jnp.where(done, 0.0, sums)}


def _predict(setup: Setup, params: PyTree, batch: Episodes) -> Array:
    """Outputs at every position of whole episodes, (B, T, V)."""
    window = _window(setup, batch, jnp.int32(0), batch.mask_BT.shape[1])
    state = setup.core.start(params["net"], batch.mask_BT.shape[0])
    _, logits_TBV = memory.unroll(setup.core, params["net"], state, window.x_TBX, unroll=setup.unroll)
    return jnp.swapaxes(logits_TBV, 0, 1)


def _stream(setup: Setup) -> Stream:
    def step(params, state, x_BX, y_prev_B):
        if setup.inputs == "x_and_last_label":
            x_BX = jnp.concatenate([x_BX, jax.nn.one_hot(y_prev_B, setup.outputs)], -1)
        state, logits_TBV = memory.unroll(setup.core, params["net"], state, x_BX[None])
        return state, logits_TBV[0]

    return Stream(lambda params, num, length: setup.core.start(params["net"], num), step)
