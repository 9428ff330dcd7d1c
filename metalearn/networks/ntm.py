"""The neural Turing machine: content, interpolate, shift, sharpen; read, then erase and add."""

import jax
import jax.numpy as jnp

from metalearn import validate
from metalearn.nn import addressing, memory as memory_nn, network


class NTM(memory_nn.Slots):
    shifts: int

    def emitted(self) -> int:
        return (self.reads + 1) * (self.width + 3 + 2 * self.shifts + 1) + 2 * self.width

    def initial_slots(self, num):
        one_BM1 = self.first_slot(num)
        return {"memory": {"read": jnp.repeat(one_BM1, self.reads, -1), "write": one_BM1}}

    def address(self, e_BX, state):
        W, S, R = self.width, 2 * self.shifts + 1, self.reads
        slots = state["memory"]
        heads_BX, erase_BW, add_BW = memory_nn.split(e_BX, (R + 1) * (W + 3 + S), W, W)
        heads = heads_BX.reshape(-1, R + 1, W + 3 + S)
        key, beta, gate, shift, gamma = memory_nn.split(heads, W, 1, 1, S, 1)
        M_BMW, before_BMH = slots["M"], jnp.concatenate([slots["read"], slots["write"]], -1)
        w_BHM = addressing.content(M_BMW, jnp.tanh(key), jax.nn.softplus(beta))
        w_BHM = addressing.interpolate(w_BHM, before_BMH.swapaxes(1, 2), jax.nn.sigmoid(gate))
        w_BHM = addressing.sharpen(addressing.shift(w_BHM, jax.nn.softmax(shift)), 1 + jax.nn.softplus(gamma))
        read_BMR, write_BM = w_BHM[:, :-1].swapaxes(1, 2), w_BHM[:, -1]
        self.sow("intermediates", "read_weights_BMR", read_BMR)
        self.sow("intermediates", "write_weights_BMR", write_BM[..., None])
        r_BRW = memory_nn.read(M_BMW, read_BMR)
        M_BMW = addressing.erase_add(M_BMW, write_BM, jax.nn.sigmoid(erase_BW), jnp.tanh(add_BW))
        return {"memory": {"M": M_BMW, "read": read_BMR, "write": write_BM[..., None]}}, r_BRW


def make(spec: network.NetworkSpec, *, slots: int, width: int, hidden: int, reads: int, controller: str, memory: str,
         shifts: int) -> network.Network:
    """slots x width memory, `hidden` units in the controller (lstm | ffn), `reads` read heads and one write head;
    memory constant | learned | flat; shifts by at most `shifts` slots a step."""
    memory_nn.check(slots=slots, width=width, hidden=hidden, reads=reads, controller=controller, memory=memory)
    validate.require(0 <= 2 * shifts < slots, "shifts", shifts, f"must lie between 0 and {(slots - 1) // 2}")
    module = NTM(spec.outputs, spec.unroll, slots, width, hidden, reads, controller, memory, shifts)
    return network.of(module, recurrent=True)
