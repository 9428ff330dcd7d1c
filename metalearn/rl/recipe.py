"""What determines a set of logged episodes, and collecting them by it: once, into a cache that is keyed by the recipe.

Building a recipe checks it and collects nothing. The cache is a directory; a recipe's file in it is named by the hash
of all that the data depend on, so runs that want the same data share it and others never find it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from typing import Any

import numpy as np

from metalearn import lookup
from metalearn.rl import behaviours, store
from metalearn.rl.task_ids import task_ids
from metalearn.types import Env, Trajectories
from metalearn.validate import nonnegative, positive, require, within

FIELDS = ("env", "behaviour", "quality", "sac", "train_tasks", "test_tasks", "episodes", "task_seed", "data_seed")


def make(*, env: dict, behaviour: str, quality: str, sac: dict, train_tasks: int, test_tasks: int, episodes: int,
         task_seed: int, data_seed: int) -> Recipe:
    """The recipe that these fields of a config's task say; `env` is {"name": ..., its fields}."""
    with within("env"):
        require("name" in env, "name", "(missing)", "this field must be given")
        built = lookup.build("envs", env["name"], **{k: v for k, v in env.items() if k != "name"})
    return Recipe(built, dict(env), behaviour, quality, dict(sac), train_tasks, test_tasks, episodes, task_seed,
                  data_seed)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """All that the logs are a function of; ConfigError where it cannot be.

    env, fields   the environment, and the config's block that it was built from
    behaviour, quality, agent   who acts (see `behaviours`); `agent` is read by behaviour `sac` alone
    train_tasks, test_tasks, episodes   how many tasks, and episodes of each
    task_seed, data_seed        of the tasks, of everything that happens in the episodes
    """

    env: Env
    fields: dict[str, Any]
    behaviour: str
    quality: str
    agent: dict[str, Any]
    train_tasks: int
    test_tasks: int
    episodes: int
    task_seed: int
    data_seed: int

    def __post_init__(self):
        positive(train_tasks=self.train_tasks, test_tasks=self.test_tasks, episodes=self.episodes)
        nonnegative(task_seed=self.task_seed, data_seed=self.data_seed)
        behaviours.check(self.env, self.behaviour, self.quality, self.agent)

    @property
    def ids(self) -> np.ndarray:
        """Ids of the training tasks, then of the test tasks."""
        return task_ids(self.train_tasks, self.test_tasks)

    def header(self) -> dict[str, Any]:
        """The recipe as plain JSON, for the head of a trajectory file."""
        facts = {k: v for k, v in self.env.facts.items() if isinstance(v, (str, int, float, bool))}
        found = {"env": self.fields, "env_facts": facts, "behaviour": self.behaviour, "quality": self.quality,
                 "behaviours_version": behaviours.VERSION, "task_seed": self.task_seed, "data_seed": self.data_seed,
                 "task_ids": self.ids.tolist(), "train_tasks": self.train_tasks, "episodes": self.episodes}
        found |= {"sac": self.agent} if self.behaviour == "sac" else {}
        return json.loads(json.dumps(found))  # as a file gives it back: lists, not tuples

    def key(self) -> str:
        """Sixteen hexadecimal digits of the hash of everything in the header, and of the file's format."""
        text = json.dumps(self.header() | {"format": store.FORMAT}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def collect(self) -> tuple[np.ndarray, Trajectories]:
        """(param_BX, Trajectories with axes (B, E, T, ...)) as numpy arrays. Uses the default device."""
        return behaviours.collect(self.env, self.behaviour, self.ids, self.episodes, self.task_seed, self.data_seed,
                                  self.quality, self.agent)

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
