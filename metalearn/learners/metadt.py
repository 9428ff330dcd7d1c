"""Phase two: a decision transformer told by a context code and by a prompt (Meta-DT, arXiv 2410.11448) and its kin.

  Meta-DT              context=world, prompt_select=error
  without context      context=none, prompt_select=error needs a world model to choose by: prompts then cut at random
  without complement   context=world, prompt_select=random
  without prompt       context=world, prompt_select=none
  Prompt-DT            context=none, prompt_select=random
  DT                   context=none, prompt_select=none
  behaviour cloning    the same with wish=none
  Generalized DT       wish=histogram: what the rewards still to come look like, in ten bins, in the place of their sum
  Oracle-DT            context=task: the true parameters for a code
  FOCAL-, CORRO-, CSRO-style DT      context=world over a world model trained with that objective

The world model is part of the parameters and gets no gradient from here: with `world_training=frozen` it comes from
another run by `init_from`; with `joint` it learns beside the policy, from the same batches by its own loss.

The `gaussian` head has a spread per action beside the mean. Its use is exploration: where the data say that anything
may be right (nothing known yet), a sample tries something, and as the code fills in the spread closes by itself.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from metalearn.learning.gradients import grads_from_loss
from metalearn.nn import decision
from metalearn.nn import world as world_lib
from metalearn.types import Array, Learner, Mean, Prompted, Trajectories
from metalearn.validate import fraction, multiple_of, nonnegative, one_of, positive, require, within


def make(
    facts,
    *,
    context: str,
    prompt: int,
    prompt_select: str,
    prompt_frac: float,
    warm_steps: int,
    wish: str,
    head: str,
    action_dropout: float,
    context_dropout: float,
    world: dict,
    world_training: str,
    depth: int,
    width: int,
    num_heads: int,
    mlp: int,
    activation: str,
    dropout: float,
    prompt_norm: bool,
) -> Learner:
    """A policy over batches of `Prompted`.

    context          world (a code out of the last h steps) | task (the hidden parameters) | none
    prompt           P, steps of a prompt
    prompt_select    error (the P steps that the world model predicts worst; paper) | random | none
    prompt_frac      fraction of rows that have a prompt, once `warm_steps` updates without any are over
    wish             return (the task's rtg) | histogram | none
    head             mse (tanh of the mean) | gaussian (mean and spread)
    action_dropout   fraction of the history's action tokens that are blanked in training
    context_dropout  fraction of codes that are blanked in training
    world            sizes of the world model, as in learners/world: decoders, embed, hidden, code
    world_training   frozen | joint
    depth, width, num_heads, mlp, activation, dropout   of the transformer (published: 3, 128, 1, 512, relu, 0.1)
    prompt_norm      layer norm on prompt tokens too (the released code has none there)
    """
    one_of(("world", "task", "none"), context=context)
    one_of(("error", "random", "none"), prompt_select=prompt_select)
    one_of(("return", "histogram", "none"), wish=wish)
    one_of(("mse", "gaussian"), head=head)
    one_of(("frozen", "joint"), world_training=world_training)
    one_of(("gelu", "relu"), activation=activation)
    positive(depth=depth, width=width, num_heads=num_heads, mlp=mlp)
    multiple_of("num_heads", num_heads, width=width)
    nonnegative(warm_steps=warm_steps)
    fraction(prompt_frac=prompt_frac, action_dropout=action_dropout, context_dropout=context_dropout, dropout=dropout)
    h, window, actions = facts["horizon"], facts["window"], facts["act_size"]
    prompted = prompt_select != "none"
    require(wish != "histogram" or facts["prompt_span"] > 0, "wish", wish, "needs prompts (task.prompt_span above 0)")
    if prompted:
        positive(prompt=prompt)
        require(prompt <= facts["prompt_span"], "prompt", prompt,
                f"must be at most task.prompt_span={facts['prompt_span']}, the steps that it is cut from")
    uses_world = context == "world" or prompt_select == "error"
    sizes = {k: world.get(k) for k in ("decoders", "embed", "hidden", "code")}
    require(sorted(world) == sorted(sizes), "world", world, "must have exactly the fields " + ", ".join(sizes))
    with within("world"):
        model = world_lib.make(facts, **sizes)
    outputs = actions * (2 if head == "gaussian" else 1)
    net = decision.Decision(outputs, facts["episode"], depth, width, num_heads, mlp, activation, dropout, prompt_norm)
    mean_S, std_S = jnp.asarray(facts["obs_mean"]), jnp.asarray(facts["obs_std"])
    unit_S = world_lib.state_unit(facts, sizes["decoders"])
    edges = jnp.asarray(facts["rew_quantiles"])

    def read(params, steps: Trajectories) -> dict[str, Array]:
        """What the frozen world model says of a stretch; nothing flows back into it."""
        found = model.apply({"params": stop_gradient(params["world"])}, steps)
        return found | {"error_BT": world_lib.errors(found, steps, h, unit_S, facts["rew_std"])}

    def wishes(steps: Trajectories) -> Array:
        if wish == "return":
            return steps.rtg_BT[..., None] / facts["scale"]
        if wish == "histogram":
            return _histogram(steps, edges)
        return jnp.zeros((*steps.rew_BT.shape, 1))

    def tokens(steps: Trajectories) -> dict[str, Array]:
        obs_BTS = (steps.obs_BTS - mean_S) / std_S * steps.mask_BT[..., None]
        return {"wish_BTI": wishes(steps), "obs_BTS": obs_BTS, "act_BTA": steps.act_BTA, "time_BT": steps.time_BT}

    def choose(params, batch: Prompted, key) -> dict[str, Array]:
        """The prompt's tokens: P steps out of the episode that the batch brings."""
        steps = batch.prompt
        now = jax.tree.map(lambda a: a[:, h:], steps)
        span = now.rew_BT.shape[1]
        if prompt_select == "error":
            score_BT = read(params, steps)["error_BT"]
        else:
            score_BT = jax.vmap(lambda k: jax.random.uniform(k, (span,)))(key)
        start_B, on_B = segment(score_BT, now, prompt, h)
        at_BP = start_B[:, None] + jnp.arange(prompt)
        piece = jax.vmap(lambda a, i: a[i])
        return {k: piece(v, at_BP) for k, v in tokens(now).items()} | {"on_B": on_B}

    def codes(params, batch: Prompted) -> Array:
        if context == "world":
            return read(params, batch.body)["code_BTC"]
        B, T = batch.body.rew_BT.shape[0], batch.body.rew_BT.shape[1] - h
        if context == "task":
            return jnp.broadcast_to(batch.param_BX[:, None], (B, T, batch.param_BX.shape[-1]))
        return jnp.zeros((B, T, 0))

    def act(params, batch: Prompted, keys_B, on=None, rng=None):
        """(mean_BTA, log_std_BTA) of the window's actions; `on` switches rows' prompts, `rng` is given in training."""
        body = tokens(jax.tree.map(lambda a: a[:, h:], batch.body)) | {"code_BTC": codes(params, batch)}
        piece = choose(params, batch, keys_B) if prompted else None
        if wish == "histogram" and rng is None:  # what is to come is unknown: it is wished for as the prompt had it
            body["wish_BTI"] = _ahead(wishes(jax.tree.map(lambda a: a[:, h:], batch.prompt)), body["time_BT"])
        if rng is not None:
            key_act, key_code, rng = jax.random.split(rng, 3)
            shape = body["time_BT"].shape
            body["act_BTA"] *= jax.random.bernoulli(key_act, 1 - action_dropout, shape)[..., None]
            body["code_BTC"] *= jax.random.bernoulli(key_code, 1 - context_dropout, shape)[..., None]
        if on is not None and prompted:
            piece["on_B"] *= on
        rngs = None if rng is None else {"dropout": rng}
        out_BTA = net.apply({"params": params["policy"]}, piece, body, rng is not None, rngs=rngs)
        mean_BTA = jnp.tanh(out_BTA[..., :actions])
        log_std_BTA = jnp.clip(out_BTA[..., actions:] - 0.5, -2.5, 1.0) if head == "gaussian" else None
        return mean_BTA, log_std_BTA

    def init(key, batch: Prompted):
        key_world, key_net = jax.random.split(key)
        batch = jax.tree.map(lambda a: a[:1], batch)
        params = {"world": model.init(key_world, batch.body)["params"]} if uses_world else {}
        body = tokens(jax.tree.map(lambda a: a[:, h:], batch.body)) | {"code_BTC": codes(params, batch)}
        piece = choose(params, batch, _row_keys(batch)) if prompted else None
        return params | {"policy": net.init(key_net, piece, body)["params"]}, {"step": jnp.zeros((), jnp.int32)}

    def loss(params, carry, batch: Prompted, key):
        key_on, key_cut, key_drop = jax.random.split(key, 3)
        B = batch.task_B.shape[0]
        on_B = (jax.random.uniform(key_on, (B,)) < prompt_frac) & (carry["step"] >= warm_steps)
        mean_BTA, log_std_BTA = act(params, batch, jax.random.split(key_cut, B), on_B.astype(jnp.float32), key_drop)
        now = jax.tree.map(lambda a: a[:, h:], batch.body)
        square_BTA = (mean_BTA - now.act_BTA) ** 2
        means = {"action_mse": Mean.of(square_BTA.mean(-1), now.mask_BT)}
        policy = means["action_mse"]
        if head == "gaussian":
            nll_BTA = 0.5 * square_BTA * jnp.exp(-2 * log_std_BTA) + log_std_BTA
            policy = means["nll"] = Mean.of(nll_BTA.mean(-1), now.mask_BT)
        total = policy.compute()
        if uses_world and world_training == "joint":
            found = model.apply({"params": params["world"]}, batch.body)
            if "rew_BT" in found:
                means["reward_mse"] = Mean.of((found["rew_BT"] - now.rew_BT) ** 2, now.mask_BT)
                total += means["reward_mse"].compute()
            if "next_BTS" in found:
                means["state_mse"] = Mean.of((((found["next_BTS"] - now.next_BTS) / unit_S) ** 2).mean(-1), now.mask_BT)
                total += means["state_mse"].compute()
        return total, ({"step": carry["step"] + 1}, means | {"loss": Mean.of(total[None])})

    def predict(params, carry, batch: Prompted):
        """{act_BTA, std_BTA} of the window (std zero for the mse head); with a world model {code_BTC, error_BT} too."""
        mean_BTA, log_std_BTA = act(params, batch, _row_keys(batch))
        std_BTA = jnp.zeros_like(mean_BTA) if log_std_BTA is None else jnp.exp(log_std_BTA)
        out = {"act_BTA": mean_BTA, "std_BTA": std_BTA}
        if uses_world:
            found = read(params, batch.body)
            out |= {k: found[k] for k in ("code_BTC", "error_BT")}
        return out

    length = window + (prompt if prompted else 0)
    same = {"task.horizon": h} | {f"task.env.{k}": v for k, v in facts["env_fields"].items()}
    same |= {f"learner.{k}": v for k, v in sizes.items()}
    return Learner(init, grads_from_loss(loss), predict, lambda _: 2 * width * depth * 3 * length,
                   pretrained={"world": same} if uses_world and world_training == "frozen" else {})


def segment(score_BT: Array, steps: Trajectories, size: int, horizon: int) -> tuple[Array, Array]:
    """(start_B, on_B): the `size` steps in a row with the largest sum of scores, and whether there are any.

    As in the paper the first `horizon` steps of an episode are never part of it, nor is padding.
    """
    allowed_BT = (steps.mask_BT > 0) & (steps.time_BT >= horizon)
    ways = range(size)
    starts = score_BT.shape[1] - size + 1
    total_BT = sum(score_BT[:, i:i + starts] for i in ways)
    ok_BT = jnp.stack([allowed_BT[:, i:i + starts] for i in ways]).all(0)
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


def _ahead(prompt_BTI: Array, time_BT: Array) -> Array:
    """The prompt's statistics at the window's step numbers."""
    index_BT = jnp.minimum(time_BT, prompt_BTI.shape[1] - 1)
    return jnp.take_along_axis(prompt_BTI, index_BT[..., None], 1)
