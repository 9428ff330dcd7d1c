"""The context-aware world model of Meta-DT (arXiv 2410.11448): a code z out of the last h steps, and two decoders.

Encoder: linear 16 + ReLU on each of state, action, reward; a GRU over the h steps; a linear layer to z, deterministic.
Reward decoder: one embedding shared by s and s', one for a; transition decoder: s and a; both with z and two hidden
layers. Steps before the episode enter as zeros, so the code of a first step is E(zeros) in training and in use alike.

`decoders = change` is ours: the transition decoder says by how much the state changes, in units of the changes' spread.
Where a step moves little (a fiftieth of a second of a cart), what the task decides is lost beside the state itself.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from metalearn.types import Array, Mean, Trajectories, TrajectorySpec
from metalearn.validate import one_of, positive

DECODERS = ("reward", "transition", "both", "change")


class Encoder(nn.Module):
    """Trajectories with `history` steps before the window -> code_BTC of each step of the window."""

    history: int
    embed: int
    hidden: int
    code: int

    @nn.compact
    def __call__(self, steps: Trajectories) -> Array:
        h, D = self.history, self.hidden
        dense = lambda size, name: nn.Dense(size, kernel_init=nn.initializers.xavier_uniform(), name=name)
        x_BTI = jnp.concatenate([nn.relu(dense(self.embed, name)(a)) for name, a in (
            ("act", steps.act_BTA), ("obs", steps.obs_BTS), ("rew", steps.rew_BT[..., None]))], -1)
        # what enters the gates from outside is the same in all windows that hold a step: computed once per step
        gates_BTI = nn.Dense(3 * D, kernel_init=_orthogonal3, name="gates_in")(x_BTI)
        inner = nn.Dense(3 * D, kernel_init=_orthogonal3, name="gates_hidden")
        T = gates_BTI.shape[1] - h
        h_BTD = jnp.zeros((1, 1, D))  # alike for all: the first step's product is one row
        for k in range(h):  # the window of step t is t-h .. t-1, oldest first
            reset, update, new = jnp.split(gates_BTI[:, k:k + T], 3, -1)
            reset_h, update_h, new_h = jnp.split(inner(h_BTD), 3, -1)
            retain = jax.nn.sigmoid(update + update_h)
            h_BTD = retain * h_BTD + (1 - retain) * jnp.tanh(new + jax.nn.sigmoid(reset + reset_h) * new_h)
        return dense(self.code, "code")(h_BTD)


def _orthogonal3(key, shape, dtype=jnp.float32):
    """Orthogonal gate by gate, as recurrent weights are usually drawn."""
    one = nn.initializers.orthogonal()
    gates = jax.vmap(lambda k: one(k, (shape[0], shape[1] // 3), dtype))(jax.random.split(key, 3))
    return jnp.moveaxis(gates, 0, 1).reshape(shape)


class Decoder(nn.Module):
    """(parts through their embedding, code) -> outputs; `names` says which parts share an embedding."""

    names: tuple[str, ...]
    outputs: int
    embed: int
    hidden: int

    @nn.compact
    def __call__(self, parts: tuple[Array, ...], code_BTC: Array) -> Array:
        dense = lambda size, name: nn.Dense(size, kernel_init=nn.initializers.xavier_uniform(), name=name)
        layers = {name: dense(self.embed, name) for name in sorted(set(self.names))}
        x = [nn.relu(layers[name](part)) for name, part in zip(self.names, parts, strict=True)]
        x = jnp.concatenate([*x, code_BTC], -1)
        for i in range(2):
            x = nn.relu(dense(self.hidden, f"hidden_{i}")(x))
        return dense(self.outputs, "out")(x)


class World(nn.Module):
    """Encoder and decoders. Calling it gives {code_BTC, rew_BT?, next_BTS?}, aligned with the window's steps."""

    history: int
    obs_size: int
    decoders: str  # one of DECODERS
    embed: int
    hidden: int
    code: int
    change_std: tuple[float, ...]  # read by `change` alone

    def setup(self):
        self.encoder = Encoder(self.history, self.embed, self.hidden, self.code)
        if self.decoders in ("reward", "both"):
            self.reward = Decoder(("obs", "act", "obs"), 1, self.embed, 128)
        if self.decoders != "reward":
            self.transition = Decoder(("obs", "act"), self.obs_size, self.embed, 128)

    def __call__(self, steps: Trajectories) -> dict[str, Array]:
        out = {"code_BTC": self.encoder(steps)}
        now = jax.tree.map(lambda a: a[:, self.history:], steps)
        if self.decoders in ("reward", "both"):
            parts = (now.obs_BTS, now.act_BTA, now.next_BTS)
            out["rew_BT"] = self.reward(parts, out["code_BTC"])[..., 0]
        if self.decoders != "reward":
            next_BTS = self.transition((now.obs_BTS, now.act_BTA), out["code_BTC"])
            change = self.decoders == "change"
            out["next_BTS"] = now.obs_BTS + jnp.asarray(self.change_std) * next_BTS if change else next_BTS
        return out


def make(spec: TrajectorySpec, *, decoders: str, embed: int, hidden: int, code: int) -> World:
    """The world model for such trajectories."""
    one_of(DECODERS, decoders=decoders)
    positive(embed=embed, hidden=hidden, code=code)
    unit = tuple(spec.statistics.change_std_S.tolist())  # linen's fields are hashable
    return World(spec.history, spec.obs_size, decoders, embed, hidden, code, unit)


def state_unit(spec: TrajectorySpec, decoders: str) -> Array:
    """What errors of the next state are divided by, (S,): the spread of states or, for `change`, of their changes."""
    return jnp.asarray(spec.statistics.change_std_S if decoders == "change" else spec.statistics.obs_std_S)


def losses(found: dict[str, Array], now: Trajectories, unit_S: Array) -> dict[str, Mean]:
    """{reward_mse?, state_mse?} of predictions of the steps `now`, whichever the decoders make."""
    means = {}
    if "rew_BT" in found:
        means["reward_mse"] = Mean.of((found["rew_BT"] - now.rew_BT) ** 2, now.mask_BT)
    if "next_BTS" in found:
        means["state_mse"] = Mean.of((((found["next_BTS"] - now.next_BTS) / unit_S) ** 2).mean(-1), now.mask_BT)
    return means


def errors(found: dict[str, Array], steps: Trajectories, history: int, unit_S: Array, rew_std: float) -> Array:
    """error_BT: absolute reward error in units of its spread, plus the mean absolute error of the next state."""
    now = jax.tree.map(lambda a: a[:, history:], steps)
    error_BT = jnp.zeros_like(now.rew_BT)
    if "rew_BT" in found:
        error_BT += jnp.abs(found["rew_BT"] - now.rew_BT) / rew_std
    if "next_BTS" in found:
        error_BT += jnp.abs((found["next_BTS"] - now.next_BTS) / unit_S).mean(-1)
    return error_BT * now.mask_BT
