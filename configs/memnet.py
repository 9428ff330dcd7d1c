"""Memory networks with synthetic gradients: a reconstruction of "Fast & Slow Learning: Incorporating Synthetic
Gradients in Neural Memory Controllers" (arXiv 2011.05438) from its abstract and sources. No number is that paper's.

  bash launch/local.sh sweep --config=configs/memnet.py:gated_recall --out=runs/gated_recall      2 minutes on two cores
  bash launch/local.sh --config=configs/memnet.py:ntm_copy --workdir=runs/ntm_copy                4 minutes of one core

Other sweeps, minutes of one core: shared (7), copy (16), repeat_copy (14), cost (15), omniglot_small (60), mann_parts
(60); more in configs/credit.py. Not run: strokes_stream, omniglot_online, rare_stream. Runs: associative_recall (8),
smoke, and see get_config.

  results/memnet_gated_recall: rare, cdni, L = 48 1.000

What was tried and did not help: docs/notes/memnet.md.
"""

from __future__ import annotations

import functools
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
HERE = os.path.abspath(__file__)
SEEDS = 3  # replicas, side by side in one program


def get_config(arg: str = "") -> ConfigDict:
    variants = {f.__name__: f for f in (gated_recall, cost, copy, repeat_copy, ntm_copy, associative_recall,
                                        omniglot_online, rare_stream, digits_stream, sinusoid,
                                        few_shot, few_shot_stream, smoke)}
    variants |= {"omniglot_online_lstm": lambda: omniglot_online("lstm"),
                 "omniglot_small": omniglot_small, "mann_parts": omniglot_small,
                 "omniglot_small_lstm": lambda: omniglot_small("lstm"), "strokes_stream": strokes_stream,
                 "strokes_stream_lstm": lambda: strokes_stream("lstm"), "shared": shared,
                 "shared_sizes": lambda: shared(({}, dict(width=6), dict(width=12)), "learned")}
    variants |= {f"cost_{name}": functools.partial(cost, network=network) for name, network in MEMORIES.items()}
    name, words = common.words(arg, network=common.NETWORKS)
    config = common.choose(name, variants, "gated_recall")()
    if "network" in words:
        config["learner"]["network"] = dict((common.NETWORKS | MEMORIES)[words["network"]])
    return ConfigDict(config)


def feedback(**changes) -> dict:
    """A linear feedback model that sees the state alone; see metalearn.learners.memnet."""
    return dict(context="none", time_remaining=False, hidden=0, heads=(), gamma=1.0, clip=0.0, gate=False,
                trace=0.0, aux=0.0, adapter="none") | changes


def learner(network: dict, **changes) -> dict:
    return dict(name="memnet", network=network, networks=(), inputs="x", label_scale=1.0, rule="synthetic", segment=3,
                feedback=feedback(), curriculum=dict(initial_difficulty=0, bits=0.15), unroll=4, remat=False) | changes


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
        replicas=common.replicas(SEEDS),
        task=dict(name="gated_recall", symbols=8, length=length, rare_frac=0.1, task_seed=0),
        learner=learner(dict(name="gated", width=8, bias=-3.0), segment=3, **changes),
        optim=optim(5e-3, 5e-3, clip=0.0),
        train=common.train(batch=64, steps=BATCHES * updates, steps_per_call=every, log_every=every,
                           save_every=BATCHES * updates, eval_every=every),
        evaluators=dict(rare=dict(name="rare_recall", split="balanced", episodes=512, seed=1)),
    )


def shared(networks: tuple = ({}, {}, {}), adapter: str = "none") -> dict:
    """cDNI with one feedback model for three networks, each on its own 64 episodes a batch; 3 seeds."""
    config = gated_recall("cdni", 24)
    config["learner"] |= dict(networks=networks)
    config["learner"]["feedback"] |= dict(adapter=adapter)
    config["train"] |= dict(batch=3 * 64)
    config["evaluators"]["rare"] |= dict(episodes=3 * 512)  # each network answers a third of them
    return config


SMALL_SIZES = {"lstm": dict(hidden=32), "outer_lstm": dict(size=8)} | dict.fromkeys(
    ("nse", "ntm", "lrua", "dnc"), dict(hidden=32))
MEMORIES = {name: common.NETWORKS[name] | changes for name, changes in SMALL_SIZES.items()}


COST_LENGTHS = (256, 1024, 4096)


def cost(network: dict = MEMORIES["nse"]) -> dict:
    """One update and its compiled working memory: flat in the episode's length for rules by segment, growing for BPTT.
    Steps are not unrolled: compiling would be most of the sweep."""
    config = gated_recall("cdni", 256)
    config["replicas"] = common.replicas()
    config["learner"] |= dict(rule="synthetic", segment=16, network=network, unroll=1)
    config["train"] |= dict(batch=16, steps=1, steps_per_call=1, log_every=1, save_every=1, eval_every=0)
    config["evaluators"] = dict(cost=dict(name="update_cost", batch=16, repeats=50, positions=16))
    return config


def copying(task: dict, network: dict, **changes) -> dict:
    """Bits out, an answer per row; the curriculum is off unless asked for."""
    lengths = tuple(range(1, 2 * task["max_length"] + 1))
    return dict(
        seed=0,
        init_from="",
        replicas=common.replicas(SEEDS),
        task=dict(name="copy", exact=False, task_seed=0) | task,
        learner=learner(network, **changes),
        optim=optim(1e-3, 1e-4, clip=1.0),
        train=common.train(batch=32, steps=20000, steps_per_call=200, log_every=1000, save_every=20000),
        evaluators=dict(length_generalisation=dict(name="length_generalisation", lengths=lengths, solved_bits=0.15,
                                                   episodes=128, seed=1)),
    )


SMALL = dict(name="lstm", hidden=16)
NTM = dict(name="ntm", slots=32, width=12, hidden=64, reads=1, controller="ffn", memory="learned", shifts=1)


def copy() -> dict:
    """A segment shorter than the dependency: difficulty rises by one when the loss falls below .15 bit. In small: an
    LSTM of 16 units, rows of 2 bits, 3 seeds of 32 episodes."""
    config = copying(dict(bits=2, max_length=8, repeats=1, exact=True), SMALL, segment=4,
                     feedback=feedback(gamma=0.9, clip=1.0, gate=True),
                     curriculum=dict(initial_difficulty=1, bits=0.15))
    config["optim"] = optim(3e-3, 3e-4, clip=1.0)
    config["train"] |= dict(steps=COPY_UPDATES, save_every=COPY_UPDATES, log_every=2000, steps_per_call=1000)
    return config


def repeat_copy() -> dict:
    config = copy()
    config["task"] |= dict(max_length=5, repeats=3)
    config["evaluators"]["length_generalisation"] |= dict(lengths=tuple(range(1, 11)))
    return config


COPY_UPDATES = 12000
COPY_ARMS = {
    "BPTT(T)": {"learner.rule": "tbptt"},
    "DNI": {},
    "DNI+Aux": {"learner.feedback.aux": 1.0},
    "BP(lambda)": {"learner.feedback.trace": 1.0},
}


def ntm_copy() -> dict:
    """NTM, full BPTT, trained up to 10 rows, measured up to 20; 3 seeds side by side."""
    config = copying(dict(bits=4, max_length=10, repeats=1), NTM, rule="bptt", segment=21)
    config["optim"] |= dict(clip=10.0)
    config["train"] |= dict(batch=32, steps=8000, save_every=8000)
    return config


def associative_recall() -> dict:
    """NTM that starts flat, full BPTT, trained on 2..6 items of 2 x 6 bits, measured up to 12; 3 seeds side by side."""
    config = ntm_copy()
    config["task"] = dict(name="associative_recall", bits=6, rows=2, max_items=6, task_seed=0)
    config["learner"] |= dict(segment=23, network=NTM | dict(slots=48, width=16, memory="flat"))
    config["optim"] = optim(2e-3, 2e-4, clip=10.0, decay="cosine")
    config["train"] |= dict(batch=16, steps=8000, save_every=2000, eval_every=1000)
    config["evaluators"]["length_generalisation"] |= dict(lengths=tuple(range(2, 13)))
    return config


MANN = {"MANN, a public reimplementation": {"1": 0.356, "2": 0.888, "5": 0.973, "10": 0.976},
        "LSTM, the same": {"1": 0.233, "2": 0.590, "5": 0.708, "10": 0.723}}


STREAMS = ("omniglot_online", "omniglot_small", "strokes_stream")
MANN_PARTS = {"MANN": {}, "LSTM": {}, "one head": {"learner.network.reads": 1},
              "memory starts constant": {"learner.network.memory": "constant"},
              "64 slots": {"learner.network.slots": 64}, "labels made louder": {"learner.label_scale": 5.0}}


def omniglot_online(network: str = "lrua") -> dict:
    """5-way, one-hot labels one step late, 50 steps; batch 16, Adam 1e-3, full BPTT as MANN trains."""
    nets = {"lrua": dict(name="lrua", slots=128, width=40, hidden=200, reads=4, controller="lstm", memory="flat",
                         decay=0.95, adds="own"),
            "lstm": dict(name="lstm", hidden=200)}
    return dict(
        seed=0,
        init_from="",
        replicas=common.replicas(),
        task=dict(name="omniglot_stream", dataset="omniglot", train="train", test="test", image_size=20, ways=5,
                  shots=10, rare_ways=0, rare_shots=0, rotate=True, task_seed=0),
        learner=learner(nets[network], inputs="x_and_last_label", rule="bptt", segment=10, unroll=1),
        optim=optim(1e-3, 1e-4, clip=10.0),
        train=common.train(batch=16, steps=100000, steps_per_call=100, log_every=500, save_every=5000, eval_every=5000),
        evaluators=dict(kth_presentation=dict(name="kth_presentation", split="test", upto=10, episodes=512, chunk=128,
                                              seed=1, targets=MANN)),
    )


def omniglot_small(network: str = "lrua") -> dict:
    """The same protocol with smaller images and networks and fewer episodes, for two cores. The memory keeps its four
    heads and flat start; `mann_parts` takes each away. results/memnet_omniglot_small."""
    config = omniglot_online(network)
    sizes = dict(slots=32, width=32, hidden=96) if network == "lrua" else dict(hidden=96)
    config["task"] |= dict(image_size=14)
    config["learner"]["network"] |= sizes
    config["optim"] = optim(3e-3, 3e-4, clip=10.0, decay="cosine")
    config["train"] |= dict(batch=32, steps=12000, log_every=500, save_every=2000, eval_every=1000)
    return config


def strokes_stream(network: str = "lrua") -> dict:
    """The same protocol on made-up characters of 8x8, where seeing is easier, with smaller networks."""
    config = omniglot_small(network)
    config["task"] |= dict(dataset="strokes", train="classes:0-499", test="classes:500-599", image_size=0)
    config["learner"]["network"] |= dict(hidden=64)
    config["train"] |= dict(steps=4000, save_every=1000, eval_every=500)
    config["evaluators"]["kth_presentation"] |= dict(targets={})
    return config


def rare_stream() -> dict:
    """A stream in which a tenth of what is shown is a rare class: five labels nine times each, one five times."""
    config = omniglot_online()
    config["task"] |= dict(ways=6, shots=9, rare_ways=1, rare_shots=5)
    config["evaluators"]["kth_presentation"] |= dict(upto=5, targets={})
    return config


def digits_stream() -> dict:
    """`omniglot_online` in small, on the built-in digits: three of five classes to learn from, five new ones."""
    config = omniglot_online()
    config["task"] |= dict(dataset="digits", train="classes:0-4", test="classes:5-9", image_size=0, ways=3, shots=5)
    config["learner"]["network"] |= dict(slots=16, width=12, hidden=32, reads=1)
    config["train"] |= dict(steps=3000, save_every=3000, eval_every=1000)
    config["evaluators"]["kth_presentation"] |= dict(upto=5, targets={})
    return config


def _brief(length: int, **changes) -> dict:
    """A run of 400 batches of `gated_recall`, measured every 20."""
    steps, every = 400 * length // 3, 20 * length // 3
    return {"train.steps": steps, "train.save_every": steps, "train.log_every": every, "train.steps_per_call": every,
            "train.eval_every": every} | changes


def sinusoid() -> dict:
    """Sine waves from 10 points: x with y, then x alone. Tasks never repeat, so the logged loss is the error on new
    ones."""
    config = digits_stream()
    config["task"] = dict(name="sinusoid", shots=10, queries=10, amplitude=(0.1, 5.0), phase=(0.0, 3.14159),
                          x_range=(-5.0, 5.0), noise=0.0, num_tasks=0, task_seed=0)
    config["learner"] |= dict(inputs="x_and_shown_label", network=MEMORIES["nse"], segment=5)
    config["train"] |= dict(batch=32, eval_every=0)
    config["evaluators"] = {}
    return config


def few_shot() -> dict:
    """5-way 1-shot on made-up characters; labels stand beside the support images."""
    config = sinusoid()
    config["task"] = dict(name="fewshot", dataset="strokes", train_split="classes:0-499", val_split="",
                          test_split="classes:500-599", new_dataset="", image_size=0, channels=0, flat=True,
                          rotations="none", ways=5, shots=1, queries=2, train_ways=0, form="support_query", num_tasks=0,
                          task_seed=0)
    config["learner"] |= dict(network=MEMORIES["lrua"])
    config["evaluators"] = dict(fewshot=dict(name="fewshot", sets=("test",), episodes=256, chunk=64, seed=1,
                                             episodes_sha256=()))
    return config


def few_shot_stream() -> dict:
    """The same characters as a stream, the label one step late."""
    config = few_shot()
    config["task"] |= dict(form="stream", shots=5, queries=1)
    config["learner"] |= dict(inputs="x_and_last_label")
    config["evaluators"] = dict(kth_presentation=dict(name="kth_presentation", split="test", upto=6, episodes=256,
                                                      chunk=64, seed=1, targets={}))
    return config


# Feedback speaks in the basis of the network that it was learned with: a gated network's embedding and readout. Sources
# learn for 400 batches, then ten fresh networks (other seeds and batches, gates as at the start and, but for `basis`,
# another basis) take over what an arm names. `feedback` without its basis is the control of a rotated model; `zero` of
# none at all.
BASIS, FEEDBACK = "net/0/(embed|readout)/", "feedback/"
PARTS = {"zero": (), "basis": (BASIS,), "feedback": (FEEDBACK,), "basis and feedback": (BASIS, FEEDBACK)}
TAKEN = {"labelled": {}, "unlabelled": {"learner.feedback.context": "none"}}
TRANSFER = {
    "three networks, one model": {"seed": 1, "_config": f"{HERE}:shared"},
    "three sizes, learned adapters": {"seed": 1, "_config": f"{HERE}:shared_sizes"},
}
for _kind, _changes in TAKEN.items():
    _gated = {"_config": f"{HERE}:gated_recall", "replicas.num": 10, "learner.feedback.gate": True,
              "learner.feedback.clip": 1.0} | _changes
    TRANSFER[f"source, {_kind}"] = _gated
    for _length in (24, 48):
        _fresh = _gated | {"seed": 100, "task.length": _length, "_stage": 1}
        TRANSFER |= {f"{_kind}, L = {_length}: {_name}": _fresh | {"optim.freeze": "^feedback/"} | (
            {"init_from": f"{{run:source, {_kind}}}::^({'|'.join(_parts)})"} if _parts else {})
            for _name, _parts in PARTS.items()}
        TRANSFER[f"{_kind}, L = {_length}: its own, learned"] = _fresh
for _name in [name for name in TRANSFER if ": basis" in name]:  # with a feedback model that goes on learning
    TRANSFER[_name + ", learned on"] = {k: v for k, v in TRANSFER[_name].items() if k != "optim.freeze"}
TRANSFER = {name: _brief(length=changes.get("task.length", 24), **changes) for name, changes in TRANSFER.items()}


def smoke() -> dict:
    config = gated_recall("cdni", 6)
    config["learner"] |= dict(network=dict(name="nse", slots=4, width=5, hidden=6, controller="lstm", similarity="dot",
                                           memory="learned"))
    config["replicas"] = common.replicas(2)
    config["train"] |= dict(batch=4, steps=4, steps_per_call=2, log_every=2, save_every=2, eval_every=0)
    config["evaluators"]["rare"] |= dict(episodes=16)
    return config


def _arm(arm: str, length: int) -> dict:
    flat = gated_recall(arm, length)
    paced = ("steps", "steps_per_call", "log_every", "save_every", "eval_every")
    return {"_label": f"{arm}, L={length}", "task.length": length, "learner.rule": flat["learner"]["rule"],
            "learner.feedback.context": flat["learner"]["feedback"]["context"],
            **{f"train.{k}": flat["train"][k] for k in paced}}


def sweep(arg: str = "gated_recall"):
    """gated_recall: arms x lengths, two more networks at 24. copy, repeat_copy: rules x segments. shared: transferred
    and joint feedback. cost: rules x lengths, then every memory. The streams: memory and LSTM, three seeds.
    mann_parts: one thing changed at a time, a quarter of the updates."""
    if arg in ("", "gated_recall"):
        for length in LENGTHS:
            yield from (_arm(arm, length) for arm in ARMS)
        for network in ("lstm", "nse"):
            for arm in ARMS:
                yield _arm(arm, 24) | {"_label": f"{network} {arm}, L=24",
                                       "_config": f"{HERE}:gated_recall,network={network}"}
    elif arg in ("copy", "repeat_copy"):
        for segment in (2, 3, 4, 5):
            for arm, changes in COPY_ARMS.items():
                yield {"_label": f"{arm}, T={segment}", "learner.segment": segment} | changes
    elif arg == "shared":
        yield from ({"_label": label} | run for label, run in TRANSFER.items())
    elif arg == "cost":
        for length in COST_LENGTHS:
            for rule in ("tbptt", "synthetic", "bptt"):
                whole = {"evaluators.cost.positions": length, "evaluators.cost.repeats": 3} if rule == "bptt" else {}
                yield {"_label": f"nse L={length}, {rule}", "task.length": length, "learner.rule": rule} | whole
        for name in MEMORIES:
            yield {"_label": f"{name}, synthetic", "_config": f"{HERE}:cost_{name}", "learner.rule": "synthetic"}
    elif arg in STREAMS:
        for seed in range(SEEDS):
            yield {"_label": f"MANN, seed {seed}", "seed": seed}
            yield {"_label": f"LSTM, seed {seed}", "seed": seed, "_config": f"{HERE}:{arg}_lstm"}
    elif arg == "mann_parts":
        short = {"train.steps": 3000, "train.eval_every": 3000, "train.save_every": 3000}
        for label, changes in MANN_PARTS.items():
            network = {} if label != "LSTM" else {"_config": f"{HERE}:omniglot_small_lstm"}
            for seed in range(SEEDS):
                yield {"_label": f"{label}, seed {seed}", "seed": seed} | network | short | changes
    else:
        known = ("gated_recall", "cost", "copy", "repeat_copy", "shared", "mann_parts", *STREAMS)
        common.choose(arg, dict.fromkeys(known), "")


SUMMARY = {"gated_recall": "tables.memnet.gated", "copy": "tables.memnet.copy", "repeat_copy": "tables.memnet.copy",
           "shared": "tables.memnet.shared", "cost": "tables.memnet.cost",
           **dict.fromkeys((*STREAMS, "mann_parts"), "tables.memnet.streams")}
