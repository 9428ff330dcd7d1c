"""Read and write what happens inside networks, at named sites, by linen's own means.

A site is a submodule of a network, named by its path (`blocks_0`, `blocks_0/attention`, `output`), whose value is the
array that it returns; or a value that a module puts there by `sow` (`blocks_0/attention/weights_BHLL`), to be read
only. Values of a segment are (B, L, ...).

    outputs, values = taps.read(learner.predict)(params, carry, batch)
    outputs = taps.write(learner.predict, {"blocks_0/attention/heads": fn})(params, carry, batch)

`read` and `write` wrap any function that applies networks; jit the wrapped function. What it does under a `grad` or
`scan` of its own (the inner steps of a learner that adapts) is not read; under `taps.vmap` it is.
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core.tracers import current_trace

from metalearn.types import Array, PyTree
from metalearn.validate import given, nearest, require

# of the `read` around: where networks leave their values, and the trace in which they may
_READING: contextvars.ContextVar[tuple[list, Any] | None] = contextvars.ContextVar("reading", default=None)


class Site(nn.Module):
    """The identity: gives a value in the middle of a module a name, `Site(name="heads")(y_BLHK)`."""

    def __call__(self, value: Array) -> Array:
        return value


def apply(module: nn.Module, params: PyTree, *args: Any, **options: Any) -> Any:
    """`module.apply`, which also leaves the sites' values with the `read` around it, where there is one."""
    found = _here()
    if found is None:
        return module.apply({"params": params}, *args, **options)
    out, left = module.apply({"params": params}, *args, mutable=["intermediates"], **options,
                             capture_intermediates=lambda module, method: method == "__call__" and bool(module.path))
    found.append(_flatten(left["intermediates"]))
    return out


def read(fn: Callable, *, of: int = 0) -> Callable:
    """`fn` that returns (what it returned, {site: value}): the values of the network that it applies, or of the
    `of`-th one where it applies several (or one several times); -1 is the last."""

    @functools.wraps(fn)
    def reading(*args: Any, **kw: Any):
        out, found = _listen(fn, *args, **kw)
        require(-len(found) <= of < len(found), "of", of, f"the function applies {len(found)} networks")
        return out, found[of]

    return reading


def vmap(fn: Callable) -> Callable:
    """`jax.vmap(fn)` whose networks' values a `read` around it gets, with the mapped axis first."""

    @functools.wraps(fn)
    def mapped(*args: Any):
        outer = _here()
        if outer is None:
            return jax.vmap(fn)(*args)
        out, found = jax.vmap(functools.partial(_listen, fn))(*args)
        outer.extend(found)
        return out

    return mapped


def _listen(fn: Callable, *args: Any, **kw: Any) -> tuple[Any, list[dict[str, Array]]]:
    """(what `fn` returns, the values of every network that it applies in this trace)."""
    found: list[dict[str, Array]] = []
    token = _READING.set((found, current_trace()))
    try:
        return fn(*args, **kw), found
    finally:
        _READING.reset(token)


def _here() -> list | None:
    """Where values are left: nowhere without a `read`, or in a trace that it is not in, which they must not leave."""
    found, trace = _READING.get() or (None, None)
    return found if trace == current_trace() else None


def write(fn: Callable, sites: Mapping[str, Callable]) -> Callable:
    """`fn` with the value of each site replaced by `sites[site](value, position)`.

    position   where the value stands in its segment: (L,) int32 for a value (B, L, ...), a scalar for a value of one
               step, (B, ...). Of images and vectors it says nothing. A site that no network has is refused.
    """

    @functools.wraps(fn)
    def writing(*args: Any, **kw: Any):
        seen: set[str] = set()
        with _intercept(sites, seen):
            out = fn(*args, **kw)
        for name in sites:
            require(name in seen, "site", name, "no network has this site" + nearest(name, seen))
        return out

    return writing


@contextlib.contextmanager
def _intercept(sites: Mapping[str, Callable], seen: set[str]):
    steps: list[Array] = []  # the position within a scan, innermost last
    lengths: list[int] = []  # of the segment that the network reads

    def interceptor(call, args, kw, context):
        module, path = context.module, "/".join(context.module.path)
        if context.method_name == "advance":  # a recurrent network's step, see nn.recurrent
            with _on(steps, args[1][1]):
                return call(*args, **kw)
        if context.method_name != "__call__":
            return call(*args, **kw)
        if not module.path:
            tokens = args[1] if len(args) > 1 else None  # of a network that reads them, see `nn.network`
            with _on(lengths, tokens.shape[1] if isinstance(tokens, jax.Array) else 0):
                return call(*args, **kw)
        seen.add(path)
        out = call(*args, **kw)
        if path not in sites:
            return out
        value = given(_value(out), "site", path, "returns no single array")
        length = max(lengths[-1], value.shape[1])
        position = steps[-1] if steps else jnp.arange(length, dtype=jnp.int32)[length - value.shape[1]:]
        new = sites[path](value, position)
        require(new.shape == value.shape, "site", path, f"was {value.shape}; what is written is {new.shape}")
        return tuple(new if part is value else part for part in out) if isinstance(out, tuple) else new

    with nn.intercept_methods(interceptor):
        yield


@contextlib.contextmanager
def _on(stack: list, value: Any):
    stack.append(value)
    try:
        yield
    finally:
        stack.pop()


def _value(out: Any) -> Array | None:
    """The array that a module returned, alone or beside its state."""
    if not isinstance(out, tuple):
        return out if isinstance(out, jax.Array) else None
    arrays = [part for part in out if isinstance(part, jax.Array)]
    return arrays[0] if len(arrays) == 1 else None


def _flatten(tree: Mapping, path: tuple[str, ...] = ()) -> dict[str, Array]:
    """{site: value} of linen's collection: {module: {method or sown name: (value,)}}."""
    found: dict[str, Array] = {}
    for name, below in tree.items():
        here = path if name == "__call__" else (*path, name)
        if isinstance(below, Mapping):
            found |= _flatten(below, here)
        elif (value := _value(below[-1])) is not None:
            found["/".join(here)] = value
    return found
