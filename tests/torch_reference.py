"""The same update in PyTorch, as the arm that `tests/benchmark.py` runs beside ours; the only file with torch.

Plain, as a practitioner writes it: fused attention (`scaled_dot_product_attention`), the library's own convolutions and
norms, clipping, fused Adam; MAML as a loop over tasks, which is the fastest form there (functorch's vmap pays for
grouped convolutions). Parameters are ours, so that loss and gradient norm can be compared before anything is timed.

What an arm is spared: few-shot and Meta-DT arms stay on one batch, while our figures include drawing each; Meta-DT's is
given the codes and the prompt that ours computes. In-context arms draw their projections and images, like ours. Memory
networks and the world model: `torch_memory`, `_world`.
"""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metalearn import cli
from metalearn.nn import taps
from metalearn.runtime import config as config_lib, experiment as experiment_lib, loop
from metalearn.types import PyTree, leaf_name

import torch_memory  # isort: skip

THREADS = (1, 2)


def lacks(config) -> str | None:
    """What is in the way of an arm for this config, as a line for a person; '' where there is one, None where a
    config has none by its nature (another learner or network)."""
    learner = config.learner.to_dict()
    name, backbone = learner["name"], learner.get("backbone", {})
    steps = name == "protonet" or name == "maml" and learner["adapt"] == "all" and (
        not learner["learn_lr"] and learner["order"] in ("second", "first"))
    conv = steps and backbone.get("name") == "conv4" and backbone["norm"] == "batch"
    reads = name == "incontext" and learner["network"]["name"] == "transformer" and learner["layout"] != (
        "previous_example") and config.task.name == "projected"
    acts = name == "metadt" and learner["head"] == "mse" and learner["world_training"] == "frozen"
    remembers = name == "memnet" and torch_memory.covers(learner)
    foresees = name == "world" and learner["objective"] == "model" and learner["decoders"] == "reward"
    if not (conv or reads or acts or remembers or foresees) or config.optim.name != "adam":
        return None
    return "" if importlib.util.find_spec("torch") else "PyTorch is not installed: its arm is left out"


# what has to be off for two programs to compute the same number
DETERMINISTIC = {"metadt": ("dropout=0.0", "action_dropout=0.0", "context_dropout=0.0", "prompt_frac=1.0",
                            "warm_steps=0")}


def arms(spec, overrides, experiment, data, key, state) -> tuple[dict[str, Callable], dict[str, float]]:
    """({arm: one update there}, what was found to agree to 1e-4); ({}, {}) where there is none."""
    problem = lacks(experiment.config)
    if problem:
        print(problem, file=sys.stderr)
    if problem != "":
        return {}, {}
    fields = [f"learner.{field}" for field in DETERMINISTIC.get(experiment.config.learner.name, ())]
    plain = experiment_lib.build(config_lib.load(spec, [*overrides, *fields]), experiment.task)
    batch, key_learner = jax.jit(lambda state: loop.draw(plain, data, key, state))(state)
    memory = experiment.config.learner.name == "memnet"
    with jax.enable_x64(True):  # what differs after that is not rounding
        double = lambda a: a.astype("float64") if jnp.issubdtype(a.dtype, jnp.floating) else a
        params, carry, many = jax.tree.map(double, (state.params, state.carry, batch))
        if memory:
            params, carry = torch_memory.advanced(plain.learner, params, carry, many, key_learner)
        given = params, carry, many
        grads, _, means = jax.jit(plain.learner.grads)(*given, key_learner)
        found = [float(means["loss"].compute()), float(optax.global_norm(grads))]
    tokens = _tokens(plain.learner, state, batch) if experiment.config.learner.name == "metadt" else None
    if memory:
        with jax.enable_x64(True):
            tokens = torch_memory.given(experiment.config, experiment.task.spec, *given)
        state = state.replace(params=params)
    images = data["train"]["x_NX"] if experiment.config.learner.name == "incontext" else None
    other = Reference(experiment.config, experiment.task.spec, state.params, batch, images, tokens)
    theirs = other.check()
    for name, a, b in zip(("loss", "gradient norm"), found, theirs, strict=True):
        if abs(a - b) > 1e-4 * abs(a):
            raise cli.Failure(f"{spec}: {name} is {a:.6g} here and {b:.6g} in PyTorch: not the same update")
    return dict(other.arms()), {"loss": found[0], "grad_norm": found[1], "torch_loss": theirs[0],
                                "torch_grad_norm": theirs[1]}


def _tokens(learner, state, batch):
    """What the last network that `predict` applies is given."""
    given = []

    def listen(module, params, *args, **options):
        given.append(args[:2])
        return apply(module, params, *args, **options)

    apply, taps.apply = taps.apply, listen
    try:
        learner.predict(state.params, state.carry, batch)
    finally:
        taps.apply = apply
    return given[-1]


class Reference(torch_memory.Memory):
    """One config's update. `batch` is one of ours, for Meta-DT with `tokens`, what its network is given.

    check() -> (loss, gradient norm) on `batch`, no dropout; arms() yields (name, update) of every arm that works.
    """

    def __init__(self, config, spec, params: PyTree, batch: Any, images: np.ndarray | None = None,
                 tokens: PyTree | None = None):
        import torch

        self.config, self.spec, self.torch = config, spec, torch
        single = lambda a: a.astype(np.float32) if a.dtype == np.float64 else a
        tensor = lambda a: a if isinstance(a, int) else torch.from_numpy(single(np.array(a)))
        self.weights = {}
        for path, leaf in jax.tree_util.tree_leaves_with_path(params):
            leaf, name = np.asarray(leaf), leaf_name(path)
            turned = {2: (1, 0), 4: (3, 2, 0, 1)}.get(leaf.ndim) if "kernel" in name else None  # out, in, high, wide
            self.weights[name] = tensor(leaf.transpose(turned) if turned else leaf).contiguous().requires_grad_()
        self.batch = jax.tree.map(tensor, batch)
        self.images, self.tokens = images is not None and tensor(images), jax.tree.map(tensor, tokens)
        self.step = getattr(self, f"step_{config.learner.network.name}") if config.learner.name == "memnet" else None
        optim = config.optim
        decayed = [w for w in self.weights.values() if w.ndim >= 2]
        others = [w for w in self.weights.values() if w.ndim < 2]
        groups = [dict(params=decayed, weight_decay=optim.weight_decay), dict(params=others, weight_decay=0.0)]
        self.adam = torch.optim.AdamW(groups, lr=optim.lr, betas=(optim.b1, optim.b2), eps=optim.eps, fused=True)

    def check(self) -> tuple[float, float]:
        """In double precision: what differs after that is not rounding."""
        single = self.weights, self.batch, self.tokens
        double = lambda a: a if isinstance(a, int) or not a.is_floating_point() else a.double()
        self.weights = {name: w.detach().double().requires_grad_() for name, w in self.weights.items()}
        self.batch, self.tokens = jax.tree.map(double, (self.batch, self.tokens))
        loss = self._backward(self.loss, self.batch, False)
        norms = [w.grad.norm() for w in self.weights.values() if w.grad is not None]
        self.weights, self.batch, self.tokens = single
        return loss, float(self.torch.stack(norms).norm())

    def arms(self) -> Iterator[tuple[str, Callable[[], float]]]:
        """Eager and compiled, one and two threads; compiling starts at an arm's first call, and may fail there."""
        losses = {"eager": self.loss}
        if self.step:  # the compiler unrolls a loop over steps: a step is what can be compiled
            losses["compile"] = self._of_steps(self.torch.compile(self.step))
        elif self.config.learner.name != "maml":  # torch.compile has no second derivative
            losses["compile"] = self.torch.compile(self.loss)
        for kind, loss in losses.items():
            yield from ((f"{kind} {threads}", lambda loss=loss, threads=threads: self.update(loss, threads))
                        for threads in THREADS)

    def update(self, loss: Callable, threads: int) -> float:
        """One update; the loss."""
        self.torch.set_num_threads(threads)
        value = self._backward(loss, self._draw() if self.config.learner.name == "incontext" else self.batch, True)
        if self.config.optim.clip:
            self.torch.nn.utils.clip_grad_norm_(list(self.weights.values()), self.config.optim.clip)
        self.adam.step()
        return value

    def _backward(self, loss: Callable, batch: Any, train: bool) -> float:
        """The loss, its gradients left in the weights."""
        self.adam.zero_grad()
        if self.step and self.config.learner.rule == "synthetic":
            return loss()
        if self.config.learner.name != "maml":
            value = loss(batch, train)
            value.backward()
            return float(value.detach())
        total, num = 0.0, len(batch.x_BTX)
        for b in range(num):  # one task after another keeps one graph alive at a time
            value = loss(batch, b) / num
            value.backward()
            total += float(value.detach())
        return total

    @property
    def loss(self) -> Callable:
        """loss(batch, train) of the learner; MAML's is loss(batch, task)."""
        if self.step:
            return self._of_steps(self.step)
        return {"incontext": self._incontext, "maml": self._maml, "protonet": self._protonet, "metadt": self._metadt,
                "world": self._world}[self.config.learner.name]

    def _of_steps(self, step: Callable) -> Callable:
        bptt = self.config.learner.rule == "bptt"
        return self.memory_loss(step) if bptt else lambda: self.segment_update(step)

    # layers

    def _linear(self, name: str, x):
        return self.torch.nn.functional.linear(x, self.weights[name + "/kernel"], self.weights[name + "/bias"])

    def _norm(self, name: str, x):
        scale, bias = self.weights[name + "/scale"], self.weights[name + "/bias"]
        return self.torch.nn.functional.layer_norm(x, x.shape[-1:], scale, bias, 1e-6)

    def _block(self, name: str, x_BLD, heads: int, activation: str, mask, kept: slice, drop: Callable):
        F, D = self.torch.nn.functional, x_BLD.shape[-1]
        qkv = self._linear(f"{name}/attention/qkv", self._norm(f"{name}/norm_attention", x_BLD))
        q, k, v = qkv.unflatten(-1, (3, heads, D // heads)).permute(2, 0, 3, 1, 4)
        mask = None if mask is None else mask[..., kept, :]
        y = F.scaled_dot_product_attention(q[:, :, kept], k, v, mask, is_causal=mask is None)
        x_BLD = x_BLD[:, kept] + drop(self._linear(f"{name}/attention/out", y.transpose(1, 2).flatten(2)))
        h = self._linear(f"{name}/up", self._norm(f"{name}/norm_mlp", x_BLD))
        h = F.relu(h) if activation == "relu" else F.gelu(h, approximate="tanh")
        return x_BLD + drop(self._linear(f"{name}/down", h))

    def _conv4(self, weights: dict, x_NHWD):
        F, backbone = self.torch.nn.functional, self.config.learner.backbone
        x, stride = x_NHWD.permute(0, 3, 1, 2), 2 if backbone.down == "stride" else 1
        for i in range(backbone.depth):
            scale, bias = weights[f"norm_{i}/scale"], weights[f"norm_{i}/bias"]
            x = F.conv2d(x, weights[f"kernel_{i}"], None, stride, 1)
            x = F.batch_norm(x, None, None, scale, bias, True, eps=1e-5)
            x = F.relu(x if stride == 2 else F.max_pool2d(x, 2))
        return x.permute(0, 2, 3, 1).flatten(1)

    # learners

    def _draw(self):
        """x = A image, A ~ N(0, 1/X), and labels, as the task `projected` has them."""
        torch, X = self.torch, self.spec.features
        B, T = self.batch.y_BT.shape
        A_BXX = torch.randn(B, X, X) / X**0.5
        x_BTX = self.images[torch.randint(len(self.images), (B, T))] @ A_BXX.mT
        return self.batch.replace(x_BTX=x_BTX, y_BT=torch.randint(self.spec.outputs, (B, T)))

    def _incontext(self, batch, train: bool):
        torch, F, learner = self.torch, self.torch.nn.functional, self.config.learner
        ways, network, T = self.spec.outputs, learner.network, batch.y_BT.shape[1]
        each = (batch.x_BTX.shape[-1] + ways) / 2  # both parts of a token have the same say
        x_BTX = batch.x_BTX * (each / batch.x_BTX.shape[-1]) ** 0.5
        y_BTV = F.one_hot(batch.y_BT.long(), ways) * each**0.5
        mask = None
        if learner.layout == "shifted":
            tokens = torch.cat([x_BTX, F.pad(y_BTV, (0, 0, 1, -1))], -1)
        else:
            tokens = torch.cat([torch.cat([x_BTX, y_BTV], -1), torch.cat([x_BTX, torch.zeros_like(y_BTV)], -1)], 1)
            before, eye = torch.ones(T, T, dtype=torch.bool).tril(), torch.eye(T, dtype=torch.bool)
            mask = torch.cat([torch.cat([before, before & False], 1), torch.cat([before & ~eye, eye], 1)])
        x = self._linear("embed", tokens)
        if network.positions:
            place = self.weights["position"][:T]
            x = x + (place if mask is None else torch.cat([place, place]))
        for i in range(network.depth):
            kept = slice(-T, None) if i + 1 == network.depth else slice(None)
            x = self._block(f"blocks_{i}", x, network.num_heads, "gelu", mask, kept, lambda x: x)
        return F.cross_entropy(self._linear("head", self._norm("norm", x)).flatten(0, 1), batch.y_BT.long().flatten())

    def _metadt(self, batch, train: bool):
        F, learner = self.torch.nn.functional, self.config.learner
        drop = lambda x: F.dropout(x, learner.dropout, train and learner.dropout > 0)
        act_BTA = self.actions(*self.tokens, drop)
        weight_BT = batch.body.mask_BT[:, self.spec.history:]
        error_BT = ((act_BTA - batch.body.act_BTA[:, self.spec.history:]) ** 2).mean(-1)
        return (error_BT * weight_BT).sum() / weight_BT.sum()

    def actions(self, prompt, body, drop: Callable):
        """act_BTA of a window's tokens after those of a prompt (or None)."""
        torch, F, learner = self.torch, self.torch.nn.functional, self.config.learner
        linear = lambda name, x: self._linear(f"policy/{name}", x)
        time = lambda name, of: F.embedding(of.long(), self.weights[f"policy/{name}/embedding"])[:, :, None]
        state = body["obs_BTS"]
        if body["code_BTC"].shape[-1]:
            state = torch.cat([linear("obs", state), body["code_BTC"]], -1)
        parts = [linear("wish", body["conditioning_BTI"]), linear("obs_code", state), linear("act", body["act_BTA"])]
        x = (torch.stack(parts, 2) + time("time", body["time_BT"])).flatten(1, 2)
        x, mask = self._norm("policy/norm_in", x), None
        asked = slice(1, None, 3)
        if prompt is not None:
            parts = [linear(f"prompt_{name}", prompt[key]) for name, key in (
                ("wish", "conditioning_BTI"), ("obs", "obs_BTS"), ("act", "act_BTA"))]
            p = (torch.stack(parts, 2) + time("prompt_time", prompt["time_BT"])).flatten(1, 2)
            p = self._norm("policy/prompt_norm_in", p) if learner.prompt_norm else p
            asked = slice(p.shape[1] + 1, None, 3)
            there = torch.cat([(prompt["on_B"] > 0)[:, None].expand(-1, p.shape[1]), x[..., 0] == x[..., 0]], 1)
            x = torch.cat([p, x], 1)
            L = x.shape[1]
            causal = torch.ones(L, L, dtype=torch.bool).tril()
            mask = (causal & (there[:, None] | torch.eye(L, dtype=torch.bool)))[:, None]
        else:  # the last block asks for some places alone, so `is_causal` would not be what is meant
            mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()
        x = drop(x)
        for i in range(learner.depth):
            kept = asked if i + 1 == learner.depth else slice(None)
            x = self._block(f"policy/block_{i}", x, learner.num_heads, learner.activation, mask, kept, drop)
        return torch.tanh(linear("head", self._norm("policy/norm", x)))

    def _world(self, batch, train: bool):
        torch, F, h = self.torch, self.torch.nn.functional, self.spec.history
        body, net = batch.body, lambda name, x: self._linear(f"world/{name}", x)
        code_BTC = self.code(body.act_BTA, body.obs_BTS, body.rew_BT[..., None])[:, :-1]
        now = (("obs", body.obs_BTS), ("act", body.act_BTA), ("obs", body.next_BTS))
        x = [net(f"reward/{name}", part[:, h:]).relu() for name, part in now]
        x = torch.cat([*x, code_BTC], -1)
        for i in range(2):
            x = net(f"reward/hidden_{i}", x).relu()
        weight_BT = body.mask_BT[:, h:]
        gap_BT = net("reward/out", x)[..., 0] - body.rew_BT[:, h:]
        return (F.mse_loss(gap_BT, torch.zeros_like(gap_BT), reduction="none") * weight_BT).sum() / weight_BT.sum()

    def code(self, act_BTA, obs_BTS, rew_BT1):
        """The code of every step that has as many before it as the world model reads, and of the next."""
        net, h = lambda name, x: self._linear(f"world/encoder/{name}", x), self.spec.history
        parts = [net(name, x).relu() for name, x in (("act", act_BTA), ("obs", obs_BTS), ("rew", rew_BT1))]
        gates = net("gates_in", self.torch.cat(parts, -1))
        T, state = gates.shape[1] - h + 1, gates.new_zeros(1, 1, gates.shape[-1] // 3)
        for k in range(h):
            (r, z, n), (r_h, z_h, n_h) = gates[:, k:k + T].chunk(3, -1), net("gates_hidden", state).chunk(3, -1)
            retain = (z + z_h).sigmoid()
            state = retain * state + (1 - retain) * (n + (r + r_h).sigmoid() * n_h).tanh()
        return net("code", state)

    def _maml(self, batch, b: int):
        torch, F, S, learner = self.torch, self.torch.nn.functional, self.batch.support, self.config.learner
        x, y = batch.x_BTX[b], batch.y_BT[b].long()

        def loss(fast: dict, x, y):
            of = {name.removeprefix("body/"): w for name, w in fast.items()}
            return F.cross_entropy(F.linear(self._conv4(of, x), fast["head/kernel"], fast["head/bias"]), y)

        fast = self.weights
        for _ in range(learner.inner_steps):
            grads = torch.autograd.grad(loss(fast, x[:S], y[:S]), list(fast.values()),
                                        create_graph=learner.order == "second")
            fast = {name: w - learner.inner_lr * g for (name, w), g in zip(fast.items(), grads, strict=True)}
        return loss(fast, x[S:], y[S:])

    def _protonet(self, batch, train: bool):
        F, S, ways = self.torch.nn.functional, self.batch.support, self.spec.train_outputs
        total = 0.0
        for x, y in zip(batch.x_BTX, batch.y_BT.long(), strict=True):
            of = F.one_hot(y[:S], ways).to(x.dtype)
            mean_VD = of.T @ self._conv4(self.weights, x[:S]) / of.sum(0)[:, None]
            far_QV = self.torch.cdist(self._conv4(self.weights, x[S:]), mean_VD) ** 2
            total = total + F.cross_entropy(-far_QV, y[S:])
        return total / len(batch.x_BTX)

