"""Accuracy on frozen N-way K-shot episodes: mean and 95 % interval over episodes, by source, beside pixels' 1-NN.

An episode's accuracy is the mean over its queries; the interval is over episodes. The episodes are a function of
(protocol, seed): their hash is in the result, and a hash given in the config must match.
"""

import os

import jax
import numpy as np

from metalearn.learning import support_query
from metalearn.measure import frozen as frozen_lib, losses, statistics
from metalearn.types import Evaluator, Learner, Result, TaskDist
from metalearn.validate import one_of, require


def make(task: TaskDist, learner: Learner, *, sets: tuple[str, ...], episodes: int, chunk: int, seed: int,
         episodes_sha256: tuple[str, ...]) -> Evaluator:
    """Evaluates `episodes` frozen episodes of each of `sets`, `chunk` at a time (memory only).

    sets             splits of the task; the headline's plain names are those of the first
    episodes_sha256  the first characters of the hash that each set must have; () checks nothing
    """
    support_query.need(task.spec, classification=True)
    require(len(sets) > 0, "sets", sets, "must name at least one split")
    for name in sets:
        one_of(task.splits, sets=name)
    require(len(episodes_sha256) in (0, len(sets)), "episodes_sha256", episodes_sha256,
            "must be () or one for each set")
    facts = task.facts
    frozen = {name: frozen_lib.Frozen(task, name, episodes, chunk, seed) for name in sets}
    pixels: dict[str, np.ndarray] = {}  # the baseline's hits do not change during training

    @jax.jit
    def score(params, carry, batch):
        S = support_query.parts(batch)[1].shape[1]
        return losses.correct(learner.predict(params, carry, batch)[:, S:], batch.y_BT[:, S:])

    @jax.jit
    def measure(batch):
        return (support_query.nearest_neighbour(task.spec, batch) == support_query.parts(batch)[3]).astype("float32")

    def run(params, carry) -> Result:
        headline, rows, hashes = {}, [], {}
        for i, name in enumerate(sets):
            hashes[name] = digest = frozen[name].digest
            wanted = episodes_sha256[i] if episodes_sha256 else ""
            require(digest.startswith(wanted), "episodes_sha256", wanted,
                    f"the frozen episodes of {name} have the hash {digest[:16]}: data, protocol or seed differ from "
                    "those that the config was written for; () accepts any")
            hits, near, source = [], [], []
            for batch in frozen[name]:
                hits.append(np.asarray(score(params, carry, batch)))
                if name not in pixels:
                    near.append(np.asarray(measure(batch)))
                source.append(_sources(facts, name, np.asarray(batch.index_BT)[:, -hits[-1].shape[1]:]))
            if name not in pixels:
                pixels[name] = np.concatenate(near)
            hit_EQ, near_EQ, source_EQ = np.concatenate(hits), pixels[name], np.concatenate(source)
            suffix = "" if i == 0 else f"_{name}"
            (accuracy, ci95), (nearest, _) = (statistics.interval(hits_EQ.mean(1)) for hits_EQ in (hit_EQ, near_EQ))
            headline |= {"accuracy" + suffix: accuracy, "ci95" + suffix: ci95, "nearest_neighbour" + suffix: nearest}
            shown = name if name != "new" else "new: " + os.path.basename(facts["splits"]["new"]["dataset"])
            rows.append([shown, "all", episodes, _show(hit_EQ.mean(1)), _show(near_EQ.mean(1))])
            found = np.unique(source_EQ)
            for s in found if len(found) > 1 else []:
                rows.append([shown, s, *_of_source(source_EQ == s, hit_EQ, near_EQ)])
        split = facts["splits"][sets[0]]
        headline |= {"episodes": episodes, "protocol": f"{facts['protocol']}, {split['dataset']} {split['of']}",
                     "episodes_sha256": hashes[sets[0]], "inputs_sha256": frozen[sets[0]].inputs_digest}
        table = {"title": f"{facts['protocol']}: accuracy on frozen episodes (± 95 % interval over episodes)",
                 "columns": ["set", "source", "episodes", "learner", "nearest neighbour on pixels"], "rows": rows}
        about = {"seed": seed, "episodes_sha256": hashes, "chance": 1 / task.spec.outputs,
                 "splits": {name: facts["splits"][name] for name in ("train", *sets)}}
        return {"headline": headline, "tables": [table], "facts": about}

    return Evaluator(run)


def _show(values_E: np.ndarray) -> str:
    return statistics.text(*statistics.interval(values_E), 4)


def _sources(facts, split: str, index_EQ: np.ndarray) -> np.ndarray:
    """The name of the source of each query: the alphabet of a character, else the dataset."""
    class_N = facts["class_N"][split]
    return np.asarray(facts["source_V"][split])[class_N[index_EQ % len(class_N)]]


def _of_source(mask_EQ, hit_EQ, near_EQ) -> list:
    """[episodes with queries of this source, learner, baseline]: per episode over its queries of the source alone."""
    some = mask_EQ.any(1)
    mean = lambda values_EQ: (values_EQ * mask_EQ).sum(1)[some] / mask_EQ.sum(1)[some]
    return [int(some.sum()), _show(mean(hit_EQ)), _show(mean(near_EQ))]
