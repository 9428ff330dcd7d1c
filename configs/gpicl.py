"""General-purpose in-context learning (arXiv 2212.04458): meta-train a sequence model to learn from examples.

  bash launch/local.sh --config=configs/gpicl.py:digits --workdir=runs/gpicl
"""

from ml_collections import ConfigDict

from configs import common


def get_config(arg: str = "") -> ConfigDict:
    variants = {"digits": digits, "smoke": smoke}
    return ConfigDict(common.choose(arg, variants, "digits")())


def digits() -> dict:
    sets = ("seen", "seen_image", "unseen", "new", "random", "identity", "seen_random_labels", "unseen_random_labels",
            "seen_relabelled")
    return dict(
        seed=0,
        init_from="",
        task=dict(name="projected", pool="digits", split_by="class", train_classes=5, heldout_frac=0.22, new_pool="",
                  image_size=0, channels=0, pca=32, ways=5, length=20, num_tasks=0, bias=0.0, random_points=10,
                  task_seed=0),
        learner=dict(name="incontext", layout="query", dtype="float32",
                     network=dict(name="transformer", depth=2, width=64, num_heads=4, mlp=256, positions=False)),
        optim=common.adam(1e-3, warmup_steps=100),
        train=common.train(batch=64, steps=2000),
        evaluators=dict(curves=dict(name="learning_curves", sets=sets, episodes=1024, chunk=256, seed=1,
                                    yardsticks=("1nn", "class_mean", "ridge", "online_softmax"))),
    )


def smoke() -> dict:
    config = digits()
    config["task"] |= dict(pca=8, length=6)
    config["learner"]["network"] |= dict(depth=1, width=16, num_heads=2, mlp=32)
    config["optim"] |= dict(warmup_steps=1)
    config["train"] |= dict(batch=8, steps=4, steps_per_call=2, log_every=2, save_every=2)
    config["evaluators"]["curves"] |= dict(episodes=32, chunk=16, sets=("seen", "unseen"))
    return config
