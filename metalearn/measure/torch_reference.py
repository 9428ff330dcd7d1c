"""The same update in PyTorch, eager, as the arm that `metalearn.benchmark` runs beside ours; the only file with torch.

Forward, backward, clipping and Adam on random images of the config's shapes: MAML as a loop over tasks, which is the
fastest form there (functorch's vmap pays for grouped convolutions), or prototypes. No episodes are drawn here, while
our own figure includes drawing them.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable


def lacks(config) -> str | None:
    """What is in the way of an arm for this config, as a line for a person; '' where there is one, None where a
    config has none by its nature (another learner or network)."""
    learner = config.learner.to_dict()
    backbone = learner.get("backbone", {})
    plain = learner["name"] == "protonet" or learner["name"] == "maml" and learner["adapt"] == "all" and (
        not learner["learn_lr"] and learner["order"] in ("second", "first"))
    if not plain or backbone.get("name") != "conv4" or backbone["norm"] != "batch":
        return None
    return "" if importlib.util.find_spec("torch") else "PyTorch is not installed: its arm is left out"


def make(config, spec) -> Callable[[], float]:
    """update() -> loss, one update of the config's learner; `lacks(config)` must be ''."""
    import torch
    from torch.nn import functional as F

    torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    torch.manual_seed(0)
    learner, backbone, num = config.learner, config.learner.backbone, config.train.batch
    high, wide, channels = spec.image_shape
    ways, stride = spec.train_outputs, 2 if backbone.down == "stride" else 1
    y_S = torch.arange(ways).repeat_interleave(spec.shots)
    y_Q = torch.arange(ways).repeat_interleave(spec.queries)
    x_BSX, x_BQX = (torch.randn(num, len(y), channels, high, wide) for y in (y_S, y_Q))

    def body(weights, x):
        for i in range(backbone.depth):
            kernel, scale, bias = weights[3 * i:3 * i + 3]
            x = F.batch_norm(F.conv2d(x, kernel, None, stride, 1), None, None, scale, bias, True)
            x = F.relu(x if stride == 2 else F.max_pool2d(x, 2))
        return x.flatten(1)

    weights, width = [], channels
    for _ in range(backbone.depth):
        weights += [torch.randn(backbone.width, width, 3, 3) * (2 / (9 * width)) ** 0.5, torch.ones(backbone.width),
                    torch.zeros(backbone.width)]
        width = backbone.width
    if learner.name == "maml":
        features = body(weights, x_BSX[0]).shape[1]
        weights += [torch.randn(ways, features) * features**-0.5, torch.zeros(ways)]
    weights = [w.requires_grad_() for w in weights]
    adam = torch.optim.Adam(weights, lr=config.optim.lr)

    def maml(x_SX, x_QX):
        fast, loss = weights, lambda fast, x, y: F.cross_entropy(F.linear(body(fast[:-2], x), *fast[-2:]), y)
        for _ in range(learner.inner_steps):
            grads = torch.autograd.grad(loss(fast, x_SX, y_S), fast, create_graph=learner.order == "second")
            fast = [w - learner.inner_lr * g for w, g in zip(fast, grads, strict=True)]
        return loss(fast, x_QX, y_Q)

    def protonet(x_SX, x_QX):
        mean_VD = body(weights, x_SX).view(ways, spec.shots, -1).mean(1)
        return F.cross_entropy(-torch.cdist(body(weights, x_QX), mean_VD) ** 2, y_Q)

    def update() -> float:
        adam.zero_grad()
        total = 0.0
        for x_SX, x_QX in zip(x_BSX, x_BQX, strict=True):
            loss = (maml if learner.name == "maml" else protonet)(x_SX, x_QX) / num
            loss.backward()
            total += float(loss.detach())
        if config.optim.clip:
            torch.nn.utils.clip_grad_norm_(weights, config.optim.clip)
        adam.step()
        return total

    return update
