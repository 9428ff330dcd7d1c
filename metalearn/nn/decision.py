"""The causal transformer of Meta-DT: return-to-go, state and action tokens of the window, after those of a prompt.

State tokens of the window carry the context code: linear 16 on the state, joined with z, linear to the width. Prompt
tokens have embeddings of their own and no code. Learned embeddings of the step number, one layer norm, pre-LN blocks;
actions are read off the state tokens. Windows are padded on the right, where a causal mask hides the padding by itself.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from metalearn.nn import noise
from metalearn.nn.transformer import Block, run
from metalearn.types import Array


class Decision(nn.Module):
    """(prompt tokens, window tokens) -> outputs (B, T, outputs) on the window's state tokens."""

    outputs: int
    episode: int
    depth: int
    width: int
    num_heads: int
    mlp: int
    activation: str
    dropout: float
    prompt_norm: bool
    remat: str
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, prompt: dict[str, Array] | None, body: dict[str, Array], train: bool = False) -> Array:
        """Each of prompt and body: conditioning_BTI, obs_BTS, act_BTA, time_BT, and for the body code_BTC (C may be 0).

        The prompt also has on_B, 1 where the row has a prompt at all.
        """
        D = self.width
        dense = lambda size, name: nn.Dense(size, name=name)
        code_BTC = body["code_BTC"]
        state = dense(16, "obs")(body["obs_BTS"]) if code_BTC.shape[-1] else body["obs_BTS"]
        state = dense(D, "obs_code")(jnp.concatenate([state, code_BTC], -1))
        # "wish" is the layer's name in checkpoints and decides its first weights
        tokens = jnp.stack([dense(D, "wish")(body["conditioning_BTI"]), state, dense(D, "act")(body["act_BTA"])], 2)
        time = nn.Embed(self.episode, D, embedding_init=nn.initializers.normal(0.3), name="time")(body["time_BT"])
        B, T = body["time_BT"].shape
        x_BLD = nn.LayerNorm(name="norm_in")((tokens + time[:, :, None]).reshape(B, 3 * T, D))
        mask_BLL = None
        if prompt is not None:
            P = prompt["time_BT"].shape[1]
            parts = [dense(D, f"prompt_{name}")(prompt[key]) for name, key in (
                ("wish", "conditioning_BTI"), ("obs", "obs_BTS"), ("act", "act_BTA"))]
            time = nn.Embed(self.episode, D, embedding_init=nn.initializers.normal(0.3), name="prompt_time")(
                prompt["time_BT"])
            p_BLD = (jnp.stack(parts, 2) + time[:, :, None]).reshape(B, 3 * P, D)
            if self.prompt_norm:
                p_BLD = nn.LayerNorm(name="prompt_norm_in")(p_BLD)
            x_BLD = jnp.concatenate([p_BLD, x_BLD], 1)
            L = x_BLD.shape[1]
            there_BL = jnp.concatenate([jnp.repeat(prompt["on_B"][:, None] > 0, 3 * P, 1),
                                        jnp.ones((B, 3 * T), bool)], 1)
            # the diagonal stays on, so that no row of the softmax is empty
            mask_BLL = jnp.tri(L, dtype=bool) & (there_BL[:, None] | jnp.eye(L, dtype=bool))
        drop = lambda x: noise.Dropout(self.dropout, not train)(x)
        x_BLD = drop(x_BLD)
        states = slice(x_BLD.shape[1] - 3 * T + 1, None, 3)  # all that the head reads
        for i in range(self.depth):
            block = Block(self.num_heads, self.mlp, self.depth, self.dtype, self.activation, self.dropout,
                          name=f"block_{i}")
            x_BLD = run(block, self.remat, x_BLD, mask_BLL, train=train, last=states if i + 1 == self.depth else None)
        x_BTD = nn.LayerNorm(name="norm")(x_BLD)
        return nn.Dense(self.outputs, name="head", kernel_init=nn.initializers.normal(0.02))(x_BTD)


class Gaussian(nn.Module):
    """(mean, log_std) of size `outputs` from the inputs laid side by side, last position of the sequence."""

    outputs: int

    @nn.compact
    def __call__(self, obs: Array, act: Array):
        if obs.ndim == 3:
            obs, act = obs[:, -1], act[:, -1]
        x = nn.relu(nn.Dense(64)(jnp.concatenate([obs, act], -1)))
        mean, log_std = jnp.split(nn.Dense(2 * self.outputs)(x), 2, -1)
        return mean, jnp.clip(log_std, -3, 3)
