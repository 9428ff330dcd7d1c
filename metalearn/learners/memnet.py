"""Memory networks trained online, segment by segment: truncated BPTT, synthetic gradients (DNI, cDNI), or full BPTT.

One update of the train loop is one *segment* of T = `window` steps, not one episode: the optimiser then steps as
often as the controllers do, with all of its own settings (clipping, schedule, refused updates), and what a run holds at
any moment is one window. The carry keeps the recurrent state and the place in the episode; `pace` keeps the loop on the
same batch until no position that counts is left, so a batch of short episodes costs few updates. Every position is read
in order; an episode that does not fill its last window is padded with positions that do not count.

  rule     tbptt               no credit crosses a boundary
           synthetic           a feedback model says what credit will come (see `synthetic`, `credit`)
           bptt                the whole episode, one update per batch
           bptt_equal_updates  the whole episode, as many updates on each batch as the other rules make

A reconstruction of "Fast & Slow Learning" (arXiv 2011.05438) from its abstract and sources: read, write (with memory
itself) and output states each have a feedback head. Feedback models live in the parameters beside the networks, under
`feedback/`, so that they checkpoint, freeze and transfer like the rest; give them an optimiser group of their own.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from metalearn.learning import curriculum as curriculum_lib
from metalearn.learning import fast_weights, segments, synthesiser, synthetic
from metalearn.measure import losses
from metalearn.nn import feedback as feedback_nn
from metalearn.nn import network as network_nn
from metalearn.nn.network import Network
from metalearn.types import Array, Episodes, Learner, Mean, PyTree, Stream
from metalearn.validate import call, multiple_of, one_of, positive, require, within

RULES = ("tbptt", "synthetic", "bptt", "bptt_equal_updates")


def make(facts, *, network: dict, members: tuple, inputs: str, label_gain: float, rule: str, window: int,
         feedback: dict, speeds: dict, curriculum: dict, replicas: int, unroll: int, remat: bool) -> Learner:
    """Memory networks and the rule that trains them.

    network     {"name": a file of networks/, ...its sizes}; a Transformer, whose state grows, with all rules but
                `synthetic`
    members     (): that network alone; else a dict of changes to it for each of several networks that share one
                feedback model, each on its own part of the batch
    inputs      x | x_and_last_label (MANN's protocol: the label comes one step late) | x_and_shown_label (support, then
                queries: labels stand beside the inputs that are not asked)
    label_gain  what labels among the inputs are multiplied by: a one-hot label beside an image of 400 pixels is faint
    rule        see the module; `window` is T, at most the episode's length
    feedback    see `credit.make`
    speeds      fast and slow learning, see `fast.make`
    curriculum  see `curriculum_lib.make`: each replica has a level of its own
    replicas    independent copies (seeds) trained side by side, each on its own part of the batch
    unroll      steps per iteration of the compiled scan
    remat       recompute each window in the backward pass of full BPTT: memory by window instead of by step
    """
    one_of(RULES, rule=rule)
    one_of(segments.INPUTS, inputs=inputs)
    positive(replicas=replicas, unroll=unroll, label_gain=label_gain)
    length, targets = facts["length"], facts.get("targets", "classes" if "ways" in facts else "real")
    require(1 <= window <= length, "window", window, f"must lie between 1 and the episode's length {length}")
    outputs = facts["ways"] if targets == "classes" else facts["outputs"]
    # a cache has room for whole windows, the last of them padded
    spec = network_nn.NetworkSpec(outputs, facts["features"], inputs, -(-length // window) * window, "float32", unroll)
    nets = tuple(network_nn.make(network | dict(changes), spec) for changes in members or ({},))
    with within("feedback"):
        options = call(synthesiser.make, targets, window, len(nets), **feedback)
    with within("speeds"):
        rates = call(fast_weights.make, rule, options.context, len(nets), **speeds)
    with within("curriculum"):
        levels = call(curriculum_lib.make, facts, len(nets), **curriculum)
    reader = segments.Reader(inputs, targets, outputs, window, remat, label_gain)
    setup = Setup(nets, reader, spec.length, rule, options, rates, levels)
    shape = jax.ShapeDtypeStruct((1, 1, segments.features(inputs, facts["features"], outputs)), jnp.float32)
    shapes = [jax.eval_shape(net.init, jax.random.key(0), shape) for net in nets]
    if rule == "synthetic":
        for net in nets:
            require(net.recurrent, "network.name", network["name"],
                    "rule=synthetic needs a recurrent network: a feedback model answers a state of one size")
        synthesiser.check_states(options, [jax.eval_shape(lambda p, net=net: net.initial_state(p, 1, length), p)
                                           for net, p in zip(nets, shapes, strict=True)])

    def init(key, batch: Episodes):
        parts = replicas * len(nets)
        multiple_of("replicas x members", parts, **{"config.train.batch": batch.mask_BT.shape[0]})
        mine = segments.part(batch, replicas, 0)
        params = [_init(setup, k, mine) for k in jax.random.split(key, replicas)]
        inner = [_start(setup, p, mine) for p in params]
        carry = {"batch": jnp.zeros((), jnp.int32), "segment": jnp.zeros((), jnp.int32),
                 "mark": jnp.zeros((), jnp.uint32), "inner": _stack(inner)}
        return _stack(params), carry

    def grads(params, carry, batch: Episodes, key):
        mark = segments.mark(batch)
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
        if levels.start:
            data = data | {"level": jnp.atleast_1d(carry["inner"]["level"])}
        return data, carry["batch"]

    def predict(params, carry, batch: Episodes):
        one = functools.partial(_predict, setup)
        return one(params, batch) if replicas == 1 else jax.vmap(one, in_axes=(0, None))(params, batch)

    def _stack(trees):
        return trees[0] if replicas == 1 else jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)

    def state_size(length: int) -> int:
        return sum(net.state_size(p, length) for net, p in zip(nets, shapes, strict=True)) // len(nets)

    single = replicas == len(nets) == 1 and inputs != "x_and_shown_label" and rates.scope == "persistent"
    return Learner(init, grads, predict, state_size, _stream(setup) if single else None, pace=pace,
                   warn=synthesiser.warn)


class Setup(NamedTuple):
    """What `make` was told, in one value."""

    nets: tuple[Network, ...]
    reader: segments.Reader
    length: int  # of an episode, in whole windows
    rule: str
    feedback: synthesiser.Options
    speeds: fast_weights.Options
    levels: curriculum_lib.Options

    def parts(self, batch: Episodes) -> list[Episodes]:
        """Each network's part of a batch."""
        return [segments.part(batch, len(self.nets), i) for i in range(len(self.nets))]


def _init(setup: Setup, key: Array, batch: Episodes) -> PyTree:
    """{net: {member: ...}, and what the feedback path needs}."""
    key_net, key_feedback = jax.random.split(key)
    batch = setup.parts(batch)[0]
    x_BTX = jnp.swapaxes(setup.reader.cut(batch, jnp.int32(0), 1).x_TBX, 0, 1)
    keys = [key_net, *(jax.random.fold_in(key_net, i) for i in range(1, len(setup.nets)))]
    inits = [net.init(k, x_BTX) for net, k in zip(setup.nets, keys, strict=True)]
    params = {"net": {str(i): mine for i, mine in enumerate(inits)}}
    if setup.rule == "synthetic":
        num = len(batch.mask_BT)
        states = [net.initial_state(mine, num, setup.length) for net, mine in zip(setup.nets, inits, strict=True)]
        params |= synthesiser.init(setup.feedback, key_feedback, states, _no_context(setup, num))
    return params


def _no_context(setup: Setup, num: int) -> Array:
    return jnp.zeros((num, synthetic.context_size(setup.feedback.context, setup.feedback.clock, setup.reader.outputs)))


def _start(setup: Setup, params: PyTree, batch: Episodes) -> PyTree:
    """What one replica carries from update to update."""
    inner: dict[str, Any] = {}
    num = len(batch.mask_BT) // len(setup.nets)
    if setup.rule in ("tbptt", "synthetic"):
        for i, net in enumerate(setup.nets):
            own = params["net"][str(i)]
            mine = {"state": net.initial_state(own, num, setup.length)}
            if setup.rule == "synthetic":
                message = feedback_nn.messages(mine["state"], synthesiser.heads(setup.feedback, mine["state"]))
                mine |= synthesiser.start(setup.feedback, message, _no_context(setup, num))
            if setup.speeds.scope == "episodic":
                mine["weights"] = fast_weights.start(setup.speeds, own, num)
            inner[str(i)] = mine
    return inner | curriculum_lib.begin(setup.levels)


def _grads(setup: Setup, params: PyTree, inner: PyTree, batch: Episodes, k: Array, done: Array):
    """One update's gradient of one replica: (grads, inner, means)."""
    grads, out, all_means, paths = {"net": {}}, dict(inner), [], []
    for i, (net, mine) in enumerate(zip(setup.nets, setup.parts(batch), strict=True)):
        name = str(i)
        if setup.rule in ("bptt", "bptt_equal_updates"):
            g, seen, window = _whole(setup, net, params["net"][name], mine)
        else:
            own = {k: params[k][name] for k in ("adapter", "aux") if k in params}
            own |= {"net": params["net"][name], "feedback": params.get("feedback")}
            g, seen, window, out[name], path, health = _segment(setup, net, own, inner[name], mine, k)
            paths.append((path, health))
        num = len(mine.mask_BT)
        for part, tree in g.items():
            grads.setdefault(part, {})[name] = jax.tree.map(lambda leaf, num=num: leaf / num, tree)
        right_TB = losses.position_correct(seen["logits"], window.y_TB, setup.reader.targets)
        all_means.append({"loss": Mean.of(seen["loss"], window.mask_TB),
                          "accuracy": Mean.of(right_TB, window.mask_TB)})
    means = jax.tree.map(lambda *m: sum(m[1:], m[0]), *all_means)
    if setup.rule == "synthetic":
        path, health = synthesiser.merge(*zip(*paths, strict=True))
        grads, means = grads | path, means | health
    if setup.levels.start:
        out |= curriculum_lib.climb(setup.levels, inner, seen["loss"], window.mask_TB, done)
        means["level"] = Mean.of(out["level"])
    return grads, out, means


def _whole(setup: Setup, net: Network, params: PyTree, batch: Episodes):
    """Full backpropagation: ({net: gradient}, what was seen, the episode as a window)."""
    window = setup.reader.cut(batch, jnp.int32(0), batch.mask_BT.shape[1])

    def segment(params, _):
        state = net.initial_state(params, len(batch.mask_BT), setup.length)
        return setup.reader.read_all(net, params, state, window)

    out = synthetic.grads_by_synthetic(segment, params, (), None)
    return {"net": out.grads}, out.aux, window


def _segment(setup: Setup, net: Network, params: PyTree, inner: PyTree, batch: Episodes, k: Array):
    """One network's window k: (gradients {net[, aux]}, what was seen, the window, what it carries on, the feedback
    path's gradients, its health)."""
    reader, options = setup.reader, setup.feedback
    num, T = len(batch.mask_BT), reader.steps
    window, ahead_B = reader.cut(batch, k * T, T), segments.ahead(batch, (k + 1) * T)
    renew = lambda fresh, old: jax.tree.map(lambda new, old: jnp.where(k == 0, new, old), fresh, old)
    weights = renew(jax.tree.map(jnp.zeros_like, inner["weights"]), inner["weights"]) if "weights" in inner else None
    label_sum = lambda weight_BT: segments.label_sum(batch.y_BT, weight_BT, reader.targets, reader.outputs)
    told = lambda seen: synthesiser.context(
        options, batch, label_sum, (k + 1) * T, window,
        losses.position_error(seen["logits"], window.y_TB, reader.targets), seen["loss"])

    def segment(trained, state):
        state = renew(net.initial_state(trained["net"], num, setup.length), state)
        if weights is None:
            return reader.read(net, trained["net"], state, window, first=options.aux > 0)
        after, logits_TBV = fast_weights.unroll(net, trained["net"], weights, state, window.x_TBX)
        return reader.score(logits_TBV, after, window)

    def feedback(state, seen):
        delta = synthesiser.ask(options, params["feedback"], params.get("adapter"), state, told(seen))
        return synthesiser.inject(options, delta, inner, ahead_B)

    trained = {name: params[name] for name in ("net", "aux") if name in params}
    if setup.rule == "tbptt":
        out = synthetic.grads_by_synthetic(segment, trained, inner["state"], None)
        return out.grads, out.aux, window, {"state": out.state}, None, None
    auxiliary = None
    if options.aux:
        auxiliary = lambda p, seen, delta: synthesiser.auxiliary(options, p["aux"], seen["first"], delta, ahead_B)
    true_rate, synthetic_rate = fast_weights.rates(setup.speeds)
    out = synthetic.grads_by_synthetic(segment, trained, inner["state"], feedback, true_rate=true_rate,
                                       synthetic_rate=synthetic_rate, auxiliary=auxiliary)
    asked_B = segments.ahead(batch, k * T) * (k > 0)  # the first state is a constant: nobody asks about it
    path, carried, health = synthesiser.learn(options, params["feedback"], params.get("adapter"), inner, out.target,
                                              asked_B)
    carried["state"] = out.state
    if "context" in inner:
        carried["context"] = told(out.aux)
    if options.trace:
        read = lambda state: segment(trained, state)[1]
        context_BC = carried.get("context", jnp.zeros((num, 0)))
        carried["trace"] = synthesiser.trace(options, read, inner, out.state, context_BC, k)
    if weights is not None:
        before = renew(net.initial_state(params["net"], num, setup.length), inner["state"])
        carried["weights"] = fast_weights.step(setup.speeds, net, params["net"], weights, before, window.x_TBX,
                                               out.delta)
    return out.grads, out.aux, window, carried, path, health


def _predict(setup: Setup, params: PyTree, batch: Episodes) -> Array:
    """Outputs at every position of whole episodes, (B, T, V), or (K, B, T, V) of K members."""
    out = []
    for i, net in enumerate(setup.nets):
        if setup.speeds.scope == "episodic":
            logits_TBV = _predict_fast(setup, net, params, batch)
        else:
            x_TBX = setup.reader.cut(batch, jnp.int32(0), batch.mask_BT.shape[1]).x_TBX
            _, logits_TBV = segments.run(net, params["net"][str(i)], None, x_TBX)
        out.append(jnp.swapaxes(logits_TBV, 0, 1))
    return out[0] if len(out) == 1 else jnp.stack(out)


def _predict_fast(setup: Setup, net: Network, params: PyTree, batch: Episodes) -> Array:
    """With fast weights, which the feedback model moves at test time too: window after window."""
    own, length, T = params["net"]["0"], batch.mask_BT.shape[1], setup.reader.steps
    adapter, options = params.get("adapter", {}).get("0"), setup.feedback

    def body(carry, k):
        state, weights = carry
        window = setup.reader.cut(batch, k * T, T)
        after, logits_TBV = fast_weights.unroll(net, own, weights, state, window.x_TBX)
        told_BC = synthesiser.context(options, batch, None, (k + 1) * T, window, None, None)
        delta = synthesiser.ask(options, params["feedback"], adapter, after, told_BC)
        by_B = options.gamma * segments.ahead(batch, (k + 1) * T)
        delta = synthetic.scale_B(synthetic.clip(delta, options.clip), by_B)
        return (after, fast_weights.step(setup.speeds, net, own, weights, state, window.x_TBX, delta)), logits_TBV

    num = len(batch.mask_BT)
    start = (net.initial_state(own, num, length), fast_weights.start(setup.speeds, own, num))
    _, logits_STBV = jax.lax.scan(body, start, jnp.arange(-(-length // T)))
    return logits_STBV.reshape(-1, *logits_STBV.shape[2:])[:length]


def _stream(setup: Setup) -> Stream:
    net = setup.nets[0]

    def step(params, state, x_BX, y_prev_B):
        if setup.reader.inputs == "x_and_last_label":
            x_BX = jnp.concatenate([x_BX, setup.reader.vectors(y_prev_B)], -1)
        return net.step(params["net"]["0"], state, x_BX)

    return Stream(lambda params, num, length: net.initial_state(params["net"]["0"], num, length), step)
