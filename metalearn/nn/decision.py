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
from metalearn.types import Array, PyTree


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
    def __call__(self, prompt: dict[str, Array] | None, body: dict[str, Array] | None, train: bool = False,
                 cache: PyTree = None, first: Any = 0) -> Any:
        """Each of prompt and body: conditioning_BTI, obs_BTS, act_BTA, time_BT, and for the body code_BTC (C may be 0).

        The prompt also has on_B, 1 where the row has a prompt at all. With a cache, a prompt's tokens are put there; or
        of a body of two steps, at place `first`, what was not known a step ago, and (outputs, cache) is returned.
        """
        D, parts = self.width, []
        dense = lambda size, name: nn.Dense(size, name=name)
        embed = lambda name: nn.Embed(self.episode, D, embedding_init=nn.initializers.normal(0.3), name=name)
        lay = lambda tokens, time_BTD: (jnp.stack(tokens, 2) + time_BTD[:, :, None]).reshape(len(time_BTD), -1, D)
        if body is not None:
            code_BTC = body["code_BTC"]
            state = dense(16, "obs")(body["obs_BTS"]) if code_BTC.shape[-1] else body["obs_BTS"]
            state = dense(D, "obs_code")(jnp.concatenate([state, code_BTC], -1))
            # "wish" is the layer's name in checkpoints and decides its first weights
            tokens = [dense(D, "wish")(body["conditioning_BTI"]), state, dense(D, "act")(body["act_BTA"])]
            parts = [nn.LayerNorm(name="norm_in")(lay(tokens, embed("time")(body["time_BT"])))]
            if cache is not None:  # of the step before its action; of this one all but that
                parts, first = [parts[0][:, 2:5]], first + 2
        if prompt is not None:
            tokens = [dense(D, f"prompt_{name}")(prompt[key]) for name, key in (
                ("wish", "conditioning_BTI"), ("obs", "obs_BTS"), ("act", "act_BTA"))]
            p_BLD = lay(tokens, embed("prompt_time")(prompt["time_BT"]))
            parts.insert(0, nn.LayerNorm(name="prompt_norm_in")(p_BLD) if self.prompt_norm else p_BLD)
        x_BLD, mask_BLL = jnp.concatenate(parts, 1), None
        B, L, _ = x_BLD.shape
        # the diagonal stays on, so that no row of the softmax is empty
        if cache is not None:
            place_L1, place_M = first + jnp.arange(L)[:, None], jnp.arange(cache["there_BM"].shape[1])
            mask_BLL = (place_M <= place_L1) & (cache["there_BM"][:, None] | (place_M == place_L1))
        elif prompt is not None:
            there_BL = jnp.repeat(prompt["on_B"][:, None] > 0, p_BLD.shape[1], 1)
            there_BL = jnp.concatenate([there_BL, jnp.ones((B, L - p_BLD.shape[1]), bool)], 1)
            mask_BLL = jnp.tri(L, dtype=bool) & (there_BL[:, None] | jnp.eye(L, dtype=bool))
        drop = lambda x: noise.Dropout(self.dropout, not train)(x)
        x_BLD, new = drop(x_BLD), dict(cache or {})
        # all that the head reads
        states = slice(-1 if cache is not None else L - parts[-1].shape[1] + 1, None, 3)
        for i in range(self.depth):
            block = Block(self.num_heads, self.mlp, self.depth, self.dtype, self.activation, self.dropout,
                          name=f"block_{i}")
            last = states if i + 1 == self.depth else None
            if cache is None:
                x_BLD = run(block, self.remat, x_BLD, mask_BLL, train=train, last=last)
            else:
                x_BLD, new[f"block_{i}"] = block(x_BLD, mask_BLL, cache[f"block_{i}"], first, last=last)
        if body is None:
            return new
        x_BTD = nn.LayerNorm(name="norm")(x_BLD)
        out_BTV = nn.Dense(self.outputs, name="head", kernel_init=nn.initializers.normal(0.02))(x_BTD)
        return out_BTV if cache is None else (out_BTV, new)

    def empty(self, there_BM: Array) -> PyTree:
        """A cache of M places; there_BM bool: which of them tokens at other places may read."""
        shape = len(there_BM), self.num_heads, there_BM.shape[1], self.width // self.num_heads
        return {"there_BM": there_BM} | {
            f"block_{i}": {"k": jnp.zeros(shape), "v": jnp.zeros(shape)} for i in range(self.depth)}


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
