"""Omniglot online, MANN's protocol: classes never named before, shown one after another, the label one step late.

An episode draws `ways` classes of the dataset, gives them labels in random order, and shows `shots` examples of each in
random order; with `rotate`, each class of an episode is turned by a random multiple of 90 degrees, which makes four
classes of one. The learner sees the label of step t with the input of step t + 1. `rare_ways` of the labels (the last
ones) are rare: each is shown `rare_shots` times.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metalearn import datasets
from metalearn.tasks import _ids
from metalearn.types import Array, Episodes, EpisodeSpec, TaskDist
from metalearn.validate import positive, require

SPLITS = ("train", "test")


def make(*, dataset: str, train: str, test: str, image_size: int, ways: int, shots: int, rare_ways: int,
         rare_shots: int, rotate: bool, task_seed: int) -> TaskDist:
    """dataset, train, test: what `datasets.load_classes(dataset, train | test, image_size, channels=1)` takes.

    Pixels are normalised by the mean and std of the training classes' images: as they are, ink on paper, they have a
    mean of .08 and next to no spread beside a label.
    """
    positive(shots=shots)
    require(0 <= rare_ways < ways, "rare_ways", rare_ways, f"must lie between 0 and ways - 1 = {ways - 1}")
    require(not rare_ways or rare_shots >= 1, "rare_shots", rare_shots, "must be at least 1")
    data: dict[str, Any] = {"task_seed": np.int32(task_seed)}
    hashes, names, mean, std = {}, {}, np.float64(0), np.float64(1)
    for split, classes in (("train", train), ("test", test)):
        part = datasets.load_classes(dataset, classes, image_size, 1)
        require(2 <= ways <= part.num_classes, "ways", ways,
                f"must lie between 2 and {part.num_classes}, the classes {classes} of dataset {dataset}")
        order = np.argsort(part.y_N, kind="stable")
        count_V = np.bincount(part.y_N)
        x_NHW = part.x_NX[order][..., 0]
        if split == "train":  # which comes first
            mean, std = x_NHW.mean(dtype=np.float64), x_NHW.std(dtype=np.float64)
        x_NHW = ((x_NHW - mean) / max(std, 1e-8)).astype(np.float32)
        data[split] = {"x_NHW": x_NHW, "count_V": count_V.astype(np.int32),
                       "start_V": (np.cumsum(count_V) - count_V).astype(np.int32)}
        require(count_V.min() >= max(shots, rare_shots), "shots", shots,
                f"must be at most {count_V.min()}, the examples of a class")
        hashes[split], names[split] = part.sha256, set(part.class_V)
    again = len(names["train"] & names["test"])
    require(again == 0, "test", test, f"shares {again} classes with train={train}")
    side = data["train"]["x_NHW"].shape[1:]
    require(side[0] == side[1] or not rotate, "rotate", rotate, f"needs square images, not {side}")
    label_T = np.repeat(np.arange(ways), [shots] * (ways - rare_ways) + [rare_shots] * rare_ways)
    which_T = np.concatenate([np.arange(c) for c in np.bincount(label_T)])
    length = len(label_T)
    largest = int(max(data[split]["count_V"].max() for split in SPLITS))

    def sample(data, key: Array, split: str, num: int) -> Episodes:
        part = jax.tree.map(jnp.asarray, data[split])
        task_B, root = _ids.draw(data, key, split, num)
        num_classes, most = part["count_V"].shape[0], int(np.bincount(label_T).max())

        def episode(task):
            key_class, key_example, key_order, key_turn = jax.random.split(jax.random.fold_in(root, task), 4)
            class_V = jax.random.permutation(key_class, num_classes)[:ways]
            # examples without replacement: the smallest of random numbers, those past a class's count never
            noise_VN = jax.random.uniform(key_example, (ways, largest))
            inside = jnp.arange(noise_VN.shape[1]) < part["count_V"][class_V][:, None]
            example_VS = jnp.argsort(jnp.where(inside, noise_VN, 2.0), axis=1)[:, :most]
            order_T = jax.random.permutation(key_order, length)
            y_T, nth_T = jnp.asarray(label_T)[order_T], jnp.asarray(which_T)[order_T]
            row_T = part["start_V"][class_V[y_T]] + example_VS[y_T, nth_T]
            return y_T, row_T, (jax.random.randint(key_turn, (ways,), 0, 4) * rotate)[y_T]

        y_BT, row_BT, turn_BT = jax.vmap(episode)(task_B)
        x_BTHW = part["x_NHW"][row_BT]
        if rotate:
            x_BTHW = jnp.select([(turn_BT == i)[..., None, None] for i in range(4)],
                                [jnp.rot90(x_BTHW, i, axes=(2, 3)) for i in range(4)])
        x_BTX = x_BTHW.reshape(num, length, -1)
        return Episodes(x_BTX, y_BT.astype(jnp.int32), jnp.ones((num, length)), task_B, row_BT.astype(jnp.int32),
                        ways=ways)

    spec = EpisodeSpec(length=length, features=int(np.prod(side)), targets="classes", outputs=ways,
                       rare_from=ways - rare_ways if rare_ways else None)
    facts = {"dataset": dataset, "sha256": hashes["test"][:16]}
    inputs = datasets.Inputs((*side, 1), float(mean), max(float(std), 1e-8), flat=True)
    return TaskDist(data, sample, SPLITS, spec, facts, inputs=inputs)
