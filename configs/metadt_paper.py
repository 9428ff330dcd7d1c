"""Meta-DT with the published hyper-parameters (arXiv 2410.11448), an environment per variant: world model, then policy.

  bash launch/local.sh --config=configs/metadt_paper.py:point_world --workdir=runs/w --config.task.cache=runs/data
  bash launch/local.sh --config=configs/metadt_paper.py:point --workdir=runs/p --config.task.cache=runs/data \
      --config.init_from=runs/w

Variants: smoke, and point, cheetah_vel, cheetah_dir, ant_dir, hopper, walker (extra `rl`), reach (extra `metaworld`),
each also as <name>_world. Their data are 100 episodes of a half-trained agent per task (behaviour `sac`, quality
`medium`), 45 + 5 tasks, in Cheetah-Dir 2 + 2 and Reach 15 + 5; `task.cache` keeps them for the second phase. Not run
to the end: a world model takes up to 4.2 million updates, a policy 100,000 to 500,000, for which an accelerator is
wanted. Reach's learning rate is 1e-7 in the released code.
"""

from ml_collections import ConfigDict

from configs import common, metadt

REACH = metadt.REACH | dict(length=500)
CHEETAH = metadt.CHEETAH | dict(observe_x=True)
# environment, K, P, learning rate, return scale, updates, of them without prompts, decoder, updates of the world model
PAPER = {
    "point": (metadt.POINT, 20, 5, 1e-4, 10.0, 100_000, 20_000, "reward", 212_000),
    "cheetah_vel": (CHEETAH, 20, 5, 5e-5, 500.0, 200_000, 20_000, "reward", 4_200_000),
    "cheetah_dir": (CHEETAH | dict(robot="cheetah_dir"), 20, 5, 6e-6, 500.0, 100_000, 20_000, "reward", 187_000),
    "ant_dir": (CHEETAH | dict(robot="ant_dir"), 20, 5, 5e-5, 500.0, 500_000, 70_000, "reward", 4_200_000),
    "hopper": (CHEETAH | dict(robot="hopper_param"), 8, 3, 5e-5, 500.0, 100_000, 20_000, "transition", 1_400_000),
    "walker": (CHEETAH | dict(robot="walker_param"), 8, 3, 5e-5, 500.0, 100_000, 20_000, "transition", 1_400_000),
    "reach": (REACH, 20, 5, 1e-7, 500.0, 300_000, 100_000, "reward", 1_400_000),
}
AGENT = dict(hidden=128, batch=256, lr=3e-4, temperature=0.2)
AGENTS = {"point": dict(steps=2000, random_steps=100, every=40),
          "cheetah_vel": dict(steps=500_000, random_steps=2000, every=10_000),
          "ant_dir": dict(steps=500_000, random_steps=2000, every=10_000),
          "reach": dict(steps=1_000_000, random_steps=5000, every=10_000)}


def get_config(arg: str = "") -> ConfigDict:
    return ConfigDict(common.choose(arg, VARIANTS, "point")())


def tasks(name: str) -> dict:
    train, test = {"cheetah_dir": (2, 2), "reach": (15, 5)}.get(name, (45, 5))
    agent = AGENT | AGENTS.get(name, dict(steps=500_000, random_steps=10_000, every=10_000))
    return dict(train_tasks=train, test_tasks=test, behaviour="sac", quality="medium", sac=agent)


def world(name: str) -> dict:
    env, *_, decoder, steps = PAPER[name]
    config = metadt.world(env, dict(decoders=decoder, embed=16, hidden=128, code=16), **tasks(name))
    config["optim"] = common.adam(1e-3)
    config["train"] |= dict(batch=128, steps=steps, log_every=1000, save_every=10_000)
    return config


def policy(name: str) -> dict:
    env, window, prompt, lr, scale, steps, warm, decoder, _ = PAPER[name]
    config = metadt.policy(env, dict(decoders=decoder, embed=16, hidden=128, code=16), window=window, start_frac=0.0,
                           prompt_span=env["length"], scale=scale, **tasks(name))
    config["learner"] |= dict(prompt=prompt, prompt_frac=1.0, warm_steps=warm, action_dropout=0.0, depth=3, width=128,
                              mlp=512, activation="relu", dropout=0.1)
    config["optim"] = common.adam(lr, warmup_steps=10_000, clip=0.25, weight_decay=1e-4, freeze="^world/")
    config["train"] |= dict(batch=128, steps=steps, log_every=500, save_every=10_000)
    return config


def smoke() -> dict:
    """The path of `point`, agents included, in seconds."""
    config = policy("point")
    config["task"] |= dict(train_tasks=4, test_tasks=2, episodes=4, quality="mixed")
    config["task"]["sac"] |= dict(steps=40, random_steps=10, every=20, hidden=8, batch=8)
    config["learner"] |= dict(world_training="joint", warm_steps=2, depth=1, width=16, mlp=32,
                              world=dict(decoders="reward", embed=4, hidden=16, code=4))
    config["optim"] |= dict(warmup_steps=1, freeze="")
    config["train"] |= dict(batch=8, steps=4, steps_per_call=2, log_every=2, save_every=2)
    config["evaluators"].pop("demo")
    config["evaluators"]["few"] |= dict(methods=("zero",), repeats=1)
    return config


VARIANTS = {"smoke": smoke}
VARIANTS |= {name: lambda name=name: policy(name) for name in PAPER}
VARIANTS |= {f"{name}_world": lambda name=name: world(name) for name in PAPER}
