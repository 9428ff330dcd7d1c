"""What configs share: parsing of their argument, and blocks that most of them start from."""

from __future__ import annotations

from metalearn.validate import ConfigError, nearest


def choose(arg: str, variants: dict, default: str):
    """The variant that `arg` names (`configs/gpicl.py:smoke`); '' is `default`, anything else is refused."""
    name = arg or default
    if name not in variants:
        raise ConfigError("--config argument", name, "must be one of " + ", ".join(variants) + nearest(name, variants))
    return variants[name]


def refuse(arg: str, why: str) -> None:
    raise ConfigError("--config argument", arg, why)


def words(arg: str, **known) -> tuple[str, dict[str, str]]:
    """('digits', {'network': 'ntm'}) of 'digits,network=ntm'; `known` {word: the values that it may have}."""
    found, plain = {}, []
    for piece in arg.split(","):
        word, eq, value = piece.partition("=")
        if not eq:
            plain.append(piece)
            continue
        if word not in known:
            raise ConfigError("--config argument", piece, "unknown word; one of " + ", ".join(f"{w}=" for w in known)
                              + nearest(word, known))
        choose(value, dict.fromkeys(known[word]), "")
        found[word] = value
    return ",".join(plain), found


# every network and backbone with its default sizes; others by fields, --config.learner.network.hidden=64
SLOTS = dict(slots=32, width=16, hidden=128, reads=1, controller="lstm")
BLOCKS = dict(depth=2, width=64, num_heads=4, mlp=256, conv=4)
CHUNKS = BLOCKS | dict(chunk=16)
TITANS = dict(name="titans", variant="lmm", layers=2, momentum=True, decay=True, rate=0.5, clip=1.0, persistent=4,
              window=32)
NETWORKS = {
    "transformer": dict(name="transformer", depth=2, width=64, num_heads=4, mlp=256, positions=False, remat="none"),
    "lstm": dict(name="lstm", hidden=128),
    "outer_lstm": dict(name="outer_lstm", size=16, num_heads=4),
    "vsml": dict(name="vsml", hidden=16, messages=8, ticks=2),
    "vsml_nosym": dict(name="vsml_nosym", grid=4, hidden=32, messages=8, ticks=2),
    "mlp": dict(name="mlp", width=128),
    "nse": dict(name="nse", slots=32, width=16, hidden=128, controller="lstm", similarity="dot", memory="learned"),
    "ntm": SLOTS | dict(name="ntm", memory="learned", shifts=1),
    "lrua": SLOTS | dict(name="lrua", memory="constant", decay=0.95, adds="own"),
    "dnc": SLOTS | dict(name="dnc", memory="constant", links=True),
    "gated": dict(name="gated", width=8, bias=-3.0),
    "global_workspace": dict(name="global_workspace", width=32, hidden=32, maps=1, ticks=1),
    "delta": CHUNKS | dict(name="delta", decay="token", erase=True),
    "mesa": CHUNKS | dict(name="mesa", steps=15, ridge=0.25),
    "ttt": CHUNKS | dict(name="ttt", layers=1, rate=1.0),
    "titans": CHUNKS | TITANS,
    "pmi": CHUNKS | dict(name="pmi", window=64, slots=8, long=5, top=5, keep=0.7, outer="code", reads="corrected"),
    "window_attention": BLOCKS | dict(name="window_attention", window=64),
}
BACKBONES = {
    "conv4": dict(name="conv4", width=32, depth=2, norm="batch", conv="patches", down="max"),
    "resnet12": dict(name="resnet12", widths=(16, 32), norm="batch", conv="patches"),
    "mlp": dict(name="mlp", widths=(64, 64)),
    "pixels": dict(name="pixels"),
}


def replicas(num: int = 1, at_once: int = 0, **vary: dict | tuple) -> dict:
    """Runs side by side in one program, with the seeds seed, seed + 1, ...

    at_once  how many are computed together; 0: all
    vary     seed=(...) or block={field: (...)}, a value for each. See metalearn.runtime.replicas
    """
    return dict(num=num, at_once=at_once, vary=vary)


def adam(lr: float, **changes) -> dict:
    """Adam with the house's defaults; see metalearn.runtime.optimiser.make."""
    return dict(name="adam", lr=lr, warmup_steps=0, decay="constant", clip=1.0, weight_decay=0.0, b1=0.9, b2=0.999,
                eps=1e-8, freeze="") | changes


def train(batch: int, steps: int, **changes) -> dict:
    """The loop: batch in tasks, everything else in updates.

    eval_every     0: evaluate at the end only
    keep           newest checkpoints kept
    max_bad_steps  non-finite updates in a row after which the run stops
    devices        0: all; a CPU counts as the number named, up to its cores: small networks gain from it
    accumulate     parts of a batch whose gradients are taken one after another, for less memory
    mesh           model: devices among which a Transformer's blocks are split; params: replicated or sharded. See
                   metalearn.runtime.sharding
    """
    return dict(batch=batch, steps=steps, steps_per_call=50, log_every=50, save_every=500, eval_every=0, keep=2,
                max_bad_steps=50, devices=0, accumulate=1, mesh=dict(model=1, params="replicated")) | changes
