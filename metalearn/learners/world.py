"""Phase one of Meta-DT: a context encoder trained through a world model, or by contrast between tasks.

Objectives, all on the same encoder, so that tables compare what shaped the code and nothing else:

  model     Meta-DT: squared error of the reward and/or the next state (per dimension in units of its spread)
  metric    FOCAL: codes of one task close, codes of two tasks far: ||z - z'||^2, and 1 / (||z - z'||^2 + 0.1)
  contrast  CORRO-style InfoNCE: a code of the same task among those of the batch and of windows with noisy rewards
  csro      metric, minus what the code says about behaviour: a bound (CLUB) on I(z; s, a) from a learned q(z | s, a)

With the last three a decoder still learns on the stopped code, so that prompts can be chosen by its errors.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from metalearn.learning.gradients import grads_from_loss
from metalearn.nn import addressing, decision, taps, world as world_lib
from metalearn.types import Array, Learner, Mean, Prompted, TrajectorySpec
from metalearn.validate import nonnegative, one_of

OBJECTIVES = ("model", "metric", "contrast", "csro")
TEMPERATURE, REWARD_NOISE, CLUB_WEIGHT = 0.1, 0.5, 0.1


def make(spec: TrajectorySpec, *, decoders: str, embed: int, hidden: int, code: int, objective: str,
         noise: float) -> Learner:
    """A world model over batches of `Prompted`; it reads the bodies.

    decoders   reward | transition | both | change (as transition, but of the state's change: ours, see nn/world)
    embed, hidden, code   sizes of the input embeddings, the GRU and z (published: 16, 128, 16)
    objective  model | metric | contrast | csro
    noise      std of Gaussian noise on the context's rewards in training; 0 as published
    """
    one_of(OBJECTIVES, objective=objective)
    nonnegative(noise=noise)
    net = world_lib.make(spec, decoders=decoders, embed=embed, hidden=hidden, code=code)
    club = decision.Gaussian(code)
    h, rew_std = spec.history, spec.statistics.rew_std
    apply: Callable[..., Any] = net.apply

    def init(key, batch: Prompted):
        key_net, key_club = jax.random.split(key)
        body = jax.tree.map(lambda a: a[:1], batch.body)
        params = {"world": net.init(key_net, body)["params"]}
        if objective == "csro":
            params["club"] = club.init(key_club, body.obs_BTS, body.act_BTA)["params"]
        return params, ()

    def loss(params, carry, batch: Prompted, key):
        body = batch.body
        if noise:
            context_BT = jnp.arange(body.rew_BT.shape[1])[None] < h
            body = body.replace(rew_BT=body.rew_BT + noise * context_BT * body.mask_BT
                                * jax.random.normal(key, body.rew_BT.shape))
        now = jax.tree.map(lambda a: a[:, h:], batch.body)
        found = apply({"params": params["world"]}, body)
        if objective != "model":  # the decoders read the code, but do not shape it
            fixed = {"encoder": stop_gradient(params["world"]["encoder"])}
            found = apply({"params": params["world"] | fixed}, body) | {"code_BTC": found["code_BTC"]}
        means = world_lib.losses(found, now, world_lib.state_unit(spec, decoders))
        total: Any = sum(mean.compute() for mean in means.values())
        if objective != "model":
            value = between_tasks(params, batch, body, now, found["code_BTC"][:, -1], key)
            means["objective"] = Mean.of(value[None])
            total += value
        means["loss"] = Mean.of(total[None])
        return total, (carry, means)

    def between_tasks(params, batch, body, now, code_BC, key):
        weight_B = (batch.body.mask_BT[:, :h].sum(1) > 0) * now.mask_BT[:, -1]  # a first step knows nothing
        if objective == "contrast":
            noise_BT = REWARD_NOISE * rew_std * body.mask_BT * jax.random.normal(
                jax.random.fold_in(key, 1), body.rew_BT.shape)
            noisy = body.replace(rew_BT=body.rew_BT + noise_BT)
            wrong_BC = apply({"params": params["world"]}, noisy)["code_BTC"][:, -1]
            return _contrast(code_BC, batch.task_B, weight_B, wrong_BC)
        value = _metric(code_BC, batch.task_B, weight_B)
        if objective == "csro":
            fit, bound = _club(club, params["club"], code_BC, body, h)
            value += fit + CLUB_WEIGHT * bound
        return value

    def predict(params, carry, batch: Prompted):
        """{code_BTC, error_BT, rew_BT?, next_BTS?} of the bodies' windows."""
        found = taps.apply(net, params["world"], batch.body)
        unit_S = world_lib.state_unit(spec, decoders)
        return found | {"error_BT": world_lib.errors(found, batch.body, h, unit_S, rew_std)}

    size = h * (spec.obs_size + spec.act_size + 1)
    return Learner(init, grads_from_loss(loss), predict, lambda length: size)


def _pairs(code_BC: Array, task_B: Array, weight_B: Array):
    """(squared distances, same task, counts) of all pairs of two different rows."""
    distance_BB = ((code_BC[:, None] - code_BC[None]) ** 2).sum(-1)
    both_BB = weight_B[:, None] * weight_B[None] * (1.0 - jnp.eye(len(task_B)))
    return distance_BB, task_B[:, None] == task_B[None], both_BB


def _metric(code_BC, task_B, weight_B):
    distance_BB, same_BB, both_BB = _pairs(code_BC, task_B, weight_B)
    near = Mean.of(distance_BB, both_BB * same_BB).compute()
    return near + Mean.of(1.0 / (distance_BB + 0.1), both_BB * ~same_BB).compute()


def _contrast(code_BC, task_B, weight_B, wrong_BC):
    code_BC, wrong_BC = addressing.unit(code_BC), addressing.unit(wrong_BC)  # the code of a first step is zero
    _, same_BB, both_BB = _pairs(code_BC, task_B, weight_B)
    score_BB = code_BC @ code_BC.T / TEMPERATURE
    against_B = (code_BC * wrong_BC).sum(-1) / TEMPERATURE  # the same steps with other rewards: another task
    others_BB = jnp.where(both_BB * ~same_BB > 0, score_BB, -jnp.inf)
    negative_B = jax.nn.logsumexp(jnp.concatenate([others_BB, against_B[:, None]], 1), axis=1)
    # log(e^s+ / (e^s+ + sum of negatives)) for every positive pair
    return Mean.of(jnp.logaddexp(score_BB, negative_B[:, None]) - score_BB, both_BB * same_BB).compute()


def _club(club, params, code_BC, body, h):
    """(negative log-likelihood that trains q, bound that trains the code)."""
    obs_BS, act_BA = body.obs_BTS[:, -1], body.act_BTA[:, -1]
    mean, log_std = club.apply({"params": params}, obs_BS, act_BA)
    nll = lambda z, m, s: (0.5 * ((z - m) / jnp.exp(s)) ** 2 + s).sum(-1)
    fit = nll(stop_gradient(code_BC), mean, log_std).mean()
    mean, log_std = stop_gradient((mean, log_std))
    other = jnp.roll(code_BC, 1, 0)
    return fit, (nll(other, mean, log_std) - nll(code_BC, mean, log_std)).mean()
