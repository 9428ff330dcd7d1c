"""A needle in a haystack: what episodes ask, by hand."""

import jax
import numpy as np
import pytest

from metalearn import lookup
from metalearn.validate import ConfigError

GOOD = dict(haystack="drawn", words=6, sentence=3, digits=2, length=16, longest=40, task_seed=0)
NEEDLE, ASKED = 16, 17


def draw(task, split="train", num=40, data=None):
    return jax.device_get(task.sample(data or task.data, jax.random.key(3), split, num))


@pytest.mark.parametrize("split,room", [("train", 16), ("exact", 40)])
def test_the_digits_behind_the_needle_are_said_at_the_end(split, room):
    task = lookup.build("tasks", "needle", **GOOD)
    e = draw(task, split, data=task.data | {"difficulty": np.int32(room)})
    lengths, places = set(), set()
    for x, y, mask in zip(e.x_BTX, e.y_BT, e.mask_BT, strict=True):
        assert x.shape == (room, 18)
        token, said = x.argmax(-1), np.flatnonzero(mask)
        (place,), (asked,) = np.flatnonzero(token == NEEDLE), np.flatnonzero(token == ASKED)
        assert (said == asked + np.arange(2)).all() and not x[asked + 1:].any() and x[:asked + 1].sum() == asked + 1
        assert (token[place + 1:place + 3] - 6 == y[said]).all()
        words = np.delete(token[:asked], [place, place + 1, place + 2])
        assert (words < 6).all()
        lengths.add(said[-1] + 1)
        places.add(place)
    assert lengths == {40} if split == "exact" else max(lengths) <= 16 and len(lengths) > 5
    assert len(places) > 5


def test_a_repeated_haystack_is_one_sentence():
    e = draw(lookup.build("tasks", "needle", **GOOD | dict(haystack="repeated")))
    for x in e.x_BTX:
        token = x.argmax(-1)
        asked = int(np.flatnonzero(token == ASKED)[0])
        at = np.flatnonzero((token < 6) & (np.arange(16) < asked))
        assert all(len({token[i] for i in at if i % 3 == k}) <= 1 for k in range(3))


def test_a_difficulty_below_the_shortest_episode_is_the_shortest():
    task = lookup.build("tasks", "needle", **GOOD)
    e = draw(task, "exact", data=task.data | {"difficulty": np.int32(1)})
    assert (e.mask_BT[:, 4:6] == 1).all() and e.mask_BT.sum() == 2 * len(e.mask_BT)


@pytest.mark.parametrize("field,value", [("haystack", "hay"), ("words", 0), ("sentence", 0), ("digits", 0),
                                         ("length", 5), ("longest", 15), ("task_seed", -1)])
def test_bad_input_is_one_clear_line(field, value):
    with pytest.raises(ConfigError, match=field):
        lookup.build("tasks", "needle", **GOOD | {field: value})
