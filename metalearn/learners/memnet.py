"""Memory networks trained online, segment by segment: truncated BPTT, synthetic gradients (DNI, cDNI), or full BPTT.

One update of the train loop is one *segment* of T = `segment` steps: the optimiser steps as often as the controllers
do, and what a run holds at any moment is one segment. The carry keeps the recurrent state and the place in the episode;
`batch_schedule` keeps the loop on a batch until no position that counts is left.

  rule     tbptt               no credit crosses a boundary
           synthetic           a feedback model predicts it (see `synthetic`, `synthesiser`)
           bptt                the whole episode, one update per batch
           bptt_equal_updates  the whole episode, as many updates on each batch as the other rules make

A reconstruction of "Fast & Slow Learning" (arXiv 2011.05438) from its abstract and sources. Feedback models live in the
parameters under `feedback/`; give them an optimiser group of their own.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metalearn.learning import curriculum as curriculum_lib, segments, synthesiser, synthetic
from metalearn.measure import losses
from metalearn.nn import feedback as feedback_nn, network as network_nn
from metalearn.nn.network import Network
from metalearn.types import Array, Episodes, Learner, Mean, PyTree
from metalearn.validate import call, multiple_of, one_of, positive, require, within

RULES = ("tbptt", "synthetic", "bptt", "bptt_equal_updates")


def make(spec, *, network: dict, networks: tuple[dict, ...], inputs: str, label_scale: float, rule: str, segment: int,
         feedback: dict, curriculum: dict, unroll: int, remat: bool) -> Learner:
    """Memory networks and the rule that trains them.

    network     {"name": a file of networks/, ...its sizes}; a Transformer, whose state grows, with all rules but
                `synthetic`
    networks    (): `network` alone; else a dict of changes to it for each of several networks that share one feedback
                model, each on its own part of the batch
    inputs      x | x_and_last_label (MANN's protocol: the label comes one step late) | x_and_shown_label (support, then
                queries: labels stand beside the inputs that are not asked)
    label_scale  factor on labels among the inputs, which at 1 have the same say as the rest (`nn.tokens`)
    rule        see the module
    segment     T, steps that one update reads: at most the episode's length
    feedback    the synthesiser of synthetic gradients, see `synthesiser.Options`
    curriculum  see `curriculum.make`
    unroll      steps per iteration of the compiled scan
    remat       recompute each segment in the backward pass of full BPTT: memory by segment instead of by step
    """
    one_of(RULES, rule=rule)
    one_of(segments.INPUTS, inputs=inputs)
    positive(unroll=unroll, label_scale=label_scale)
    length, outputs = spec.length, spec.outputs
    require(1 <= segment <= length, "segment", segment, f"must lie between 1 and the episode's length {length}")
    require(inputs != "x_and_last_label" or not spec.answers_early, "inputs", inputs,
            "would give the answer away: this task's labels hold it before it is asked for")
    # a cache has room for whole segments, the last of them padded
    room = -(-length // segment) * segment
    made_for = network_nn.NetworkSpec(outputs, spec.features, inputs, room, "float32", unroll)
    nets = tuple(network_nn.make(network | dict(changes), made_for) for changes in networks or ({},))
    with within("feedback"):
        options = call(synthesiser.Options, **feedback)
        options.check(spec.targets, segment, len(nets))
    with within("curriculum"):
        schedule = call(curriculum_lib.make, spec, len(nets), **curriculum)
    reader = segments.Reader(inputs, spec.targets, outputs, segment, remat, label_scale)
    setup = Setup(nets, reader, room, rule, options, schedule)
    shape = jax.ShapeDtypeStruct((1, 1, segments.features(inputs, spec.features, outputs)), jnp.float32)
    shapes = [jax.eval_shape(net.init, jax.random.key(0), shape) for net in nets]
    if rule == "synthetic":
        for net, p in zip(nets, shapes, strict=True):
            require(net.recurrent and net.state_size(p, length) > 0, "network.name", network["name"],
                    "rule=synthetic needs a recurrent network: a feedback model answers a state, and one of fixed size")
        synthesiser.check_states(options, [jax.eval_shape(lambda p, net=net: net.initial_state(p, 1, length), p)
                                           for net, p in zip(nets, shapes, strict=True)])

    def init(key, batch: Episodes):
        multiple_of("networks", len(nets), **{"config.train.batch": batch.mask_BT.shape[0]})
        key, = jax.random.split(key, 1)  # as ever: stored results were drawn with it
        params = _init(setup, key, batch)
        carry = {"batch": jnp.zeros((), jnp.int32), "segment": jnp.zeros((), jnp.int32),
                 "batch_id": jnp.zeros((), jnp.uint32), "inner": _initial_inner(setup, params, batch)}
        return params, carry

    def grads(params, carry, batch: Episodes, key):
        batch_id = segments.batch_id(batch)
        k = jnp.where(batch_id == carry["batch_id"], carry["segment"], 0)
        future_B = segments.future_mask(batch, (k + 1) * segment)
        done = (rule == "bptt") | (future_B.sum() == 0)
        g, inner, means = _grads(setup, params, carry["inner"], batch, k, done)
        carry = {"batch": carry["batch"] + done, "segment": jnp.where(done, 0, k + 1), "batch_id": batch_id,
                 "inner": inner}
        return g, carry, means

    def batch_schedule(data, carry):
        if setup.curriculum.initial:
            data = data | {"difficulty": carry["inner"]["difficulty"]}
        return data, carry["batch"]

    def predict(params, carry, batch: Episodes):
        return _predict(setup, params, batch)

    def state_size(length: int) -> int:
        return sum(net.state_size(p, length) for net, p in zip(nets, shapes, strict=True)) // len(nets)

    boundaries = functools.partial(_boundaries, setup) if rule == "synthetic" and length > segment else None
    return Learner(init, grads, predict, state_size, boundaries=boundaries, batch_schedule=batch_schedule,
                   warn=synthesiser.warn, reads_labels=inputs != "x")


class Setup(NamedTuple):
    """What `make` was told, in one value."""

    nets: tuple[Network, ...]
    reader: segments.Reader
    length: int  # of an episode, in whole segments
    rule: str
    feedback: synthesiser.Options
    curriculum: curriculum_lib.Options

    def parts(self, batch: Episodes) -> list[Episodes]:
        """Each network's part of a batch."""
        num = len(self.nets)
        return [jax.tree.map(lambda leaf, i=i: leaf.reshape(num, -1, *leaf.shape[1:])[i], batch) for i in range(num)]


def _init(setup: Setup, key: Array, batch: Episodes) -> PyTree:
    """{net: {number: ...}, and what the feedback path needs}."""
    key_net, key_feedback = jax.random.split(key)
    batch = setup.parts(batch)[0]
    x_BTX = jnp.swapaxes(setup.reader.cut(batch, jnp.int32(0), 1).x_TBX, 0, 1)
    keys = [key_net, *(jax.random.fold_in(key_net, i) for i in range(1, len(setup.nets)))]
    inits = [net.init(k, x_BTX) for net, k in zip(setup.nets, keys, strict=True)]
    params = {"net": {str(i): mine for i, mine in enumerate(inits)}}
    if setup.rule == "synthetic":
        num = len(batch.mask_BT)
        states = [net.initial_state(mine, num, setup.length) for net, mine in zip(setup.nets, inits, strict=True)]
        nothing_BC = synthesiser.no_context(setup.feedback, setup.reader.outputs, num)
        params |= synthesiser.init(setup.feedback, key_feedback, states, nothing_BC)
    return params


def _initial_inner(setup: Setup, params: PyTree, batch: Episodes) -> PyTree:
    """What a learner carries from update to update, beside its place in the batch."""
    inner: dict[str, Any] = {}
    num = len(batch.mask_BT) // len(setup.nets)
    if setup.rule in ("tbptt", "synthetic"):
        for i, net in enumerate(setup.nets):
            own = params["net"][str(i)]
            mine = {"state": net.initial_state(own, num, setup.length)}
            if setup.rule == "synthetic":
                message = feedback_nn.messages(mine["state"], synthesiser.heads(setup.feedback, mine["state"]))
                nothing_BC = synthesiser.no_context(setup.feedback, setup.reader.outputs, num)
                mine |= synthesiser.initial_inner(setup.feedback, message, nothing_BC)
            inner[str(i)] = mine
    return inner | curriculum_lib.initial(setup.curriculum)


def _grads(setup: Setup, params: PyTree, inner: PyTree, batch: Episodes, k: Array, done: Array):
    """One update's gradient: (grads, inner, means)."""
    grads, out, all_means, paths = {"net": {}}, dict(inner), [], []
    for i, (net, mine) in enumerate(zip(setup.nets, setup.parts(batch), strict=True)):
        name = str(i)
        if setup.rule in ("bptt", "bptt_equal_updates"):
            g, seen, segment = _whole(setup, net, params["net"][name], mine)
        else:
            own = {k: params[k][name] for k in ("adapter", "aux") if k in params}
            own |= {"net": params["net"][name], "feedback": params.get("feedback")}
            g, seen, segment, out[name], path, health = _segment(setup, net, own, inner[name], mine, k)
            paths.append((path, health))
        num = len(mine.mask_BT)
        for part, tree in g.items():
            grads.setdefault(part, {})[name] = jax.tree.map(lambda leaf, num=num: leaf / num, tree)
        right_TB = losses.position_correct(seen["logits"], segment.y_TB, setup.reader.targets)
        all_means.append({"loss": Mean.of(seen["loss"], segment.mask_TB),
                          "accuracy": Mean.of(right_TB, segment.mask_TB)})
    means = jax.tree.map(lambda *m: sum(m[1:], m[0]), *all_means)
    if setup.rule == "synthetic":
        path, health = synthesiser.merge(*zip(*paths, strict=True))
        grads, means = grads | path, means | health
    if setup.curriculum.initial:
        out |= curriculum_lib.climb(setup.curriculum, inner, seen["loss"], segment.mask_TB, done)
        means["difficulty"] = Mean.of(out["difficulty"])
    return grads, out, means


def _whole(setup: Setup, net: Network, params: PyTree, batch: Episodes):
    """Full backpropagation: ({net: gradient}, what was seen, the episode as one segment)."""
    segment = setup.reader.cut(batch, jnp.int32(0), batch.mask_BT.shape[1])

    read = lambda params, _: setup.reader.read_all(net, params, setup.length, segment)
    out = synthetic.grads_by_synthetic(read, params, (), None)
    return {"net": out.grads}, out.aux, segment


def _segment(setup: Setup, net: Network, params: PyTree, inner: PyTree, batch: Episodes, k: Array):
    """One network's segment k: (gradients {net[, aux]}, what was seen, the segment, what it carries on, the feedback
    path's gradients, its health)."""
    reader, options = setup.reader, setup.feedback
    num, T = len(batch.mask_BT), reader.steps
    segment, future_B = reader.cut(batch, k * T, T), segments.future_mask(batch, (k + 1) * T)
    renew = lambda fresh, old: jax.tree.map(lambda new, old: jnp.where(k == 0, new, old), fresh, old)
    label_sum = lambda weight_BT: segments.label_sum(batch.y_BT, weight_BT, reader.targets, reader.outputs)
    context_BC = synthesiser.context(options, batch, label_sum, (k + 1) * T)

    def read(trained, state):
        state = renew(net.initial_state(trained["net"], num, setup.length), state)
        return reader.read(net, trained["net"], state, segment, first=options.aux > 0)

    def feedback(state, seen):
        delta = synthesiser.query(options, params["feedback"], params.get("adapter"), state, context_BC)
        return synthesiser.inject(options, delta, inner["energy"], future_B)

    trained = {name: params[name] for name in ("net", "aux") if name in params}
    if setup.rule == "tbptt":
        out = synthetic.grads_by_synthetic(read, trained, inner["state"], None)
        return out.grads, out.aux, segment, {"state": out.state}, None, None
    auxiliary = None
    if options.aux:
        auxiliary = lambda p, seen, delta: synthesiser.auxiliary(options, p["aux"], seen["first"], delta, future_B)
    out = synthetic.grads_by_synthetic(read, trained, inner["state"], feedback, auxiliary)
    queried_B = segments.future_mask(batch, k * T) * (k > 0)  # the first state is a constant: no gradient is wanted
    path, carried, health = synthesiser.learn(options, params["feedback"], params.get("adapter"), inner, out.target,
                                              queried_B)
    carried["state"] = out.state
    if "context" in inner:
        carried["context"] = context_BC
    if options.trace:
        carried["trace"] = synthesiser.trace(options, lambda state: read(trained, state)[1], inner, out.state,
                                             context_BC, k)
    return out.grads, out.aux, segment, carried, path, health


def _boundaries(setup: Setup, params: PyTree, batch: Episodes, most: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """The true gradient and the feedback model's, in what it answers of the first network's state: at the first `most`
    boundaries."""
    reader, options, T = setup.reader, setup.feedback, setup.reader.steps
    net, own, mine = setup.nets[0], params["net"]["0"], setup.parts(batch)[0]
    label_sum = lambda weight_BT: segments.label_sum(mine.y_BT, weight_BT, reader.targets, reader.outputs)
    segment = lambda own, state, k: reader.read(net, own, state, reader.cut(mine, k * T, T))
    state = net.initial_state(own, len(mine.mask_BT), setup.length)
    true, both = synthetic.boundary_gradients(segment, own, state, setup.length // T), []
    for k in range(1, min(setup.length // T, most + 1)):
        state = segment(own, state, k - 1)[1]
        adapter = params["adapter"]["0"] if "adapter" in params else None
        said = synthesiser.query(options, params["feedback"], adapter, state,
                                 synthesiser.context(options, mine, label_sum, k * T))
        pairs = jax.tree.map(lambda a, b: (a.reshape(len(a), -1), b.reshape(len(b), -1)), true[k], said)
        flat = jax.tree.leaves(pairs, is_leaf=lambda leaf: isinstance(leaf, tuple))
        both.append([np.concatenate(one, 1) for one in zip(*flat, strict=True)])
    of_all, said = zip(*both, strict=True)
    return np.stack(of_all), np.stack(said)


def _predict(setup: Setup, params: PyTree, batch: Episodes) -> Array:
    """Outputs at every position of whole episodes, (B, T, V); of several networks, each answers its part of the batch,
    as in training."""
    multiple_of("networks", len(setup.nets), **{"episodes at once": len(batch.mask_BT)})
    out = []
    for i, (net, mine) in enumerate(zip(setup.nets, setup.parts(batch), strict=True)):
        x_TBX = setup.reader.cut(mine, jnp.int32(0), mine.mask_BT.shape[1]).x_TBX
        out.append(jnp.swapaxes(_read(net, params["net"][str(i)], x_TBX, setup.length), 0, 1))
    return out[0] if len(out) == 1 else jnp.concatenate(out)


def _read(net: Network, params: PyTree, x_TBX: Array, most: int) -> Array:
    """Outputs (T, B, V); of episodes more than twice as long as `most`, that many steps at a time."""
    T, B = x_TBX.shape[:2]
    if T <= 2 * most:
        return segments.run(net, params, None, x_TBX)[1]
    pieces = jnp.pad(x_TBX, ((0, -T % most), (0, 0), (0, 0))).reshape(-1, most, *x_TBX.shape[1:])
    first = net.initial_state(params, B, len(pieces) * most)
    _, out_NLBV = jax.lax.scan(lambda state, x: segments.run(net, params, state, x), first, pieces)
    return out_NLBV.reshape(len(pieces) * most, B, -1)[:T]
