"""The online learner: its rules, its schedule of batches, what it refuses."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalearn import lookup
from metalearn.learning import segments
from metalearn.runtime import config as config_lib, experiment as experiment_lib, loop, replicas, sharding
from metalearn.types import Episodes, EpisodeSpec
from metalearn.validate import ConfigError

FEEDBACK = dict(context="none", time_remaining=False, hidden=0, heads=(), gamma=1.0, clip=0.0, gate=False,
                trace=0.0, aux=0.0, adapter="none")
NSE = dict(name="nse", slots=4, width=3, hidden=4, controller="lstm", similarity="dot", memory="constant")
LSTM = dict(name="lstm", hidden=4)
BASE = dict(network=LSTM, networks=(), inputs="x", label_scale=1.0, rule="synthetic", segment=3, feedback=FEEDBACK,
            curriculum=dict(initial_difficulty=0, bits=0.15), unroll=1, remat=False)


def build(task_changes=None, **changes):
    kw = dict(symbols=4, length=7, rare_frac=0.3, task_seed=0) | (task_changes or {})
    task = lookup.build("tasks", "gated_recall", **kw)
    return task, lookup.build("learners", "memnet", task.spec, **BASE | changes)


def draw(task, seed=0, num=4, split="train"):
    return task.sample(task.data, jax.random.key(seed), split, num)


@pytest.fixture(scope="module")
def silent():
    """First gradients on one batch of a fresh synthetic learner and of truncated BPTT."""
    out = {}
    for rule in ("synthetic", "tbptt"):
        task, learner = build(rule=rule, network=NSE)
        batch = draw(task)
        params, carry = jax.jit(learner.init)(jax.random.key(1), batch)
        grads, seen = jax.jit(learner.grads), []
        for _ in range(4):
            g, carry, means = grads(params, carry, batch, jax.random.key(0))
            seen.append((g, carry, means))
        out[rule] = params, seen
    return out


def test_a_fresh_feedback_model_leaves_truncated_backpropagation_as_it_is(silent, golden):
    golden("memnet", silent["synthetic"][1][1][0])
    for (a, *_), (b, *_) in zip(silent["synthetic"][1], silent["tbptt"][1], strict=True):
        for x, y in zip(jax.tree.leaves(a["net"]), jax.tree.leaves(b["net"]), strict=True):
            np.testing.assert_array_equal(x, y)


def test_one_update_per_segment_then_the_next_batch(silent):
    carries = [carry for _, carry, _ in silent["tbptt"][1]]
    assert [int(c["segment"]) for c in carries] == [1, 2, 0, 1]  # 7 positions in segments of 3, the last one padded
    assert [int(c["batch"]) for c in carries] == [0, 0, 1, 1]
    losses = [float(means["loss"].count) for _, _, means in silent["tbptt"][1]]
    assert losses == [0, 0, 4, 0]


def test_segments_sum_to_the_episode_when_the_segment_is_the_episode():
    task, online = build(rule="tbptt", segment=7)
    _, whole = build(rule="bptt", segment=7)
    batch = draw(task)
    params, carry = jax.jit(online.init)(jax.random.key(1), batch)
    a = jax.jit(online.grads)(params, carry, batch, None)[0]
    b = jax.jit(whole.grads)(params, jax.jit(whole.init)(jax.random.key(1), batch)[1], batch, None)[0]
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7)


def test_recomputing_segments_changes_memory_not_numbers():
    task, plain = build(rule="bptt")
    _, remat = build(rule="bptt", remat=True)
    batch = draw(task)
    params, carry = jax.jit(plain.init)(jax.random.key(1), batch)
    a, b = (jax.tree.leaves(jax.jit(o.grads)(params, carry, batch, None)[0]) for o in (plain, remat))
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-7)


def test_a_new_batch_starts_fresh_wherever_the_old_one_stopped():
    task, learner = build(rule="tbptt")
    first, second = draw(task, 0), draw(task, 1)
    params, carry = jax.jit(learner.init)(jax.random.key(1), first)
    grads = jax.jit(learner.grads)
    _, middle, _ = grads(params, carry, first, None)
    _, after, _ = grads(params, middle, second, None)
    _, clean, _ = grads(params, carry, second, None)
    for x, y in zip(jax.tree.leaves(after["inner"]), jax.tree.leaves(clean["inner"]), strict=True):
        np.testing.assert_array_equal(x, y)


def test_duplicating_the_batch_changes_nothing():
    task, _ = build()
    late = dataclasses.replace(task.spec, answers_early=False)  # whatever the label says
    changes = dict(rule="tbptt", inputs="x_and_last_label", segment=7)
    learner = lookup.build("learners", "memnet", late, **BASE | changes)
    batch = draw(task)
    params, carry = jax.jit(learner.init)(jax.random.key(1), batch)
    double = jax.tree.map(lambda a: jnp.concatenate([a, a]), batch)
    a = jax.jit(learner.grads)(params, carry, batch, None)[0]
    b = jax.jit(learner.grads)(params, jax.jit(learner.init)(jax.random.key(1), double)[1], double, None)[0]
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("targets", ["classes", "real"])
def test_labels_stand_beside_what_is_not_asked_and_never_beside_what_is(targets):
    spec = EpisodeSpec(length=4, features=2, targets=targets, outputs=3 if targets == "classes" else 1)
    changes = dict(rule="tbptt", inputs="x_and_shown_label", segment=2)
    learner = lookup.build("learners", "memnet", spec, **BASE | changes)
    y = jnp.array([[0, 1, 2, 1]]) if targets == "classes" else jnp.arange(4.0)[None, :, None]
    mask_BT = jnp.array([[0.0, 0.0, 1.0, 1.0]])
    batch = Episodes(jnp.ones((1, 4, 2)), y, mask_BT, jnp.zeros(1, jnp.int32), jnp.full((1, 4), -1))
    params, carry = jax.jit(learner.init)(jax.random.key(0), batch)
    out_BTV = jax.jit(learner.predict)(params, carry, batch)
    asked = jax.jit(learner.predict)(params, carry, batch.replace(y_BT=y.at[:, 2:].set(0)))
    shown = jax.jit(learner.predict)(params, carry, batch.replace(y_BT=y.at[:, :1].set(2)))
    np.testing.assert_array_equal(out_BTV, asked)
    assert np.abs(out_BTV - shown)[:, 2:].max() > 1e-4


@pytest.mark.parametrize("name", ["lstm", "transformer"])
def test_episodes_longer_than_those_of_training_are_read_in_pieces_with_their_state(name):
    sizes = dict(lstm=dict(hidden=4), transformer=dict(depth=1, width=4, num_heads=1, mlp=4, positions=False,
                                                       remat="none"))
    _, learner = build(rule="bptt", segment=7, network=dict(name=name) | sizes[name])
    long, _ = build(dict(length=17))
    batch = draw(long)
    params, carry = learner.init(jax.random.key(1), draw(build()[0]))
    whole = lookup.build("learners", "memnet", long.spec, **BASE | dict(rule="bptt", segment=17, network=dict(
        name=name) | sizes[name]))
    np.testing.assert_allclose(learner.predict(params, carry, batch), whole.predict(params, carry, batch), rtol=1e-5,
                               atol=1e-6)


SEEN = FEEDBACK | dict(context="label", time_remaining=True)


def train_a_little(steps=8, num=4, lr=0.3, seed=0, jit=jax.jit, **changes):
    """Plain gradient descent over segments, all parameters; (params, grads of every step, means of the last)."""
    task, learner = build(**changes)
    params, carry = jax.jit(learner.init)(jax.random.key(1), draw(task, num=num))
    grads, seen = jit(learner.grads), []
    for step in range(steps):
        g, carry, means = grads(params, carry, draw(task, seed + step // 3, num), None)
        params = jax.tree.map(lambda p, g: p - lr * g, params, g)
        seen.append(g)
    return params, seen, means


def test_one_member_behind_an_identity_adapter_is_the_unshared_network_bit_by_bit():
    # operation by operation: compiled as a whole, two programs may round differently
    run = lambda **changes: train_a_little(steps=4, jit=lambda f: f, **changes)[0]
    alone = run(feedback=SEEN)
    shared = run(feedback=SEEN | dict(adapter="identity"), networks=({},))
    assert jax.tree.structure(alone) == jax.tree.structure(shared)
    assert any(np.asarray(leaf).any() for leaf in jax.tree.leaves(alone["feedback"]))  # it has learned by now
    for x, y in zip(jax.tree.leaves(alone), jax.tree.leaves(shared), strict=True):
        np.testing.assert_array_equal(x, y)


def test_members_of_other_sizes_share_one_model_which_learns_from_all_of_them():
    network = dict(networks=({}, dict(hidden=6)))
    params, seen, _ = train_a_little(num=8, feedback=SEEN | dict(adapter="learned"), **network)
    assert [params["adapter"][k]["output"].shape for k in "01"] == [(8, 8), (8, 12)]
    assert any(np.asarray(leaf).any() for leaf in jax.tree.leaves(seen[-1]["adapter"]))
    task, both = build(feedback=SEEN | dict(adapter="identity"), **network)
    batch = draw(task, num=8)
    start, carry = jax.jit(both.init)(jax.random.key(1), batch)
    grads = jax.jit(both.grads)
    for _ in range(3):  # the label comes in the third segment
        together, carry, _ = grads(start, carry, batch, None)
    one = build(feedback=SEEN)[1]
    mine = {"net": {"0": start["net"]["0"]}, "feedback": start["feedback"]}
    first = jax.tree.map(lambda a: a[:4], batch)
    carry, grads = jax.jit(one.init)(jax.random.key(1), first)[1], jax.jit(one.grads)
    for _ in range(3):
        alone, carry, _ = grads(mine, carry, first, None)
    bias = lambda g: np.asarray(g["feedback"]["output_out"]["bias"])
    answers_BTV = jax.jit(both.predict)(start, carry, batch)
    alone_BTV = jax.jit(one.predict)(mine, carry, first)
    np.testing.assert_allclose(answers_BTV[:4], alone_BTV, rtol=1e-5, atol=1e-6)  # each its own part
    assert answers_BTV.shape == (8, 7, 4)
    assert bias(alone).any() and np.abs(bias(together) - bias(alone)).max() > 0  # the mean over two, not the first's


def test_bp_lambda_is_dni_where_one_boundary_asks_and_differs_where_credit_passes_two():
    rules = [train_a_little(feedback=SEEN | dict(trace=trace))[1] for trace in (0.0, 1.0)]
    apart = lambda a, b: [np.abs(np.asarray(x) - np.asarray(y)).max() for x, y in zip(
        jax.tree.leaves(a["feedback"]), jax.tree.leaves(b["feedback"]), strict=True)]
    compare = [apart(a, b) for a, b in zip(*rules, strict=True)]
    assert max(max(step) for step in compare[:2]) < 1e-6  # boundaries 0 and 1
    assert max(compare[2]) > 1e-6  # boundary 2 also corrects what was said at boundary 1


def test_the_auxiliary_head_learns_to_say_what_will_be_injected():
    params, seen, _ = train_a_little(feedback=SEEN | dict(aux=1.0))
    assert not np.asarray(jax.tree.leaves(seen[0]["aux"])[0]).any()  # at first nothing is injected
    assert any(np.asarray(leaf).any() for leaf in jax.tree.leaves(seen[-1]["aux"]))


def test_a_closed_gate_injects_nothing():
    task, learner = build(feedback=FEEDBACK | dict(gate=True))
    batch = draw(task)
    params, carry = jax.jit(learner.init)(jax.random.key(1), batch)
    loud = params | {"feedback": jax.tree.map(lambda p: p + 0.3, params["feedback"])}
    slow = build(rule="tbptt")[1]
    fresh = jax.jit(slow.init)(jax.random.key(1), batch)[1]
    plain, *_ = jax.jit(slow.grads)({"net": params["net"]}, fresh, batch, None)

    found = jax.jit(learner.grads)

    def gap(energy):
        at = carry | {"inner": {"0": carry["inner"]["0"] | {"energy": jnp.array(energy)}}}
        grads, *_ = found(loud, at, batch, None)
        pairs = zip(jax.tree.leaves(grads["net"]), jax.tree.leaves(plain["net"]), strict=True)
        return max(np.abs(a - b).max() for a, b in pairs)

    assert gap([1.0, 2.0]) < 1e-5  # prediction leaves more than it explains: it does harm
    assert gap([2.0, 1.0]) > 1e-4


@pytest.mark.parametrize("field,changes", [
    ("segment", dict(segment=8)), ("segment", dict(segment=0)), ("rule", dict(rule="dni")),
    ("feedback.context", dict(feedback=FEEDBACK | dict(context="labels"))),
    ("feedback.gamma", dict(feedback=FEEDBACK | dict(gamma=1.5))),
    ("networks", dict(networks=(0,))),
    ("network.slots", dict(network=NSE | dict(slots=0))), ("network.width", dict(network=NSE | dict(width=0))),
    ("curriculum.initial_difficulty", dict(curriculum=dict(initial_difficulty=2, bits=0.1))),
    ("feedback.adapter", dict(networks=({}, dict(hidden=6)))),
    ("feedback.adapter", dict(feedback=FEEDBACK | dict(adapter="linear"))),
    ("feedback.heads", dict(network=NSE, networks=({}, dict(controller="ffn")),
                            feedback=FEEDBACK | dict(adapter="learned"))),
    ("feedback.heads", dict(feedback=FEEDBACK | dict(heads=("outputs",)))),
    ("feedback.trace", dict(network=NSE, feedback=FEEDBACK | dict(trace=0.9))),
    ("feedback.trace", dict(feedback=FEEDBACK | dict(trace=0.9, hidden=3))),
    ("feedback.aux", dict(segment=1, feedback=FEEDBACK | dict(aux=1.0))),
    ("feedback.time_remaining", dict(feedback=FEEDBACK | dict(time_remaining=1))),
    ("inputs=x_and_last_label: would give the answer away", dict(inputs="x_and_last_label")),
    ("network.name=mlp: rule=synthetic needs", dict(network=dict(name="mlp", width=3))),
    ("network.name=transformer: rule=synthetic needs", dict(network=dict(
        name="transformer", depth=1, width=4, num_heads=1, mlp=4, positions=False, remat="none"))),
])
def test_bad_input_is_one_clear_line(field, changes):
    with pytest.raises(ConfigError, match=field):
        build(**changes)


SLOTS = dict(slots=4, width=3, hidden=4, controller="lstm", memory="learned", reads=1)
TRANSFORMER = dict(name="transformer", depth=1, width=8, num_heads=2, mlp=8, positions=True, remat="none")
NETWORKS = {
    "gated": dict(name="gated", width=4, bias=-3.0), "outer_lstm": dict(name="outer_lstm", size=3, num_heads=2),
    "vsml_nosym": dict(name="vsml_nosym", grid=2, hidden=3, messages=2, ticks=1),
    "ntm": SLOTS | dict(name="ntm", shifts=1), "lrua": SLOTS | dict(name="lrua", decay=0.95, adds="own"),
    "dnc": SLOTS | dict(name="dnc", links=True)}  # lstm and nse serve every test above


@pytest.mark.parametrize("name", NETWORKS)
def test_every_recurrent_network_learns_by_synthetic_gradients(name):
    """A fresh feedback model is silent, so the first update is truncated BPTT's; later the network is moved."""
    network = NETWORKS[name]
    task, learner = build(network=network)
    batch = draw(task)
    params, carry = jax.jit(learner.init)(jax.random.key(1), batch)
    grads = jax.jit(learner.grads)
    for _ in range(3):  # the label comes in the third segment
        found, carry, means = grads(params, carry, batch, None)
    assert means["loss"].count == 4 and all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
    assert any(np.asarray(leaf).any() for leaf in jax.tree.leaves(found["net"]))
    assert any(np.asarray(leaf).any() for leaf in jax.tree.leaves(found["feedback"]))


def test_a_cached_transformer_learns_in_segments_as_at_once():
    """Segments of 3 over 7 steps, the last padded: its outputs are those of the whole episode, and where the segment is
    the episode so is its gradient."""
    task, online = build(network=TRANSFORMER, rule="tbptt", segment=3)
    batch = draw(task)
    params, carry = jax.jit(online.init)(jax.random.key(1), batch)
    grads, losses = jax.jit(online.grads), []
    for _ in range(3):
        found, carry, means = grads(params, carry, batch, None)
        losses.append(float(means["loss"].total))
    logits = jax.jit(online.predict)(params, carry, batch)
    expected = -jax.nn.log_softmax(logits)[jnp.arange(4), -1, batch.y_BT[:, -1]].sum()
    np.testing.assert_allclose(losses[-1], expected, rtol=1e-4)
    whole = build(network=TRANSFORMER, rule="bptt", segment=7)[1]
    at_once = build(network=TRANSFORMER, rule="tbptt", segment=7)[1]
    net = params["net"] | {"0": params["net"]["0"] | {"position": params["net"]["0"]["position"][:7]}}
    both = [jax.jit(rule.grads)({"net": net}, jax.jit(rule.init)(jax.random.key(1), batch)[1], batch, None)[0]
            for rule in (whole, at_once)]
    for x, y in zip(*map(jax.tree.leaves, both), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("length", [5, 20000])
def test_labels_are_summed_class_by_class_or_at_once_alike(length):
    outputs = 3
    y_BT = jax.random.randint(jax.random.key(0), (2, length), 0, outputs)
    weight_BT = jax.random.uniform(jax.random.key(1), (2, length))
    want = (jax.nn.one_hot(y_BT, outputs) * weight_BT[..., None]).sum(1)
    np.testing.assert_allclose(segments.label_sum(y_BT, weight_BT, "classes", outputs), want, rtol=1e-4)


def test_a_batch_that_networks_cannot_share_is_refused():
    task, learner = build(networks=({}, {}, {}))
    with pytest.raises(ConfigError, match="config.train.batch.*multiple of networks=3"):
        jax.jit(learner.init)(jax.random.key(0), draw(task, num=4))


def test_label_context_needs_labels():
    spec = EpisodeSpec(length=5, features=2, outputs=1, targets="real")
    with pytest.raises(ConfigError, match="labels"):
        lookup.build("learners", "memnet", spec, **BASE | dict(feedback=FEEDBACK | dict(context="label")))


def test_label_scale_makes_labels_among_the_inputs_louder():
    task, _ = build()
    batch = draw(task)
    cut = lambda gain: segments.Reader("x_and_last_label", "classes", 4, 7, False, gain).cut(batch, 0, 7).x_TBX
    np.testing.assert_array_equal(cut(4.0)[..., -4:], 4 * cut(1.0)[..., -4:])
    np.testing.assert_array_equal(cut(4.0)[..., :-4], cut(1.0)[..., :-4])
    x_TBX = np.asarray(cut(1.0))
    assert not x_TBX[0, :, -4:].any() and (x_TBX[1:, :, -4:] > 0).sum() == batch.y_BT[:, 1:].size
    each = (x_TBX.shape[-1]) / 2  # squared length of a part of two
    np.testing.assert_allclose((x_TBX[1:, :, -4:] ** 2).sum(-1), each, rtol=1e-5)
    with pytest.raises(ConfigError, match="label_scale"):
        build(label_scale=0.0)


def test_a_replicas_difficulty_segments_and_adam_do_not_know_of_the_others():
    """Difficulty rises with every batch, and a higher one takes more updates: replicas do not keep step."""
    small = ["task.max_length=2", "learner.network.hidden=3", "learner.segment=2", "learner.curriculum.bits=9",
             "learner.unroll=1", "train.batch=2", "train.devices=1", "evaluators.length_generalisation.lengths=(1, 2)"]

    def states(*changes):
        experiment = experiment_lib.build(config_lib.load("configs/memnet.py:copy", [*small, *changes]))
        plan = experiment.plan
        init, steps = replicas.split(plan, replicas.roots(plan))
        state = loop.make_init(experiment)(experiment.task.data, init)
        return loop.make_update(experiment, sharding.make_mesh(1))(state, experiment.task.data, steps, 8)[0]

    two = lambda seeds: states("replicas.num=2", f"replicas.vary={{'seed': {seeds}}}")
    a, b, alone = two((0, 7)), two((3, 7)), states("replicas.num=1", "seed=7")
    for x, y, single in zip(*(jax.tree.leaves(s.replace(step=())) for s in (a, b, alone)), strict=True):
        np.testing.assert_array_equal(x[1], y[1])
        np.testing.assert_allclose(x[1], single, rtol=1e-3, atol=1e-5)
