"""What determines a set of logged episodes, and collecting them by it: once, into a cache that is keyed by the recipe.

Building a recipe checks it and collects nothing. The cache is a directory; a recipe's file in it is named by the hash
of all that the data depend on, so runs that want the same data share it and others never find it.
"""

import dataclasses
import functools
import hashlib
import json
import os
from typing import Any

import numpy as np

from metalearn import lookup
from metalearn.rl import behaviours, store
from metalearn.types import Env, Trajectories
from metalearn.validate import nonnegative, positive, within


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that the logs are a function of, as a config's task says it; ConfigError where it cannot be.

    env         {"name": ..., its fields}
    behaviour, quality, sac   who acts (see `behaviours`); `sac` is read by the behaviour of that name alone
    train_tasks, test_tasks, episodes   how many tasks, and episodes of each
    task_seed, data_seed        of the tasks, of everything that happens in the episodes
    """

    env: dict
    behaviour: str
    quality: str
    sac: dict
    train_tasks: int
    test_tasks: int
    episodes: int
    task_seed: int
    data_seed: int

    def __post_init__(self):
        positive(train_tasks=self.train_tasks, test_tasks=self.test_tasks, episodes=self.episodes)
        nonnegative(task_seed=self.task_seed, data_seed=self.data_seed)
        behaviours.check(self.built, self.behaviour, self.quality, self.sac)

    @functools.cached_property
    def built(self) -> Env:
        """The environment."""
        with within("env"):
            return lookup.of_block("envs", self.env)

    @property
    def ids(self) -> np.ndarray:
        """Ids of the training tasks, then of the test tasks."""
        return behaviours.task_ids(self.train_tasks, self.test_tasks)

    def header(self) -> dict[str, Any]:
        """The recipe as plain JSON, for the head of a trajectory file."""
        facts = {k: v for k, v in self.built.facts.items() if isinstance(v, (str, int, float, bool))}
        found = {"env": self.env, "env_facts": facts, "behaviour": self.behaviour, "quality": self.quality,
                 "behaviours_version": behaviours.VERSION, "task_seed": self.task_seed, "data_seed": self.data_seed,
                 "task_ids": self.ids.tolist(), "train_tasks": self.train_tasks, "episodes": self.episodes}
        found |= {"sac": self.sac} if self.behaviour == "sac" else {}
        return json.loads(json.dumps(found))  # as a file gives it back: lists, not tuples

    def key(self) -> str:
        """Sixteen hexadecimal digits of the hash of everything in the header, and of the file's format."""
        text = json.dumps(self.header() | {"format": store.FORMAT}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def collect(self) -> tuple[np.ndarray, Trajectories]:
        """(param_BX, Trajectories with axes (B, E, T, ...)) as numpy arrays. Uses the default device."""
        return behaviours.collect(self.built, self.behaviour, self.ids, self.episodes, self.task_seed, self.data_seed,
                                  self.quality, self.sac)

    def cached(self, directory: str) -> tuple[np.ndarray, Trajectories, dict[str, Any]]:
        """(param_BX, Trajectories, header) out of `directory`; collected and written there first where they are not.

        Of several processes that want the same data one collects, and the others wait for its file.
        """
        path = os.path.join(directory, f"offline-{self.key()}.npz")
        if not os.path.exists(path):
            with store.sole_writer(path):
                if not os.path.exists(path):
                    store.save(path, *self.collect(), self.header())
        return store.load(path, "cache")


FIELDS = tuple(field.name for field in dataclasses.fields(Recipe))
