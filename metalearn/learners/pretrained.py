"""The plain baseline (Chen et al. 2019): train one classifier of all meta-training classes, fit a head to each task.

Training ignores the episodes' own labels: every example, support or query, is classified among all meta-training
classes (rotated ones included). Prediction fits a new linear head on the embedded support by gradient descent
(finetune=head), or moves the embedding too (finetune=all).
"""

import jax
import jax.numpy as jnp
import numpy as np

from metalearn.learning import support_query
from metalearn.learning.gradients import grads_from_loss, inner_loop
from metalearn.measure import losses
from metalearn.nn import backbone as backbone_lib
from metalearn.types import Episodes, Learner, Mean
from metalearn.validate import nonnegative, one_of, positive


def make(spec, *, backbone: dict, finetune: str, eval_steps: int, eval_lr: float, weight_decay: float) -> Learner:
    """The learner.

    finetune      head | all: what descends on the support in prediction
    eval_steps    full-batch gradient steps at rate `eval_lr`, with `weight_decay` / 2 times the head's squared norm

    The head works on embeddings scaled to unit mean square, so that one rate fits all networks.
    """
    support_query.need(spec, classification=True)
    one_of(("head", "all"), finetune=finetune)
    positive(eval_steps=eval_steps, eval_lr=eval_lr)
    nonnegative(weight_decay=weight_decay)
    net = backbone_lib.make(backbone, spec)
    num_classes, class_N = spec.num_classes, np.asarray(spec.class_N)
    scaled = lambda h: h * jax.lax.rsqrt((h**2).mean(-1, keepdims=True) + 1e-12)

    def loss(params, carry, batch: Episodes, key):
        # a drawing turned k times counts as row + k * rows: see tasks.fewshot
        turn_BT, row_BT = batch.index_BT // len(class_N), batch.index_BT % len(class_N)
        class_BT = jnp.asarray(class_N)[row_BT] + turn_BT * (class_N.max() + 1)
        x_BSX, _, x_BQX, _ = support_query.parts(batch)
        h_BSD, h_BQD, carry = backbone_lib.embed(net, params["body"], carry, x_BSX, x_BQX, True)
        h_BTD = jnp.concatenate([h_BSD, h_BQD], 1)
        logits_BTV = scaled(h_BTD) @ params["classes"]["kernel"] + params["classes"]["bias"]
        value = Mean.of(losses.cross_entropy(logits_BTV, class_BT))
        return value.compute(), (carry, {"loss": value, "accuracy": Mean.of(losses.correct(logits_BTV, class_BT))})

    def init(key, batch: Episodes):
        key_body, key_head = jax.random.split(key)
        body = net.init(key_body, batch.x_BTX[0])
        kernel = 0.1 * jax.random.normal(key_head, (net.features, num_classes)) * net.features**-0.5
        params = {"body": body, "classes": {"kernel": kernel, "bias": jnp.zeros(num_classes)}}
        return params, backbone_lib.start(net, body, batch.x_BTX)

    def adapt_to(params, carry, x_SX, y_S, task, steps, keep):
        """Body and new head after fitting the support; where only the head moves, embeddings are computed once."""
        stats = carry if net.norm == "running" else None
        head = {"kernel": jnp.zeros((net.features, spec.outputs)), "bias": jnp.zeros(spec.outputs)}
        if finetune == "head":
            h_SD = scaled(net.apply(params["body"], x_SX, stats)[0])
            fast, features = {"head": head}, lambda fast: h_SD
        else:
            fast = {"head": head, "body": params["body"]}
            features = lambda fast: scaled(net.apply(fast["body"], x_SX, stats)[0])

        def objective(fast):
            logits_SV = features(fast) @ fast["head"]["kernel"] + fast["head"]["bias"]
            decay = 0.5 * weight_decay * (fast["head"]["kernel"] ** 2).sum()
            return losses.cross_entropy(logits_SV, y_S).mean() + decay

        return inner_loop(objective, fast, eval_lr, steps, 0, False, keep)

    def answer(params, carry, fast, x_SX, x_QX):
        body = fast.get("body", params["body"])
        stats = carry if net.norm == "running" else None
        stats = net.apply(body, x_SX)[1] if net.norm == "episode" else stats
        return scaled(net.apply(body, x_QX, stats)[0]) @ fast["head"]["kernel"] + fast["head"]["bias"]

    predict, path = support_query.by_steps(spec, adapt_to, answer, eval_steps)
    return Learner(init, grads_from_loss(loss), predict, lambda length: (net.features + 1) * spec.outputs, path=path)
