"""Accuracy by number of examples seen, on sets of frozen episodes, beside baselines on the same episodes.

Definitions (V classes, chance c = 1/V; `first` is the first position, `last` the mean of the last five, or of the
last alone where only that is scored):

  learning        L(S) = last - first
  generalisation  G(S) = last - c, on unseen and new
  gap             last(seen) - last(unseen)
  memorisation    (first(seen) - c) / (1 - c)

Phase of one run, tau = .05, every "at least" meant at the lower end of the one-sided 95 % interval: not trained if
last(seen) is not at least c + tau; else general if L(unseen) >= tau (dataset-general if also L(new) >= tau); else
identify if L(seen) >= tau; else memorise. Where `seen_random_labels` was measured and its last >= c + tau, a general
learner also *recalls*: it gives true labels that its context does not say, so part of what it shows on trained tasks
is memory ("general, recalls"). The share of a trained task's old labels under fresh ones is the last of
`seen_old_labels`; a learner that only learns has chance there.
"""

from __future__ import annotations

import functools

import jax
import numpy as np

from metalearn.measure import baselines as baselines_lib
from metalearn.measure import frozen as frozen_lib
from metalearn.measure import losses, statistics
from metalearn.types import Evaluator, Learner, Result, TaskDist
from metalearn.validate import multiple_of, one_of, positive, require

TAU = 0.05
LABELS = {"new": "newclass"}  # the plain name of a set in the headline, where it differs


def make(task: TaskDist, learner: Learner, *, sets: tuple[str, ...], baselines: tuple[str, ...], episodes: int,
         block: int, chunk: int, seed: int) -> Evaluator:
    """Evaluates `episodes` frozen episodes of each set in `sets` (splits of the task), `chunk` at a time.

    The episodes are a function of (task, seed, block) and nothing else (see `Frozen`; `chunk` is memory); their SHA-256
    is in the result. Classification tasks only; `baselines` are names out of `metalearn.measure.baselines.ALL`.
    """
    positive(episodes=episodes, block=block, chunk=chunk)
    multiple_of("chunk", chunk, episodes=episodes)
    require(block % chunk == 0 or chunk % block == 0, "chunk", chunk, f"must divide block={block} or be divided by it")
    require(len(sets) > 0, "sets", sets, "must name at least one split")
    for name in sets:
        one_of(task.splits, sets=name)
    for name in baselines:
        one_of(baselines_lib.ALL, baselines=name)
    ways = task.spec.outputs

    score = lambda params, carry, batch: _score(params, carry, batch, learner.predict)

    @functools.cache
    def frozen(split):
        """(episodes, baseline hits, scored positions) of one set: computed once per process."""
        all_of_it, hits, masks = frozen_lib.Frozen(task, split, episodes, chunk, seed, block), [], []
        for batch in all_of_it:
            hits.append(jax.device_get(_measure(batch, baselines, ways)))
            masks.append(jax.device_get(batch.mask_BT))
        joined = {name: np.concatenate([h[name] for h in hits]) for name in baselines}
        return all_of_it, joined, np.flatnonzero(np.concatenate(masks).min(0) > 0)

    def run(params, carry) -> Result:
        scores, curves, drawn = {}, [], {}
        for split in sets:
            drawn[split], hits, scored_T = frozen(split)
            hit_ET = np.concatenate([score(params, carry, batch) for batch in drawn[split]])
            rows = {"learner": hit_ET} | hits
            scores[split] = {name: _summary(h[:, scored_T]) for name, h in rows.items()}
            if len(scored_T) > 1:
                series = [_series(name, h) for name, h in rows.items()]
                curves.append({"title": split, "x": list(range(hit_ET.shape[1])), "xlabel": "examples seen",
                               "ylabel": "accuracy", "series": series, "levels": {"chance": 1 / ways}})
        digest, inputs_digest = frozen_lib.together(drawn)
        facts = {"seed": seed, "episodes": episodes, "block": block, "episodes_sha256": digest,
                 "inputs_sha256": inputs_digest, "set_sha256": {name: of.digest for name, of in drawn.items()},
                 "dataset_sha256": task.facts.get("sha256"), "dataset": task.facts.get("dataset"),
                 "new_dataset": task.facts.get("new_dataset"), "num_tasks": task.facts.get("num_tasks"),
                 "scores": scores}
        headline = _headline(scores, 1 / ways) | {"new_dataset": task.facts.get("new_dataset"),
                                                  "episodes_sha256": digest, "inputs_sha256": inputs_digest}
        return {"headline": headline, "tables": [_table(scores)], "curves": curves, "facts": facts}

    return Evaluator(run)


# compiled once for all evaluators of one learner: those of several replicas differ in their parameters alone
@functools.partial(jax.jit, static_argnums=3)
def _score(params, carry, batch, predict):
    """Right or wrong at each position, (num, T); sets differ only in what was drawn."""
    return losses.correct(predict(params, carry, batch), batch.y_BT)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _measure(batch, baselines, ways):
    """The baselines' hits on the same episodes, {name: (num, T)}."""
    answers = {name: jax.vmap(functools.partial(baselines_lib.ALL[name], ways=ways))(batch.x_BTX, batch.y_BT)
               for name in baselines}
    return {name: losses.correct(a, batch.y_BT) for name, a in answers.items()}


def _summary(hit_ET: np.ndarray) -> dict[str, float]:
    """first, last, learning of one learner on one set, each with the half-width of its 95 % interval over episodes."""
    hit_ET = np.asarray(hit_ET, np.float64)
    last_E = hit_ET[:, -5:].mean(1)
    first_E = hit_ET[:, 0]
    of = statistics.interval
    (first, first_ci), (last, last_ci), (gain, gain_ci) = of(first_E), of(last_E), of(last_E - first_E)
    return {"first": first, "first_ci95": first_ci, "last": last, "last_ci95": last_ci, "learning": gain,
            "learning_ci95": gain_ci, "final": hit_ET[:, -1].mean()}


def _series(name: str, hit_ET: np.ndarray) -> dict:
    mean, half = statistics.interval(hit_ET)
    return {"name": name, "y": mean, "ci95": half if name == "learner" else None, "dashed": name != "learner"}


def _at_least(value: float, ci95: float, bound: float) -> bool:
    return value - ci95 * 1.645 / 1.96 >= bound


def phase(scores: dict, chance: float) -> str | None:
    """The decision rule above; None where `seen` and `unseen` were not both measured."""
    if not {"seen", "unseen"} <= scores.keys():
        return None
    of = lambda split: scores.get(split, {}).get("learner")
    seen, unseen, new, random = of("seen"), of("unseen"), of("new"), of("seen_random_labels")
    above = lambda s: s is not None and _at_least(s["last"], s["last_ci95"], chance + TAU)
    learns = lambda s: s is not None and _at_least(s["learning"], s["learning_ci95"], TAU)
    if not above(seen):
        return "not trained"
    if learns(unseen):
        return ("dataset-general" if learns(new) else "general") + (", recalls" if above(random) else "")
    return "identify" if learns(seen) else "memorise"


def _headline(scores: dict, chance: float) -> dict:
    out = {}
    for split, rows in scores.items():
        label, s = LABELS.get(split, split), rows["learner"]
        out |= {f"{label}_last": s["last"], f"{label}_ci95": s["last_ci95"]}
        if not split.endswith("_labels"):  # of those only the last position is scored
            out |= {f"{label}_first": s["first"], f"learning_{label}": s["learning"]}
        out |= {f"{label}_{name}": rows[name]["last"] for name in rows if name == "1nn"}
    for label in ("unseen", "newclass"):
        if f"{label}_last" in out:
            out[f"generalisation_{label}"] = out[f"{label}_last"] - chance
    if {"seen", "unseen"} <= scores.keys():
        out |= {"gap": out["seen_last"] - out["unseen_last"], "phase": phase(scores, chance),
                "memorisation": (out["seen_first"] - chance) / (1 - chance)}
    return out


def _table(scores: dict) -> dict:
    names = list(next(iter(scores.values())))
    last = lambda s: f"{s['last']:.3f} ± {s['last_ci95']:.3f}"
    rows = [[split, f"{of['learner']['first']:.3f}", *(last(of[n]) for n in names)] for split, of in scores.items()]
    return {"title": "accuracy on frozen episodes (last: mean of the last five positions; ± 95 % interval)",
            "columns": ["set", "first", "learner, last", *names[1:]], "rows": rows}
