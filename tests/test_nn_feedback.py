"""Feedback models: silent at first, alike on every row, messages there and back, adapters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalearn.nn import feedback
from metalearn.validate import ConfigError

B, M = 2, 5


def state(width=3):
    k = jax.random.split(jax.random.key(0), 4)
    return {"read": {"h": jax.random.normal(k[0], (B, width)), "c": jax.random.normal(k[1], (B, width))},
            "write": {"h": jax.random.normal(k[2], (B, 2))},
            "memory": {"M": jax.random.normal(k[3], (B, M, 4)), "w": jnp.ones((B, M, 1))},
            "link": {"L": jnp.ones((B, M, M))}}


def test_messages_come_back_and_what_has_no_head_is_zero():
    s = state()
    heads = feedback.covered(s, ())
    assert heads == ("memory", "read", "write")
    back = feedback.restore(feedback.messages(s, heads), s)
    for group in heads:
        for name in s[group]:
            np.testing.assert_array_equal(back[group][name], s[group][name])
    assert not back["link"]["L"].any()
    assert not feedback.restore(feedback.messages(s, ("read",)), s)["memory"]["M"].any()
    with pytest.raises(ConfigError, match="heads"):
        feedback.covered(s, ("output",))


@pytest.mark.parametrize("hidden", [0, 6])
def test_silent_at_first_and_equivariant_to_permuted_slots(hidden):
    message, context = feedback.messages(state(), ("memory", "read", "write")), jnp.ones((B, 2))
    params = feedback.init(jax.random.key(1), hidden, message, context)
    assert all(not v.any() for v in feedback.apply(params, hidden, message, context).values())
    params = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(jax.random.key(p.size), p.shape), params)
    order = jnp.array([3, 0, 4, 1, 2])
    a = feedback.apply(params, hidden, message, context)
    b = feedback.apply(params, hidden, message | {"memory": message["memory"][:, order]}, context)
    np.testing.assert_allclose(a["memory"][:, order], b["memory"], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(a["read"], b["read"])


def test_an_identity_adapter_changes_no_bit_and_others_go_back_by_the_transpose():
    message = feedback.messages(state(), ("memory", "read"))
    same = feedback.init_adapter(message, message)
    for way in (feedback.adapt, feedback.adapt_back):
        for group, value in way(same, message).items():
            np.testing.assert_array_equal(value, message[group])
    shared = feedback.messages(state(5), ("memory", "read"))
    adapter = feedback.init_adapter(message, shared)
    inside = feedback.adapt(adapter, message)
    assert inside["read"].shape == shared["read"].shape
    left = sum((inside[g] * shared[g]).sum() for g in shared)
    right = sum((message[g] * feedback.adapt_back(adapter, shared)[g]).sum() for g in shared)
    np.testing.assert_allclose(left, right, rtol=1e-5)
