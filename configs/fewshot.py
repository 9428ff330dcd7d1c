"""Few-shot learning: episodes from datasets and function families. The argument is TASK[,LEARNER].

  bash launch/local.sh --config=configs/fewshot.py:digits,maml --workdir=runs/maml                         2 minutes
  bash launch/local.sh sweep --config=configs/fewshot.py:digits --out=runs/digits          every learner, 25 minutes
  bash launch/local.sh sweep --config=configs/fewshot.py:sinusoid,maml,pretrained --out=runs/sinusoid     12 minutes
  bash launch/local.sh benchmark --memory --config=configs/fewshot.py:memory,chunked      cost of second order, 1 minute

Tasks: TASKS; learners: LEARNERS, for `memory` plain remat chunked truncated first; digits,maml,backbone=mlp swaps that,
and digits,embedded_transformer,network=lstm what reads the episode.

  results/fewshot_digits: matchingnet 93.2
  results/fewshot_omniglot_protonet: 5-way 1-shot 97.60 ± 0.04
  results/fewshot_sinusoid: MAML, 10 steps, median 0.041 ± 0.008

What was tried and did not help: docs/notes/fewshot.md.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
    arg, words = common.words(arg, backbone=common.BACKBONES, learner=LEARNERS, network=common.NETWORKS)
    task, _, learner = arg.partition(",")
    learner = words.get("learner", learner)
    make = common.choose(task, TASKS, "digits")
    config = make()
    default = "remat" if task == "memory" else "maml" if "outputs" in config else "protonet"
    config.pop("outputs", None)
    config = common.choose(learner, MEMORY if task == "memory" else LEARNERS, default)(config)
    family = "full" if task.endswith("_full") else (task or "digits").partition("_")[0]
    for field, value in TUNED.get((family, learner or default), {}).items():
        *path, last = field.split(".")
        block = config
        for name in path:
            block = block[name]
        assert last in block, field
        block[last] = value
    if "backbone" in words:
        config["learner"]["backbone"] = dict(common.BACKBONES[words["backbone"]])
    if "network" in words:
        if "network" not in config["learner"]:
            common.refuse(arg, f"learner={config['learner']['name']} takes no network")
        config["learner"]["network"] = dict(common.NETWORKS[words["network"]])
    return ConfigDict(config)


def _images(dataset: str, **changes) -> dict:
    return dict(name="fewshot", dataset=dataset, train_split="train", val_split="val", test_split="test",
                new_dataset="",
                image_size=0, channels=0, flat=False, rotations="none", ways=5, shots=1, queries=5, train_ways=0,
                form="support_query", num_tasks=0, task_seed=0) | changes


def _config(task: dict, backbone: dict, batch: int, steps: int, **evaluators) -> dict:
    return dict(seed=0, init_from="", replicas=common.replicas(), task=task, learner=dict(backbone=backbone),
                optim=common.adam(1e-3, decay="cosine"), evaluators=evaluators,
                train=common.train(batch=batch, steps=steps, steps_per_call=10))


def _accuracy(episodes: int, sha256: tuple, sets: tuple = ("test",), chunk: int = 50) -> dict:
    """Frozen episodes; `sha256` begins the hash that those of each set must have."""
    return dict(name="fewshot", sets=sets, episodes=episodes, chunk=chunk, seed=1, episodes_sha256=sha256)


def _conv4(width: int, depth: int = 4, down: str = "max") -> dict:
    return dict(name="conv4", width=width, depth=depth, norm="batch", conv="patches", down=down)


def digits() -> dict:
    """Practice on made-up characters, the exam on characters held out (and on handwritten digits): no download.
    Settings are chosen on `val` (--config.evaluators.fewshot.sets='("val",)')."""
    task = _images("strokes", train_split="classes:100-499", val_split="classes:500-599", test_split="classes:0-99",
                   new_dataset="digits")
    exam = _accuracy(600, ("c6584c1124d3ea0a", "055fc61d6c9eaa7a"), ("test", "new"))
    config = _config(task, _conv4(32, depth=2), 8, 1000, fewshot=exam)
    config["optim"] |= dict(lr=3e-3)
    config["train"] |= dict(log_every=100)
    return config


def smoke() -> dict:
    """Seconds, on scikit-learn's digits."""
    config = digits()
    config["task"] |= dict(dataset="digits", train_split="classes:0-4", val_split="", test_split="classes:5-9",
                           new_dataset="", ways=3, queries=2)
    config["learner"]["backbone"] |= dict(width=4, depth=2)
    config["train"] |= dict(batch=2, steps=4, steps_per_call=2, log_every=2, save_every=2)
    config["evaluators"]["fewshot"] |= dict(sets=("test",), episodes=8, chunk=4, episodes_sha256=())
    return config


def omniglot_5w1s() -> dict:
    """Needs data (`python -m metalearn.datasets check`); for two CPU cores, so convolutions of stride 2."""
    task = _images("omniglot", image_size=28, channels=1, rotations="all")
    config = _config(task, _conv4(64, down="stride"), 8, 6000, fewshot=_accuracy(1000, ("e592bd1e3deb9840",)))
    config["train"] |= dict(log_every=100, save_every=1000)
    return config


def omniglot_20w1s() -> dict:
    config = omniglot_5w1s()
    config["task"] |= dict(ways=20)
    config["train"] |= dict(batch=4)
    config["evaluators"]["fewshot"] |= dict(episodes_sha256=("c1b7e7c12596dd28",))
    return config


def cifar_fs_5w1s() -> dict:
    """Needs data; for two CPU cores: 32 wide, convolutions of stride 2."""
    config = _config(_images("cifar_fs", queries=15), _conv4(32, down="stride"), 4, 600,
                     fewshot=_accuracy(600, ("576ca74ef67812b7",)))
    config["optim"] |= dict(lr=3e-3)
    config["train"] |= dict(log_every=100, save_every=600)
    return config


def full(make) -> dict:
    """The papers' network and training length, for an accelerator or a night."""
    config = make()
    config["learner"]["backbone"] |= dict(width=64, down="max")
    config["optim"] |= dict(lr=1e-3)
    config["train"] |= dict(batch=16, steps=60000)
    return config


def cifar_fs_5w5s() -> dict:
    config = cifar_fs_5w1s()
    config["task"] |= dict(shots=5)
    config["evaluators"]["fewshot"] |= dict(episodes_sha256=("1fee696e8ab1cf7a",))
    return config


def transfer() -> dict:
    """Digits, turned four ways, to Fashion-MNIST and EMNIST letters, never trained on."""
    task = _images("digits", train_split="classes:0-9", val_split="trained", test_split="trained",
                   new_dataset="fashion_mnist+emnist/letters", image_size=16, channels=1, rotations="train")
    exam = _accuracy(600, ("ff9b0b4c676ffe51", "2c72fffd5fe1bd04"), ("new", "test"))
    config = _config(task, _conv4(32, depth=3, down="stride"), 8, 1000, fewshot=exam)
    config["optim"] |= dict(lr=3e-3)
    return config


def memory() -> dict:
    """The setting of the memory dial: Conv4-32 on 28x28, 8 tasks, 5-way 5-shot, 20 inner steps."""
    task = _images("digits", train_split="classes:0-4", val_split="", test_split="classes:5-9",
                   image_size=28, shots=5)
    config = _config(task, _conv4(32), 8, 2, fewshot=_accuracy(50, ()))
    config["train"] |= dict(steps_per_call=1, log_every=1, save_every=1)
    return config


def sinusoid() -> dict:
    """Sine waves from ten points (Finn et al. 2017, section 5.1)."""
    task = dict(name="sinusoid", shots=10, queries=10, amplitude=(0.1, 5.0), phase=(0.0, 3.141592653589793),
                x_range=(-5.0, 5.0), noise=0.0, num_tasks=0, task_seed=0)
    evaluator = dict(name="adaptation", split="test", steps=10, episodes=1000, chunk=100, seed=1)
    config = _config(task, dict(name="mlp", widths=(40, 40)), 25, 30000, adaptation=evaluator)
    config["optim"] |= dict(decay="constant", clip=0.0)
    config["train"] |= dict(steps_per_call=500, log_every=500, save_every=5000)
    return config | dict(outputs=1)


def sinusoid_5() -> dict:
    config = sinusoid()
    config["task"] |= dict(shots=5)
    return config


def linear() -> dict:
    config = sinusoid()
    config["train"] |= dict(steps=15000)
    config["task"] = dict(name="linear", features=4, shots=10, queries=10, noise=0.1, num_tasks=0, task_seed=0)
    return config


TASKS = dict(digits=digits, smoke=smoke, omniglot_5w1s=omniglot_5w1s, omniglot_20w1s=omniglot_20w1s,
             cifar_fs_5w1s=cifar_fs_5w1s, cifar_fs_5w5s=cifar_fs_5w5s, transfer=transfer, sinusoid=sinusoid,
             omniglot_5w1s_full=lambda: full(omniglot_5w1s), omniglot_20w1s_full=lambda: full(omniglot_20w1s),
             cifar_fs_5w1s_full=lambda: full(cifar_fs_5w1s), cifar_fs_5w5s_full=lambda: full(cifar_fs_5w5s),
             sinusoid_5=sinusoid_5, linear=linear, memory=memory)


def _with(name: str, **fields):
    return lambda config: config | dict(learner=dict(name=name, backbone=config["learner"]["backbone"], **fields))


def _maml(**changes):
    """Inner rates: .4 for images, as for Omniglot in the paper; .01 for functions, with 10 steps at most."""
    def on(config: dict) -> dict:
        images = config["task"]["name"] == "fewshot"
        fields = dict(adapt="all", context=0, inner_steps=1, eval_steps=3 if images else 10,
                      inner_lr=0.4 if images else 0.01, learn_lr=False, order="second", exact_steps=0, remat=True,
                      task_chunk=0) | changes
        return _with("maml", **fields)(config)
    return on


def _pretrained(config: dict) -> dict:
    """Functions: one network for all tasks, fine-tuned to each (Finn et al. 2017, section 5.1)."""
    if config["task"]["name"] != "fewshot":
        return _maml(inner_steps=0, inner_lr=0.02)(config)
    return _with("pretrained", finetune="head", eval_steps=100, eval_lr=0.1, weight_decay=0.01)(config)


def _cavia(config: dict) -> dict:
    """Images: a context that has to say which label means which class is longer, and its steps are larger."""
    if config["task"]["name"] == "fewshot":
        return _maml(adapt="context", context=100, inner_steps=3, eval_steps=5, inner_lr=3.0)(config)
    return _maml(adapt="context", context=16, inner_steps=2, inner_lr=0.5)(config)


LEARNERS = dict(
    protonet=_with("protonet"),
    matchingnet=_with("matchingnet", scale=10.0),
    r2d2=_with("r2d2", penalty=1.0, scale=1.0),
    embedded_transformer=_with("embedded_transformer", network=common.NETWORKS["transformer"] | dict(mlp=128)),
    maml=_maml(),
    fomaml=_maml(order="first"),
    anil=_maml(adapt="head", inner_steps=3),
    metasgd=_maml(learn_lr=True, inner_lr=0.05),
    cavia=_cavia,
    reptile=_with("reptile", inner_rule="sgd", inner_lr=0.05, inner_steps=5, inner_batch=5, eval_steps=20),
    # from 15 steps of each on its premises hold: inner residual .04, CG's .02, least curvature .96 (.18, 2.2, 1.1 at 5)
    imaml=_with("imaml", inner_steps=15, eval_steps=15, inner_lr=0.1, penalty=0.5, cg_steps=15, damping=0.0,
                task_chunk=0),
    pretrained=_pretrained,
)


MEMORY = dict(
    plain=_maml(inner_steps=20, inner_lr=0.01, remat=False),
    remat=_maml(inner_steps=20, inner_lr=0.01),
    chunked=_maml(inner_steps=20, inner_lr=0.01, task_chunk=2),
    truncated=_maml(inner_steps=20, inner_lr=0.01, order="truncated", exact_steps=5),
    first=_maml(inner_steps=20, inner_lr=0.01, order="first"),
)


# what a learner does differently on a task family (the name before the first _)
TUNED = {
    # many ways in training, as in the paper (60): one model serves 5 and 20 ways
    ("omniglot", "protonet"): {"task.train_ways": 60, "train.batch": 1, "train.steps": 3000},
    # after a single step the first-order gradient says nothing of where to start: .766, below the neighbour's .777
    ("digits", "fomaml"): {"learner.inner_steps": 5, "learner.inner_lr": 0.1, "learner.eval_steps": 10},
    ("omniglot", "maml"): {"optim.lr": 3e-3, "train.steps": 7000},
    # on validation .310, .319, .325 at penalties of .5, 2, 4; at .5 CG does not converge, curvature is negative
    ("cifar", "imaml"): {"learner.penalty": 4.0},
    # on validation .259, .287, .324 and .316 after 600, 1,500, 3,000 and 6,000 updates; the neighbour has .284
    ("cifar", "embedded_transformer"): {"train.steps": 3000, "train.save_every": 3000},
    ("full", "protonet"): {"task.train_ways": 20, "train.batch": 4},
}


def learner_names(task: str = "digits") -> list[str]:
    """The learners that a task can have: functions are measured along inner steps, so by those that take steps."""
    steps = ("maml", "fomaml", "anil", "metasgd", "cavia", "reptile", "imaml", "pretrained")
    functions = task.partition("_")[0] in ("sinusoid", "linear")
    return list(MEMORY if task == "memory" else steps if functions else LEARNERS)


NORMS = (("protonet", "episode"), ("protonet", "layer"), ("maml", "episode"), ("maml", "layer"))


def sweep(arg: str = "digits"):
    """TASK[,LEARNER[,LEARNER ...]]: every learner (or those named) on one task, 3 seeds."""
    task, *names = (arg or "digits").split(",")
    common.choose(task, TASKS, "digits")
    for seed in range(1 if task == "memory" else 3):  # outermost: a sweep cut short has a whole table of one seed
        for name in names or learner_names(task):
            # each learner has fields of its own, so each is a config argument of its own
            yield dict(_label=f"{name}, seed {seed}", _config=f"configs/fewshot.py:{task},{name}", seed=seed)
        for name, norm in NORMS if task == "digits" and not names else ():  # `batch` sees all queries of an episode
            yield {"_label": f"{name} norm {norm}, seed {seed}", "_config": f"configs/fewshot.py:{task},{name}",
                   "seed": seed, "learner.backbone.norm": norm}


SUMMARY = "tables.fewshot.learners"
