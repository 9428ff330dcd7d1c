"""Meta-World (v3) as families of tasks: one tool (ML1) with hidden goals, or several tools (ML10-like).

Observation (39): hand, gripper and object now and one step before, and the goal, which is zeroed. Parameters: which
tool (index), then the 6 numbers that place object and goal. Reward: Meta-World's own, in [0, 10], of the version that
the config names; success rates count what Meta-World itself calls a success, at some step of the episode. Needs the
extra `metaworld`, which pins a MuJoCo of its own: give it an environment of its own.
"""

import jax
import jax.numpy as jnp
import numpy as np

from metalearn.types import Env
from metalearn.validate import ConfigError, one_of, positive, require

INSTALL = ("needs Meta-World, in an environment of its own: "
           'pip install "metalearn-jax[metaworld]" (or: pip install metaworld packaging)')
TOOLS = ("reach", "sweep", "door-lock", "push", "pick-place", "door-open", "drawer-close", "button-press-topdown",
         "peg-insert-side", "window-open", "basketball", "window-close")


def make(*, tools: tuple[str, ...], length: int, reward_version: str) -> Env:
    """Episodes of `length` steps (published: 500) with one of `tools`, e.g. ("reach",)."""
    positive(length=length)
    require(len(tools) > 0, "tools", tools, "must name at least one")
    for name in tools:
        one_of(TOOLS, tools=name)
    one_of(("v1", "v2"), reward_version=reward_version)
    require(length <= 500, "length", length, "must be at most 500, where Meta-World ends an episode")
    classes, policies, version = _load(tools)
    simulator = lambda tool: classes[tool](reward_function_version=reward_version)
    spaces = [simulator(tool)._random_reset_space for tool in range(len(tools))]
    low_MX, high_MX = (np.stack([np.resize(getattr(s, end), 6) for s in spaces]) for end in ("low", "high"))
    sizes = [len(s.low) for s in spaces]

    def draw(key):
        key_tool, key_place = jax.random.split(key)
        tool = jax.random.randint(key_tool, (), 0, len(tools))
        low_X, high_X = jnp.asarray(low_MX, jnp.float32)[tool], jnp.asarray(high_MX, jnp.float32)[tool]
        place_NX = low_X + jax.random.uniform(key_place, (64, 6)) * (high_X - low_X)
        # Meta-World draws again until object and goal are 0.15 apart; with a fixed place it would do so forever
        apart_N = jnp.linalg.norm(place_NX[:, :2] - place_NX[:, 3:5], axis=1) > 0.16
        return jnp.append(tool.astype(jnp.float32), place_NX[jnp.argmax(apart_N)])

    pool: dict[int, list] = {}  # loading a simulator takes a third of a second, placing its goal none

    def host(param_BX, seed_B):
        simulators, used = [], dict.fromkeys(range(len(tools)), 0)
        for p in np.asarray(param_BX):
            tool, had = int(p[0]), pool.setdefault(int(p[0]), [])
            if used[tool] == len(had):
                had.append(simulator(tool))
            simulators.append(_place(had[used[tool]], p, sizes))
            used[tool] += 1
        first = [s.reset()[0] for s in simulators]

        def advance(act_BA):
            out = [s.step(np.clip(np.asarray(a, np.float32), -1, 1)) for s, a in zip(simulators, act_BA, strict=True)]
            return (np.stack([o[0] for o in out]).astype(np.float32), np.array([o[1] for o in out], np.float32),
                    np.zeros(len(out), bool), np.array([o[4]["success"] > 0 for o in out]))

        return np.stack(first).astype(np.float32), advance

    def expert(obs_BS, time, param_BX):
        """Meta-World's scripted policies, shown the goal that the observation hides."""
        act = []
        for obs_S, p in zip(np.asarray(obs_BS, np.float64), np.asarray(param_BX), strict=True):
            size = sizes[int(p[0])]
            goal = p[1 + size - 3: 1 + size]
            act.append(policies[int(p[0])].get_action(np.concatenate([obs_S[:-3], goal])))
        return np.clip(np.stack(act), -1, 1).astype(np.float32)

    facts = {"name": "metaworld", "version": 1, "metaworld": version, "reward_version": reward_version, "obs_size": 39,
             "act_size": 4, "rewards_differ": True, "success": True}
    spread_X = np.concatenate([[0.0], (high_MX - low_MX).max(0)]).astype(np.float32)
    return Env(draw, None, None, expert, spread_X, length, facts, host)


def _load(tools):
    """(environment classes, scripted policies, version) of the tools; ConfigError with the install command."""
    try:
        import importlib.metadata

        from metaworld import env_dict, policies  # pyright: ignore[reportAttributeAccessIssue]: an extra
    except ImportError as error:
        raise ConfigError("tools", tools, f"{INSTALL}; {error}") from None
    classes = [env_dict.ALL_V3_ENVIRONMENTS[f"{name}-v3"] for name in tools]
    camel = lambda name: "Sawyer" + "".join(part.capitalize() for part in name.split("-")) + "V3Policy"
    known = {"peg-insert-side": "SawyerPegInsertionSideV3Policy"}  # the one that is not called as its environment
    experts = [getattr(policies, known.get(name, camel(name)))() for name in tools]
    return classes, experts, importlib.metadata.version("metaworld")


def _place(simulator, param_X, sizes):
    """Sets object and goal as `set_task` would, which reads them from a pickle."""
    simulator._freeze_rand_vec, simulator._set_task_called, simulator._partially_observable = True, True, True
    simulator._last_rand_vec = np.asarray(param_X[1:1 + sizes[int(param_X[0])]], np.float64)
    return simulator
