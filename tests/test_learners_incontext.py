"""In-context learners: every network in every layout is causal and reads its own tokens."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from metalearn import lookup
from metalearn.learners import incontext
from metalearn.types import Episodes, EpisodeSpec
from metalearn.validate import ConfigError

V, X, T = 3, 4, 5
SPEC = EpisodeSpec(length=T, features=X, targets="classes", outputs=V)
SLOTS = dict(slots=4, width=3, hidden=4, controller="lstm", memory="learned")
NETWORKS = dict(
    transformer=dict(name="transformer", depth=2, width=8, num_heads=2, mlp=16, positions=False, remat="none"),
    positions=dict(name="transformer", depth=1, width=8, num_heads=2, mlp=16, positions=True, remat="none"),
    lstm=dict(name="lstm", hidden=6), outer_lstm=dict(name="outer_lstm", size=3, num_heads=2),
    vsml=dict(name="vsml", hidden=3, messages=2, ticks=2),
    vsml_nosym=dict(name="vsml_nosym", grid=2, hidden=3, messages=2, ticks=2), mlp=dict(name="mlp", width=6),
    ntm=dict(name="ntm", reads=1, shifts=1, **SLOTS), dnc=dict(name="dnc", reads=1, links=False, **SLOTS),
    lrua=dict(name="lrua", reads=1, decay=0.95, adds="own", **SLOTS), nse=dict(name="nse", similarity="dot", **SLOTS),
    gated=dict(name="gated", width=4, bias=-3.0))
PAIRS = [("positions", "shifted"), ("positions", "query"), ("lrua", "previous_example"),
         ("nse", "previous_example"), ("transformer", "previous_example"), ("transformer", "query"),
         ("vsml", "shifted"),
         *((n, layout) for n in ("lstm", "outer_lstm", "vsml_nosym", "mlp")
           for layout in ("shifted", "previous_example"))]


def build(network, layout, dtype="float32"):
    return lookup.build("learners", "incontext", SPEC, network=NETWORKS[network], layout=layout, dtype=dtype)


def draw(num=2):
    rng = np.random.default_rng(0)
    return Episodes(jnp.asarray(rng.normal(size=(num, T, X)), jnp.float32), jnp.asarray(rng.integers(0, V, (num, T))),
                    jnp.ones((num, T)), jnp.zeros(num, jnp.int32), jnp.zeros((num, T), jnp.int32))


@pytest.fixture(scope="module", params=PAIRS, ids="-".join)
def seen(request):
    """What one network in one layout does with one batch, all in one compiled program."""
    network, layout = request.param
    learner, batch = build(network, layout), draw()
    weight_V = jnp.asarray([1.0, -0.3, 0.5])
    one_hot = jax.nn.one_hot

    def answers(params, x_TX, y_TV):
        one = batch.replace(x_BTX=x_TX[None], y_BT=y_TV[None])
        return learner.predict(params, (), one)[0] @ weight_V

    @jax.jit
    def everything(key, batch):
        params, _ = learner.init(key, batch)
        slope = jax.jacrev(answers, (1, 2))(params, batch.x_BTX[0], one_hot(batch.y_BT[0], V))
        return params, learner.predict(params, (), batch), slope

    with pytest.MonkeyPatch.context() as patch:  # labels are integers; to differentiate, let one-hot rows through
        patch.setattr(jax.nn, "one_hot", lambda y, n, **kw: y if y.ndim == 3 else one_hot(y, n, **kw))
        params, logits, slope = everything(jax.random.key(1), batch)
    return types.SimpleNamespace(name=network, layout=layout, learner=learner, batch=batch, params=params,
                                 logits=logits, slope=slope)


def test_logits_depend_on_the_past_alone(seen):
    """d logits_t / d x_s is zero for s > t, d logits_t / d y_s for s >= t, and everything before is read."""
    x_TT, y_TT = (np.abs(np.asarray(s)).sum(-1) for s in seen.slope)
    assert (np.triu(x_TT, 1) == 0).all() and (np.triu(y_TT) == 0).all()
    if seen.name == "mlp":  # x_t and nothing else
        assert (np.diag(x_TT) > 0).all() and (np.tril(x_TT, -1) == 0).all() and (y_TT == 0).all()
    else:
        past = np.tri(T, dtype=bool)
        assert (x_TT[past] > 0).all() and (y_TT[np.tri(T, k=-1, dtype=bool)] > 0).all()


def test_the_state_is_keys_and_values_of_every_position_and_block(seen):
    assert seen.logits.shape == (2, T, V) and seen.logits.dtype == jnp.float32
    if "depth" in NETWORKS[seen.name]:
        assert seen.learner.state_size(7) == 2 * 8 * NETWORKS[seen.name]["depth"] * 7


def test_tokens_by_hand():
    x, y = jnp.asarray([[[1.0, 2], [3, 4], [5, 6]]]), jnp.asarray([[1, 0, 1]])
    one = 2**0.5  # as long as two features of unit spread
    for layout, expected in {
        "shifted": [[1, 2, 0, 0], [3, 4, 0, one], [5, 6, one, 0]],
        "previous_example": [[1, 2, 0, 0, 0, 0], [3, 4, 1, 2, 0, one], [5, 6, 3, 4, one, 0]],
        "query": [[1, 2, 0, one], [3, 4, one, 0], [5, 6, 0, one], [1, 2, 0, 0], [3, 4, 0, 0], [5, 6, 0, 0]],
    }.items():
        np.testing.assert_allclose(incontext.tokens(x, y, 2, layout)[0], expected, rtol=1e-6, err_msg=layout)
    assert incontext.query_mask(3).astype(int).tolist() == [
        [1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0],
        [0, 0, 0, 1, 0, 0], [1, 0, 0, 0, 1, 0], [1, 1, 0, 0, 0, 1]]


@pytest.mark.parametrize("network, layout", [("transformer", "query"), ("lstm", "previous_example"),
                                             ("outer_lstm", "previous_example")])
def test_bfloat16_is_close_and_stays_f32_outside(network, layout):
    full, half, batch = build(network, layout), build(network, layout, "bfloat16"), draw()

    @jax.jit
    def both(key):
        params, _ = half.init(key, batch)
        return params, *(learner.predict(params, (), batch) for learner in (full, half))

    params, a, b = both(jax.random.key(1))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")} and b.dtype == jnp.float32
    off = np.abs(np.asarray(a - b)).max() / np.abs(np.asarray(a)).max()
    assert 1e-5 < off < 0.05  # below the former the option would do nothing


def test_vsml_commutes_with_relabelling_and_ignores_the_order_of_inputs():
    learner, batch = build("vsml", "shifted"), draw()
    params, _ = jax.jit(learner.init)(jax.random.key(1), batch)
    predict, order_V = jax.jit(learner.predict), jnp.asarray([2, 0, 1])
    plain = np.asarray(predict(params, (), batch))
    renamed = np.asarray(predict(params, (), batch.replace(y_BT=order_V[batch.y_BT])))
    np.testing.assert_allclose(renamed[..., order_V], plain, atol=1e-6)
    assert np.abs(renamed - plain).max() > 1e-4
    mixed = np.asarray(predict(params, (), batch.replace(x_BTX=batch.x_BTX[..., jnp.asarray([1, 3, 0, 2])])))
    np.testing.assert_allclose(mixed, plain, atol=1e-6)


def test_one_episode_is_learned_by_heart(golden):
    learner, batch = build("transformer", "query"), draw(1)
    tx = optax.adam(1e-2)

    @jax.jit
    def run(key):
        params, carry = learner.init(key, batch)

        def step(state, _):
            grads, _, means = learner.grads(state[0], carry, batch, key)
            updates, opt = tx.update(grads, state[1], state[0])
            return (optax.apply_updates(state[0], updates), opt), means["loss"].compute()

        first, _, _ = learner.grads(params, carry, batch, key)
        return first, jax.lax.scan(step, (params, tx.init(params)), None, length=150)[1]

    grads, loss = jax.device_get(run(jax.random.key(0)))
    golden("incontext", grads)
    assert abs(loss[0] - np.log(V)) < 0.2 and loss[-1] < 0.05


def test_masked_positions_do_not_count():
    learner, batch = build("mlp", "shifted"), draw()
    cut = batch.replace(mask_BT=batch.mask_BT.at[:, :-1].set(0.0))
    params, carry = jax.jit(learner.init)(jax.random.key(0), batch)
    means = jax.jit(learner.grads)(params, carry, cut, jax.random.key(0))[2]
    logp = jax.nn.log_softmax(jax.jit(learner.predict)(params, carry, batch))[:, -1]
    expected = -np.mean([logp[b, batch.y_BT[b, -1]] for b in range(2)])
    np.testing.assert_allclose(means["loss"].compute(), expected, rtol=1e-5)
    assert means["accuracy"].count == 2 and means["accuracy"].compute() == means["last"].compute()


@pytest.mark.parametrize("network, layout, dtype, text", [
    ("lstm", "query", "float32", "layout=query: needs network.name=transformer"),
    ("lstm", "previous_exampl", "float32", "layout=previous_exampl.*nearest: previous_example"),
    ("lstm", "previous_example", "float16", "dtype=float16"),
    ("mlp", "previous_example", "bfloat16", "dtype=bfloat16: network.name=mlp"),
    ("vsml", "previous_example", "float32", "network.name=vsml: needs layout=shifted"),
    ("gated", "shifted", "float32", "network.name=gated: needs a marker")])
def test_refusals(network, layout, dtype, text):
    with pytest.raises(ConfigError, match=text):
        build(network, layout, dtype)
