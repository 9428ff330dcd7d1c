"""Offline data in Minari's format, for other programs to read: `minari:NAMESPACE/NAME-v0` in the place of a file.

An episode of ours is an episode there; which task it belongs to, its rank within the task and the task's parameters go
into the episode's metadata, our header into the dataset's. What Minari does not keep (returns-to-go, step numbers,
masks) is made again on reading. Needs the extra `minari`; datasets lie where Minari keeps them (MINARI_DATASETS_PATH).
"""

import json
import warnings
from typing import Any

import numpy as np

from metalearn.rl import rollout
from metalearn.types import Trajectories
from metalearn.validate import ConfigError, require

PREFIX = "minari:"
HEADER = "metalearn_header"
INSTALL = 'needs Minari: pip install "metalearn-jax[minari]" (or: pip install "minari[hdf5]")'


def write(path: str, param_BX: np.ndarray, episodes: Trajectories, header: dict[str, Any], field: str) -> None:
    """Writes a new dataset; one that exists is refused."""
    minari = _load(path, field)
    name = path.removeprefix(PREFIX)
    require(not _exists(minari, name), field, path, "exists already; nothing was overwritten")
    import gymnasium
    from minari.data_collector import EpisodeBuffer

    B, E = episodes.rew_BT.shape[:2]
    buffers = []
    for b in range(B):
        for e in range(E):
            n = int(episodes.mask_BT[b, e].sum())
            pick = lambda a, b=b, e=e, n=n: np.asarray(a)[b, e, :n]
            obs_TS = np.concatenate([pick(episodes.obs_BTS), pick(episodes.next_BTS)[-1:]])
            buffers.append(EpisodeBuffer(
                id=b * E + e, observations=list(obs_TS), actions=list(pick(episodes.act_BTA)),
                rewards=[float(r) for r in pick(episodes.rew_BT)], terminations=pick(episodes.terminated_BT).tolist(),
                truncations=pick(episodes.truncated_BT).tolist()))
    box = lambda size, bound: gymnasium.spaces.Box(-bound, bound, (size,), np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it misses an author and an environment of gymnasium's
        try:
            made = minari.create_dataset_from_buffers(
                name, buffers, observation_space=box(episodes.obs_BTS.shape[-1], np.inf), action_space=box(
                    episodes.act_BTA.shape[-1], 1.0), algorithm_name=str(header.get("behaviour")), data_format="hdf5",
                description=f"{B} tasks x {E} episodes; the task of each is in its metadata")
        except ValueError as error:  # a name that Minari has no place for
            raise ConfigError(field, path, f"is no name for Minari ({error})") from None
    made.storage.update_metadata({HEADER: json.dumps(header)})
    made.storage.update_episode_metadata([{"task": b, "rank": e, "param": np.asarray(param_BX[b])}
                                          for b in range(B) for e in range(E)])


def read(path: str, field: str) -> tuple[np.ndarray, Trajectories, dict[str, Any]]:
    """(param_BX, Trajectories (B, E, T, ...), header) of a dataset that `write` made."""
    minari, name = _load(path, field), path.removeprefix(PREFIX)
    require(_exists(minari, name), field, path, "no such dataset among the local ones of Minari")
    dataset = minari.load_dataset(name)
    header = dataset.storage.metadata.get(HEADER)
    require(header is not None, field, path, "is not ours: it does not say which task an episode is from")
    header = json.loads(header)
    index = [int(i) for i in dataset.episode_indices]
    notes = list(dataset.storage.get_episode_metadata(index))
    place = [(int(n["task"]), int(n["rank"])) for n in notes]
    B, E, T = max(b for b, _ in place) + 1, max(e for _, e in place) + 1, int(header["steps"])
    require(sorted(place) == [(b, e) for b in range(B) for e in range(E)], field, path, "lacks episodes of some tasks")
    param_BX, parts = [None] * B, [None] * (B * E)
    for (b, e), note, episode in zip(place, notes, dataset.iterate_episodes(index), strict=True):
        pad = lambda a: np.pad(a, ((0, T - len(a)),) + ((0, 0),) * (a.ndim - 1))
        obs_TS = np.asarray(episode.observations, np.float32)
        parts[b * E + e] = (pad(obs_TS[:-1]), pad(np.asarray(episode.actions, np.float32)),
                            pad(np.asarray(episode.rewards, np.float32)), pad(obs_TS[1:]),
                            pad(np.asarray(episode.terminations, bool)), pad(np.ones(len(obs_TS) - 1, np.float32)))
        param_BX[b] = np.asarray(note["param"], np.float32)
    flat = rollout.assemble(*(np.stack(a) for a in zip(*parts, strict=True)))
    shape = lambda a: np.asarray(a).reshape(B, E, *a.shape[1:])
    return np.stack(param_BX), Trajectories(**{f: shape(getattr(flat, f)) for f in flat.__dataclass_fields__}), header


def _load(path: str, field: str):
    try:
        import minari
    except ImportError as error:
        raise ConfigError(field, path, f"{INSTALL}; {error}") from None
    return minari


def _exists(minari, name: str) -> bool:
    try:
        minari.load_dataset(name)
    except (FileNotFoundError, ValueError):
        return False
    return True
