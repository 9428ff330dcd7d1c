"""MANN's memory: least-recently-used access, write first and then read (Santoro et al. 2016)."""

import jax
import jax.numpy as jnp

from metalearn import validate
from metalearn.nn import addressing, memory as memory_nn, network


class LRUA(memory_nn.Slots):
    """R heads. The least used row is zeroed and the heads write, each to where it last read or to a least used row of
    its own; then they read. What is written is the key that is read by, or (`adds` own) a vector of its own."""

    decay: float
    adds: str

    def emitted(self) -> int:
        return self.reads * (self.width + 1 + self.width * (self.adds == "own"))

    def initial_slots(self, num):
        usage_BM1 = jnp.zeros((num, self.slots, 1))
        return {"memory": {"read": jnp.repeat(self.first_slot(num), self.reads, -1), "usage": usage_BM1}}

    def address(self, e_BX, state):
        W, R = self.width, self.reads
        slots, own = state["memory"], self.adds == "own"
        keys_BX, alpha_BR, adds_BX = memory_nn.split(e_BX, R * W, R, R * W if own else 0)
        keys_BRW = jnp.tanh(keys_BX.reshape(-1, R, W))
        adds_BRW = jnp.tanh(adds_BX.reshape(-1, R, W)) if own else keys_BRW
        M_BMW, usage_BM = slots["M"], slots["usage"][..., 0]
        least_BMR = jax.lax.stop_gradient(addressing.least_used(usage_BM, R)).swapaxes(1, 2)
        mix_B1R = jax.nn.sigmoid(alpha_BR)[:, None]
        write_BMR = mix_B1R * slots["read"] + (1 - mix_B1R) * least_BMR
        M_BMW = M_BMW * (1 - least_BMR[..., :1]) + jnp.einsum("bmr,brw->bmw", write_BMR, adds_BRW)
        read_BMR = addressing.content(M_BMW, keys_BRW, W**0.5).swapaxes(1, 2)
        self.sow("intermediates", "read_weights_BMR", read_BMR)
        self.sow("intermediates", "write_weights_BMR", write_BMR)
        usage_BM = self.decay * usage_BM + read_BMR.sum(-1) + write_BMR.sum(-1)
        slots = {"M": M_BMW, "read": read_BMR, "usage": usage_BM[..., None]}
        return {"memory": slots}, memory_nn.read(M_BMW, read_BMR)


def make(spec: network.NetworkSpec, *, slots: int, width: int, hidden: int, reads: int, controller: str, memory: str,
         decay: float, adds: str) -> network.Network:
    """slots x width memory, `hidden` units in the controller (lstm | ffn), `reads` heads; memory constant | learned |
    flat; decay of usage, 0 to 1; adds key | own: what is written."""
    memory_nn.check(slots=slots, width=width, hidden=hidden, reads=reads, controller=controller, memory=memory)
    validate.fraction(decay=decay)
    validate.one_of(("key", "own"), adds=adds)
    validate.require(reads <= slots, "reads", reads, f"must be at most slots={slots}")
    module = LRUA(spec.outputs, spec.unroll, slots, width, hidden, reads, controller, memory, decay, adds)
    return network.of(module, recurrent=True)
