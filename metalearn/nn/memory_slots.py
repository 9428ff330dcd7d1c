"""One controller beside a slot memory, with three ways to address it: NTM, MANN's LRUA, DNC.

NTM reads before it writes, LRUA and DNC write first and then read.

The read vectors of the last step go into the controller with the input; output = what controller and reads say.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from metalearn import validate
from metalearn.nn import addressing, memory
from metalearn.types import Array


class Slots(nn.Module):
    """What the three share: controller, start, readout. `address` (one of the functions below) does the rest."""

    outputs: int
    slots: int
    width: int
    hidden: int
    reads: int
    controller: str
    memory: str
    kind: str
    shifts: int = 0
    decay: float = 0.0
    adds: str = ""
    links: bool = False

    def setup(self):
        self.output = memory.Controller(self.controller, self.hidden)
        self.project = nn.Dense(self.output.gate_width)
        self.start_memory = memory.StartMemory(self.memory, self.slots, self.width, constant=1e-2, jitter=1e-2)
        self.readout = nn.Dense(self.outputs)
        W, S, R = self.width, 2 * self.shifts + 1, self.reads
        self.emit = nn.Dense({"ntm": (R + 1) * (W + 3 + S) + 2 * W, "lrua": R * (W + 1 + W * (self.adds == "own")),
                              "dnc": R * (W + 1 + 3 + 1) + W + 1 + 2 * W + 2}[self.kind])

    def __call__(self, x_TBX):
        return self.head(self.step(self.start(x_TBX.shape[1]), self.hoist(x_TBX)[0])[1][None])

    def start(self, num: int):
        M, R = self.slots, self.reads
        one, zero = jnp.zeros((num, M, 1)).at[:, 0].set(1.0), jnp.zeros((num, M, 1))
        slots = {"M": self.start_memory(num), "read": jnp.repeat(one, R, -1)}
        if self.kind == "ntm":
            slots |= {"write": one}
        if self.kind == "lrua":
            slots |= {"usage": zero}
        if self.kind == "dnc":
            slots |= {"read": jnp.repeat(zero, R, -1), "write": zero, "usage": zero, "precedence": zero}
        state = {"output": self.output.start(num), "read": {"r": jnp.zeros((num, R * self.width))}, "memory": slots}
        return state | ({"link": {"L": jnp.zeros((num, M, M))}} if self.links else {})

    def hoist(self, x_TBX):
        return self.project(x_TBX)

    def step(self, state, u_BD):
        output, h_BD = self.output(state["output"], state["read"]["r"], hoisted_BD=u_BD)
        rule = {"ntm": _ntm, "lrua": _lrua, "dnc": _dnc}[self.kind]
        slots, link, r_BRW, write_BMH = rule(self, self.emit(h_BD), state["memory"], state.get("link"))
        r_BX = r_BRW.reshape(r_BRW.shape[0], -1)
        state = {"output": output, "read": {"r": r_BX}, "memory": slots} | ({"link": link} if self.links else {})
        return state, jnp.concatenate([h_BD, r_BX], -1), {"read": slots["read"], "write": write_BMH}

    def head(self, y_TBD):
        return self.readout(y_TBD)


def _split(e_BX: Array, *sizes: int) -> list[Array]:
    return jnp.split(e_BX, [sum(sizes[:i]) for i in range(1, len(sizes))], -1)


def _reads(M_BMW: Array, w_BMR: Array) -> Array:
    return jnp.einsum("bmr,bmw->brw", w_BMR, M_BMW)


def _ntm(net: Slots, e_BX: Array, slots: dict, link):
    W, S, R = net.width, 2 * net.shifts + 1, net.reads
    heads_BX, erase_BW, add_BW = _split(e_BX, (R + 1) * (W + 3 + S), W, W)
    heads = heads_BX.reshape(-1, R + 1, W + 3 + S)
    M_BMW, weights = slots["M"], []
    for i, before_BM in enumerate([*jnp.unstack(slots["read"], axis=-1), slots["write"][..., 0]]):
        key, beta, gate, shift, gamma = _split(heads[:, i], W, 1, 1, S, 1)
        w_BM = addressing.content(M_BMW, jnp.tanh(key), jax.nn.softplus(beta))
        w_BM = addressing.interpolate(w_BM, before_BM, jax.nn.sigmoid(gate))
        w_BM = addressing.shift(w_BM, jax.nn.softmax(shift))
        weights.append(addressing.sharpen(w_BM, 1 + jax.nn.softplus(gamma)))
    read_BMR, write_BM = jnp.stack(weights[:-1], -1), weights[-1]
    r_BRW = _reads(M_BMW, read_BMR)
    M_BMW = addressing.erase_add(M_BMW, write_BM, jax.nn.sigmoid(erase_BW), jnp.tanh(add_BW))
    return {"M": M_BMW, "read": read_BMR, "write": write_BM[..., None]}, link, r_BRW, write_BM[..., None]


def _lrua(net: Slots, e_BX: Array, slots: dict, link):
    """R heads. The least used row is zeroed and the heads write, each to where it last read or to a least used row of
    its own; then they read. What is written is the key that is read by, or (`adds` own) a vector of its own."""
    W, R = net.width, net.reads
    own = net.adds == "own"
    keys_BX, alpha_BR, adds_BX = _split(e_BX, R * W, R, R * W if own else 0)
    keys_BRW = jnp.tanh(keys_BX.reshape(-1, R, W))
    adds_BRW = jnp.tanh(adds_BX.reshape(-1, R, W)) if own else keys_BRW
    M_BMW, usage_BM = slots["M"], slots["usage"][..., 0]
    upto = [jnp.zeros_like(usage_BM)] + [addressing.least_used(usage_BM, i + 1) for i in range(R)]
    least_BMR = jax.lax.stop_gradient(jnp.stack([b - a for a, b in zip(upto[:-1], upto[1:], strict=True)], -1))
    mix_B1R = jax.nn.sigmoid(alpha_BR)[:, None]
    write_BMR = mix_B1R * slots["read"] + (1 - mix_B1R) * least_BMR
    M_BMW = M_BMW * (1 - least_BMR[..., :1]) + jnp.einsum("bmr,brw->bmw", write_BMR, adds_BRW)
    read_BMR = jnp.stack([addressing.content(M_BMW, keys_BRW[:, i], 1.0 * W**0.5) for i in range(R)], -1)
    usage_BM = net.decay * usage_BM + read_BMR.sum(-1) + write_BMR.sum(-1)
    return {"M": M_BMW, "read": read_BMR, "usage": usage_BM[..., None]}, link, _reads(M_BMW, read_BMR), write_BMR


def _dnc(net: Slots, e_BX: Array, slots: dict, link):
    W, R = net.width, net.reads
    rk, rb, modes, free, wk, wb, erase, value, gates = _split(e_BX, R * W, R, 3 * R, R, W, 1, W, W, 2)
    allocate_B1, write_B1 = jnp.split(jax.nn.sigmoid(gates), 2, -1)
    M_BMW, old_BM = slots["M"], slots["write"][..., 0]
    usage_BM = addressing.retain_usage(slots["usage"][..., 0], old_BM, jax.nn.sigmoid(free), slots["read"])
    by_content_BM = addressing.content(M_BMW, wk, 1 + jax.nn.softplus(wb))
    write_BM = write_B1 * addressing.interpolate(addressing.allocate(usage_BM), by_content_BM, allocate_B1)
    M_BMW = addressing.erase_add(M_BMW, write_BM, jax.nn.sigmoid(erase), value)
    by_content = [addressing.content(M_BMW, k, 1 + jax.nn.softplus(b)) for k, b in zip(
        jnp.split(rk, R, -1), jnp.split(rb, R, -1), strict=True)]
    read_BMR = jnp.stack(by_content, -1)
    if net.links:
        L_BMM = addressing.link(link["L"], slots["precedence"][..., 0], write_BM)
        mode_BR3 = jax.nn.softmax(modes.reshape(-1, R, 3))
        ahead_BMR = jnp.einsum("bmn,bnr->bmr", L_BMM, slots["read"])
        back_BMR = jnp.einsum("bnm,bnr->bmr", L_BMM, slots["read"])
        read_BMR = sum(m[:, None] * w for m, w in zip(jnp.unstack(mode_BR3, axis=-1), (back_BMR, read_BMR, ahead_BMR),
                                                      strict=True))
        link = {"L": L_BMM}
    before_BM = addressing.precedence(slots["precedence"][..., 0], write_BM)
    slots = {"M": M_BMW, "read": read_BMR, "write": write_BM[..., None], "usage": usage_BM[..., None],
             "precedence": before_BM[..., None]}
    return slots, link, _reads(M_BMW, read_BMR), write_BM[..., None]


def _checked(slots: int, width: int, hidden: int, reads: int, controller: str, memory_start: str) -> None:
    validate.positive(slots=slots, width=width, hidden=hidden, reads=reads)
    validate.one_of(memory.CONTROLLERS, controller=controller)
    validate.one_of((*memory.STARTS, "flat"), memory=memory_start)


def _make_ntm(outputs: int, *, slots: int, width: int, hidden: int, reads: int, controller: str, memory: str,
              shifts: int) -> Slots:
    _checked(slots, width, hidden, reads, controller, memory)
    validate.require(0 <= 2 * shifts < slots, "shifts", shifts, f"must lie between 0 and {(slots - 1) // 2}")
    return Slots(outputs, slots, width, hidden, reads, controller, memory, "ntm", shifts=shifts)


def _make_lrua(outputs: int, *, slots: int, width: int, hidden: int, reads: int, controller: str, memory: str,
               decay: float, adds: str) -> Slots:
    _checked(slots, width, hidden, reads, controller, memory)
    validate.fraction(decay=decay)
    validate.one_of(("key", "own"), adds=adds)
    validate.require(reads <= slots, "reads", reads, f"must be at most slots={slots}")
    return Slots(outputs, slots, width, hidden, reads, controller, memory, "lrua", decay=decay, adds=adds)


def _make_dnc(outputs: int, *, slots: int, width: int, hidden: int, reads: int, controller: str, memory: str,
              links: bool) -> Slots:
    _checked(slots, width, hidden, reads, controller, memory)
    return Slots(outputs, slots, width, hidden, reads, controller, memory, "dnc", links=links)


KINDS = {"ntm": _make_ntm, "lrua": _make_lrua, "dnc": _make_dnc}
