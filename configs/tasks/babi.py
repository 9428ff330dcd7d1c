"""bAbI (Weston et al. 1502.05698): a story word by word, its questions where they were asked, each answered at its
question mark.

  tokens = john went to the hallway . where is john ? ...      each a one-hot word, left-aligned; blanks after

A story of five questions is one episode that teaches five answers, not five episodes; answers are not shown. Each is
one class, also one of several words. Stories longer than `length` are several episodes: each question is answered once,
after as many sentences before it as fit. Training draws a task, then an episode of it. Splits: train, and the test
stories of each task, qa1, qa2, ... The real files (CC BY 3.0) are looked for under METALEARN_DATA/babi; `made_up`
writes stories of the same kind for tasks 1, 2 and 6 itself, of one question each.
"""

from __future__ import annotations

import functools
import os
import re

import jax
import jax.numpy as jnp
import numpy as np

from metalearn.datasets import archives, catalogue
from metalearn.types import Array, Episodes, EpisodeSpec, TaskDist
from metalearn.validate import one_of, positive, require

ARCHIVE = "tasks_1-20_v1-2_en.tar.xz"
LACKING = {("en-10k", 3)}  # of the files that are given out, one is nowhere complete
MADE_UP = (1, 2, 6)
PEOPLE, PLACES, THINGS = ("daniel", "john", "mary", "sandra"), (
    "bathroom", "bedroom", "garden", "hallway", "kitchen", "office"), ("apple", "football", "milk")


def make(*, source: str, tasks: tuple[int, ...], length: int, task_seed: int) -> TaskDist:
    """source   en (1,000 training questions a task) | en-10k (10,000) | made_up (1,000, and 1,000 to test)
    tasks    numbers of tasks; (): all that there are
    length   words of an episode
    """
    one_of(("en", "en-10k", "made_up"), source=source)
    positive(length=length)
    known = MADE_UP if source == "made_up" else tuple(n for n in range(1, 21) if (source, n) not in LACKING)
    unknown = set(tasks) - set(known)
    require(not unknown, "tasks", tasks, f"of source={source} there are {', '.join(map(str, known))}")
    root = catalogue.data_root()
    path = os.path.join(root, "babi", ARCHIVE) if source != "made_up" else ""
    require(not path or os.path.isfile(path), "source", source,
            f"needs METALEARN_DATA/babi/{ARCHIVE}, which is not at {path}; made_up needs no file")
    numbers = tuple(sorted(tasks)) or known
    words, answers, split = encoded(path, source, numbers, length, task_seed)
    data = {name: {k: a for k, a in part.items() if k != "cut_N"} for name, part in split.items()}

    def sample(data, key: Array, split: str, num: int) -> Episodes:
        part, (key_task, key_row) = data[split], jax.random.split(key)
        task_B = jax.random.randint(key_task, (num,), 0, len(part["first_K"]) - 1)
        pick_B = jax.random.randint(key_row, (num,), part["first_K"][task_B], part["first_K"][task_B + 1])
        answer_BT = part["answer_NT"][pick_B].astype(jnp.int32)
        x_BTX = jax.nn.one_hot(part["word_NT"][pick_B], len(words))
        return Episodes(x_BTX, jnp.maximum(answer_BT, 0), (answer_BT >= 0).astype(jnp.float32), pick_B,
                        jnp.broadcast_to(pick_B[:, None], (num, length)))

    spec = EpisodeSpec(length=length, features=len(words), targets="classes", outputs=len(answers), answers_early=True)
    facts = {"protocol": f"bAbI {source}, tasks {', '.join(map(str, numbers))}, {length} words",
             "words": len(words), "answers": len(answers),
             "shortened": float(np.mean(split["train"]["cut_N"])), "file": os.path.basename(path)}
    return TaskDist(data, sample, tuple(split), spec, facts)


@functools.lru_cache(maxsize=2)
def encoded(path: str, source: str, numbers: tuple[int, ...], length: int, seed: int):
    """(words, answers, {split: {word_NT (blank: -1), answer_NT (-1 where none is due), cut_N, first_K (rows of task k:
    first_K[k] up to first_K[k + 1])}})."""
    found = from_files(path, source, numbers) if path else made_up(numbers, seed)
    lines = [line for stories in found.values() for story in stories for line in story]
    words = sorted({w for line, _ in lines for w in line})
    answers = sorted({answer for _, answer in lines if answer is not None})
    number, label = ({w: i for i, w in enumerate(all_)} for all_ in (words, answers))

    def rows(of_tasks):
        each = [[window for story in stories for window in windows(story, length)] for stories in of_tasks]
        told, cut = zip(*(window for of_one in each for window in of_one), strict=True)
        word_NT, answer_NT = (np.full((len(told), length), -1, np.int16) for _ in range(2))
        for i, tokens in enumerate(told):
            word_NT[i, :len(tokens)] = [number[w] for w, _ in tokens]
            answer_NT[i, :len(tokens)] = [-1 if answer is None else label[answer] for _, answer in tokens]
        return {"word_NT": word_NT, "answer_NT": answer_NT, "cut_N": np.array(cut),
                "first_K": np.cumsum([0, *map(len, each)]).astype(np.int32)}

    parts = {"train": rows([found[n, "train"] for n in numbers])}
    return words, answers, parts | {f"qa{n}": rows([found[n, "test"]]) for n in numbers}


def windows(story: list, length: int):
    """The episodes of a story, ([(word, the answer due at it or None), ...], was it cut?): a question is answered in
    the one that reaches furthest back before it."""
    sizes = np.cumsum([0, *(len(line) for line, _ in story)])
    asked: dict[int, list[int]] = {}  # {the first sentence shown: questions}
    for j, (_, answer) in enumerate(story):
        if answer is not None:
            asked.setdefault(min(int(np.searchsorted(sizes, sizes[j + 1] - length)), j), []).append(j)
    for first, due in asked.items():
        told = []
        for j in range(first, due[-1] + 1):
            line, answer = story[j]
            told += [(word, None) for word in line[:-1]] + [(line[-1], answer if j in due else None)]
        yield told[-length:], first > 0


def from_files(path: str, source: str, numbers: tuple[int, ...]) -> dict:
    """{(number, train or test): stories}, each [(words of a sentence, None or of a question its answer), ...]."""
    name = re.compile(rf".*/{source}/qa(\d+)_.*_(train|test)\.txt")
    texts = {}
    for member, text in archives.members(path, lambda n: name.fullmatch(n) is not None):
        number, part = name.fullmatch(member).groups()  # pyright: ignore[reportOptionalMemberAccess]: it was wanted
        if int(number) in numbers:
            texts[int(number), part] = text.decode()
    missing = [n for n in numbers if (n, "train") not in texts or (n, "test") not in texts]
    require(not missing, "tasks", missing, f"are not in {path}")
    return {key: stories(texts[key]) for key in sorted(texts)}


def stories(text: str) -> list:
    """Of the format `number sentence` or `number question<tab>answer<tab>facts`; number 1 begins another story."""
    found: list[list] = []
    for line in text.splitlines():
        number, _, rest = line.strip().partition(" ")
        if number == "1" or not found:
            found.append([])
        sentence, *answer = rest.split("\t")
        found[-1].append((re.findall(r"\w+|[.?]", sentence.lower()), answer[0] if answer else None))
    return found


def made_up(numbers: tuple[int, ...], seed: int, num: int = 1000) -> dict:
    """People who walk about, pick things up and put them down; where are they (1), where are the things (2), is
    someone there (6)."""
    found = {}
    for key in ((n, part) for n in numbers for part in ("train", "test")):
        rng, out = np.random.default_rng((seed, key[0], key[1] == "test")), []
        any_of = lambda values, rng=rng: values[rng.integers(len(values))]
        while len(out) < num:
            story, at, has, lies = [], {}, {}, {}
            for _ in range(rng.integers(4, 11)):
                who = any_of(PEOPLE)
                held = [t for t, holder in has.items() if holder == who]
                near = [t for t in THINGS if t not in has and lies.get(t, at.get(who)) == at.get(who)]
                if key[0] == 2 and who in at and held and rng.random() < 0.3:
                    thing = any_of(held)
                    lies[thing] = at[who]
                    del has[thing]
                    story.append(f"{who} dropped the {thing} .".split())
                elif key[0] == 2 and who in at and near and rng.random() < 0.5:
                    thing = any_of(near)
                    has[thing] = who
                    story.append(f"{who} took the {thing} .".split())
                else:
                    at[who] = any_of(PLACES)
                    story.append(f"{who} {any_of(('went', 'moved', 'travelled'))} to the {at[who]} .".split())
            where = {t: at[who] for t, who in has.items()} | {t: place for t, place in lies.items() if t not in has}
            told = [(sentence, None) for sentence in story]
            if key[0] == 2 and where:
                thing = any_of(sorted(where))
                out.append([*told, (f"where is the {thing} ?".split(), where[thing])])
            elif key[0] == 1:
                who = any_of(sorted(at))
                out.append([*told, (f"where is {who} ?".split(), at[who])])
            elif key[0] == 6:
                who = any_of(sorted(at))
                place = any_of((at[who], any_of(PLACES)))
                out.append([*told, (f"is {who} in the {place} ?".split(), "yes" if place == at[who] else "no")])
        found[key] = out
    return found
