"""bAbI (Weston et al. 1502.05698): a story and a question word by word, answered at the question mark.

  tokens = john went to the hallway . where is john ?      each a one-hot word, left-aligned; blanks after

Each answer is one class, also one of several words. A longer story loses its oldest sentences. Splits: train, and the
test questions of each task, qa1, qa2, ... The real files (CC BY 3.0) are looked for under METALEARN_DATA/babi;
`made_up` writes stories of the same kind for tasks 1, 2 and 6 itself.
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
    length   words of a story with its question
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
        part = data[split]
        pick_B = jax.random.randint(key, (num,), 0, len(part["answer_N"]))
        end_B = part["end_N"][pick_B]
        mask_BT = (jnp.arange(length) == end_B[:, None]).astype(jnp.float32)
        y_BT = jnp.broadcast_to(part["answer_N"][pick_B][:, None], (num, length))
        x_BTX = jax.nn.one_hot(part["word_NT"][pick_B], len(words))
        return Episodes(x_BTX, y_BT, mask_BT, pick_B, jnp.broadcast_to(pick_B[:, None], (num, length)))

    spec = EpisodeSpec(length=length, features=len(words), targets="classes", outputs=len(answers), answers_early=True)
    facts = {"protocol": f"bAbI {source}, tasks {', '.join(map(str, numbers))}, {length} words",
             "words": len(words), "answers": len(answers),
             "shortened": float(np.mean(split["train"]["cut_N"])), "file": os.path.basename(path)}
    return TaskDist(data, sample, tuple(split), spec, facts)


@functools.lru_cache(maxsize=2)
def encoded(path: str, source: str, numbers: tuple[int, ...], length: int, seed: int):
    """(words, answers, {split: {word_NT (blank: -1), end_N (of the question mark), answer_N, cut_N}})."""
    found = from_files(path, source, numbers) if path else made_up(numbers, seed)
    everything = [question for questions in found.values() for question in questions]
    words = sorted({w for story, _ in everything for sentence in story for w in sentence})
    answers = sorted({answer for _, answer in everything})
    number, label = ({w: i for i, w in enumerate(all_)} for all_ in (words, answers))

    def rows(questions):
        word_NT = np.full((len(questions), length), -1, np.int16)
        end_N, cut_N = np.zeros(len(questions), np.int32), np.zeros(len(questions), bool)
        for i, (story, _) in enumerate(questions):
            kept = list(story)
            while sum(map(len, kept)) > length and len(kept) > 1:
                kept.pop(0)
                cut_N[i] = True
            flat = [number[w] for sentence in kept for w in sentence][-length:]
            word_NT[i, :len(flat)], end_N[i] = flat, len(flat) - 1
        return {"word_NT": word_NT, "end_N": end_N, "cut_N": cut_N,
                "answer_N": np.array([label[a] for _, a in questions], np.int32)}

    parts = {"train": [q for (n, part), qs in found.items() if part == "train" for q in qs]}
    parts |= {f"qa{n}": qs for (n, part), qs in found.items() if part == "test"}
    return words, answers, {name: rows(qs) for name, qs in parts.items()}


def from_files(path: str, source: str, numbers: tuple[int, ...]) -> dict:
    """{(number, train or test): [(sentences and the question as lists of words, answer), ...]}."""
    name = re.compile(rf".*/{source}/qa(\d+)_.*_(train|test)\.txt")
    texts = {}
    for member, text in archives.members(path, lambda n: name.fullmatch(n) is not None):
        number, part = name.fullmatch(member).groups()  # pyright: ignore[reportOptionalMemberAccess]: it was wanted
        if int(number) in numbers:
            texts[int(number), part] = text.decode()
    missing = [n for n in numbers if (n, "train") not in texts or (n, "test") not in texts]
    require(not missing, "tasks", missing, f"are not in {path}")
    return {key: questions(texts[key]) for key in sorted(texts)}


def questions(text: str) -> list:
    """Of the format `number sentence` or `number question<tab>answer<tab>facts`; number 1 begins another story."""
    found, story = [], []
    for line in text.splitlines():
        number, _, rest = line.strip().partition(" ")
        story = [] if number == "1" else story
        sentence, *answer = rest.split("\t")
        words = re.findall(r"\w+|[.?]", sentence.lower())
        if answer:
            found.append(([*story, words], answer[0]))
        else:
            story = [*story, words]
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
            if key[0] == 2 and where:
                thing = any_of(sorted(where))
                out.append(([*story, f"where is the {thing} ?".split()], where[thing]))
            elif key[0] == 1:
                who = any_of(sorted(at))
                out.append(([*story, f"where is {who} ?".split()], at[who]))
            elif key[0] == 6:
                who = any_of(sorted(at))
                place = any_of((at[who], any_of(PLACES)))
                out.append(([*story, f"is {who} in the {place} ?".split()], "yes" if place == at[who] else "no"))
        found[key] = out
    return found
