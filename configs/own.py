"""Few-shot learning on pictures of your own: a folder CLASS/*.png, or an .npz of x and y. The argument is a LEARNER.

  metalearn train --config=own:protonet --config.task.dataset=PATH --workdir=runs/own                       2 minutes

Learners: those of configs/fewshot.py. Pictures are scaled to 28x28 and greyed (task.image_size, task.channels). Three
fifths of the classes are for training, a fifth each for validation and the exam, by a fixed draw, unless the folder has
train, val and test itself; --config.task.ways=2 where few classes are left for the exam.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import common, fewshot


def get_config(arg: str = "") -> ConfigDict:
    learner = common.choose(arg, {name: name for name in fewshot.LEARNERS} | {"smoke": "protonet"}, "protonet")
    config, smoke = fewshot.get_config(f"cifar_fs_5w1s,{learner}"), arg == "smoke"
    config.task.update(dict(dataset="blobs", image_size=28, channels=1, queries=5))  # made up, until PATH is given
    config.evaluators.fewshot.episodes_sha256 = ()
    if smoke:
        config.task.image_size, config.learner.backbone.width = 16, 4
        config.train.update(dict(batch=2, steps=4, steps_per_call=2, log_every=2, save_every=2))
        config.evaluators.fewshot.update(dict(episodes=8, chunk=4))
    return config
