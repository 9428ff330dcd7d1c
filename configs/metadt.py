"""Meta Decision Transformer (arXiv 2410.11448): offline meta-reinforcement learning as sequence modelling.

  python launch/sweep.py --config=configs/metadt.py:point --out=runs/point       world models, policies, table
"""

from ml_collections import ConfigDict

from configs import common

SIZES = dict(decoders="reward", embed=16, hidden=64, code=16)
POINT = dict(name="point_robot", length=20, goal_range=1.0)


def get_config(arg: str = "") -> ConfigDict:
    return ConfigDict(common.choose(arg, VARIANTS, "point")())


def offline(env: dict, **changes) -> dict:
    """The data: 45 + 20 tasks, 100 episodes each, collected at start-up from the seeds."""
    return dict(name="offline", env=env, data="", behaviour="history", train_tasks=45, test_tasks=20, episodes=100,
                task_seed=0, data_seed=0, horizon=4, window=20, start_frac=1.0, prompt_span=20, prompt_top=0,
                wish="return", scale=10.0) | changes


def point_world() -> dict:
    return dict(
        seed=0,
        init_from="",
        task=offline(POINT, window=1, start_frac=0.0, prompt_span=0),
        learner=dict(name="world", **SIZES, objective="model", noise=0.0),
        optim=common.adam(2e-3, decay="cosine"),
        train=common.train(batch=256, steps=3000, steps_per_call=100, log_every=500, save_every=3000),
        evaluators=dict(world=dict(name="world_model", splits=("train", "held", "test"), windows=8192, seed=1)),
    )


def point() -> dict:
    return dict(
        seed=0,
        init_from="",
        task=offline(POINT),
        learner=dict(name="metadt", context="world", prompt=5, prompt_select="error", prompt_frac=0.5, warm_steps=0,
                     wish="return", head="mse", action_dropout=0.5, context_dropout=0.0, world=SIZES,
                     world_training="frozen", depth=2, width=64, num_heads=1, mlp=256, activation="gelu", dropout=0.0,
                     prompt_norm=True),
        optim=common.adam(1e-3, warmup_steps=100, decay="cosine", weight_decay=1e-4, clip=0.25, freeze="^world/"),
        train=common.train(batch=32, steps=1500, log_every=250, save_every=1500),
        evaluators=dict(
            few=dict(name="returns", methods=("zero", "zero_sample", "few_none", "few_random", "few_sample"), rounds=8,
                     after=(1, 4), explore_steps=4, noise=0.5, target="train_mean", target_value=0.0, repeats=2, seed=1),
            demo=dict(name="returns", methods=("demo", "demo_median"), rounds=1, after=(), explore_steps=0, noise=0.0,
                      target="task_max", target_value=0.0, repeats=2, seed=1)),
    )


def smoke() -> dict:
    """Everything in seconds: the world model learns beside the policy, so that one run has both."""
    config = point()
    config["task"] |= dict(train_tasks=6, test_tasks=3, episodes=10)
    config["learner"] |= dict(world=dict(SIZES, hidden=16), world_training="joint", depth=1, width=16, mlp=32)
    config["optim"] |= dict(warmup_steps=1, freeze="")
    config["train"] |= dict(batch=8, steps=4, steps_per_call=2, log_every=2, save_every=2)
    config["evaluators"]["few"] |= dict(methods=("zero", "few_random"), rounds=2, after=(1,), repeats=1)
    config["evaluators"]["demo"] |= dict(methods=("demo",), repeats=1)
    return config


VARIANTS = {"smoke": smoke, "point_world": point_world, "point": point}
