"""The differentiable neural computer: allocation by usage, write first and then read, optional temporal links."""

import functools

import jax
import jax.numpy as jnp

from metalearn.nn import addressing, memory as memory_nn, network


class DNC(memory_nn.Slots):
    links: bool

    def emitted(self) -> int:
        W, R = self.width, self.reads
        return R * (W + 1 + 3 + 1) + W + 1 + 2 * W + 2

    def initial_slots(self, num):
        zero_BM1 = jnp.zeros((num, self.slots, 1))
        memory = {"read": jnp.repeat(zero_BM1, self.reads, -1), "write": zero_BM1, "usage": zero_BM1,
                  "precedence": zero_BM1}
        links = {"link": {"L": jnp.zeros((num, self.slots, self.slots))}} if self.links else {}
        return {"memory": memory} | links

    def address(self, e_BX, state):
        W, R = self.width, self.reads
        slots = state["memory"]
        rk, rb, modes, free, wk, wb, erase, value, gates = memory_nn.split(e_BX, R * W, R, 3 * R, R, W, 1, W, W, 2)
        allocate_B1, write_B1 = jnp.split(jax.nn.sigmoid(gates), 2, -1)
        M_BMW, old_BM = slots["M"], slots["write"][..., 0]
        usage_BM = addressing.retain_usage(slots["usage"][..., 0], old_BM, jax.nn.sigmoid(free), slots["read"])
        by_content_BM = addressing.content(M_BMW, wk, 1 + jax.nn.softplus(wb))
        write_BM = write_B1 * addressing.interpolate(addressing.allocate(usage_BM), by_content_BM, allocate_B1)
        M_BMW = addressing.erase_add(M_BMW, write_BM, jax.nn.sigmoid(erase), value)
        read_BMR = addressing.content(M_BMW, rk.reshape(-1, R, W), 1 + jax.nn.softplus(rb[..., None])).swapaxes(1, 2)
        linked = {}
        if self.links:
            L_BMM = addressing.link(state["link"]["L"], slots["precedence"][..., 0], write_BM)
            read_BMR = self._follow(L_BMM, slots["read"], read_BMR, modes)
            linked = {"link": {"L": L_BMM}}
        self.sow("intermediates", "read_weights_BMR", read_BMR)
        self.sow("intermediates", "write_weights_BMR", write_BM[..., None])
        before_BM = addressing.precedence(slots["precedence"][..., 0], write_BM)
        slots = {"M": M_BMW, "read": read_BMR, "write": write_BM[..., None], "usage": usage_BM[..., None],
                 "precedence": before_BM[..., None]}
        return {"memory": slots} | linked, memory_nn.read(M_BMW, read_BMR)

    def _follow(self, L_BMM, old_BMR, by_content_BMR, modes_BX):
        """Each head reads what was written before, or after, what it read last, or by content."""
        mode_BR3 = jax.nn.softmax(modes_BX.reshape(-1, self.reads, 3))
        ahead_BMR = jnp.einsum("bmn,bnr->bmr", L_BMM, old_BMR)
        back_BMR = jnp.einsum("bnm,bnr->bmr", L_BMM, old_BMR)
        ways = zip(jnp.unstack(mode_BR3, axis=-1), (back_BMR, by_content_BMR, ahead_BMR), strict=True)
        return functools.reduce(jnp.add, (mode_BR[:, None] * way_BMR for mode_BR, way_BMR in ways))


def make(spec: network.NetworkSpec, *, slots: int, width: int, hidden: int, reads: int, controller: str, memory: str,
         links: bool) -> network.Network:
    """slots x width memory, `hidden` units in the controller (lstm | ffn), `reads` read heads and one write head;
    memory constant | learned | flat; links: also follow the order of writing (a state of slots x slots more)."""
    memory_nn.check(slots=slots, width=width, hidden=hidden, reads=reads, controller=controller, memory=memory)
    module = DNC(spec.outputs, spec.unroll, slots, width, hidden, reads, controller, memory, links)
    return network.of(module, recurrent=True)
