"""Entries that lie beside the configs: tasks of single experiments, their evaluator; by hand, and bad input."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from metalearn import lookup
from metalearn.validate import ConfigError

CLEVR, TRIANGLE = dict(size=48, patch=8, questions=3, task_seed=0), dict(size=32, patch=8, task_seed=0)
ADDITION, CHARS = dict(trained=6, task_seed=0), dict(length=20, task_seed=0)
STORIES = dict(source="made_up", tasks=(1, 2, 6), length=96, task_seed=0)


def drawn(task, split: str, num: int = 64):
    return jax.device_get(jax.jit(lambda data, key: task.sample(data, key, split, num))(task.placed, jax.random.key(3)))


def image(x_NX: np.ndarray, patch: int, channels: int) -> np.ndarray:
    """The scene whose patches these are."""
    side = int(len(x_NX) ** 0.5)
    part = x_NX[:, :patch**2 * channels].reshape(side, side, patch, patch, channels)
    return part.swapaxes(1, 2).reshape(side * patch, side * patch, channels)


@pytest.mark.parametrize("split", ["unary", "relational"])
def test_answers_about_objects_can_be_read_off_the_image(split):
    task = lookup.build("tasks", "sort_of_clevr", **CLEVR)
    e = drawn(task, split)
    assert e.x_BTX.shape == (64, 39, task.spec.features) and not e.mask_BT[:, :36].any() and e.mask_BT[:, 36:].all()
    colours = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1]], bool)
    asked, answers = set(), set()
    for x, y_Q in zip(e.x_BTX, e.y_BT[:, 36:], strict=True):
        pixels = image(x[:36], 8, 3) > 0
        ink = [(pixels == colour).all(-1) for colour in colours]
        assert all(i.sum() > 20 for i in ink)
        place = np.array([[np.flatnonzero(i.any(axis)).mean() for axis in (1, 0)] for i in ink])
        boxes = [[np.ptp(np.flatnonzero(i.any(axis))) + 1.0 for axis in (1, 0)] for i in ink]
        square = np.array([i.sum() for i in ink]) / np.prod(boxes, 1) > 0.93  # a circle fills .79 of its box
        for question, y in zip(x[36:, -11:] > 0, y_Q, strict=True):
            (ask,), (kind,), (which,) = (np.flatnonzero(q) for q in np.split(question, (6, 8)))
            assert kind == (split == "relational")
            apart = np.linalg.norm(place - place[ask], axis=-1)
            other = np.argsort(apart)[1] if which == 0 else np.argmax(apart)
            shape = np.where(square, 2, 3)
            want = [[shape[ask], int(place[ask, 1] >= 23.5), int(place[ask, 0] >= 23.5)],
                    [shape[other], shape[other], 3 + int((square == square[ask]).sum())]][kind][which]
            last = [1, 2] if which == 0 else [-1, -2]  # places are known to half a pixel
            near = kind == 1 and which < 2 and np.ptp(np.sort(apart)[last]) < 2
            assert near or y == want, (kind, which, y, want)
            asked.add((ask, which))
            answers.add(int(y))
    assert len(asked) == 18 and len(answers) >= 4


def test_half_of_the_triangles_are_equilateral_and_the_others_far_from_it():
    task = lookup.build("tasks", "triangle", **TRIANGLE)
    e = drawn(task, "train", 200)
    assert 0.35 < e.y_BT[:, -1].mean() < 0.65
    for x, y in zip(e.x_BTX[:40], e.y_BT[:40, -1], strict=True):
        ink, spots = image(x, 8, 1)[..., 0], []
        for _ in range(3):  # the brightest, and what it covers taken away
            at = np.array(np.unravel_index(ink.argmax(), ink.shape))
            spots.append(at)
            ink = np.where(((np.indices(ink.shape) - at[:, None, None]) ** 2).sum(0) <= 9, 0, ink)
        sides = [np.linalg.norm(a - b) for a, b in zip(spots, spots[1:] + spots[:1], strict=True)]
        assert (max(sides) - min(sides) <= 2.5) if y else (max(sides) > 1.03 * min(sides))


def test_sums_are_those_of_the_marks_and_pairs_are_kept_apart():
    task, seen = lookup.build("tasks", "addition", **ADDITION), {}
    for split in task.splits:
        e = drawn(task, split, 200)
        assert (e.mask_BT.argmax(1) == e.x_BTX.shape[1] - 1).all()
        a_B, b_B = e.x_BTX[..., :11].sum(1).argmax(-1), e.x_BTX[..., 11].sum(1)
        assert (a_B + b_B == e.y_BT[:, -1]).all() and (e.x_BTX.sum((1, 2)) == b_B + 2).all()
        seen[split] = set(zip(a_B.tolist(), b_B.tolist(), strict=True))
    assert not seen["train"] & (seen["held_out"] | seen["between"]) and len(seen["train"]) == 36 - 2 - 6
    assert {b for _, b in seen["train"]} == {0, 1, 2, 4, 5} and seen["between"] == {(a, 3) for a in range(6)}
    assert seen["held_out"] == {(0, 0), (3, 0)} and min(b for _, b in seen["more"]) == 6
    assert max(a + b for a, b in seen["more"]) <= 10


def test_characters_are_asked_for_one_ahead_and_parts_do_not_overlap():
    task = lookup.build("tasks", "char_lm", **CHARS)
    e = drawn(task, "train")
    assert (e.x_BTX.argmax(-1)[:, 1:] == e.y_BT[:, :-1]).all() and e.mask_BT.all() and e.x_BTX.sum() == 64 * 20
    assert len(task.data["train"]) > 8 * len(task.data["test"]) > 8000
    other = lookup.build("tasks", "char_lm", **CHARS | dict(task_seed=1))
    assert other.facts["sha256"] != task.facts["sha256"]


def walk(words: list[str], task: str) -> str:
    """The answer, by following the story."""
    sentences = " ".join(words).replace(" ?", "").split(" . ")
    *story, question = (s.split() for s in sentences)
    at, holder, lies = {}, {}, {}
    for who, what, *_, last in story:
        if what == "took":
            holder[last] = who
        elif what == "dropped":
            lies[last] = at[holder.pop(last)]
        else:
            at[who] = last
    if task == "qa1":
        return at[question[-1]]
    if task == "qa2":
        return at[holder[question[-1]]] if question[-1] in holder else lies[question[-1]]
    return "yes" if at[question[1]] == question[-1] else "no"


def test_made_up_stories_answer_their_questions():
    babi = lookup.module("tasks", "babi")
    task = lookup.build("tasks", "babi", **STORIES)
    words, answers, _ = babi.encoded("", "made_up", (1, 2, 6), 96, 0)
    assert task.splits == ("train", "qa1", "qa2", "qa6") and task.facts["shortened"] == 0
    for split in task.splits[1:]:
        e, found = drawn(task, split, 100), set()
        for x, y, mask in zip(e.x_BTX, e.y_BT, e.mask_BT, strict=True):
            end = int(mask.argmax())
            assert mask.sum() == 1 and not x[end + 1:].any() and (x[:end + 1].sum(-1) == 1).all()
            said = [words[i] for i in x[:end + 1].argmax(-1)]
            assert said[-1] == "?" and answers[y[end]] == walk(said, split)
            found.add(answers[y[end]])
        assert len(found) == (2 if split == "qa6" else 6)


def test_real_stories_are_read_and_long_ones_lose_their_beginning(tmp_path, monkeypatch):
    import io
    import tarfile

    babi = lookup.module("tasks", "babi")
    text = ("1 Mary moved to the hall.\n2 Where is Mary? \thall\t1\n"
            "1 A b c.\n2 D e.\n3 Who? \tx,y\t1 2\n4 Why? \tz\n5 F.\n")
    (tmp_path / "babi").mkdir()
    with tarfile.open(tmp_path / "babi" / babi.ARCHIVE, "w:xz") as file:
        for part in ("train", "test"):
            info = tarfile.TarInfo(f"tasks_1-20_v1-2/en/qa7_counting_{part}.txt")
            info.size = len(text)
            file.addfile(info, io.BytesIO(text.encode()))
    monkeypatch.setenv("METALEARN_DATA", str(tmp_path))
    task = lookup.build("tasks", "babi", source="en", tasks=(7,), length=6, task_seed=0)
    words, answers, parts = babi.encoded(str(tmp_path / "babi" / babi.ARCHIVE), "en", (7,), 6, 0)
    shown = [" ".join(words[w] for w in row if w >= 0) for row in parts["train"]["word_NT"]]
    due = [[answers[a] if a >= 0 else "" for a in row] for row in parts["train"]["answer_NT"]]
    # two questions that see as much of a story are of one episode; nothing after its last question is read
    assert shown == ["where is mary ?", "d e . who ?", "who ? why ?"] and answers == ["hall", "x,y", "z"]
    assert due[1] == ["", "", "", "", "x,y", ""] and due[2] == ["", "", "", "z", "", ""]
    assert parts["train"]["first_K"].tolist() == [0, 3] and task.facts["shortened"] == 1.0
    together = babi.encoded(str(tmp_path / "babi" / babi.ARCHIVE), "en", (7,), 12, 0)[2]["qa7"]
    assert [sum(a >= 0 for a in row) for row in together["answer_NT"]] == [1, 2] and not together["cut_N"][1]
    with pytest.raises(ConfigError, match=r"tasks=\[8\]: are not in"):
        lookup.build("tasks", "babi", source="en", tasks=(8,), length=6, task_seed=0)


@pytest.mark.parametrize("name, fields, text", [
    ("babi", STORIES | dict(source="fr"), "source=fr"), ("babi", STORIES | dict(tasks=(3,)), "tasks=.*1, 2, 6"),
    ("babi", STORIES | dict(length=0), "length=0"), ("babi", STORIES | dict(source="en"), "METALEARN_DATA/babi"),
    ("sort_of_clevr", CLEVR | dict(size=16), "size=16"), ("sort_of_clevr", CLEVR | dict(patch=7), "size=48.*patch"),
    ("sort_of_clevr", CLEVR | dict(patch=4), "patch=4"), ("triangle", TRIANGLE | dict(size=8), "size=8"),
    ("addition", ADDITION | dict(trained=2), "trained=2"),
    ("char_lm", CHARS | dict(length=10**7), "length=10000000")])
def test_bad_input_is_one_clear_line(name, fields, text, monkeypatch):
    monkeypatch.setenv("METALEARN_DATA", "")
    with pytest.raises(ConfigError, match=text):
        lookup.build("tasks", name, **fields)


def test_a_run_reports_each_split(tmp_path):
    from metalearn import train
    from metalearn.runtime import config as config_lib

    found = train.run(config_lib.load("configs/reasoning.py:smoke"), str(tmp_path / "run"))["by_split"]
    assert list(found["accuracy"]) == ["qa1"] and 0 <= found["mean_accuracy"] <= 1 and found["nats"]["qa1"] > 0
