"""Memories that learn at test time: linear attention, delta rules, mesa, TTT and Titans beside a Transformer and LSTM.

  python -m metalearn.sweep --config=configs/memories.py:mqar --out=runs/mqar            # minutes in docs/memory.md
  python -m metalearn.train --config=configs/memories.py:needle,network=titans --workdir=runs/needle
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import common, memnet

HERE = "configs/memories.py"
SEEDS = 3
STACK = dict(depth=2, width=32, num_heads=1, mlp=64)
CONVOLVED = STACK | dict(conv=4, chunk=16)
TITANS = CONVOLVED | dict(name="titans", variant="lmm", layers=2, momentum=True, decay=True, rate=0.5, clip=1.0,
                          persistent=4, window=32)
NETWORKS = {
    "transformer": common.NETWORKS["transformer"] | STACK | dict(positions=False),
    "lstm": dict(name="lstm", hidden=64),
    "linear_attention": CONVOLVED | dict(name="linear_attention", decay="none"),
    "retention": CONVOLVED | dict(name="linear_attention", decay="head"),
    "delta": CONVOLVED | dict(name="delta", gated=False),
    "gated_delta": CONVOLVED | dict(name="delta", gated=True),
    "mesa": CONVOLVED | dict(name="mesa", iterations=8),
    "ttt": CONVOLVED | dict(name="ttt", layers=1, rate=1.0),
    "titans": TITANS,
    "titans_mac": TITANS | dict(variant="mac"),
    "titans_mag": TITANS | dict(variant="mag"),
    "titans_mal": TITANS | dict(variant="mal"),
}


def recall(task: dict, network: str, segment: int, lengths: tuple) -> dict:
    """Whole episodes, full BPTT."""
    return dict(
        seed=0,
        init_from="",
        replicas=common.replicas(),
        task=task,
        learner=memnet.learner(NETWORKS[network], rule="bptt", segment=segment, unroll=1),
        optim=common.adam(3e-3, clip=1.0, decay="cosine", warmup_steps=100),
        train=common.train(batch=32, steps=3000, steps_per_call=100, log_every=100, save_every=1000),
        evaluators=dict(length_generalisation=dict(name="length_generalisation", lengths=lengths, solved_bits=0.15,
                                                   episodes=256, seed=1)),
    )


def mqar(network: str = "delta") -> dict:
    """Up to 16 pairs of 64 keys and 32 values; measured up to 32."""
    task = dict(name="mqar", keys=64, values=32, max_pairs=16, task_seed=0)
    return recall(task, network, 48, (4, 8, 12, 16, 24, 32))


def needle(network: str = "gated_delta") -> dict:
    """Two digits among up to 256 words; measured up to 16,384."""
    task = dict(name="needle", haystack="drawn", words=16, sentence=16, digits=2, length=256, longest=16384,
                task_seed=0)
    config = recall(task, network, 256, (64, 256, 1024, 4096, 16384))
    config["train"] |= dict(batch=16)
    config["evaluators"]["length_generalisation"] |= dict(episodes=64)
    return config


def get_config(arg: str = "mqar") -> ConfigDict:
    name, known = common.words(arg, network=NETWORKS)
    return ConfigDict(common.choose(name, {"mqar": mqar, "needle": needle}, "mqar")(**known))
