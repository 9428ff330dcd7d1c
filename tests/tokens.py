"""How many tokens a second each network learns from and reads, by length; chunks against their recurrence.

  python -m tests.tokens [--only=networks,chunks] [--store]       (bash launch/test.sh --tokens)

One sequence: whole blocks of width 64 forward and backward, then the memories alone, whose recurrence is the same
function with chunks of one token. Where PyTorch is installed, a loop over tokens in it reads by the delta rule too.
`--store` puts the tables into results/tokens.json, in the place of those of the same title.
"""

from __future__ import annotations

import functools
import importlib.util
import time

import jax
import numpy as np

from configs import common
from metalearn.nn import fast_weights, network
from tests import measured

LENGTHS = (512, 4096, 32768)
BLOCK = dict(depth=1, width=64, num_heads=1, mlp=64, conv=4)
CHUNKS = BLOCK | dict(chunk=32)
DESCENT = CHUNKS | dict(name="titans", momentum=True, decay=True, rate=0.5, clip=1.0, persistent=4, window=64)
NETWORKS = {
    "transformer": dict(name="transformer", depth=1, width=64, num_heads=1, mlp=64, positions=False, remat="none"),
    "window_attention 64": BLOCK | dict(name="window_attention", window=64),
    "lstm": dict(name="lstm", hidden=64),
    "linear_attention": CHUNKS | dict(name="delta", decay="none", erase=False),
    "delta": CHUNKS | dict(name="delta", decay="none", erase=True),
    "gated delta": CHUNKS | dict(name="delta", decay="token", erase=True),
    "mesa": common.NETWORKS["mesa"] | CHUNKS,
    "ttt, linear": common.NETWORKS["ttt"] | CHUNKS,
    "titans lmm, linear": DESCENT | dict(variant="lmm", layers=1),
    "titans lmm": DESCENT | dict(variant="lmm", layers=2),
    "titans mac": DESCENT | dict(variant="mac", layers=2),
    "titans mag": DESCENT | dict(variant="mag", layers=2),
    "pmi": common.NETWORKS["pmi"] | CHUNKS,
}
# a matrix of scores between all tokens, 4 GiB at 32,768 and as much again backward
QUADRATIC = ("transformer", "window_attention 64", "titans mag", "pmi")


def update(sizes: dict, length: int):
    """(compiled gradient of a loss over one sequence, its arguments, MiB it needs beside them)."""
    net = network.make(sizes, network.NetworkSpec(8, 16, "x", length, "float32", 4))
    tokens = jax.random.normal(jax.random.key(0), (1, length, 16))
    params = net.init(jax.random.key(1), tokens)
    grad = jax.jit(jax.grad(lambda p, x: (net.apply(p, None, x)[1] ** 2).mean())).lower(params, tokens).compile()
    return grad, (params, tokens), grad.memory_analysis().temp_size_in_bytes / 2**20


def seconds(run, rounds: int = 3) -> float:
    """The median of some calls, after one."""
    jax.block_until_ready(run())
    took = []
    for _ in range(rounds):
        began = time.perf_counter()
        jax.block_until_ready(run())
        took.append(time.perf_counter() - began)
    return float(np.median(took))


def networks() -> dict:
    rows = []
    for name, sizes in NETWORKS.items():
        row: list = [name]
        for length in LENGTHS:
            if name in QUADRATIC and length > 4096:
                row += [None, None]
                continue
            grad, args, mib = update(sizes, length)
            row += [round(length / seconds(lambda grad=grad, args=args: grad(*args))), round(mib, 1)]
        print(row, flush=True)
        rows.append(row)
    columns = [column for length in LENGTHS for column in (f"tokens/s, T = {length:,}", "MiB")]
    return {"title": "Learning from one sequence: tokens a second and MiB of the compiled gradient",
            "columns": ["network", *columns], "rows": rows}


def chunks() -> dict:
    """The memories alone, T = 4,096: reading, and learning through them."""
    length, size, rows = 4096, 64, []
    draw = lambda *shape: np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32) / 8
    k, q, v = (draw(1, 1, length, size) for _ in range(3))
    half, decay = np.full((1, 1, length), 0.5, np.float32), np.full((1, 1, length), -0.01, np.float32)

    def delta(chunk):
        return (lambda S, *a: fast_weights.delta(S, *a, erase=True, chunk=chunk)[1]), (
            np.zeros((1, 1, size, size), np.float32), q, k, v, decay, half)

    def titans(layers, chunk):
        tails = dict.fromkeys("qkv", (1, size)) | {"rate": (1,)}
        first = lambda a: a.swapaxes(1, 2)

        def body(memory, now):
            half = first(now["rate"])
            gates = {"rate": 0.1 * half, "momentum": half, "forget": 0.1 * half}
            new, out = fast_weights.descend(memory, *(first(now[name]) for name in "qkv"), gates, clip=1.0)
            return new, first(out)

        def run(M, q, k, v, rate):
            state = {"inner": {"M": M, "S": [0 * layer for layer in M]}, "begun": fast_weights.begun(1, chunk, **tails)}
            tokens = {"q": first(q), "k": first(k), "v": first(v), "rate": first(rate)}
            return fast_weights.by_chunks(body, chunk, state, tokens, True)[1]

        return run, ([draw(1, 1, size, size)] * layers, q, k, v, half)

    def rates(form, args) -> tuple[float, float]:
        loss = lambda *a: (form(*a) ** 2).sum()
        read, learn = jax.jit(form), jax.jit(jax.grad(loss, argnums=tuple(range(len(args)))))
        return length / seconds(lambda: read(*args)), length / seconds(lambda: learn(*args))

    theirs = length / torch_delta(q, k, v, decay, half) if importlib.util.find_spec("torch") else None
    for name, make in (("gated delta rule", delta), ("Titans, linear", functools.partial(titans, 1)),
                       ("Titans, two layers", functools.partial(titans, 2))):
        (read, learn), (read_one, learn_one) = rates(*make(32)), rates(*make(1))
        loop = theirs if make is delta else None
        rows.append([name, round(read), round(read_one), loop and round(loop), round(learn), round(learn_one),
                     round(learn / learn_one, 1)])
    return {"title": "A memory alone, T = 4,096, 64 x 64: tokens a second in chunks of 32 and one by one",
            "columns": ["memory", "reading", "one by one", "PyTorch's loop", "learning", "one by one ", "times"],
            "rows": rows}


def torch_delta(q, k, v, decay, beta) -> float:
    """Seconds of the recurrence in PyTorch, token by token, on the faster of one thread and two."""
    import torch

    q, k, v, a, b = (torch.from_numpy(x[0, 0]) for x in (q, k, v, np.exp(decay), beta))

    def run():
        S, out = torch.zeros(64, 64), []
        for t in range(len(q)):
            S = a[t] * S
            S = S + b[t] * torch.outer(k[t], v[t] - k[t] @ S)
            out.append(q[t] @ S)
        return torch.stack(out)

    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        with torch.no_grad():
            found.append(seconds(run))
    return min(found)


SECTIONS = {"networks": networks, "chunks": chunks}


if __name__ == "__main__":
    measured.main(
        __doc__, "tokens", "Tokens a second of every network", "train --config=configs/memories.py:smoke",
        "`bash launch/test.sh --tokens --store` writes this record.", SECTIONS, digits=1)
