"""What a person waits for, against PyTorch where it has the same: start-up, a streamed query, a policy in its loop.

  python -m tests.latency [--only=startup,streaming,evaluation] [--rounds=7] [--store]

PyTorch's arms are eager and compiled, on one thread and on two; answers must agree to 1e-4 before anything is timed.
`--store` puts the tables into results/latency.json, in the place of those of the same title.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np

from metalearn.nn import network as network_lib
from metalearn.rl import acting, rollout
from metalearn.runtime import config as config_lib, experiment as experiment_lib, loop, replicas
from metalearn.types import named_leaves
from tests import benchmark, measured

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def startup(rounds: int) -> dict:
    """Seconds from the command to the first line of metrics, and to the end, of the smallest config."""
    rows = []
    with tempfile.TemporaryDirectory() as home:
        for kind, repeats in (("cold: nothing is compiled yet", 1), ("warm", rounds)):
            first, whole = [], []
            for i in range(repeats):
                workdir = os.path.join(home, f"{kind[:4]}{i}")
                words = [sys.executable, "-m", "metalearn", "train", "--config=configs/gpicl.py:smoke",
                         f"--workdir={workdir}"]
                began = time.monotonic()
                process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                           env=os.environ | {"HOME": home, "XDG_CACHE_HOME": home})
                while not os.path.exists(os.path.join(workdir, "metrics.jsonl")) and process.poll() is None:
                    time.sleep(0.01)
                first.append(time.monotonic() - began)
                assert process.wait() == 0
                whole.append(time.monotonic() - began)
            rows.append([kind, *(round(statistics.median(s), 1) for s in (first, whole)), repeats])
    columns = ["", "to the first metrics", "to the end", "runs"]
    return {"title": "Start-up of gpicl.py:smoke, seconds", "columns": columns, "rows": rows}


class Eager:
    """A causal Transformer with a key-value cache in PyTorch, one token at a time."""

    def __init__(self, torch, params, network: dict, length: int):
        self.torch, self.network, self.length = torch, network, length
        turn = lambda name, a: np.array(a).T.copy() if name.endswith("kernel") else np.array(a)
        self.weights = {name: torch.from_numpy(turn(name, leaf)) for name, leaf in named_leaves(params).items()}
        shape = 1, network["num_heads"], length, network["width"] // network["num_heads"]
        self.cache = [[torch.zeros(shape), torch.zeros(shape)] for _ in range(network["depth"])]

    def linear(self, name, x):
        return self.torch.nn.functional.linear(x, self.weights[f"{name}/kernel"], self.weights[f"{name}/bias"])

    def norm(self, name, x):
        scale, bias = self.weights[f"{name}/scale"], self.weights[f"{name}/bias"]
        return self.torch.nn.functional.layer_norm(x, x.shape[-1:], scale, bias, 1e-6)

    def step(self, x_1I, at, seen):
        """Outputs of the token at place `at` (a tensor); `seen` is how many keys are read."""
        F, heads = self.torch.nn.functional, self.network["num_heads"]
        x = self.linear("embed", x_1I)
        for i, (keys, values) in enumerate(self.cache):
            name = f"blocks_{i}"
            q, k, v = self.linear(f"{name}/attention/qkv", self.norm(f"{name}/norm_attention", x)).chunk(3, -1)
            split = lambda a: a.view(1, 1, heads, -1).transpose(1, 2)
            keys.index_copy_(2, at, split(k))
            values.index_copy_(2, at, split(v))
            y = F.scaled_dot_product_attention(split(q), keys[:, :, :seen], values[:, :, :seen])
            x = x + self.linear(f"{name}/attention/out", y.transpose(1, 2).reshape(1, -1))
            h = F.gelu(self.linear(f"{name}/up", self.norm(f"{name}/norm_mlp", x)), approximate="tanh")
            x = x + self.linear(f"{name}/down", h)
        return self.linear("head", self.norm("norm", x))


def streaming(rounds: int) -> dict:
    """Milliseconds of one query after 1,000 examples, 4 blocks of 256: the cache is kept, a token is read."""
    import torch

    queries, examples, inputs = 40 * rounds, 1000, 784 + 10
    network = dict(depth=4, width=256, num_heads=8, mlp=1024, positions=False, remat="none")
    spec = network_lib.NetworkSpec(10, 784, "shifted", examples + queries, "float32", 1)
    net = network_lib.make(dict(name="transformer", **network), spec)
    tokens = np.random.default_rng(0).normal(size=(1, examples + queries, inputs)).astype(np.float32)
    params = net.init(jax.random.key(0), jnp.asarray(tokens[:, :1]))
    step = jax.jit(net.step, donate_argnums=1)
    begin = jax.jit(lambda p: net.apply(p, net.initial_state(p, 1, examples + queries), tokens[:, :examples])[0])

    def ours():
        state, found, took = begin(params), [], []
        jax.block_until_ready(state)
        for t in range(examples, examples + queries):
            began = time.perf_counter()
            state, out = step(params, state, tokens[:, t])
            found.append(np.asarray(out))
            took.append(time.perf_counter() - began)
        return np.concatenate(found), took

    wanted, _ = ours()
    rows, seconds = [], {"ours": []}
    arms = {"ours": ours}
    other = Eager(torch, params, network, examples + queries)
    for kind, run in (("eager", other.step), ("compile", torch.compile(other.step, dynamic=True))):
        for threads in (1, 2):
            def theirs(run=run, threads=threads):
                torch.set_num_threads(threads)
                found, took = [], []
                with torch.no_grad():
                    for t in range(examples):
                        other.step(torch.from_numpy(tokens[:, t]), torch.tensor([t]), t + 1)
                    for t in range(examples, examples + queries):
                        began = time.perf_counter()
                        found.append(run(torch.from_numpy(tokens[:, t]), torch.tensor([t]), t + 1).numpy())
                        took.append(time.perf_counter() - began)
                return np.concatenate(found), took

            arms[f"{kind} {threads}"] = theirs
    for name, arm in arms.items():
        found, _ = arm()  # warms up; what it compiles is not counted
        assert np.abs(found - wanted).max() < 1e-4 * max(1, np.abs(wanted).max()), (name, np.abs(found - wanted).max())
    for _ in range(rounds):
        for name, arm in arms.items():
            seconds.setdefault(name, []).extend(arm()[1])
    for name, took in seconds.items():
        rows.append([name, *(round(1e3 * float(np.percentile(took, p)), 3) for p in (50, 99))])
    best = min(row[1] for row in rows[1:])
    return {"title": "One query after 1,000 examples through the cache, 4 blocks of 256, ms", "rows": [
        row + [round(best / rows[0][1], 2) if row is rows[0] else None] for row in rows],
        "columns": ["arm", "median", "99th percentile", "times PyTorch"]}


def evaluation(rounds: int) -> dict:
    """Seconds of a first episode on 50 Point-Robot tasks, the policy called at each of 20 steps."""
    import torch

    config = config_lib.load("configs/metadt.py:point", [
        "task.test_tasks=50", "task.train_tasks=6", "task.episodes=10", "learner.depth=3", "learner.width=128",
        "learner.mlp=512"])
    config.unlock()
    config.init_from = ""
    with tempfile.TemporaryDirectory() as folder:
        experiment = experiment_lib.with_data(experiment_lib.build(config), folder)
    spec, learner = experiment.task.spec, experiment.learner
    data = replicas.data(experiment.plan, experiment.task.data)
    state = loop.make_init(experiment)(data, replicas.roots(experiment.plan))
    goal_BX = jax.random.uniform(jax.random.key(1), (50, 2), minval=-1, maxval=1)
    keys_B, target_B = jax.random.split(jax.random.key(2), 50), jnp.full(50, -5.0)
    none = acting.no_prompt(spec, 50)

    @jax.jit
    def play(params, carry):
        def policy(history, time, obs_BS, rew_B, keys_B):
            history = acting.observe(history, time, obs_BS, rew_B)
            act_BA, _, history = acting.decide(spec, learner, params, carry, none, history, time, jnp.arange(50),
                                               goal_BX)
            act_BA = jnp.clip(act_BA, -1, 1)
            return acting.acted(history, time, act_BA), act_BA

        history = acting.cache(spec, learner, params, none, acting.begin(spec, target_B), jnp.arange(50), goal_BX)
        return rollout.run(spec.env, policy, history, goal_BX, keys_B).rew_BT.sum(1)

    def ours():
        return np.asarray(play(state.params, state.carry))

    other = benchmark.torch_reference.Reference(config, spec, state.params, {})
    statistics_of = [torch.from_numpy(np.array(a)) for a in (spec.statistics.obs_mean_S, spec.statistics.obs_std_S)]
    goals, target = torch.from_numpy(np.array(goal_BX)), -5.0
    arms = {"ours": ours}
    for kind, size in (("task by task", 1), ("50 tasks at once", 50)):
        for threads in (1, 2):
            def theirs(size=size, threads=threads):
                torch.set_num_threads(threads)
                with torch.no_grad():
                    parts = [_episode(torch, other, spec, statistics_of, part, target) for part in goals.split(size)]
                return torch.cat(parts).numpy()

            arms[f"{kind}, eager {threads}"] = theirs
    wanted = ours()
    for name, arm in arms.items():
        assert np.abs(arm() - wanted).max() < 1e-3, (name, np.abs(arm() - wanted).max())
    seconds: dict[str, list] = {}
    for _ in range(rounds):
        for name, arm in arms.items():
            began = time.perf_counter()
            arm()
            seconds.setdefault(name, []).append(time.perf_counter() - began)
    median = {name: statistics.median(took) for name, took in seconds.items()}
    return {"title": "First episodes on 50 Point-Robot tasks, 3 blocks of 128, policy in the loop, ms",
            "columns": ["arm", "ms", "times ours"],
            "rows": [[name, round(1e3 * s, 1), round(s / median["ours"], 1)] for name, s in median.items()]}


def _episode(torch, net, spec, statistics_of, goal_BX, target: float):
    """Returns of one episode without a prompt, as a released agent plays it: the tokens so far at every step."""
    B, h = len(goal_BX), spec.history
    mean_S, std_S = statistics_of
    obs_BS, earned_B, total_B = torch.zeros(B, 2), torch.zeros(B), torch.zeros(B)
    acts, rews, seen = [torch.zeros(B, 2)] * h, [torch.zeros(B)] * h, [torch.zeros(B, 2)] * h
    parts = {"obs_BTS": [], "act_BTA": [], "conditioning_BTI": [], "code_BTC": []}
    for t in range(spec.episode):
        past = [torch.stack(of[-h:], 1) for of in (acts, seen, rews)]
        parts["code_BTC"].append(net.code(past[0], past[1], past[2][..., None])[:, 0])
        parts["obs_BTS"].append((obs_BS - mean_S) / std_S)
        parts["conditioning_BTI"].append(((target - earned_B) / spec.scale)[:, None])
        parts["act_BTA"].append(torch.zeros(B, 2))
        body = {name: torch.stack(of, 1) for name, of in parts.items()}
        body["time_BT"] = torch.arange(t + 1).expand(B, -1)
        act_BA = net.actions(None, body, lambda x: x)[:, -1].clamp(-1, 1)
        parts["act_BTA"][-1] = act_BA
        seen.append(obs_BS)
        obs_BS = obs_BS + 0.1 * act_BA
        rew_B = -(obs_BS - goal_BX).norm(dim=-1)
        acts.append(act_BA)
        rews.append(rew_B)
        earned_B, total_B = earned_B + rew_B, total_B + rew_B
    return total_B


SECTIONS = {"startup": startup, "streaming": streaming, "evaluation": evaluation}


if __name__ == "__main__":
    measured.main(
        __doc__, "latency", "What a person waits for", "train --config=configs/gpicl.py:smoke",
        "`bash launch/test.sh --latency --store` writes this record, where PyTorch is.", SECTIONS, digits=3, rounds=7)
