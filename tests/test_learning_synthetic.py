"""The synthetic-gradient contract, in float64 on tiny nets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalearn.learning import segments, synthetic
from metalearn.nn import feedback, network

LENGTH, B, X, V = 6, 3, 4, 2
NSE = dict(name="nse", slots=4, width=3, hidden=5, controller="lstm", similarity="dot", memory="learned")


@pytest.fixture(scope="module", autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def parts():
    """(params, state, x_TBX, y_TBV, segment of T steps at boundary k)."""
    net = network.make(NSE, network.NetworkSpec(V, X, "x", LENGTH, "float32", 1))
    x_TBX = jax.random.normal(jax.random.key(1), (LENGTH, B, X), jnp.float64)
    y_TBV = jax.random.normal(jax.random.key(2), (LENGTH, B, V), jnp.float64)
    params = jax.tree.map(lambda p: jnp.asarray(p, jnp.float64), net.init(jax.random.key(0), x_TBX))
    state = jax.tree.map(lambda s: jnp.asarray(s, jnp.float64), net.initial_state(params, B, LENGTH))

    def segment_of(T):
        def segment(params, state, k):
            if k == 0:  # inside, so that the learned start of the memory gets its gradient too
                state = net.initial_state(params, B, LENGTH)
            state = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), state)
            state, out = segments.run(net, params, state, x_TBX[k * T:(k + 1) * T])
            return jnp.square(out - y_TBV[k * T:(k + 1) * T]).sum((0, 2)), state, ()
        return segment

    return params, state, segment_of


@pytest.mark.parametrize("T", [2, LENGTH])
def test_a_perfect_feedback_model_makes_segments_sum_to_full_backpropagation(parts, T):
    params, state, segment_of = parts
    segment, num = segment_of(T), LENGTH // T

    @jax.jit
    def everything(params, state):
        full = jax.grad(lambda p: segment_of(LENGTH)(p, state, 0)[0].sum())(params)
        truth = synthetic.boundary_gradients(segment, params, state, num)
        total, plain, s, targets = *[jax.tree.map(jnp.zeros_like, params)] * 2, state, []
        for k in range(num):
            one = lambda p, s, k=k: segment(p, s, k)
            out = synthetic.grads_by_synthetic(one, params, s, lambda *_, k=k: truth[k + 1])
            plain = jax.tree.map(jnp.add, plain, synthetic.grads_by_synthetic(one, params, s, None).grads)
            total, s, targets = jax.tree.map(jnp.add, total, out.grads), out.state, [*targets, out.target]
        return full, truth[:-1], targets, total, plain

    full, truth, targets, total, plain = everything(params, state)
    for got, want in zip(jax.tree.leaves(targets), jax.tree.leaves(truth), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-13)
    gap = jax.tree.map(lambda a, b: jnp.square(a - b).sum(), total, full)
    size = jax.tree.map(lambda b: jnp.square(b).sum(), full)
    assert float(size["initial_memory"]["M"]) > 1e-8  # M_0 is learned, and among what is compared
    assert (sum(jax.tree.leaves(gap)) / sum(jax.tree.leaves(size))) ** 0.5 < 1e-10
    assert (gap["initial_memory"]["M"] / size["initial_memory"]["M"]) ** 0.5 < 1e-10
    if T < LENGTH:  # the same sum without feedback is another gradient, so the test can fail
        away = jax.tree.map(lambda a, b: jnp.square(a - b).sum(), plain, full)
        assert (sum(jax.tree.leaves(away)) / sum(jax.tree.leaves(size))) ** 0.5 > 1e-3


def test_feedback_that_says_nothing_is_truncated_backpropagation_bit_by_bit(parts):
    params, state, segment_of = parts
    segment = lambda p, s: segment_of(2)(p, s, 0)
    silent = synthetic.grads_by_synthetic(segment, params, state, lambda s, aux: jax.tree.map(jnp.zeros_like, s))
    plain = synthetic.grads_by_synthetic(segment, params, state, None)
    for a, b in zip(jax.tree.leaves(silent.grads), jax.tree.leaves(plain.grads), strict=True):
        assert (np.asarray(a) == np.asarray(b)).all()


def test_an_auxiliary_loss_reaches_the_weights_and_sees_what_was_injected(parts):
    params, state, segment_of = parts
    segment = lambda p, s: segment_of(2)(p, s, 0)
    ones = lambda s, aux: jax.tree.map(jnp.ones_like, s)
    weigh = lambda p, aux, delta: delta["read"]["m"].sum(-1) * p["readout"]["bias"].sum()  # d/d bias = 3 a sample
    plain = synthetic.grads_by_synthetic(segment, params, state, ones)
    more = synthetic.grads_by_synthetic(segment, params, state, ones, auxiliary=weigh)
    gap = jax.tree.map(jnp.subtract, more.grads, plain.grads)
    np.testing.assert_allclose(gap["readout"]["bias"], 3.0 * B * jnp.ones(V), rtol=1e-8)
    np.testing.assert_allclose(gap["query"]["kernel"], 0.0, atol=1e-12)

    def shown(p, s):  # the auxiliary loss reads what came of the state, as DNI+Aux does
        loss_B, after, _ = segment(p, s)
        return loss_B, after, after["read"]["m"]

    weigh = lambda p, m_BW, delta: jnp.square(m_BW).sum(-1)
    plain = synthetic.grads_by_synthetic(shown, params, state, ones)
    more = synthetic.grads_by_synthetic(shown, params, state, ones, auxiliary=weigh)
    assert np.abs(more.grads["query"]["kernel"] - plain.grads["query"]["kernel"]).max() > 1e-6
    for a, b in zip(jax.tree.leaves(more.target), jax.tree.leaves(plain.target), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)  # the target is of the task alone


def test_linear_case_bootstraps_to_the_closed_form_one_boundary_per_sweep():
    n, L = 4, 5
    key_W, key_C, key_h, key_y = jax.random.split(jax.random.key(3), 4)
    W = 0.5 * jax.random.normal(key_W, (n, n), jnp.float64)
    C = jax.random.normal(key_C, (2, n), jnp.float64)
    h_BN, y_BV = jax.random.normal(key_h, (50, n), jnp.float64), jax.random.normal(key_y, (50, 2), jnp.float64)

    def segment(_, h, k):
        after = h @ W.T
        last = jnp.square(after @ C.T - y_BV).sum(-1) / 2 if k == L - 1 else jnp.zeros(50)
        return last, after, ()

    states = [h_BN]
    for k in range(L):
        states.append(segment(None, states[-1], k)[1])
    want = lambda k: (states[L] @ C.T - y_BV) @ C @ jnp.linalg.matrix_power(W, L - k)
    tables = [jnp.zeros((n + 2, n)) for _ in range(L + 1)]  # one linear model per boundary in [state, target]
    inputs = lambda k: jnp.concatenate([states[k], y_BV], -1)
    for sweep in range(1, L + 1):
        for k in range(L):
            feedback_k = lambda h, _, k=k: inputs(k + 1) @ tables[k + 1] if k + 1 < L else jnp.zeros_like(h)
            target = synthetic.grads_by_synthetic(lambda p, h, k=k: segment(p, h, k), {}, states[k], feedback_k).target
            tables[k] = jnp.linalg.lstsq(inputs(k), target)[0]
        for k in range(L):
            close = np.allclose(inputs(k) @ tables[k], want(k), atol=1e-8)
            assert close == (k >= L - sweep), (sweep, k)


def test_gradients_stop_both_ways_and_samples_keep_their_scale(parts):
    params, state, segment_of = parts
    segment = lambda p, s: segment_of(2)(p, s, 0)
    heads = feedback.covered(state, ())
    context = jnp.zeros((B, 0))
    phi = feedback.init(jax.random.key(5), 4, feedback.messages(state, heads), context)
    phi = jax.tree.map(lambda a: a + 0.1, phi)

    def answer(phi, s):
        none = jnp.zeros((len(s["read"]["m"]), 0))
        return feedback.restore(feedback.apply(phi, 4, feedback.messages(s, heads), none), s)

    def objective(phi, params):
        out = synthetic.grads_by_synthetic(segment, params, state, lambda s, _: answer(phi, s))
        return synthetic.inner(out.delta, out.delta)

    value, slope = jax.jit(jax.value_and_grad(objective))(phi, params)
    assert value > 0 and all((np.asarray(g) == 0).all() for g in jax.tree.leaves(slope))
    target = jax.tree.map(jnp.ones_like, state)
    loss = lambda params, s: synthetic.regression(answer(phi, jax.lax.stop_gradient(s)), target, jnp.ones(B))
    g = jax.jit(jax.grad(lambda p: loss(p, segment(p, state)[1])))(params)
    assert all((np.asarray(leaf) == 0).all() for leaf in jax.tree.leaves(g))

    of = lambda segment, state: jax.jit(lambda params, state: synthetic.grads_by_synthetic(
        segment, params, state, lambda s, _: answer(phi, s)))(params, state)
    one = of(segment, state)
    twice = lambda tree: jax.tree.map(lambda a: jnp.concatenate([a, a]), tree)
    halves = lambda s: (jax.tree.map(lambda a: a[:B], s), jax.tree.map(lambda a: a[B:], s))
    double = lambda p, s: jax.tree.map(lambda *a: jnp.concatenate(a), *(segment(p, half) for half in halves(s)))
    two = of(double, twice(state))
    for a, b in zip(jax.tree.leaves(one.target), jax.tree.leaves(two.target), strict=True):
        np.testing.assert_allclose(b[:B], a, rtol=1e-10, atol=1e-12)
    for a, b in zip(jax.tree.leaves(one.grads), jax.tree.leaves(two.grads), strict=True):
        np.testing.assert_allclose(b / 2, a, rtol=1e-9, atol=1e-12)


def test_eligibility_traces_give_the_lambda_return_of_a_linear_model():
    n, K, decay = 3, 4, 0.7
    keys = jax.random.split(jax.random.key(7), 2 * K)
    jacobians = [0.5 * jax.random.normal(k, (2, n, n), jnp.float64) for k in keys[:K]]
    inputs = [jax.random.normal(k, (2, n + 1), jnp.float64) for k in keys[K:]]
    errors = [jax.random.normal(jax.random.fold_in(k, 1), (2, n), jnp.float64) for k in keys[:K]]
    trace, got = jnp.zeros((2, n, n, n + 1)), 0.0
    for j in range(K):
        trace = synthetic.advance(trace, jacobians[j], inputs[j], decay, jnp.asarray(j == 0))
        got = got + synthetic.traced_gradient(trace, errors[j])
    want = 0.0
    for k in range(K):  # the forward view: what later errors send back to boundary k
        back, total = jnp.broadcast_to(jnp.eye(n), (2, n, n)), 0.0
        for j in range(k, K):
            if j > k:
                back = decay * jnp.einsum("bij,bjk->bik", jacobians[j], back)
            total = total + jnp.einsum("bij,bi->bj", back, errors[j])
        want = want - 2 * jnp.einsum("ba,bc->ac", total, inputs[k])
    np.testing.assert_allclose(got, want, rtol=1e-10)


def test_health_is_one_for_the_truth_and_below_zero_for_its_opposite():
    t = {"a": jnp.asarray([[1.0, 2.0], [0.5, -1.0]]), "b": jnp.asarray([[3.0], [0.0]])}
    read = lambda p: {k: float(m.compute()) for k, m in synthetic.health(p, t, jnp.ones(2)).items()}
    assert read(t)["sg_r2"] == pytest.approx(1) and read(t)["sg_cosine"] == pytest.approx(1)
    against = read(jax.tree.map(jnp.negative, t))
    assert against["sg_r2"] == pytest.approx(-3) and against["sg_cosine"] == pytest.approx(-1)
    assert read(jax.tree.map(jnp.zeros_like, t))["sg_r2"] == pytest.approx(0)


def test_clip_bounds_the_norm_of_each_sample_alone():
    t = {"a": jnp.asarray([[3.0, 4.0], [0.3, 0.4]])}
    np.testing.assert_allclose(synthetic.clip(t, 1.0)["a"], [[0.6, 0.8], [0.3, 0.4]], rtol=1e-6)
