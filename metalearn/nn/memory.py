"""Slot memories: their initial value, and a controller beside one, which NTM, LRUA and DNC address in three ways.

The read vectors of the last step go into the controller with the input; output = what controller and reads say.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from metalearn import validate
from metalearn.nn import recurrent
from metalearn.types import Array, PyTree

KINDS = ("constant", "learned", "flat")


class InitialMemory(nn.Module):
    """M_0. `constant`: a small constant with fixed jitter; `learned`: a parameter that starts there; `flat`: 1e-6.

    A pure constant under content addressing would keep slots exchangeable for ever, hence the jitter. Rules that also
    address by place or by usage may start flat: slots that nobody wrote are then like no key at all, while the cosine
    sees jittered ones, however small, as so many other keys.
    """

    kind: str
    slots: int
    width: int
    constant: float = 1e-2
    jitter: float = 1e-1

    @nn.compact
    def __call__(self, num: int) -> Array:
        if self.kind == "flat":
            return jnp.full((num, self.slots, self.width), 1e-6)
        key = jax.random.key(20, impl="threefry2x32")
        M_MW = self.constant + self.jitter * jax.random.normal(key, (self.slots, self.width))
        if self.kind == "learned":
            M_MW = self.param("M", lambda _: M_MW)
        return jnp.broadcast_to(M_MW, (num, self.slots, self.width))


class Slots(recurrent.Recurrent):
    """Controller, memory, readout. Subclasses define

      emitted() -> int                           how much the controller says to the memory
      initial_slots(num) -> {group: {leaf: ...}} what is kept beside `M` and, outside the group `memory`, beside `r`
      address(e_BX, state) -> (state, r_BRW)     the groups `memory` and those of `initial_slots`, and what is read
    """

    slots: int
    width: int
    hidden: int
    reads: int
    controller: str
    memory: str

    def setup(self):
        self.output = recurrent.Controller(self.controller, self.hidden)
        self.project = nn.Dense(self.output.gate_width)
        self.initial_memory = InitialMemory(self.memory, self.slots, self.width, constant=1e-2, jitter=1e-2)
        self.readout = nn.Dense(self.outputs)
        self.emit = nn.Dense(self.emitted())

    def initial_state(self, num: int, length: int) -> PyTree:
        kept = self.initial_slots(num)
        memory = {"M": self.initial_memory(num)} | kept["memory"]
        return {"output": self.output.initial_state(num),
                "read": {"r": jnp.zeros((num, self.reads * self.width))}} | kept | {"memory": memory}

    def step(self, state: PyTree, u_BD: Array) -> tuple[PyTree, Array]:
        output, h_BD = self.output(state["output"], state["read"]["r"], projected_BD=u_BD)
        slots, r_BRW = self.address(self.emit(h_BD), state)
        r_BX = r_BRW.reshape(r_BRW.shape[0], -1)
        return {"output": output, "read": {"r": r_BX}} | slots, jnp.concatenate([h_BD, r_BX], -1)

    @nn.nowrap
    def first_slot(self, num: int) -> Array:
        """(num, M, 1): all weight on slot 0."""
        return jnp.zeros((num, self.slots, 1)).at[:, 0].set(1.0)


def split(e_BX: Array, *sizes: int) -> list[Array]:
    """Pieces of these sizes along the last axis."""
    return jnp.split(e_BX, [sum(sizes[:i]) for i in range(1, len(sizes))], -1)


def read(M_BMW: Array, w_BMR: Array) -> Array:
    """What R heads read, (B, R, W)."""
    return jnp.einsum("bmr,bmw->brw", w_BMR, M_BMW)


def check(*, slots: int, width: int, hidden: int, reads: int, controller: str, memory: str) -> None:
    """The checks that the slot memories share."""
    validate.positive(slots=slots, width=width, hidden=hidden, reads=reads)
    validate.one_of(recurrent.CONTROLLERS, controller=controller)
    validate.one_of(KINDS, memory=memory)
