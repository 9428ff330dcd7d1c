"""Memory networks with synthetic gradients: a reconstruction of "Fast & Slow Learning: Incorporating Synthetic
Gradients in Neural Memory Controllers" (arXiv 2011.05438) from its abstract and sources. No number is that paper's.

  bash launch/local.sh sweep --config=configs/memnet.py:gated_recall --out=runs/gated_recall    the arms, 3 seeds each
  bash launch/local.sh --config=configs/memnet.py:cdni --workdir=runs/cdni                      one of its arms, L = 24
"""

from __future__ import annotations

import json
import os

from ml_collections import ConfigDict

from configs import common

ARMS = {
    "tbptt": dict(rule="tbptt"),
    "dni": dict(rule="synthetic"),
    "cdni": dict(rule="synthetic", feedback=dict(context="label")),
    "bptt": dict(rule="bptt"),
    "bptt_equal_updates": dict(rule="bptt_equal_updates"),
}
LENGTHS = (12, 24, 48)
BATCHES = 1500


def get_config(arg: str = "") -> ConfigDict:
    variants = {f.__name__: f for f in (gated_recall, cost, copy, repeat_copy, ntm_copy, associative_recall,
                                        omniglot_online, rare_stream, digits_stream, smoke)}
    variants |= {"omniglot_lstm": lambda: omniglot_online("lstm")}
    return ConfigDict(common.choose(arg, variants, "gated_recall")())


def feedback(**changes) -> dict:
    """A linear feedback model that sees the state alone; see metalearn.learners.memnet."""
    return dict(context="none", clock=False, hidden=0, heads=(), gamma=1.0, clip=0.0, gate=False, trace=0.0, aux=0.0,
                adapter="none") | changes


def learner(network: dict, **changes) -> dict:
    return dict(name="memnet", network=network, members=(), inputs="x", rule="synthetic", window=3,
                feedback=feedback(), speeds=dict(scope="persistent", fast=1.0, slow=1.0, mix=0.5, leak=1.0, match=""),
                curriculum=dict(start=0, bits=0.15), replicas=1, unroll=4, remat=False) | changes


def optim(lr: float, feedback_lr: float, **changes) -> dict:
    """Adam for the network, Adam for its feedback model; norms are taken, and clipped, within each."""
    mine = dict(match="^(feedback|adapter)/", lr=feedback_lr, clip=0.0)
    return common.adam(lr, groups=dict(feedback=mine), **changes)


def gated_recall(arm: str = "cdni", length: int = 24) -> dict:
    """One arm: 3 seeds side by side, 64 episodes each per batch, evaluated every 50 batches."""
    changes = dict(ARMS[arm])
    changes["feedback"] = feedback(**changes.get("feedback", {}))
    updates = 1 if arm == "bptt" else length // 3
    every = 50 * updates
    return dict(
        seed=0,
        init_from="",
        task=dict(name="gated_recall", symbols=8, length=length, rare_frac=0.1, task_seed=0),
        learner=learner(dict(name="gated", width=8, bias=-3.0), replicas=3, window=3, **changes),
        optim=optim(5e-3, 5e-3, clip=0.0),
        train=common.train(batch=192, steps=BATCHES * updates, steps_per_call=every, log_every=every,
                           save_every=BATCHES * updates, eval_every=every),
        evaluators=dict(rare=dict(name="rare_recall", split="balanced", episodes=512, seed=1)),
    )


def cost(rule: str = "synthetic", length: int = 256) -> dict:
    """One update of an NSE memory and its compiled working memory: flat in L for window rules, growing for BPTT."""
    config = gated_recall("cdni", length)
    config["learner"] |= dict(rule=rule, window=16, replicas=1,
                              network=dict(name="nse", slots=32, width=16, hidden=32, controller="lstm",
                                           similarity="dot", memory="learned"))
    config["train"] |= dict(batch=16, steps=1, steps_per_call=1, log_every=1, save_every=1, eval_every=0)
    config["evaluators"] = dict(cost=dict(name="update_cost", batch=16, repeats=20, positions=16))
    return config


def copying(task: dict, network: dict, **changes) -> dict:
    """Bits out, an answer per row; the curriculum is off unless asked for."""
    lengths = tuple(range(1, 2 * task["max_length"] + 1))
    return dict(
        seed=0,
        init_from="",
        task=dict(name="copy", exact=False, task_seed=0) | task,
        learner=learner(network, **changes),
        optim=optim(1e-3, 1e-4, clip=1.0),
        train=common.train(batch=96, steps=20000, steps_per_call=200, log_every=1000, save_every=20000),
        evaluators=dict(lengths=dict(name="lengths", lengths=lengths, solved_bits=0.15, episodes=128, seed=1)),
    )


LSTM = dict(name="lstm", hidden=64)
NTM = dict(name="ntm", slots=32, width=12, hidden=64, reads=1, controller="lstm", memory="learned", shifts=1)


def copy() -> dict:
    """A window shorter than the dependency: the level rises by one when the loss falls below .15 bit."""
    return copying(dict(bits=4, max_length=16, repeats=1, exact=True), LSTM, replicas=3, window=4,
                   feedback=feedback(gamma=0.9, clip=1.0), curriculum=dict(start=2, bits=0.15))


def repeat_copy() -> dict:
    config = copy()
    config["task"] |= dict(max_length=8, repeats=3)
    config["evaluators"]["lengths"] |= dict(lengths=tuple(range(1, 17)))
    return config


def ntm_copy() -> dict:
    """NTM, full BPTT, trained up to 10 rows, measured up to 20."""
    config = copying(dict(bits=4, max_length=10, repeats=1), NTM, rule="bptt", window=21)
    config["optim"] |= dict(clip=10.0, lr=2e-3)
    config["train"] |= dict(batch=32, steps=4000)
    return config


def associative_recall() -> dict:
    """NTM, full BPTT, trained on 2..6 items of 3 x 6 bits, measured up to 12."""
    config = ntm_copy()
    config["task"] = dict(name="associative_recall", bits=6, rows=3, max_items=6, task_seed=0)
    config["learner"] |= dict(window=31)
    config["evaluators"]["lengths"] |= dict(lengths=tuple(range(2, 13)))
    return config


MANN = {"MANN, a public reimplementation": {"1": 0.356, "2": 0.888, "5": 0.973, "10": 0.976},
        "LSTM, the same": {"1": 0.233, "2": 0.590, "5": 0.708, "10": 0.723}}


def omniglot_online(network: str = "lrua") -> dict:
    """5-way, one-hot labels one step late, 50 steps; batch 16, Adam 1e-3, full BPTT as MANN trains."""
    nets = {"lrua": dict(name="lrua", slots=128, width=40, hidden=200, reads=4, controller="lstm", memory="constant",
                         decay=0.95),
            "lstm": dict(name="lstm", hidden=200)}
    return dict(
        seed=0,
        init_from="",
        task=dict(name="omniglot_stream", pool="omniglot", train="train", test="test", image_size=20, ways=5,
                  shots=10, rare_ways=0, rare_shots=0, rotate=True, task_seed=0),
        learner=learner(nets[network], inputs="x_and_last_label", rule="bptt", window=10),
        optim=optim(1e-3, 1e-4, clip=10.0),
        train=common.train(batch=16, steps=100000, steps_per_call=100, log_every=500, save_every=5000, eval_every=5000),
        evaluators=dict(instances=dict(name="instances", split="test", upto=10, episodes=512, chunk=128, seed=1,
                                       targets=MANN)),
    )


def rare_stream() -> dict:
    """A stream in which a tenth of what is shown is a rare class: five labels nine times each, one five times."""
    config = omniglot_online()
    config["task"] |= dict(ways=6, shots=9, rare_ways=1, rare_shots=5)
    config["evaluators"]["instances"] |= dict(upto=5, targets={})
    return config


def digits_stream() -> dict:
    """`omniglot_online` in small, on the built-in digits: three of five classes to learn from, five new ones."""
    config = omniglot_online()
    config["task"] |= dict(pool="digits", train="classes:0-4", test="classes:5-9", image_size=0, ways=3, shots=5)
    config["learner"]["network"] |= dict(slots=16, width=12, hidden=32, reads=1)
    config["train"] |= dict(steps=3000, save_every=3000, eval_every=1000)
    config["evaluators"]["instances"] |= dict(upto=5, targets={})
    return config


def smoke() -> dict:
    config = gated_recall("cdni", 6)
    config["learner"] |= dict(network=dict(name="nse", slots=4, width=5, hidden=6, controller="lstm", similarity="dot",
                                           memory="learned"), replicas=2)
    config["train"] |= dict(batch=8, steps=4, steps_per_call=2, log_every=2, save_every=2, eval_every=0)
    config["evaluators"]["rare"] |= dict(episodes=16)
    return config


def sweep(arg: str = "gated_recall"):
    """gated_recall: arms x lengths. cost: rules x lengths. copies: rules x windows. omniglot_online: LRUA and LSTM."""
    if arg in ("", "gated_recall"):
        for length in LENGTHS:
            for arm in ARMS:
                flat = gated_recall(arm, length)
                train = flat["train"]
                paced = ("steps", "steps_per_call", "log_every", "save_every", "eval_every")
                yield {"task.length": length, "learner.rule": flat["learner"]["rule"],
                       "learner.feedback.context": flat["learner"]["feedback"]["context"],
                       **{f"train.{k}": train[k] for k in paced}}
    elif arg in ("copy", "repeat_copy"):
        for window in (2, 3, 4, 5):
            for rule in ("tbptt", "synthetic"):
                yield {"learner.window": window, "learner.rule": rule}
    elif arg == "cost":
        for length in (256, 1024, 4096):
            for rule in ("tbptt", "synthetic", "bptt"):
                yield {"task.length": length, "learner.rule": rule,
                       "evaluators.cost.positions": length if rule == "bptt" else 16}
    elif arg == "omniglot_online":
        yield {}
        yield {"_config": os.path.abspath(__file__) + ":omniglot_lstm"}
    else:
        known = ("gated_recall", "cost", "copy", "repeat_copy", "omniglot_online")
        common.choose(arg, dict.fromkeys(known), "")


def summarise(results, arg: str = "gated_recall") -> dict:
    """The arms of gated recall in one table: rare and common accuracy, and batches until they reach .9."""
    if arg == "cost":
        table = {name: {f"{o['learner.rule']} L={o['task.length']}": h[name] for o, h, _ in results}
                 for name in ("temp_bytes", "ms_per_update", "positions_per_second", "compile_seconds")}
        rows = [[o["learner.rule"], o["task.length"], h["temp_bytes"], h["ms_per_update"]] for o, h, _ in results]
        return {"headline": table, "tables": [{"title": "one update, NSE memory", "rows": rows,
                                               "columns": ["rule", "L", "temp bytes", "ms"]}]}
    if arg == "omniglot_online":
        names = ("LRUA memory", "LSTM")
        return {"headline": {n: {k: v for k, v in h.items() if k.startswith("instance_")}
                             for n, (_, h, _) in zip(names, results, strict=False)}}
    if arg not in ("", "gated_recall"):
        return {"headline": {"longest_solved": [[o, h.get("longest_solved")] for o, h, _ in results]}}
    headline = {"rare_accuracy": {}, "common_accuracy": {}, "batches_to_90": {}, "batches_to_90_common": {}}
    rows = []
    for overrides, result, workdir in results:
        rule, length = overrides["learner.rule"], overrides["task.length"]
        arm = {"synthetic": "cdni" if overrides["learner.feedback.context"] == "label" else "dni"}.get(rule, rule)
        updates = 1 if arm == "bptt" else length // 3
        with open(os.path.join(workdir, "eval", "history.jsonl"), encoding="utf-8") as file:
            history = [json.loads(line) for line in file]
        found = {kind: _median_batches(history, kind, updates) for kind in ("common", "rare")}
        for name, value in (("rare_accuracy", result["rare_by_seed"]), ("common_accuracy", result["common_by_seed"])):
            headline[name].setdefault(arm, {})[str(length)] = sum(value) / len(value)
        headline["batches_to_90"].setdefault(arm, {})[str(length)] = found["rare"]
        headline["batches_to_90_common"].setdefault(arm, {})[str(length)] = found["common"]
        rows.append([str(length), arm, _interval(result["common_by_seed"]), _interval(result["rare_by_seed"]),
                     str(found["common"] or "never"), str(found["rare"] or "never")])
    table = {"title": "gated recall, window 3: 3 seeds, ± 95 % interval over seeds; median batches to .9",
             "columns": ["L", "arm", "common", "rare", "batches, common", "batches, rare"], "rows": rows}
    return {"headline": headline, "tables": [table]}


def _median_batches(history: list[dict], kind: str, updates: int) -> int | None:
    """Batches until accuracy .9, median over seeds; None where more than half of the seeds never got there."""
    never, seeds = float("inf"), len(history[0][f"{kind}_by_seed"])
    reached = sorted(min((h["step"] // updates for h in history if h[f"{kind}_by_seed"][seed] >= 0.9), default=never)
                     for seed in range(seeds))
    return None if reached[seeds // 2] == never else reached[seeds // 2]


def _interval(v: list[float]) -> str:
    mean = sum(v) / len(v)
    return f"{mean:.3f} ± {1.96 * (sum((x - mean) ** 2 for x in v) / (len(v) - 1) / len(v)) ** 0.5:.3f}"
