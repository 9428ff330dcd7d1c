"""Working and long-term memories: a Transformer, with PMI's memories, with a shared workspace; a global workspace.

  bash launch/local.sh sweep --config=configs/reasoning.py:clevr --out=runs/clevr     50 minutes; babi 55 (two cores)
  bash launch/local.sh sweep --config=configs/reasoning.py:addition --out=runs/addition      3 minutes; triangle 10
  bash launch/local.sh --config=configs/reasoning.py:babi,network=pmi --config.task.source=made_up --workdir=runs/babi

Tasks, the evaluator and the global workspace lie in configs/tasks, configs/evaluators and configs/networks: entries of
an experiment's own need no change of the library. results/reasoning_*; docs/families/memories.md.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import common, memnet

HERE = "configs/reasoning.py"
SEEDS = 3  # side by side
BLOCKS = dict(depth=2, width=64, num_heads=4, mlp=128, conv=4)
PMI = BLOCKS | dict(name="pmi", slots=8, long=5, top=5, keep=0.7, outer="code", reads="corrected")
NETWORKS = {
    "transformer": BLOCKS | dict(name="window_attention"),
    "wide": BLOCKS | dict(name="window_attention", mlp=768),  # as many parameters as with PMI
    "pmi": PMI,
    "workspace": PMI | dict(reads="working"),  # a shared workspace: the working memory alone
    "long": PMI | dict(reads="long"),
    "uncorrected": PMI | dict(reads="sum"),
    "full": PMI | dict(outer="full"),
}
COUNTERS = {
    "global_workspace": dict(name="global_workspace", width=32, hidden=4, maps=1, ticks=1),
    "lstm": dict(name="lstm", hidden=64),
    "transformer": dict(name="transformer", depth=2, width=64, num_heads=4, mlp=128, positions=False, remat="none"),
}
RATES = {"global_workspace": 1e-2, "lstm": 1e-2, "transformer": 3e-3}  # chosen with task_seed 4


def reading(task: dict, length: int, chunk: int, network: dict, **changes) -> dict:
    """Whole episodes, full BPTT; windows hold all of an episode."""
    if "conv" in network:
        network |= dict(window=length)
    if network["name"] == "pmi":
        network |= dict(chunk=chunk, top=min(5, chunk))
    return dict(
        seed=0,
        init_from="",
        replicas=common.replicas(SEEDS),
        task=task,
        learner=memnet.learner(network, rule="bptt", segment=length, unroll=1),
        optim=common.adam(1e-3, clip=1.0, decay="cosine", warmup_steps=100),
        train=common.train(**dict(batch=32, steps=5000, steps_per_call=100, log_every=100, save_every=1000) | changes),
        evaluators=dict(by_split=dict(name="by_split", splits=(), episodes=1000, chunk=250, seed=1)),
    )


EASY = (1, 6, 9, 11, 12, 13)  # one supporting fact; stories of about 100 words


def babi(network: str = "pmi") -> dict:
    """Six tasks read jointly, 12,000 stories of five questions, five times over."""
    task = dict(name="babi", source="en-10k", tasks=EASY, length=104, task_seed=0)
    return reading(task, 104, 13, dict(NETWORKS[network]), batch=32, steps=2000)


def clevr(network: str = "pmi") -> dict:
    """Images of 48 x 48 in 36 patches, twelve questions about each."""
    task = dict(name="sort_of_clevr", size=48, patch=8, questions=12, task_seed=0)
    return reading(task, 48, 12, dict(NETWORKS[network]), steps=3000)


def triangle(network: str = "pmi") -> dict:
    """Images of 32 x 32 in 16 patches."""
    return reading(dict(name="triangle", size=32, patch=8, task_seed=0), 16, 4, dict(NETWORKS[network]), steps=3000)


def addition(network: str = "global_workspace") -> dict:
    """a, b < 12 in training, up to 22 marks after it."""
    config = reading(dict(name="addition", trained=12, task_seed=0), 24, 1, dict(COUNTERS[network]), steps=4000)
    config["optim"] |= dict(lr=RATES[network])
    return config


def char_lm(network: str = "transformer") -> dict:
    return reading(dict(name="char_lm", length=128, task_seed=0), 128, 16, dict(NETWORKS[network]), steps=2000)


def smoke(network: str = "pmi") -> dict:
    """Made-up stories, four updates."""
    task = dict(name="babi", source="made_up", tasks=(1,), length=32, task_seed=0)
    small = NETWORKS[network] | dict(depth=1, width=8, num_heads=2, mlp=8)
    config = reading(task, 32, 8, small, batch=4, steps=4, steps_per_call=2, log_every=2, save_every=2)
    config["replicas"] = common.replicas()
    config["optim"] |= dict(warmup_steps=1)
    config["evaluators"]["by_split"] |= dict(episodes=8, chunk=8)
    return config


VARIANTS = {"babi": babi, "clevr": clevr, "triangle": triangle, "addition": addition, "char_lm": char_lm,
            "smoke": smoke, "clevr_parts": clevr, "triangle_parts": triangle}


def get_config(arg: str = "babi") -> ConfigDict:
    name, known = common.words(arg, network=COUNTERS if arg.startswith("addition") else NETWORKS)
    return ConfigDict(common.choose(name, VARIANTS, "babi")(**known))


READERS = ("transformer", "pmi", "workspace", "wide")
PARTS = ("pmi", "workspace", "long", "uncorrected", "full")
ARMS = {"babi": READERS, "clevr": READERS, "triangle": READERS, "addition": tuple(COUNTERS),
        "clevr_parts": PARTS, "triangle_parts": PARTS}


def sweep(arg: str = "clevr"):
    """babi, clevr, triangle, addition: one run for each network. ..._parts: PMI with a part left out or otherwise."""
    for name in common.choose(arg, ARMS, "clevr"):
        yield {"_label": name, "_config": f"{HERE}:{arg or 'clevr'},network={name}"}


SUMMARY = dict.fromkeys(ARMS, "tables.memories.by_split")
