"""General-purpose in-context learning (arXiv 2212.04458): meta-train a sequence model to learn from examples.

  bash launch/local.sh --config=configs/gpicl.py:digits --workdir=runs/gpicl         1 minute on two cores
  bash launch/local.sh sweep --config=configs/gpicl.py:phases --out=runs/phases      K from 1 to unlimited, 12 minutes
  bash launch/local.sh sweep --config=configs/gpicl.py:models --out=runs/models      every learner, 60 minutes

Sweeps plateau (45), states, widths (30), projections (18), mnist_small (55): minutes of a core. Also smoke; mnist and
paper, for a GPU, not run. Another network or learner is one more word, as in digits,network=ntm or digits,learner=maml.

  results/gpicl_digits: unseen 0.853 ± 0.010
  results/gpicl_phases: L(unseen) at unlimited K 0.615
  results/gpicl_models: vsml 0.846 ± 0.007
  results/gpicl_mnist: MNIST 0.607 ± 0.043

What was tried and did not help: docs/notes/gpicl.md.
"""

from ml_collections import ConfigDict

from configs import common

TASKS = (*(2**e for e in (0, 3, 5, 6, 7, 8, 9, 10, 12)), 0)  # K of the phase diagram
RECALL = ("seen_random_labels", "seen_relabelled", "seen_old_labels")
CONTROLS = ("unseen_random_labels", *RECALL)
POOLS = tuple(f"pool:{name}" for name in ("textures", "blobs", "mnist", "fashion_mnist", "emnist/letters", "omniglot"))


def get_config(arg: str = "") -> ConfigDict:
    """ARG is VARIANT[,network=NAME][,learner=incontext|sgd|maml], in any order."""
    name, words = common.words(arg, network=NETWORKS, learner=LEARNERS)
    variants = dict(digits=digits, smoke=smoke, phases=phases, mnist=mnist, mnist_small=mnist_small, paper=paper,
                    models=models, mixture=mixture, layouts=layouts, shifted=shifted, layouts_shifted=layouts_shifted,
                    **dict.fromkeys(ARMS, brief))
    config = common.choose(name, variants, "digits")()
    if words.get("learner", "incontext") != "incontext":
        if "network" in words:
            common.refuse(arg, f"learner={words['learner']} takes no network")
        return ConfigDict(online(config, **LEARNERS[words["learner"]]))
    return ConfigDict(of_network(config, words["network"]) if "network" in words else config)


def digits() -> dict:
    """The main job: scikit-learn's 8x8 digits, classes 0-4 for meta-training, 5-9 never used."""
    sets = ("seen", "seen_image", "unseen", "new", "random", "identity", *CONTROLS, *POOLS)
    return dict(
        seed=0,
        init_from="",
        replicas=common.replicas(),
        task=dict(name="projected", dataset="digits", split_by="class", train_classes=5, heldout_frac=0.22,
                  new_dataset="",
                  image_size=0, channels=0, pca=32, ways=5, length=20, num_tasks=0, bias=0.0, random_points=10,
                  task_seed=0, mixture=(), spectra=0.0, projection="gaussian"),
        learner=dict(name="incontext", layout="query", dtype="float32",
                     network=dict(common.NETWORKS["transformer"])),
        optim=common.adam(1e-3, warmup_steps=100),
        train=common.train(batch=64, steps=2000),
        evaluators=dict(curves=dict(name="learning_curves", sets=sets, episodes=1024, block=256, chunk=256, seed=1,
                                    baselines=("1nn", "class_mean", "lda", "ridge", "rbf_ridge",
                                               "online_softmax"))),
    )


def smoke() -> dict:
    """The same in seconds."""
    config = digits()
    config["task"] |= dict(pca=8, length=6)
    config["learner"]["network"] |= dict(depth=1, width=16, num_heads=2, mlp=32)
    config["optim"] |= dict(warmup_steps=1)
    config["train"] |= dict(batch=8, steps=4, steps_per_call=2, log_every=2, save_every=2)
    config["evaluators"]["curves"] |= dict(episodes=32, block=16, chunk=16, sets=("seen", "unseen"), baselines=("1nn",))
    return config


def phases() -> dict:
    """One run of the K-sweep: 1,500 updates, evaluated every 250."""
    config = digits()
    config["learner"]["layout"] = "previous_example"
    config["train"] |= dict(steps=1500, save_every=1500, eval_every=250)
    config["evaluators"]["curves"] |= dict(sets=("seen", "unseen", "new", "random", *RECALL), baselines=("1nn",))
    return config


def layouts() -> dict:
    """Layout `query`, for `layouts_shifted` to be compared with: 3,000 updates, measured as they go."""
    config = digits()
    config["learner"]["network"] |= dict(depth=3, width=128, mlp=512)
    config["optim"] |= dict(decay="cosine")
    config["train"] |= dict(steps=3000, save_every=3000, eval_every=500)
    config["evaluators"]["curves"] |= dict(sets=("seen", "unseen", "new", "random"), baselines=("1nn",))
    return config


def shifted(make=None) -> dict:
    """The main job in the paper's layout, one token an example, which must know the order of tokens."""
    config = make() if make else digits()
    config["learner"]["layout"] = "shifted"
    config["learner"]["network"] |= dict(positions=True)
    return config


def layouts_shifted() -> dict:
    """The paper's layout with the network of `layouts` and as many tokens in an update, so with twice the episodes."""
    config = shifted(layouts)
    config["train"] |= dict(batch=128)
    return config


def brief() -> dict:
    """One run of `states`, `plateau` or `widths`."""
    config = phases()
    config["train"] |= dict(steps_per_call=25, log_every=50, eval_every=50)
    config["evaluators"]["curves"] |= dict(sets=("seen", "unseen", "new", "random"), episodes=512)
    return config


def mixture() -> dict:
    """Meta-trained on several datasets, so as not to lose on foreign ones. Made on emnist/letters and cifar_fs."""
    config = digits()
    config["task"] |= dict(mixture=("strokes", "textures", "blobs"), spectra=0.5)
    config["optim"] |= dict(lr=3e-3, decay="cosine")
    config["train"] |= dict(batch=32, steps=8000, steps_per_call=100, log_every=200, save_every=8000)
    config["evaluators"]["curves"]["sets"] = (
        "seen", "unseen", "new", "random", *(name for name in POOLS if name != "pool:emnist/letters"))
    return config


def models() -> dict:
    """One run of the sweep over learners: the main job with half the batch, three seeds side by side."""
    config = digits()
    config["replicas"] = common.replicas(3)
    config["train"] |= dict(batch=32)
    config["evaluators"]["curves"] |= dict(sets=("seen", "unseen", "new", "random"), episodes=512, baselines=("1nn",))
    return config


def mnist() -> dict:
    """One GPU: 14x14 MNIST, the paper's layout, T = 100, 2**25 tasks, biased permutations. Not run."""
    config = digits()
    config["task"] |= dict(dataset="mnist", split_by="dataset", new_dataset="fashion_mnist", train_classes=0,
                           image_size=14,
                           pca=0, ways=10, length=100, num_tasks=2**25, bias=0.9, projection="binomial")
    config["learner"] |= dict(layout="shifted", dtype="bfloat16")
    config["learner"]["network"] |= dict(depth=4, width=256, num_heads=8, mlp=1024, positions=True)
    config["optim"] = common.adam(3e-4, warmup_steps=1000, eps=1e-10)
    config["train"] |= dict(batch=512, steps=30_000, log_every=100, save_every=1000, eval_every=5000)
    config["evaluators"]["curves"] |= dict(chunk=64)
    return config


def mnist_small() -> dict:
    """The same for one core: T = 50, batches of 64, three blocks of 128 units. Biased permutations take it off its
    plateau; the sweep then goes on without the bias."""
    config = mnist()
    config["task"] |= dict(length=50)
    config["learner"] |= dict(dtype="float32")
    config["learner"]["network"] |= dict(depth=3, width=128, mlp=512, num_heads=4)
    config["optim"] = common.adam(1e-3, warmup_steps=100)
    config["train"] |= dict(batch=64, steps=3000, save_every=3000, eval_every=500)
    config["evaluators"]["curves"] |= dict(sets=("unseen", "new", "random"), episodes=512, chunk=128,
                                           baselines=("1nn", "lda", "rbf_ridge"))
    return config


def paper() -> dict:
    """The paper's setting at 32x32x3, 100,000 updates. Not run."""
    config = mnist()
    config["task"] |= dict(image_size=32, channels=3)
    config["train"] |= dict(batch=128, steps=100_000)
    config["optim"] |= dict(eps=1e-8)
    config["evaluators"]["curves"] |= dict(chunk=16)
    return config


NETWORKS = tuple(name for name in common.NETWORKS if name != "gated")  # its marker is in no task here
LEARNERS = {"incontext": {}, "sgd": dict(meta=False, steps=50), "maml": dict(meta=True, steps=1000)}


def of_network(config: dict, name: str) -> dict:
    """Another network on the same task, in a layout that it can read."""
    config["learner"]["network"] = dict(common.NETWORKS[name])
    if name == "transformer":
        return config
    if name.startswith("vsml"):
        config["learner"] |= dict(layout="shifted")
        config["train"] |= dict(batch=min(config["train"]["batch"], 16))
    elif config["learner"]["layout"] == "query":
        config["learner"] |= dict(layout="previous_example")
    config["evaluators"]["curves"] |= dict(sets=tuple(
        name for name in config["evaluators"]["curves"]["sets"] if name in ("seen", "unseen", "new", "random")))
    return config


def online(config: dict, meta: bool, steps: int) -> dict:
    """Gradient descent along the episode, from weights that are meta-learned (MAML) or drawn."""
    config["learner"] = dict(name="online", hidden=(), inner_optimiser="adam", inner_lr=1e-2, meta=meta)
    config["train"] |= dict(steps=min(steps, config["train"]["steps"]), save_every=1000)
    config["optim"] |= dict(warmup_steps=0)
    return config


MODELS = {name: f"models,network={name}" for name in NETWORKS} | {
    name: f"models,learner={name}" for name in LEARNERS if name != "incontext"}


# what the sweeps of arms vary, one thing at a time; three seeds of each side by side
ARMS = {
    "states": {f"{kind} {size}": {"_config": f"configs/gpicl.py:states,network={kind}",
                                  f"learner.network.{field}": size, "train.eval_every": 250}
               for kind, field, sizes in (("lstm", "hidden", (16, 32, 64, 128, 256)),
                                          ("outer_lstm", "size", (4, 8, 16, 24, 32))) for size in sizes},
    "plateau": ({f"batch {batch}": {"train.batch": batch} for batch in (8, 16, 32, 64, 128)}
                | {f"bias {bias}": {"task.bias": bias} for bias in (0.5, 0.9)}
                | {f"eps {eps:.0e}": {"optim.eps": eps} for eps in (1e-10, 1e-5, 1e-3)}
                | {f"sign momentum {lr:.0e}": {"optim.name": "sign_momentum", "optim.lr": lr} for lr in (1e-4, 3e-4)}),
    "widths": {f"width {width} K {num or 'unlimited'}": {
        "learner.network.width": width, "learner.network.mlp": 4 * width, "task.num_tasks": num,
        "train.eval_every": 250} for width in (16, 32, 64, 128) for num in (64, 128, 256, 0)},
    # seeds on which nothing was tuned; and the phases, from K = 64, below which nothing is learned but the tasks
    "projections": {f"{kind} main job": {"_config": "configs/gpicl.py:digits", "seed": 10, "replicas.num": 5,
                                         "task.projection": kind} for kind in ("gaussian", "binomial")} | {
        f"{kind} K {num or 'unlimited'}": {"seed": 10, "task.projection": kind, "task.num_tasks": num,
                                           "train.eval_every": 250}
        for num in (64, 128, 256, 1024, 0) for kind in ("gaussian", "binomial")},
}


def sweep(arg: str = "phases"):
    """phases: K from 1 to unlimited, side by side, three seeds at each. models: every
    learner, three seeds. mixture, layouts, mnist_small: three seeds. states, plateau, widths, projections: see ARMS."""
    common.choose(arg, SUMMARY, "")
    if arg in ARMS:
        for label, changes in ARMS[arg].items():
            yield {"_label": label, "replicas.num": 3, "replicas.at_once": 1} | changes
        return
    if arg == "mixture":
        yield from ({"_label": f"mixture, seed {seed}", "seed": seed} for seed in range(3))
        return
    if arg == "mnist_small":  # seeds on which nothing was tuned; what bias is for, on the first of them
        uniform = {"task.bias": 0.0, "optim.decay": "cosine", "train.steps": 5000, "train.save_every": 5000}
        for seed in (10, 11, 12):
            yield {"_label": f"biased, seed {seed}", "seed": seed}
            yield {"_label": f"then uniform, seed {seed}", "seed": seed, "_stage": 1,
                   "init_from": f"{{run:biased, seed {seed}}}"} | uniform
        yield {"_label": "uniform alone, seed 10", "seed": 10, "_stage": 2} | uniform
        return
    if arg == "layouts":  # seeds on which nothing was tuned
        for seed in (10, 11, 12):
            yield {"_label": f"query, seed {seed}", "seed": seed}
            yield {"_label": f"shifted, seed {seed}", "seed": seed, "_config": "configs/gpicl.py:layouts_shifted"}
        return
    if arg == "models":
        yield from ({"_label": label, "_config": f"configs/gpicl.py:{model}"} for label, model in MODELS.items())
        return
    for seed in range(3):  # one program each
        vary = {"task.num_tasks": TASKS, "seed": (seed,) * len(TASKS)}
        yield {"_label": f"every K, seed {seed}", "replicas.num": len(TASKS), "replicas.at_once": 1,
               "replicas.vary": vary}


SUMMARY = {"phases": "tables.gpicl.phases", "models": "tables.gpicl.models", "mixture": "tables.gpicl.pools",
           "mnist_small": "tables.gpicl.examples",
           **dict.fromkeys(("layouts", *ARMS), "tables.gpicl.arms"), "widths": "tables.gpicl.grid"}
