"""A needle in a haystack: digits once said among many words, asked for at the end (S-NIAH of RULER, 2404.06654, small).

  tokens = words .. [needle] d1 .. dk words .. [asked] blank .. blank, n of them; at [asked] and after it d1 .. dk are
  to be said. The haystack is one sentence over and over (`repeated`: pass-key) or words drawn freely (`drawn`).

Splits: `train` draws n up to the difficulty (training: `length`); `exact` has n = difficulty in room for `longest`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from metalearn.tasks import _ids
from metalearn.types import Array, Episodes, EpisodeSpec, TaskDist
from metalearn.validate import one_of, positive, require


def make(*, haystack: str, words: int, sentence: int, digits: int, length: int, longest: int,
         task_seed: int) -> TaskDist:
    """words: size of the vocabulary; sentence: words of what is repeated; digits: k, each one of ten."""
    one_of(("repeated", "drawn"), haystack=haystack)
    positive(words=words, sentence=sentence, digits=digits)
    shortest = 2 * digits + 2
    require(length >= shortest, "length", length, f"must be at least 2 digits + 2 = {shortest}")
    require(longest >= length, "longest", longest, f"must be at least length={length}")
    data = _ids.graded(task_seed, length)

    def sample(data, key: Array, split: str, num: int) -> Episodes:
        room = length if split == "train" else longest

        def episode(key):
            key_words, key_digits, key_place, key_number = jax.random.split(key, 4)
            most = jnp.maximum(data["difficulty"], shortest)
            n = most if split == "exact" else jax.random.randint(key_number, (), shortest, most + 1)
            size = (sentence if haystack == "repeated" else room,)
            word_T = jnp.resize(jax.random.randint(key_words, size, 0, words), (room,))
            digit_K = jax.random.randint(key_digits, (digits,), 0, 10)
            place = jax.random.randint(key_place, (), 0, n - shortest + 1)
            t = jnp.arange(room)
            since, said = t - place, t - (n - digits)  # of the needle, and of the step where the first digit is said
            digit_T = digit_K[jnp.clip(jnp.where(said >= 0, said, since - 1), 0, digits - 1)]
            token_T = jnp.where((since > 0) & (since <= digits), words + digit_T, word_T)
            token_T = jnp.where(since == 0, words + 10, jnp.where(said == 0, words + 11, token_T))
            mask_T = ((said >= 0) & (said < digits)).astype(jnp.float32)
            return jax.nn.one_hot(token_T, words + 12) * (said <= 0)[:, None], digit_T, mask_T

        return _ids.episodes(episode, data, key, split, num)

    spec = EpisodeSpec(length=length, features=words + 12, targets="classes", outputs=10, max_difficulty=length,
                       longest=longest, answers_early=True)
    return TaskDist(data, sample, _ids.SPLITS, spec, {"protocol": f"needle of {digits} digits, {haystack} haystack"})
