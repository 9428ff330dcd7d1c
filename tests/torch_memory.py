"""Memory networks in PyTorch, for `torch_reference`: an LSTM, NTM and LRUA by full backpropagation, and synthetic
gradients (DNI with a linear feedback model) over segments. Steps are a Python loop; the compiled arm compiles a step.

What is spared: tokens and labels are ours, and the arm stays on one batch.
"""

import jax
import jax.numpy as jnp

from metalearn.learning import segments, synthesiser
from metalearn.nn import network as network_lib

NETWORKS = ("lstm", "ntm", "lrua")
EPS = 1e-6


def covers(learner: dict) -> bool:
    """Whether there is an arm for this `config.learner`."""
    plain = dict(hidden=0, heads=(), gamma=1.0, clip=0.0, gate=False, trace=0.0, aux=0.0, adapter="none")
    simple = all(learner["feedback"][field] == value for field, value in plain.items())
    name, rule = learner["network"]["name"], learner["rule"]
    known = name in NETWORKS and (rule == "bptt" or rule == "synthetic" and name == "lstm" and simple)
    return known and not learner["networks"] and not learner["remat"]


def advanced(learner, params, carry, batch, key):
    """(params, carry) one update on, with a feedback model that says something: the first segment is not queried."""
    if "inner" not in carry or not jax.tree.leaves(carry["inner"]):
        return params, carry
    _, carry, _ = jax.jit(learner.grads)(params, carry, batch, key)
    leaves, tree = jax.tree.flatten(params["feedback"])
    keys = jax.random.split(jax.random.key(0), len(leaves))
    noisy = [leaf + 0.1 * jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
    return params | {"feedback": jax.tree.unflatten(tree, noisy)}, carry


def given(config, spec, params, carry, batch) -> dict:
    """What the arm reads: every segment of the batch, the state that it begins with, and G's contexts."""
    learner, length = config.learner, batch.mask_BT.shape[1]
    whole = learner.rule == "bptt"
    steps = length if whole else learner.segment
    reader = segments.Reader(learner.inputs, spec.targets, spec.outputs, steps, False, learner.label_scale)
    net = network_lib.make(learner.network.to_dict(), network_lib.NetworkSpec(
        spec.outputs, spec.features, learner.inputs, length, "float32", 1))
    options = synthesiser.Options(**learner.feedback.to_dict())
    label_sum = lambda weight_BT: segments.label_sum(batch.y_BT, weight_BT, spec.targets, spec.outputs)
    num = -(-length // steps)
    cuts = [reader.cut(batch, jnp.int32(k * steps), steps) for k in range(num)]
    first = net.initial_state(params["net"]["0"], len(batch.mask_BT), length)
    state = first if whole else carry["inner"]["0"]["state"]
    return {"segments": [cut._asdict() for cut in cuts], "first": first, "state": state,
            "at": 0 if whole else int(carry["segment"]),
            "context": [synthesiser.context(options, batch, label_sum, jnp.int32(k * steps)) for k in range(num + 1)],
            "future": [segments.future_mask(batch, jnp.int32(k * steps)) for k in range(num + 1)]}


class Memory:
    """Mixed into `torch_reference.Reference`: torch, config, weights and tokens (what `given` gave)."""

    def memory_loss(self, step):
        """loss(batch, train) by full backpropagation; `step` is the network's, compiled or not."""
        def loss(batch, train):
            segment = self.tokens["segments"][0]
            return self._read(step, self._first(), segment)[0].sum() / segment["x_TBX"].shape[1]

        return loss

    def segment_update(self, step):
        """One segment with the future's gradient injected, its gradients left in the weights; the loss."""
        given, num = self.tokens, self.tokens["segments"][0]["x_TBX"].shape[1]
        k = given["at"]
        state = {name: leaf.detach().requires_grad_() for name, leaf in given["state"]["output"].items()}
        loss_B, after = self._read(step, state, given["segments"][k])
        delta = self._feedback(after, given["context"][k + 1]).detach() * given["future"][k + 1][:, None]
        flat = lambda of: self.torch.cat([of["c"], of["h"]], -1)
        ((loss_B.sum() + (delta * flat(after)).sum()) / num).backward()
        target = self.torch.cat([state["c"].grad, state["h"].grad], -1) * num
        gap_BX = self._feedback(state, given["context"][k]) - target
        ((gap_BX**2).sum(-1) * given["future"][k] * (k > 0)).mean().backward()
        last = k + 1 == len(given["segments"])
        given["at"], given["state"] = (0, given["first"]) if last else (
            k + 1, {"output": {name: leaf.detach() for name, leaf in after.items()}})
        weight_TB = given["segments"][k]["weight_TB"]
        return float(loss_B.detach().sum() / weight_TB.sum()) if float(weight_TB.sum()) else 0.0

    def _feedback(self, state, context_BC):
        inside_BX, W = self.torch.cat([state["c"], state["h"]], -1).detach(), self.weights
        said = inside_BX @ W["feedback/output_out/kernel"].T + W["feedback/output_out/bias"]
        beside = W.get("feedback/output_beside/kernel")
        return said if beside is None else said + context_BC @ beside.T

    def _first(self):
        """The state that an episode begins with; a learned memory is a weight."""
        first = self.tokens["first"]
        if "net/0/initial_memory/M" in self.weights:
            M_BMW = self.weights["net/0/initial_memory/M"].expand(first["memory"]["M"].shape)
            first = first | {"memory": first["memory"] | {"M": M_BMW}}
        return {name: leaf for group in first.values() for name, leaf in group.items()}

    def _read(self, step, state, segment):
        """(loss_B, state) of one segment."""
        F, T = self.torch.nn.functional, len(segment["x_TBX"])
        u_TBX, outs = self._linear("net/0/project", segment["x_TBX"]), []
        for t in range(T):
            state, out = step(state, u_TBX[t])
            outs.append(out)
        logits_TBV = self._linear("net/0/readout", self.torch.stack(outs))
        loss_TB = F.cross_entropy(logits_TBV.flatten(0, 1), segment["y_TB"].long().flatten(), reduction="none")
        return (loss_TB.view(T, -1) * segment["weight_TB"]).sum(0), state

    def _lstm(self, state, gates, name):
        i, f, g, o = gates.chunk(4, -1)
        c = (f + 1).sigmoid() * state["c"] + i.sigmoid() * g.tanh()
        return {"c": c, "h": o.sigmoid() * c.tanh()}

    def step_lstm(self, state, u):
        new = self._lstm(state, u + state["h"] @ self.weights["net/0/cell/gates/kernel"].T, "cell")
        return new, new["h"]

    def _controlled(self, state, u):
        """(new controller state, h, what it says to the memory) of a network with slots."""
        kernel = self.weights["net/0/output/gates/kernel"]
        if self.config.learner.network.controller == "ffn":
            new, h = {}, (u + state["r"] @ kernel.T).tanh()
        else:
            new = self._lstm(state, u + self.torch.cat([state["r"], state["h"]], -1) @ kernel.T, "output")
            h = new["h"]
        return new, h, self._linear("net/0/emit", h)

    def _content(self, M_BMW, key_BW, beta):
        """softmax(beta cosine)."""
        dot_BM = (M_BMW @ key_BW[..., None])[..., 0]
        norms = ((M_BMW**2).sum(-1) + EPS) * ((key_BW**2).sum(-1)[:, None] + EPS)
        return (beta * dot_BM * norms.rsqrt()).softmax(-1)

    def step_ntm(self, state, u):
        torch, F, network = self.torch, self.torch.nn.functional, self.config.learner.network
        W, S, R = network.width, 2 * network.shifts + 1, network.reads
        new, h, said = self._controlled(state, u)
        heads, erase, add = said.split([(R + 1) * (W + 3 + S), W, W], -1)
        M, weights = state["M"], []
        for i, head in enumerate(heads.chunk(R + 1, -1)):
            key, beta, gate, shift, gamma = head.split([W, 1, 1, S, 1], -1)
            before = state["read"][..., i] if i < R else state["write"][..., 0]
            w, g = self._content(M, key.tanh(), F.softplus(beta)), gate.sigmoid()
            w, shift = g * w + (1 - g) * before, shift.softmax(-1)
            w = sum(shift[:, j:j + 1] * w.roll(j - network.shifts, -1) for j in range(S))
            w = w / (w.amax(-1, keepdim=True).detach() + EPS)
            w = (w + EPS) ** (1 + F.softplus(gamma))
            weights.append(w / w.sum(-1, keepdim=True))
        read, write = torch.stack(weights[:-1], -1), weights[-1][..., None]
        r = (read.mT @ M).flatten(1)
        M = M * (1 - write * erase.sigmoid()[:, None]) + write * add.tanh()[:, None]
        return new | {"M": M, "read": read, "write": write, "r": r}, torch.cat([h, r], -1)

    def step_lrua(self, state, u):
        torch, F, network = self.torch, self.torch.nn.functional, self.config.learner.network
        W, R, own = network.width, network.reads, network.adds == "own"
        new, h, said = self._controlled(state, u)
        keys, alpha, adds = said.split([R * W, R, R * W if own else 0], -1)
        keys_BRW = keys.unflatten(-1, (R, W)).tanh()
        adds_BRW = adds.unflatten(-1, (R, W)).tanh() if own else keys_BRW
        usage_BM, mix = state["usage"][..., 0], alpha.sigmoid()[:, None]
        order = usage_BM.detach().argsort(dim=-1, stable=True)[:, :R]
        least_BMR = F.one_hot(order, network.slots).mT.to(usage_BM.dtype)
        write_BMR = mix * state["read"] + (1 - mix) * least_BMR
        M = state["M"] * (1 - least_BMR[..., :1]) + write_BMR @ adds_BRW
        read_BMR = torch.stack([self._content(M, keys_BRW[:, i], W**0.5) for i in range(R)], -1)
        usage_BM = network.decay * usage_BM + read_BMR.sum(-1) + write_BMR.sum(-1)
        r = (read_BMR.mT @ M).flatten(1)
        return new | {"M": M, "read": read_BMR, "usage": usage_BM[..., None], "r": r}, torch.cat([h, r], -1)
