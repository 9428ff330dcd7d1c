"""Meta Decision Transformer (arXiv 2410.11448): offline meta-reinforcement learning as sequence modelling.

  bash launch/local.sh sweep --config=configs/metadt.py:point --out=runs/point                  120 minutes of one core
  bash launch/local.sh --config=configs/metadt.py:point --workdir=runs/p \
      --config.init_from=runs/point/000-world-tasks-6-seed-0

A sweep trains world models, then the policies that take them over (`init_from`). Others, minutes of one core: cartpole
(33), cheetah_vel (14, extra `rl`), hopper and walker (10 each, `rl`), reach (9, extra `metaworld`), darkroom (34),
velocity, encoders, baselines. Each environment has two arguments, NAME_world and NAME; `explorer` a sampling `point`.

  results/metadt_point: Meta-DT, zero-shot -7.5 ± 0.8
  results/metadt_point: explorer, zero-shot, sampling -6.6 ± 0.6
  results/metadt_cheetah_vel: Meta-DT, zero-shot -99 ± 27

What was tried and did not help: docs/notes/metadt.md. Published hyper-parameters: configs/metadt_paper.py.
"""

from ml_collections import ConfigDict

from configs import common

SIZES = dict(decoders="reward", embed=16, hidden=64, code=16)
# agents of behaviour "sac"; published: hidden 128, batch 256, steps 2,000 in Point-Robot, 500,000 on robots
SAC = dict(steps=2000, random_steps=100, every=40, hidden=64, batch=64, lr=3e-4, temperature=0.2)
POINT = dict(name="point_robot", length=20, goal_range=1.0)

# what a method changes in its environment's config; all else is the same
METHODS = {
    "metadt": {},
    "no_context": {"learner.context": "none"},
    "no_complement": {"learner.prompt_select": "random"},
    "no_prompt": {"learner.prompt_select": "none"},
    "dt": {"learner.context": "none", "learner.prompt_select": "none"},
    "prompt_dt": {"learner.context": "none", "learner.prompt_select": "random"},
    "bc": {"learner.context": "none", "learner.prompt_select": "none", "learner.conditioning": "none"},
    "generalized_dt": {"learner.context": "none", "learner.prompt_select": "none",
                       "learner.conditioning": "histogram"},
    "oracle_dt": {"learner.context": "task", "learner.prompt_select": "none"},
    # explore by what the policy itself is unsure of, conditioned on the best rank, since nobody knows a good return yet
    "explorer": {"learner.head": "gaussian", "task.conditioning": "rank", "task.scale": 1.0,
                 "evaluators.few.methods": ("zero", "zero_sample", "few_none", "few_sample")},
}
NO_WORLD = ("dt", "prompt_dt", "bc", "generalized_dt", "oracle_dt")


def get_config(arg: str = "") -> ConfigDict:
    return ConfigDict(common.choose(arg, VARIANTS, "point")())


def offline(env: dict, **changes) -> dict:
    """The data: 45 + 40 tasks, 100 episodes each, collected from the seeds when a run first needs them."""
    return dict(name="offline", env=env, data="", cache="", behaviour="history", quality="mixed", sac=SAC,
                train_tasks=45, test_tasks=40, episodes=100, task_seed=0, data_seed=0, history=4, window=20,
                start_frac=1.0, prompt_span=20, prompt_top=0, conditioning="return", scale=10.0) | changes


def world(env: dict, sizes: dict, steps: int = 3000, **changes) -> dict:
    return dict(
        seed=0,
        init_from="",
        replicas=common.replicas(),
        task=offline(env, window=1, start_frac=0.0, prompt_span=0) | changes,
        learner=dict(name="world", **sizes, objective="model", noise=0.0),
        optim=common.adam(2e-3, decay="cosine"),
        train=common.train(batch=256, steps=steps, steps_per_call=100, log_every=max(500, steps // 10),
                           save_every=steps),
        evaluators=dict(world=dict(name="world_model", splits=("train", "validation", "test"), windows=8192, chunk=1024,
                                   seed=1)),
    )


def policy(env: dict, sizes: dict, steps: int = 1500, **changes) -> dict:
    few = ("zero", "few_none", "few_random")
    return dict(
        seed=0,
        init_from="",
        replicas=common.replicas(),
        task=offline(env) | changes,
        learner=dict(name="metadt", context="world", prompt=5, prompt_select="error", prompt_frac=0.75, warm_steps=0,
                     conditioning="return", head="mse", action_dropout=0.5, context_dropout=0.0, world=sizes,
                     world_training="frozen", depth=2, width=64, num_heads=1, mlp=256, activation="gelu", dropout=0.0,
                     prompt_norm=True, remat="none"),
        optim=common.adam(2e-3, warmup_steps=100, decay="cosine", weight_decay=1e-4, clip=0.25, freeze="^world/"),
        train=common.train(batch=32, steps=steps, log_every=250, save_every=steps),
        evaluators=dict(
            few=dict(name="returns", methods=few, rounds=8, after=(), explore_steps=4, noise=0.5,
                     target="train_mean", target_value=0.0, repeats=2, seed=1),
            demo=dict(name="returns", methods=("demo", "demo_median"), rounds=1, after=(), explore_steps=0, noise=0.0,
                      target="task_max", target_value=0.0, repeats=2, seed=1)),
    )


def point_world() -> dict:
    """After 3,000 updates the error past the first steps is several times that after 30,000; the paper has 212,000."""
    config = world(POINT, SIZES, steps=30_000, behaviour="search", window=20, start_frac=1.0)  # whole episodes
    config["train"] |= dict(batch=16, log_every=2000)
    config["evaluators"]["world"] |= dict(windows=1024, chunk=256)
    return config


def point() -> dict:
    """Half of the rows without a prompt, and the published dropout: without it the policy fits its 4,050 episodes too
    well, and runs off in first episodes."""
    config = policy(POINT, SIZES, steps=8000, behaviour="search")
    config["learner"] |= dict(prompt_frac=0.5, dropout=0.1)
    config["evaluators"]["few"] |= dict(rounds=4, after=(1, 2), repeats=1)  # without exploration repeats are all alike
    config["evaluators"]["demo"] |= dict(repeats=1)
    return config


def explorer() -> dict:
    """`point` with METHODS["explorer"], and nothing else."""
    config = point()
    _assign(config, METHODS["explorer"])
    return config


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


VELOCITY = dict(name="velocity", length=50)


def velocity_world() -> dict:
    return world(VELOCITY, SIZES)


def velocity() -> dict:
    config = policy(VELOCITY, SIZES, start_frac=0.3, prompt_span=50, scale=50.0)
    config["evaluators"]["few"] |= dict(rounds=4, repeats=1)
    config["evaluators"]["demo"] |= dict(repeats=1)
    return config


CARTPOLE = dict(name="cartpole_param", length=60, spread=1.0, tilt=0.3, rewired=True)
CARTPOLE_SIZES = SIZES | dict(decoders="change")


def cartpole_world() -> dict:
    return world(CARTPOLE, CARTPOLE_SIZES)


def cartpole() -> dict:
    """Other dynamics in every task; window and prompt as published for Hopper and Walker (8 and 3). The world model
    predicts changes (ours), since a step moves the cart too little: results/metadt_cartpole.json."""
    config = policy(CARTPOLE, CARTPOLE_SIZES, steps=4000, window=8, start_frac=0.2, prompt_span=60, scale=60.0)
    config["learner"] |= dict(prompt=3)
    config["train"] |= dict(batch=64)
    config["evaluators"]["few"] |= dict(methods=("zero", "few_random"), rounds=4, repeats=1)
    config["evaluators"]["demo"] |= dict(methods=("demo",), repeats=1)
    return config


DARKROOM = dict(name="darkroom", length=30, size=7)


def darkroom_world() -> dict:
    return world(DARKROOM, SIZES, behaviour="search")


def darkroom() -> dict:
    """49 cells, one of which pays: nothing but trying cells tells the task, so the policy samples, as `explorer`.
    World models of 20,000 updates and policies of 8,000 were no better (tasks of seed 5)."""
    config = policy(DARKROOM, SIZES, steps=2000, window=30, prompt_span=30, behaviour="search", conditioning="rank",
                    scale=1.0)
    config["learner"] |= dict(head="gaussian")
    config["evaluators"]["few"] |= dict(methods=("zero", "few_none", "few_random", "few_sample"), explore_steps=15)
    return config


CHEETAH = dict(name="mujoco", robot="cheetah_vel", length=200, observe_x=False)


GAITS = dict(behaviour="gaits", test_tasks=10, episodes=20)


def simulated(env: dict, sizes: dict, repeats: int, **changes) -> dict:
    """A policy on a simulator outside JAX, which plays slowly: prompts of 40 steps, two episodes of its own."""
    config = policy(env, sizes, start_frac=0.1, prompt_span=40, **changes)
    config["optim"] |= dict(lr=1e-3)
    config["evaluators"]["few"] |= dict(methods=("zero", "few_none"), rounds=2, after=(1,), repeats=repeats)
    config["evaluators"]["demo"] |= dict(methods=("demo",), repeats=repeats)
    return config


def cheetah_vel_world() -> dict:
    return world(CHEETAH, SIZES, steps=20_000, **GAITS)


def cheetah_vel() -> dict:
    """Half cheetahs with a hidden speed, on sine gaits; needs the extra `rl`:
    results/metadt_cheetah_vel.json."""
    config = simulated(CHEETAH, SIZES, repeats=3, steps=2000, scale=100.0, **GAITS)
    config["learner"] |= dict(prompt_frac=0.5)
    config["train"] |= dict(batch=64)
    return config


HOPPER, WALKER = (CHEETAH | dict(robot=robot) for robot in ("hopper_param", "walker_param"))
AGENTS = dict(behaviour="sac", train_tasks=45, test_tasks=15, episodes=20,
              sac=SAC | dict(steps=10_000, random_steps=1000, every=500))


def physics_world(env: dict) -> dict:
    """One of a robot whose physics differ, on what an agent of each task did while it learned."""
    return world(env, CARTPOLE_SIZES, steps=20_000, **AGENTS)


def physics(env: dict) -> dict:
    """Window and prompt as published, changes as on Cartpole."""
    config = simulated(env, CARTPOLE_SIZES, repeats=3, steps=4000, window=8, scale=500.0, **AGENTS)
    config["learner"] |= dict(prompt=3)
    config["train"] |= dict(batch=64)
    return config


def hopper_world() -> dict:
    return physics_world(HOPPER)


def hopper() -> dict:
    return physics(HOPPER)


def walker_world() -> dict:
    return physics_world(WALKER)


def walker() -> dict:
    return physics(WALKER)


REACH = dict(name="metaworld", tools=("reach",), length=150, reward_version="v2")
REACH_DATA = dict(behaviour="scripted", train_tasks=45, test_tasks=20, episodes=20)


def reach_world() -> dict:
    return world(REACH, SIZES, steps=15_000, **REACH_DATA)


def reach() -> dict:
    """Meta-World ML1 Reach on its own scripted experts, misled and noisy; needs the extra `metaworld`. Episodes of 150
    steps instead of the published 500, since the experts arrive within 60: results/metadt_reach.json."""
    return simulated(REACH, SIZES, repeats=1, steps=2000, scale=500.0, **REACH_DATA)


VARIANTS = {make.__name__: make for make in (
    smoke, point_world, point, explorer, velocity_world, velocity, cartpole_world, cartpole, darkroom_world, darkroom,
    cheetah_vel_world, cheetah_vel, hopper_world, hopper, walker_world, walker, reach_world, reach)}


def _assign(config: dict, changes: dict) -> None:
    for field, value in changes.items():
        *path, name = field.split(".")
        block = config
        for part in path:
            block = block[part]
        block[name] = value


PARTS = ("metadt", "no_prompt", "no_context", "no_complement")
SWEEPS = {
    "point": ("point", (*PARTS, "dt", "prompt_dt", "explorer", "oracle_dt")),
    "baselines": ("point", ("metadt", "bc", "generalized_dt")),
    "cartpole": ("cartpole", PARTS),
    "darkroom": ("darkroom", (*PARTS, "dt")),
    "velocity": ("velocity", ("metadt", "no_context", "dt", "prompt_dt")),
    "reach": ("reach", ("metadt", "no_prompt")),
    "hopper": ("hopper", ("metadt", "no_context", "dt")),
    "walker": ("walker", ("metadt", "no_context", "dt")),
    "cheetah_vel": ("cheetah_vel", ("metadt", "prompt_dt", "dt")),
    "encoders": ("point", ("metadt",)),
    "public": ("point", ("metadt", "no_prompt")),
}
PUBLIC = {"task.data": "{dir}/t2da.npz", "task.train_tasks": 45, "task.test_tasks": 5}
ENCODERS = {"model": "metadt", "metric": "focal_dt", "contrast": "corro_dt", "csro": "csro_dt"}
UNTOUCHED = {"task.task_seed": 1}  # settings were tried on the tasks of seed 0, so tables are of others
TASK_SEEDS = (6, 7, 8)  # for EVERY_SEED: settings were tried on those of 0, 1 and 5; 2, 3 and 4 were tabled before
# of `point`: without prompts is the released code's zero-shot, and `explorer` is the one that goes and looks
EVERY_SEED = {"point": ("metadt", "no_prompt", "explorer"),
              "darkroom": ("metadt", "no_prompt", "no_complement")}  # rewards are sparse: where choosing may matter
SEEDS = 3


def sweep(arg: str = "point"):
    """Three world models, then every method on each of them; `encoders`: three encoders of each kind, one method.

    On Point-Robot and in Darkroom that is done on three sets of tasks, where methods that are not in EVERY_SEED have
    one seed. `public` reads the data that T2DA's authors publish, five seeds: `python launch/t2da.py DIR
    runs/public/t2da.npz` puts them into the sweep's directory first.
    """
    data = {"task.cache": "{dir}/data"} | UNTOUCHED  # collected by the first run that needs them, for all
    base, methods = common.choose(arg, SWEEPS, "point")
    if arg == "public":
        data = PUBLIC
    if arg == "encoders":
        kinds = [(objective, seed) for objective in ENCODERS for seed in range(SEEDS)]
        single = {"task.window": 1, "task.start_frac": 0.0, "train.batch": 256}  # tasks are told apart row by row
        for objective, seed in kinds:
            yield {"_label": f"world, {objective}, seed {seed}", "_config": "configs/metadt.py:point_world",
                   "learner.objective": objective, "seed": seed} | single | data
        for objective, seed in kinds:
            source = {"init_from": f"{{run:world, {objective}, seed {seed}}}"}
            yield {"_label": f"{ENCODERS[objective]}, seed {seed}", "_config": "configs/metadt.py:point", "_stage": 1,
                   "seed": seed} | source | data
        return
    for which, fixed in _units(base, data, range(5) if arg == "public" else range(SEEDS)):
        seed = fixed["seed"]  # all of one seed before the next
        yield {"_label": f"world, {which}", "_config": f"configs/metadt.py:{base}_world", "_stage": 2 * seed} | fixed
        for i, method in enumerate(methods):
            single = method not in EVERY_SEED.get(base, METHODS)  # one seed, after everything else
            if single and seed:
                continue
            source = {} if method in NO_WORLD else {"init_from": f"{{run:world, {which}}}"}
            yield {"_label": f"{method}, {which}", "_config": f"configs/metadt.py:{base}", 
                   "_stage": 2 * SEEDS + i if single else 2 * seed + 1} | source | METHODS[method] | fixed


def _units(base: str, data: dict, seeds):
    """(name, the fields that are its own) of each world model: seeds, and for those in EVERY_SEED each set of tasks."""
    for seed in seeds:
        if base in EVERY_SEED and "task.data" not in data:
            yield from ((f"tasks {tasks}, seed {seed}", data | {"task.task_seed": tasks, "seed": seed})
                        for tasks in TASK_SEEDS)
        else:
            yield f"seed {seed}", data | {"seed": seed}


SUMMARY = "tables.metadt.returns"
