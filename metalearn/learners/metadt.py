"""Phase two: a decision transformer that reads a context code and a prompt (Meta-DT, arXiv 2410.11448) and its kin.

  Meta-DT              context=world, prompt_select=error       without complement   context=world, prompt_select=random
  without context      context=none, prompt_select=random       without prompt       context=world, prompt_select=none
  Prompt-DT            context=none, prompt_select=random       DT                   context=none, prompt_select=none
  behaviour cloning    DT with conditioning=none                Oracle-DT            context=task: the true parameters
  Generalized DT       conditioning=histogram: the distribution of the rewards still to come, in the place of their sum
  FOCAL-, CORRO-, CSRO-style DT      context=world over a world model trained with that objective

The world model is part of the parameters and gets no gradient from here: with `world_training=frozen` it comes from
another run by `init_from`; with `joint` it learns beside the policy, from the same batches by its own loss. The
`gaussian` head has a spread per action: where the data say that anything may be right, a sample tries something.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from metalearn.learning.gradients import grads_from_loss
from metalearn.nn import decision, taps, transformer, world as world_lib
from metalearn.types import Array, Learner, Mean, Prompted, Trajectories, TrajectorySpec
from metalearn.validate import call, fraction, multiple_of, nonnegative, one_of, positive, require, within


def make(spec: TrajectorySpec, *, context: str, prompt: int, prompt_select: str, prompt_frac: float, warm_steps: int,
         conditioning: str, head: str, action_dropout: float, context_dropout: float, world: dict, world_training: str,
         depth: int, width: int, num_heads: int, mlp: int, activation: str, dropout: float,
         prompt_norm: bool, remat: str) -> Learner:
    """A policy over batches of `Prompted`.

    context          world (a code out of the last h steps) | task (the hidden parameters) | none
    prompt           P, steps of a prompt
    prompt_select    error (the P steps that the world model predicts worst; paper) | random | none
    prompt_frac      fraction of rows that have a prompt, once `warm_steps` updates without any are over
    conditioning     return (what the task conditions on: return-to-go or rank) | histogram | none
    head             mse (tanh of the mean) | gaussian (mean and spread)
    action_dropout   fraction of the history's action tokens that are blanked in training
    context_dropout  fraction of codes that are blanked in training
    world            sizes of the world model, as in learners/world: decoders, embed, hidden, code
    world_training   frozen | joint
    depth, width, num_heads, mlp, activation, dropout   of the transformer (published: 3, 128, 1, 512, relu, 0.1)
    prompt_norm      layer norm on prompt tokens too (the released code has none there)
    remat            what of a block is computed again in the backward pass: none | products (all but these) | blocks
    """
    one_of(("world", "task", "none"), context=context)
    one_of(("error", "random", "none"), prompt_select=prompt_select)
    one_of(("return", "histogram", "none"), conditioning=conditioning)
    one_of(("mse", "gaussian"), head=head)
    one_of(("frozen", "joint"), world_training=world_training)
    one_of(("gelu", "relu"), activation=activation)
    one_of(transformer.REMAT, remat=remat)
    positive(depth=depth, width=width, num_heads=num_heads, mlp=mlp)
    multiple_of("num_heads", num_heads, width=width)
    nonnegative(warm_steps=warm_steps)
    fraction(prompt_frac=prompt_frac, action_dropout=action_dropout, context_dropout=context_dropout, dropout=dropout)
    require(dropout < 1, "dropout", dropout, "must be below 1: of 1 nothing is left to learn from")
    if prompt_select != "none":
        positive(prompt=prompt)
        require(prompt <= spec.prompt_span, "prompt", prompt,
                f"must be at most task.prompt_span={spec.prompt_span}, the steps that it is cut from")
    require(conditioning != "histogram" or spec.prompt_span > 0, "conditioning", conditioning,
            "needs prompts (task.prompt_span above 0)")
    with within("world"):
        model = call(world_lib.make, spec, **world)
    outputs = spec.act_size * (2 if head == "gaussian" else 1)
    net = decision.Decision(outputs, spec.episode, depth, width, num_heads, mlp, activation, dropout, prompt_norm,
                            remat)
    policy = _Policy(spec, model, net, context, prompt, prompt_select, prompt_frac, warm_steps, conditioning, head,
                     action_dropout, context_dropout, world_training == "joint")
    same = {"task.history": spec.history} | {f"task.env.{k}": v for k, v in spec.env_fields.items()}
    same |= {f"learner.{k}": v for k, v in world.items()}
    length = spec.window + policy.prompt_steps
    return Learner(policy.init, grads_from_loss(policy.loss), policy.predict, lambda _: 2 * width * depth * 3 * length,
                   pretrained={"world": same} if policy.uses_world and world_training == "frozen" else {},
                   begin=policy.begin, extend=policy.extend)


@dataclasses.dataclass(frozen=True)
class _Policy:
    """The learner's functions; the fields are what `make` was given, checked."""

    spec: TrajectorySpec
    model: world_lib.World
    net: decision.Decision
    context: str
    prompt: int
    prompt_select: str
    prompt_frac: float
    warm_steps: int
    conditioning: str
    head: str
    action_dropout: float
    context_dropout: float
    joint: bool

    @property
    def prompted(self) -> bool:
        return self.prompt_select != "none"

    @property
    def prompt_steps(self) -> int:
        return self.prompt if self.prompted else 0

    @property
    def uses_world(self) -> bool:
        return self.context == "world" or self.prompt_select == "error"

    def init(self, key, batch: Prompted):
        key_world, key_net = jax.random.split(key)
        batch = jax.tree.map(lambda a: a[:1], batch)
        params = {"world": self.model.init(key_world, batch.body)["params"]} if self.uses_world else {}
        body = self._body(params, batch)
        piece = self._choose(params, batch, _row_keys(batch)) if self.prompted else None
        return params | {"policy": self.net.init(key_net, piece, body)["params"]}, {"step": jnp.zeros((), jnp.int32)}

    def loss(self, params, carry, batch: Prompted, key):
        key_on, key_cut, key_drop = jax.random.split(key, 3)
        B = batch.task_B.shape[0]
        on_B = (jax.random.uniform(key_on, (B,)) < self.prompt_frac) & (carry["step"] >= self.warm_steps)
        keys_B = jax.random.split(key_cut, B)
        mean_BTA, log_std_BTA = self._act(params, batch, keys_B, on_B.astype(jnp.float32), key_drop)
        now = self._now(batch.body)
        square_BTA = (mean_BTA - now.act_BTA) ** 2
        means = {"action_mse": Mean.of(square_BTA.mean(-1), now.mask_BT)}
        policy = means["action_mse"]
        if log_std_BTA is not None:
            nll_BTA = 0.5 * square_BTA * jnp.exp(-2 * log_std_BTA) + log_std_BTA
            policy = means["nll"] = Mean.of(nll_BTA.mean(-1), now.mask_BT)
        total = policy.compute()
        if self.uses_world and self.joint:
            found: Any = self.model.apply({"params": params["world"]}, batch.body)
            errors = world_lib.losses(found, now, world_lib.state_unit(self.spec, self.model.decoders))
            total += sum(mean.compute() for mean in errors.values())
            means |= errors
        return total, ({"step": carry["step"] + 1}, means | {"loss": Mean.of(total[None])})

    def predict(self, params, carry, batch: Prompted):
        """{act_BTA, std_BTA} of the window (std zero for the mse head); with a world model {code_BTC, error_BT} too."""
        out = {}
        if self.uses_world:
            found = self._read(params, batch.body)
            out = {k: found[k] for k in ("code_BTC", "error_BT")}
        mean_BTA, log_std_BTA = self._act(params, batch, _row_keys(batch))  # the transformer last: see nn.taps
        return _answer(mean_BTA, log_std_BTA) | out

    def begin(self, params, batch: Prompted):
        """A cache of the prompt's tokens, three nobody reads (of the step before the first), then an episode's."""
        B, P = batch.task_B.shape[0], self.prompt_steps
        piece = self._choose(params, batch, _row_keys(batch)) if self.prompted else None
        there_B1 = jnp.zeros((B, 1), bool) if piece is None else piece["on_B"][:, None] > 0
        there = jnp.repeat(there_B1, 3 * P, 1), jnp.zeros((B, 3), bool), jnp.ones((B, 3 * self.spec.episode), bool)
        cache = self.net.empty(jnp.concatenate(there, 1))
        return cache if piece is None else self.net.apply({"params": params["policy"]}, piece, None, cache=cache)

    def extend(self, params, cache, batch: Prompted, time):
        """({act_BTA, std_BTA}, cache) of step `time`; the batch's window is that step and the one before it."""
        body, first = self._body(params, batch, acting=True), 3 * (self.prompt_steps + time)
        out_BTA, cache = self.net.apply({"params": params["policy"]}, None, body, cache=cache, first=first)
        return _answer(*self._head(out_BTA)), cache

    def _act(self, params, batch: Prompted, keys_B, on_B=None, rng=None):
        """(mean_BTA, log_std_BTA) of the window's actions; `on_B` switches prompts, `rng` is given in training."""
        body = self._body(params, batch, acting=rng is None)
        piece = self._choose(params, batch, keys_B) if self.prompted else None
        if rng is not None:
            key_act, key_code, rng = jax.random.split(rng, 3)
            shape = body["time_BT"].shape
            body["act_BTA"] *= jax.random.bernoulli(key_act, 1 - self.action_dropout, shape)[..., None]
            body["code_BTC"] *= jax.random.bernoulli(key_code, 1 - self.context_dropout, shape)[..., None]
        if on_B is not None and piece is not None:
            piece["on_B"] *= on_B
        rngs = None if rng is None else {"dropout": rng}
        return self._head(taps.apply(self.net, params["policy"], piece, body, rng is not None, rngs=rngs))

    def _head(self, out_BTA: Array) -> tuple[Array, Array | None]:
        actions = self.spec.act_size
        mean_BTA = jnp.tanh(out_BTA[..., :actions])
        log_std_BTA = jnp.clip(out_BTA[..., actions:] - 0.5, -2.5, 1.0) if self.head == "gaussian" else None
        return mean_BTA, log_std_BTA

    def _body(self, params, batch: Prompted, acting: bool = False) -> dict[str, Array]:
        """Tokens of the window, with the codes of its steps."""
        tokens = self._tokens(self._now(batch.body), batch.conditioning_BT[:, self.spec.history:])
        if self.conditioning == "histogram" and acting:  # the rewards to come are unknown: as the prompt had them
            prompt_BTI = self._conditioning(self._now(batch.prompt), None)
            tokens["conditioning_BTI"] = _at_steps(prompt_BTI, tokens["time_BT"])
        return tokens | {"code_BTC": self._codes(params, batch)}

    def _codes(self, params, batch: Prompted) -> Array:
        if self.context == "world":
            return self._read(params, batch.body)["code_BTC"]
        B, T = batch.body.rew_BT.shape[0], batch.body.rew_BT.shape[1] - self.spec.history
        if self.context == "task":
            return jnp.broadcast_to(batch.param_BX[:, None], (B, T, batch.param_BX.shape[-1]))
        return jnp.zeros((B, T, 0))

    def _choose(self, params, batch: Prompted, keys_B) -> dict[str, Array]:
        """The prompt's tokens: P steps out of the episode that the batch brings."""
        now = self._now(batch.prompt)
        span = now.rew_BT.shape[1]
        if self.prompt_select == "error":
            score_BT = self._read(params, batch.prompt)["error_BT"]
        else:
            score_BT = jax.vmap(lambda k: jax.random.uniform(k, (span,)))(keys_B)
        first_B, on_B = segment(score_BT, now, self.prompt, self.spec.history)
        at_BP = first_B[:, None] + jnp.arange(self.prompt)
        piece = jax.vmap(lambda a, i: a[i])
        return {k: piece(v, at_BP) for k, v in self._tokens(now, now.rtg_BT).items()} | {"on_B": on_B}

    def _read(self, params, steps: Trajectories) -> dict[str, Array]:
        """What the frozen world model says of a stretch; nothing flows back into it."""
        found = taps.apply(self.model, stop_gradient(params["world"]), steps)
        unit_S, rew_std = world_lib.state_unit(self.spec, self.model.decoders), self.spec.statistics.rew_std
        return found | {"error_BT": world_lib.errors(found, steps, self.spec.history, unit_S, rew_std)}

    def _tokens(self, steps: Trajectories, conditioning_BT: Array) -> dict[str, Array]:
        mean_S, std_S = (jnp.asarray(a) for a in (self.spec.statistics.obs_mean_S, self.spec.statistics.obs_std_S))
        obs_BTS = (steps.obs_BTS - mean_S) / std_S * steps.mask_BT[..., None]
        return {"conditioning_BTI": self._conditioning(steps, conditioning_BT), "obs_BTS": obs_BTS,
                "act_BTA": steps.act_BTA, "time_BT": steps.time_BT}

    def _conditioning(self, steps: Trajectories, conditioning_BT: Any) -> Array:
        if self.conditioning == "return":
            return conditioning_BT[..., None] / self.spec.scale
        if self.conditioning == "histogram":
            return _histogram(steps, jnp.asarray(self.spec.statistics.rew_quantiles))
        return jnp.zeros((*steps.rew_BT.shape, 1))

    def _now(self, steps: Trajectories) -> Trajectories:
        """Without the steps that are context only."""
        return jax.tree.map(lambda a: a[:, self.spec.history:], steps)


def _answer(mean_BTA: Array, log_std_BTA: Array | None) -> dict[str, Array]:
    return {"act_BTA": mean_BTA, "std_BTA": jnp.zeros_like(mean_BTA) if log_std_BTA is None else jnp.exp(log_std_BTA)}


def segment(score_BT: Array, steps: Trajectories, size: int, history: int) -> tuple[Array, Array]:
    """(start_B, on_B): the `size` steps in a row with the largest sum of scores, and whether there are any.

    As in the paper the first `history` steps of an episode are never part of it, nor is padding.
    """
    allowed_BT = (steps.mask_BT > 0) & (steps.time_BT >= history)
    offsets = range(size)
    places = score_BT.shape[1] - size + 1
    total_BT = sum(score_BT[:, i:i + places] for i in offsets)
    ok_BT = jnp.stack([allowed_BT[:, i:i + places] for i in offsets]).all(0)
    return jnp.argmax(jnp.where(ok_BT, total_BT, -jnp.inf), 1), ok_BT.any(1).astype(jnp.float32)


def _row_keys(batch: Prompted) -> Array:
    """Keys for cutting at random where none is given: a function of the task and of the prompt's return alone."""
    bits_B = jax.lax.bitcast_convert_type(batch.prompt.rew_BT.sum(1).astype(jnp.float32), jnp.int32)
    key = jax.random.key(0, impl="threefry2x32")
    return jax.vmap(lambda t, b: jax.random.fold_in(jax.random.fold_in(key, t), b))(batch.task_B, bits_B)


def _histogram(steps: Trajectories, edges: Array) -> Array:
    """(B, T, bins): for every step, the share of the rewards from it on that fall into each bin."""
    bins_BTI = jax.nn.one_hot(jnp.searchsorted(edges, steps.rew_BT), len(edges) + 1) * steps.mask_BT[..., None]
    ahead_BTI = jnp.flip(jnp.cumsum(jnp.flip(bins_BTI, 1), 1), 1)
    return ahead_BTI / jnp.maximum(ahead_BTI.sum(-1, keepdims=True), 1.0)


def _at_steps(prompt_BTI: Array, time_BT: Array) -> Array:
    """The prompt's statistics at the window's step numbers."""
    index_BT = jnp.minimum(time_BT, prompt_BTI.shape[1] - 1)
    return jnp.take_along_axis(prompt_BTI, index_BT[..., None], 1)
