"""Memories that learn at test time: linear attention, delta rules, mesa, TTT and Titans beside a Transformer and LSTM.

  bash launch/local.sh sweep --config=configs/memories.py:cells --out=runs/cells  40 minutes; mqar, order: 30
  bash launch/local.sh sweep --config=configs/memories.py:needle --out=runs/needle    65 minutes; ablation of Titans: 25
  bash launch/local.sh --config=configs/memories.py:needle,network=titans --workdir=runs/needle      10 minutes

results/memories_cells, memories_cells_mqar, memories_mqar, memories_order, memories_needle, memories_ablation (and
_needle); docs/families/memories.md.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import common, memnet

HERE = "configs/memories.py"
SEEDS = 3  # side by side
SMALL = dict(width=32, num_heads=1, mlp=64)
CHUNKS = common.CHUNKS | SMALL
NETWORKS = {
    "window_attention": common.NETWORKS["window_attention"] | SMALL,
    "lstm": dict(name="lstm", hidden=128),
    "linear_attention": CHUNKS | dict(name="delta", decay="none", erase=False),
    "retention": CHUNKS | dict(name="delta", decay="head", erase=False),
    "delta": CHUNKS | dict(name="delta", decay="none", erase=True),
    "gated_delta": CHUNKS | dict(name="delta", decay="token", erase=True),
    "mesa": CHUNKS | dict(name="mesa", steps=16, ridge=0.25),
    "ttt": CHUNKS | dict(name="ttt", layers=1, rate=1.0),
    **{name: CHUNKS | common.TITANS | dict(variant=variant) for name, variant in (
        ("titans", "lmm"), ("titans_mac", "mac"), ("titans_mag", "mag"), ("titans_mal", "mal"))},
}
# one block, a token at a time: what a feedback model answers is then the memory alone
ONE = dict(depth=1, width=16, num_heads=1, mlp=16, conv=1)
CELLS = {name: memnet.MEMORIES[name] for name in ("lstm", "outer_lstm", "ntm", "nse")} | {
    name: NETWORKS[name] | ONE | dict(chunk=1)
    for name in ("linear_attention", "delta", "gated_delta", "ttt", "titans")}
CELLS["titans"] |= dict(persistent=0)


# of mqar, the best of .001, .003, .01 (and .03, see RATES_TRIED) at 16 pairs on other tasks and another seed
RATES = {"delta": 1e-2, "gated_delta": 1e-2, "mesa": 1e-2, "ttt": 1e-2, "lstm": 1e-2}
RATES_TRIED = (1e-3, 3e-3, 1e-2, 3e-2)
# of needle, on other tasks and seeds: of chunks of 8 and 16 (many words come twice within 16), of 16 and 64 for MAC's
# segments, of the largest step sizes .5 and .1 for MAG, whose memory ran away in one seed of three at .5
NEEDLE_FIELDS = {"titans": dict(chunk=8), "titans_mag": dict(chunk=8, rate=0.1), "titans_mac": dict(chunk=64)}


def recall(task: dict, network: str, segment: int, lengths: tuple) -> dict:
    """Whole episodes, full BPTT."""
    return dict(
        seed=0,
        init_from="",
        replicas=common.replicas(SEEDS),
        task=task,
        learner=memnet.learner(NETWORKS[network], rule="bptt", segment=segment, unroll=1),
        optim=common.adam(3e-3, clip=1.0, decay="cosine", warmup_steps=100),
        train=common.train(batch=16, steps=1500, steps_per_call=100, log_every=100, save_every=1500),
        evaluators=dict(length_generalisation=dict(name="length_generalisation", lengths=lengths, solved_bits=0.15,
                                                   episodes=256, seed=1)),
    )


def mqar(network: str = "delta") -> dict:
    """Up to 16 pairs of 64 keys and 32 values, where a head's matrix is 16 x 16; measured up to 32. On 2,000 updates
    seeds of one network differed by more than networks do."""
    task = dict(name="mqar", keys=64, values=32, max_pairs=16, task_seed=1)
    config = recall(task, network, 48, (2, 4, 8, 16, 24, 32))
    config["optim"] |= dict(lr=RATES.get(network, 3e-3))
    config["train"] |= dict(batch=32, steps=4000, save_every=4000)
    config["seed"] = 10
    return config


def needle(network: str = "gated_delta") -> dict:
    """Two digits among up to 256 words; measured up to 16,384."""
    task = dict(name="needle", haystack="drawn", words=16, sentence=16, digits=2, length=256, longest=16384,
                task_seed=0)
    config = recall(task, network, 256, (64, 256, 1024, 4096, 16384))
    config["learner"]["network"] |= NEEDLE_FIELDS.get(network, {})
    config["train"] |= dict(steps=3000, save_every=3000)
    config["evaluators"]["length_generalisation"] |= dict(episodes=64)
    return config


def cells(network: str = "delta", arm: str = "cdni") -> dict:
    """Gated recall through 12 steps, in segments of 3 (`configs/memnet.py`)."""
    config = memnet.gated_recall(arm, 12)
    config["learner"] |= dict(network=CELLS[network])
    return config


def cells_mqar(network: str = "delta", arm: str = "cdni") -> dict:
    """Up to 4 pairs of 8 keys and 4 values, in segments of 2, a pair each: no segment holds a pair and its question,
    and the mean label ahead does not say which value goes with which key. Blocks look one token back, as they must to
    bind a pair."""
    config = cells(network, arm)
    updates = 1 if arm == "bptt" else 6
    config["task"] = dict(name="mqar", keys=8, values=4, max_pairs=4, task_seed=5)
    config["seed"] = 10  # the protocol was made with others
    if network in NETWORKS and network != "lstm":
        config["learner"]["network"] |= dict(conv=2)
    config["learner"] |= dict(segment=12 if arm == "bptt" else 2)
    config["train"] |= dict(steps=1000 * updates, save_every=1000 * updates, eval_every=0, log_every=100 * updates,
                            steps_per_call=100 * updates)
    config["evaluators"] = dict(length_generalisation=dict(name="length_generalisation", lengths=(1, 2, 4),
                                                           solved_bits=0.15, episodes=512, seed=1))
    return config


TITANS_PARTS = {"Titans": {}, "linear memory": dict(layers=1), "no convolution": dict(conv=1),
                "no momentum": dict(momentum=False), "no decay": dict(decay=False),
                "no persistent tokens": dict(persistent=0)}


def ablation(network: str = "titans") -> dict:
    """Windows of 128 characters of English, the memory alone."""
    config = recall(dict(name="char_lm", length=128, task_seed=0), network, 128, ())
    config["evaluators"] = dict(by_split=dict(name="by_split", splits=(), episodes=512, chunk=128, seed=1))
    return config


def smoke(network: str = "titans_mac") -> dict:
    config = mqar(network)
    config["replicas"] = common.replicas()
    config["task"] |= dict(keys=8, values=4, max_pairs=2)
    config["learner"] |= dict(segment=6, network=NETWORKS[network] | dict(depth=1, width=4, mlp=4, chunk=4))
    config["optim"] |= dict(warmup_steps=1)
    config["train"] |= dict(batch=4, steps=4, steps_per_call=2, log_every=2, save_every=2)
    config["evaluators"]["length_generalisation"] |= dict(lengths=(2, 4), episodes=8)
    return config


def get_config(arg: str = "mqar") -> ConfigDict:
    arms = [word for word in arg.split(",") if word.startswith("arm=")]
    name, known = common.words(arg, network=CELLS if arg.startswith("cells") else NETWORKS, arm=memnet.ARMS)
    if arms and not name.startswith("cells"):
        common.refuse(arg, "arm= is for cells and cells_mqar alone")
    variants = {"mqar": mqar, "needle": needle, "cells": cells, "cells_mqar": cells_mqar, "ablation": ablation,
                "smoke": smoke}
    return ConfigDict(common.choose(name, variants, "mqar")(**known))


ARMS = ("bptt", "tbptt", "dni", "cdni")
MQAR = [name for name in NETWORKS if not name.startswith("titans_")]
ORDER = ("linear_attention", "retention", "delta", "gated_delta")  # as published, from the first that falls to the last
NEEDLE = ("window_attention", "lstm", "gated_delta", "titans", "titans_mag", "titans_mac")
# what sweeps of mqar change in it, by argument
CHANGED = {"order": {"train.steps": 12000, "train.save_every": 12000, "replicas.num": 5},
          "rates": {"task.task_seed": 4, "train.steps": 2000, "replicas.num": len(RATES_TRIED), "replicas.vary": {
              "optim.lr": RATES_TRIED, "seed": (40,) * len(RATES_TRIED)}}}


def sweep(arg: str = "mqar"):
    """mqar, needle: networks. order: mqar with three times the updates and five seeds. rates: which learning rate mqar
    gives each. cells, cells_mqar: networks by what sends them credit. ablation, ablation_needle: parts of Titans."""
    if arg in ("", "mqar", "order", "rates"):
        for name in ORDER if arg == "order" else MQAR:
            size = {"learner.network.hidden": 64} if name == "lstm" else {"learner.network.width": 16}
            size |= {"learner.network.window": 96} if name == "window_attention" else {}  # all of the episode
            yield {"_label": name, "_config": f"{HERE}:mqar,network={name}"} | size | CHANGED.get(arg, {})
    elif arg in ("ablation", "ablation_needle"):
        long = {} if arg == "ablation" else {"train.steps": 1500, "train.save_every": 1500}
        for name, parts in TITANS_PARTS.items():
            changes = {f"learner.network.{field}": value for field, value in parts.items()}
            yield {"_label": name, "_config": f"{HERE}:{'needle,network=titans' if long else arg}"} | long | changes
    elif arg == "needle":
        yield from ({"_label": name, "_config": f"{HERE}:needle,network={name}"} for name in NEEDLE)
    elif arg == "cells":
        yield from ({"_label": f"{name} {arm}", "task.length": 12, "_config": f"{HERE}:cells,network={name},arm={arm}"}
                    for name in CELLS for arm in ARMS)
    elif arg == "cells_mqar":
        yield from ({"_label": f"{name} {arm}", "_config": f"{HERE}:{arg},network={name},arm={arm}"}
                    for name in CELLS for arm in ("bptt", "tbptt", "cdni"))
    else:
        common.choose(arg, SUMMARY, "")


SUMMARY = {**dict.fromkeys(("mqar", "order", "needle", "ablation_needle", "cells_mqar"), "tables.memories.by_length"),
           "rates": "tables.memories.by_rate", "cells": "tables.memnet.gated", "ablation": "tables.memories.by_split"}
