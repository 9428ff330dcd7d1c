"""Accuracy by number of examples seen, on sets of frozen episodes, beside baselines on the same episodes.

With V classes and chance c = 1/V; `first` is the first position, `last` the mean of the last five, or of the last alone
where only that is scored:

  learning L(S) = last - first;  generalisation = last - c;  gap = last(seen) - last(unseen)
  memorisation = (first(seen) - c) / (1 - c)
  fresh    last, without positions whose example stood in the context already: there a look-up is enough
  ahead    last of the learner - last of the best baseline on the same episodes, by which it is chosen too

Phase of one run, tau = .05, each bound met by the lower end of a one-sided 95 % interval: not trained if last(seen) <
c + tau; else general if L(unseen) >= tau (dataset-general if also L(new) >= tau); else identify if L(seen) >= tau; else
memorise. A general learner whose `seen_random_labels` ends at c + tau or above also *recalls* ("general, recalls"): it
gives true labels that its context does not say.
"""

import functools
import os
from collections.abc import Sequence

import jax
import numpy as np

from metalearn import datasets
from metalearn.measure import baselines as baselines_lib, frozen as frozen_lib, losses, statistics
from metalearn.types import Evaluator, Learner, Result, TaskDist
from metalearn.validate import multiple_of, one_of, positive, require

TAU = 0.05
POOL = "pool:"
LABELS = {"new": "newclass"}  # the plain name of a set in the headline, where it differs


def make(task: TaskDist, learner: Learner, *, sets: tuple[str, ...], baselines: tuple[str, ...], episodes: int,
         block: int, chunk: int, seed: int) -> Evaluator:
    """Evaluates `episodes` frozen episodes of each set in `sets`, `chunk` at a time.

    A set is a split of the task, or `pool:NAME`: the split `new` over dataset NAME, loaded when it is scored and left
    out, with a word, where it is not on this machine.

    Episodes are a function of (task, seed, block), see `Frozen`. Classification tasks only; `baselines` are names out
    of `metalearn.measure.baselines.ALL`.
    """
    positive(episodes=episodes, block=block, chunk=chunk)
    multiple_of("chunk", chunk, episodes=episodes)
    require(block % chunk == 0 or chunk % block == 0, "chunk", chunk, f"must divide block={block} or be divided by it")
    require(len(sets) > 0, "sets", sets, "must name at least one split")
    for name in sets:
        known = datasets.made_or_listed() if name.startswith(POOL) and task.pool else ()
        if not known or not datasets.is_own(name.removeprefix(POOL)):
            one_of((*task.splits, *(POOL + dataset for dataset in known)), sets=name)
    for name in baselines:
        one_of(baselines_lib.ALL, baselines=name)
    ways = task.spec.outputs

    score = lambda params, carry, batch: _score(params, carry, batch, learner.predict)

    @functools.cache
    def frozen(split):
        """(episodes, baseline hits, scored positions, repeats) of one set: computed once per process."""
        of, split = (task.pool(split.removeprefix(POOL)), "new") if split.startswith(POOL) else (task, split)
        all_of_it, hits, masks, again = frozen_lib.Frozen(of, split, episodes, chunk, seed, block), [], [], []
        for batch in all_of_it:
            hits.append(jax.device_get(_measure(batch, baselines, ways)))
            masks.append(jax.device_get(batch.mask_BT))
            again.append(repeats(jax.device_get(batch.index_BT)))
        joined = {name: np.concatenate([h[name] for h in hits]) for name in baselines}
        return all_of_it, joined, np.flatnonzero(np.concatenate(masks).min(0) > 0), np.concatenate(again)

    def run(params, carry) -> Result:
        scores, curves, drawn, absent = {}, [], {}, []
        for of in sets:
            split = POOL + os.path.basename(of) if os.path.isabs(of.removeprefix(POOL)) else of
            try:
                drawn[split], hits, scored_T, again_ET = frozen(of)
            except datasets.Absent:
                absent.append(split)
                continue
            hit_ET = np.concatenate([score(params, carry, batch) for batch in drawn[split]])
            rows = {"learner": hit_ET} | hits
            scores[split] = summaries({name: h[:, scored_T] for name, h in rows.items()}, again_ET[:, scored_T])
            if len(scored_T) > 1:
                series = [_series(name, h) for name, h in rows.items()]
                curves.append({"title": split, "x": list(range(hit_ET.shape[1])), "xlabel": "examples seen",
                               "ylabel": "accuracy", "series": series, "levels": {"chance": 1 / ways}})
        # which pools are here differs between machines, so they do not count in the hash of the whole
        own = {split: of for split, of in drawn.items() if not split.startswith(POOL)}
        digest, inputs_digest = frozen_lib.together(own or drawn)
        facts = {"seed": seed, "episodes": episodes, "block": block, "episodes_sha256": digest,
                 "inputs_sha256": inputs_digest, "set_sha256": {name: of.digest for name, of in drawn.items()},
                 "dataset_sha256": task.facts.get("sha256"), "dataset": task.facts.get("dataset"),
                 "new_dataset": task.facts.get("new_dataset"), "num_tasks": task.facts.get("num_tasks"),
                 "scores": scores, "absent": absent}
        headline = _headline(scores, 1 / ways) | {"new_dataset": task.facts.get("new_dataset"),
                                                  "episodes_sha256": digest, "inputs_sha256": inputs_digest}
        return {"headline": headline, "tables": tables(scores, absent), "curves": curves, "facts": facts}

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


def repeats(index_BT: np.ndarray) -> np.ndarray:
    """(B, T) f64: 1 where the example stood at an earlier position of its episode, 0 where not, NaN where the episode
    does not say which examples it shows."""
    same_BTT = (index_BT[:, :, None] == index_BT[:, None]) & np.tri(index_BT.shape[1], k=-1, dtype=bool)
    return np.where((index_BT < 0).any(1, keepdims=True), np.nan, same_BTT.any(2))


def summaries(rows: dict[str, np.ndarray], again_ET: np.ndarray) -> dict[str, dict]:
    """{name: summary} of hits (E, T) of the learner and the baselines on one set, from its scored positions.

    A summary has first, last, learning, fresh and final, with the half-width of the 95 % interval over episodes as
    `_ci95`. The learner's also has `best`, `ahead` and `ahead_fresh`: the best baseline and the paired difference to
    it, over all positions and over fresh ones (each to the baseline that is best there).
    """
    with_ci = lambda name, value_E: dict(zip((name, f"{name}_ci95"), statistics.interval(value_E), strict=True))
    fresh_ET = np.where(again_ET == 0, 1.0, np.nan)[:, -5:]
    known_E = ~np.isnan(fresh_ET).all(1)
    out, values = {}, {}
    for name, hit_ET in rows.items():
        hit_ET = np.asarray(hit_ET, np.float64)
        first_E, last_E, fresh_E = hit_ET[:, 0], hit_ET[:, -5:].mean(1), np.full(len(hit_ET), np.nan)
        fresh_E[known_E] = np.nanmean((hit_ET[:, -5:] * fresh_ET)[known_E], 1)
        values[name] = {"last": last_E, "fresh": fresh_E}
        out[name] = with_ci("first", first_E) | with_ci("last", last_E) | with_ci("learning", last_E - first_E)
        out[name] |= {"final": hit_ET[:, -1].mean()} | (with_ci("fresh", fresh_E) if known_E.any() else {})
    for of, difference in (("last", "ahead"), ("fresh", "ahead_fresh")):
        others = [name for name in rows if name != "learner" and of in out[name]]
        if others:
            best = max(others, key=lambda name: out[name][of])
            out["learner"] |= with_ci(difference, values["learner"][of] - values[best][of]) | {f"{difference}_of": best}
    return out


def _series(name: str, hit_ET: np.ndarray) -> dict:
    mean, half = statistics.interval(hit_ET)
    return {"name": name, "y": mean, "ci95": half if name == "learner" else None, "dashed": name != "learner"}


def phase(scores: dict, chance: float) -> str | None:
    """The decision rule above; None where `seen` and `unseen` were not both measured."""
    if not {"seen", "unseen"} <= scores.keys():
        return None
    of = lambda split: scores.get(split, {}).get("learner")
    seen, unseen, new, random = of("seen"), of("unseen"), of("new"), of("seen_random_labels")
    surely = lambda s, name: s[name] - s[f"{name}_ci95"] * 1.645 / 1.96  # the lower end of the one-sided interval
    above = lambda s: s is not None and surely(s, "last") >= chance + TAU
    learns = lambda s: s is not None and surely(s, "learning") >= TAU
    if not above(seen):
        return "not trained"
    if learns(unseen):
        return ("dataset-general" if learns(new) else "general") + (", recalls" if above(random) else "")
    return "identify" if learns(seen) else "memorise"


def _headline(scores: dict, chance: float) -> dict:
    out = {}
    for split, rows in scores.items():
        label, s = LABELS.get(split, split.replace(POOL, "pool_").replace("/", "-")), rows["learner"]
        out |= {f"{label}_last": s["last"], f"{label}_ci95": s["last_ci95"]}
        if not split.endswith("_labels"):  # of those only the last position is scored
            out |= {f"{label}_first": s["first"], f"learning_{label}": s["learning"]}
        out |= {f"{label}_{name}": rows[name]["last"] for name in rows if name == "1nn"}
        extra = ("fresh", "fresh_ci95", "ahead", "ahead_ci95", "ahead_of", "ahead_fresh", "ahead_fresh_ci95")
        out |= {f"{label}_{name}": s[name] for name in extra if name in s and not split.endswith("_labels")}
    for label in ("unseen", "newclass"):
        if f"{label}_last" in out:
            out[f"generalisation_{label}"] = out[f"{label}_last"] - chance
    if {"seen", "unseen"} <= scores.keys():
        out |= {"gap": out["seen_last"] - out["unseen_last"], "phase": phase(scores, chance),
                "memorisation": (out["seen_first"] - chance) / (1 - chance)}
    return out


def tables(scores: dict, absent: Sequence[str] = ()) -> list[dict]:
    """Accuracy by set, learner and baselines side by side; the second table without repeated examples.

    A star marks the winner between the learner and the best baseline, where their paired interval excludes 0. The sets
    in `absent` are named below the first.
    """
    names = list(next(iter(scores.values()), {"learner": {}}))
    made = []
    for of, ahead, title in (("last", "ahead", "accuracy on frozen episodes (last: mean of the last five positions"),
                             ("fresh", "ahead_fresh", "the same without examples that stood in the context (fresh")):
        rows = []
        for split, by_name in scores.items():
            s = by_name["learner"]
            if of not in s or (of == "fresh" and split.endswith("_labels")):
                continue
            gap, half, best = (s.get(f"{ahead}{end}") for end in ("", "_ci95", "_of"))
            winner = None if gap is None or abs(gap) <= half else "learner" if gap > 0 else best
            cells = [f"{by_name[n][of]:.3f} ± {by_name[n][f'{of}_ci95']:.3f}{' *' * (n == winner)}" for n in names]
            rows.append([split, f"{s['first']:.3f}", *cells, *([] if gap is None else [f"{gap:+.3f} ± {half:.3f}"])])
        columns = ["set", "first", f"learner, {of}", *names[1:], *(["learner - best baseline"] * (len(names) > 1))]
        made.append({"title": f"{title}; ± 95 % interval; * where the paired one excludes 0)", "columns": columns,
                     "rows": rows})
    if absent:
        made[0]["title"] += f"\nnot on this machine: {', '.join(absent)}"
    return made if made[1]["rows"] else made[:1]
