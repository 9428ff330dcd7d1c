"""Taps: what is read is what the network computes with; what is written is what it goes on with; else no bit moves."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import metalearn
from metalearn import lookup
from metalearn.nn import network, taps
from metalearn.types import Episodes, EpisodeSpec
from metalearn.validate import ConfigError

B, T, X, V, H = 2, 4, 3, 3, 2
SIZES = dict(name="transformer", depth=2, width=8, num_heads=H, mlp=8, positions=False, remat="none")
SLOTS = dict(slots=4, width=3, hidden=4, controller="lstm", memory="learned")


@pytest.fixture(scope="module")
def gpicl():
    """A GPICL transformer after 20 updates of its own learner, and the episodes that it is asked."""
    spec = EpisodeSpec(length=T, features=X, targets="classes", outputs=V)
    learner = lookup.build("learners", "incontext", spec, network=SIZES, layout="query", dtype="float32")
    k = jax.random.split(jax.random.key(0), 2)
    batch = Episodes(jax.random.normal(k[0], (B, T, X)), jax.random.randint(k[1], (B, T), 0, V), jnp.ones((B, T)),
                     jnp.zeros(B, jnp.int32), jnp.zeros((B, T), jnp.int32))

    @jax.jit
    def trained(key):
        params, _ = learner.init(key, batch)

        def update(params, _):
            grads, *_ = learner.grads(params, (), batch, key)
            return jax.tree.map(lambda p, g: p - 0.3 * g, params, grads), None

        return jax.lax.scan(update, params, None, length=20)[0]

    return learner, trained(jax.random.key(1)), batch


def norm(p, x):
    return (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-6) * p["scale"] + p["bias"]


def dense(p, x):
    return x @ p["kernel"] + p["bias"]


def test_every_blocks_residual_by_hand(gpicl):
    """Each block's output is read; norm and head of the last one are the logits, of the queries alone."""
    learner, params, batch = gpicl
    logits, inside = taps.read(learner.predict)(params, (), batch)
    x_BLD, h_BLD = inside["blocks_0"], inside["blocks_1"]
    assert x_BLD.shape == (B, 2 * T, 8) and h_BLD.shape == (B, T, 8)
    np.testing.assert_allclose(x_BLD, inside["embed"] + inside["blocks_0/attention"] + inside["blocks_0/down"],
                               rtol=1e-5, atol=1e-6)
    by_hand = dense(params["head"], norm(params["norm"], h_BLD))
    np.testing.assert_allclose(logits, by_hand, rtol=1e-4, atol=1e-5)


def logits_without(params, inside, head: int) -> jax.Array:
    """What a transformer of two blocks says without a head of the last one, by hand from what was read of it whole.

    attention = sum over heads of heads_h W_h + b: the residual loses heads_h W_h, and the last block's feed-forward
    layer, the norm and the output read what is left.
    """
    p, heads_BLHK = params["blocks_1"], inside["blocks_1/attention/heads"]
    (_, asked, _, K) = heads_BLHK.shape
    lost_BLD = heads_BLHK[:, :, head] @ p["attention"]["out"]["kernel"][head * K:(head + 1) * K]
    x_BLD = inside["blocks_0"][:, -asked:] + inside["blocks_1/attention"] - lost_BLD
    x_BLD = x_BLD + dense(p["down"], jax.nn.gelu(dense(p["up"], norm(p["norm_mlp"], x_BLD))))
    return dense(params["head"], norm(params["norm"], x_BLD))


def silence(head: int) -> dict:
    return {"blocks_1/attention/heads": lambda y_BLHK, position: y_BLHK.at[:, :, head].set(0.0)}


def test_zeroing_one_head_changes_the_logits_as_the_formula_says(gpicl):
    learner, params, batch = gpicl
    _, inside = taps.read(learner.predict)(params, (), batch)
    logits = jax.jit(taps.write(learner.predict, silence(1)))(params, (), batch)
    np.testing.assert_allclose(logits, logits_without(params, inside, 1), rtol=1e-4, atol=1e-5)
    assert np.abs(logits - learner.predict(params, (), batch)).max() > 1e-3


@pytest.mark.slow
def test_both_in_a_transformer_that_has_learned(tmp_path):
    """The digits config after 300 updates: every block's residual, and every head of the last block."""
    fields = ["train.steps=300", "train.save_every=300", "evaluators.curves.sets=('unseen',)",
              "evaluators.curves.episodes=256", "evaluators.curves.baselines=()"]
    found = metalearn.train("configs/gpicl.py:digits", str(tmp_path / "run"), fields)["curves"]
    learner = metalearn.load(str(tmp_path / "run"))
    chance = 1 / learner.experiment.task.spec.outputs
    assert found["unseen_last"] > chance + 0.2 and found["unseen_first"] < chance + 0.1

    batch, params = learner.sample("unseen", 64, seed=3), learner.params
    whole, inside = learner.read(batch)
    residual_BLD = inside["embed"]
    for i in range(2):
        added_BLD = inside[f"blocks_{i}/attention"] + inside[f"blocks_{i}/down"]
        residual_BLD = residual_BLD[:, -added_BLD.shape[1]:] + added_BLD
        np.testing.assert_allclose(inside[f"blocks_{i}"], residual_BLD, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(whole, dense(params["head"], norm(params["norm"], residual_BLD)), rtol=1e-3, atol=1e-3)

    right = lambda logits_BTV: float((logits_BTV.argmax(-1) == batch.y_BT)[:, -5:].mean())
    without = [learner.write(batch, silence(head)) for head in range(4)]
    for head, logits in enumerate(without):
        np.testing.assert_allclose(logits, logits_without(params, inside, head), rtol=1e-3, atol=1e-3)
    assert min(map(right, without)) < right(whole) - 0.02, "a head of the last block has a part in what it learned"


NETWORKS = {"transformer": SIZES, "lstm": dict(name="lstm", hidden=4),
            "ntm": dict(name="ntm", reads=1, shifts=1, **SLOTS)}


@pytest.fixture(scope="module", params=NETWORKS)
def made(request):
    net = network.make(NETWORKS[request.param], network.NetworkSpec(V, X, "x", T, "float32", 1))
    tokens = jax.random.normal(jax.random.key(0), (B, T, X))
    return net, net.init(jax.random.key(1), tokens), tokens


def test_reading_and_writing_the_same_move_no_bit(made):
    net, params, tokens = made
    # as users compile: of the suite's cheaper passes, loops with and without a count of steps round differently
    usual = dict(xla_cpu_use_fusion_emitters=True, xla_llvm_disable_expensive_passes=False)
    jit = functools.partial(jax.jit, compiler_options=usual)
    plain = jit(net.apply)(params, None, tokens)[1]
    with jax.disable_jit():  # operation by operation: a program with more results is fused, and rounded, otherwise
        (_, read), inside = taps.read(net.apply)(params, None, tokens)
        alone = net.apply(params, None, tokens)[1]
    writable = [name for name in inside if not name.endswith(("_BHLL", "_BMR"))]
    same = {name: lambda value, position: value for name in writable}
    written = jit(taps.write(net.apply, same))(params, None, tokens)[1]
    assert len(writable) > 3
    np.testing.assert_array_equal(read, alone)
    np.testing.assert_array_equal(written, plain)
    np.testing.assert_array_equal(jit(net.apply)(params, None, tokens)[1], plain)  # nothing stays behind


def test_values_are_by_position_and_a_write_at_one_leaves_the_past_alone(made):
    net, params, tokens = made
    _, inside = taps.read(net.apply)(params, None, tokens)
    site = "blocks_0" if "blocks_0" in inside else "output" if "output" in inside else "cell"
    assert inside[site].shape[:2] == (B, T)
    _, cut = taps.read(net.apply)(params, None, tokens[:, :2])
    np.testing.assert_allclose(cut[site], inside[site][:, :2], rtol=1e-5, atol=1e-6)

    def push(value, position):
        here = jnp.asarray(position == 2, value.dtype)
        return value.at[..., 0].add(here)  # one entry: a norm would take out what is added to all

    plain, moved = net.apply(params, None, tokens)[1], taps.write(net.apply, {site: push})(params, None, tokens)[1]
    np.testing.assert_allclose(moved[:, :2], plain[:, :2], atol=1e-6)
    assert np.abs(moved[:, 2] - plain[:, 2]).max() > 1e-4


def test_refusals(made):
    net, params, tokens = made
    with pytest.raises(ConfigError, match="site=nowhere: no network has this site"):
        taps.write(net.apply, {"nowhere": lambda value, _: value})(params, None, tokens)
    with pytest.raises(ConfigError, match="what is written is"):
        name = "embed" if "embed" in params else "project"
        taps.write(net.apply, {name: lambda value, _: value[..., :1]})(params, None, tokens)
    with pytest.raises(ConfigError, match="of=1: the function applies 1 networks"):
        taps.read(net.apply, of=1)(params, None, tokens)


def test_what_is_applied_row_by_row_is_read_row_by_row_and_inner_steps_are_not():
    """A learner that adapts each task by gradient steps, then answers: the answer's values, and no step's."""
    net = network.make(NETWORKS["transformer"], network.NetworkSpec(V, X, "x", T, "float32", 1))
    tokens_BLI = jax.random.normal(jax.random.key(0), (B, T, X))
    params = net.init(jax.random.key(1), tokens_BLI)
    answer = lambda params, tokens_LI: net.apply(params, None, tokens_LI[None])[1][0]

    def adapted(tokens_LI):
        grads = jax.grad(lambda p: (answer(p, tokens_LI) ** 2).mean())(params)
        return answer(jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), tokens_LI)

    out, inside = jax.jit(taps.read(taps.vmap(adapted)))(tokens_BLI)
    np.testing.assert_allclose(out, jax.jit(jax.vmap(adapted))(tokens_BLI), rtol=1e-5, atol=1e-6)
    alone = jax.jit(taps.read(adapted))
    for row in range(B):
        one, its = alone(tokens_BLI[row])
        np.testing.assert_allclose(out[row], one, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(inside["blocks_1"][row], its["blocks_1"], rtol=1e-4, atol=1e-5)
    with pytest.raises(ConfigError, match="of=1: the function applies 1 networks"):
        jax.eval_shape(taps.read(adapted, of=1), tokens_BLI[0])
