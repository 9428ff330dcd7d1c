"""N-way K-shot episodes from any dataset (Vinyals et al. 2016; Santoro et al. 2016 for the stream).

A task is a set of classes and drawings, a function of (task_seed, id, split) alone: classes without replacement,
then `shots + queries` examples of each without replacement. The classes of train, val and test are disjoint.

ways=2, shots=1, queries=2, form=support_query: support [a0 b0], queries [b1 a1 a2 b2] in random order; y = [0 1 1 0 0
1], mask = [0 0 1 1 1 1]. As form=stream: all six in random order, mask 1 everywhere; labels are read one step late.

Several datasets joined by `+` are several sources: each task takes its classes from one of them, uniformly, and
results are tabled by source.
"""

import functools
import hashlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metalearn import datasets
from metalearn.tasks import _ids
from metalearn.types import Array, Episodes, EpisodeSpec, TaskDist
from metalearn.validate import ConfigError, one_of, require


def make(*, dataset: str, train_split: str, val_split: str, test_split: str, new_dataset: str, image_size: int,
         channels: int, flat: bool, rotations: str, ways: int, shots: int, queries: int, train_ways: int, form: str,
         num_tasks: int, task_seed: int) -> TaskDist:
    """The distribution.

    dataset         a dataset, or several joined by `+`
    train_split, val_split, test_split   which classes of it, as `datasets.load_classes` names them: the committed
                 splits train | val | test, or `classes:0-4`. No class of training may come again in val, test or new;
                 val_split and test_split `trained` say on purpose: the very classes of training. No class of val, on
                 which a setting is chosen, may come again in test; val_split '' is no validation
    new_dataset     '' or datasets never trained on, all of their classes: the split `new`, scaled to the others' size
    image_size   side to resize to (0: as they are); channels 1 or 3 (0: as they are)
    flat         inputs as plain vectors instead of images
    rotations    none | train | all: in which splits quarter turns of a class count as classes of their own, four times
                 as many (Omniglot's protocol: all; `train` gives meta-training more classes and tests on upright ones)
    ways, shots, queries   classes per episode, support and query examples of each
    train_ways   classes per training episode (prototypes train better on more); 0 is `ways`
    form         support_query (support, then queries) | stream (everything asked, labels one step late)
    num_tasks    meta-training tasks; 0 is unlimited (2**30 ids)

    Every image is normalised by one scalar mean and std, those of the meta-training classes.
    """
    protocol = Protocol(ways, train_ways or ways, shots, queries, rotations, form)
    protocol.check()
    limit = _ids.limit(num_tasks)

    sources = {"train": (dataset, train_split), "val": (dataset, val_split), "test": (dataset, test_split)}
    if not val_split:
        sources.pop("val")
    if new_dataset:
        sources["new"] = (new_dataset, "all")
    loaded = {split: _load(names, train_split if which == "trained" and split in ("val", "test") else which,
                           f"{split}_split", image_size, channels)
              for split, (names, which) in sources.items() if split != "new"}
    if new_dataset:  # takes the shape of the others, whatever it has
        height, width, depth = loaded["train"][0].x_NX.shape[1:]
        loaded["new"] = _load(new_dataset, "all", "new_dataset", height if height == width else 0, depth)
    _check_disjoint(sources, loaded)
    image_shape = _check_images(loaded, protocol)

    mean, std = _statistics(loaded["train"])
    parts = {split: _join(members, mean, std) for split, members in loaded.items()}
    # the class of an item (before rotation), which learners and reports may ask for and sampling does not
    class_N = {split: part.pop("class_N") for split, part in parts.items()}
    data = {"num_tasks": limit, "task_seed": np.int32(task_seed)} | parts
    stream = form == "stream"
    spec = EpisodeSpec(
        length=ways * (shots + queries), features=int(np.prod(image_shape)), targets="classes", outputs=ways,
        image_shape=None if flat else image_shape, shots=0 if stream else shots, queries=0 if stream else queries,
        train_outputs=protocol.train_ways, class_N=class_N["train"],
        num_classes=sum(m.num_classes for m in loaded["train"]) * protocol.turns("train"))
    facts = {"dataset": dataset, "new_dataset": new_dataset or dataset, "protocol": protocol.text(image_shape),
             "num_tasks": num_tasks, "class_N": class_N,
             "classes": [name for member in loaded["train"] for name in member.class_V]}
    facts |= _provenance(sources, loaded, protocol)
    return TaskDist(data, functools.partial(_sample, protocol, flat), tuple(sources), spec, facts,
                    {"num_tasks": _ids.limit}, inputs=datasets.Inputs(image_shape, mean, std, flat))


class Protocol(NamedTuple):
    """What an episode is; see `make`. `train_ways` is never 0 here."""

    ways: int
    train_ways: int
    shots: int
    queries: int
    rotations: str
    form: str

    def check(self) -> None:
        """ConfigError where a field is wrong whatever the data are."""
        for field, least in (("ways", 2), ("shots", 1), ("queries", 1)):
            value = getattr(self, field)
            require(value >= least, field, value, f"must be at least {least}")
        require(self.train_ways >= 2, "train_ways", self.train_ways, "must be 0 (as ways) or at least 2")
        one_of(("support_query", "stream"), form=self.form)
        one_of(("none", "train", "all"), rotations=self.rotations)

    def ways_in(self, split: str) -> int:
        """Classes of an episode."""
        return self.train_ways if split == "train" else self.ways

    def turns(self, split: str) -> int:
        """Classes that the quarter turns of one class make."""
        return 4 if self.rotations == "all" or self.rotations == split == "train" else 1

    def support(self, split: str) -> int:
        """Positions at an episode's start that are shown with their labels and do not count."""
        return 0 if self.form == "stream" else self.ways_in(split) * self.shots

    def text(self, image_shape: tuple[int, ...]) -> str:
        """The protocol in words."""
        turned = {"none": "", "train": ", x4 rotations in training", "all": ", x4 rotations"}[self.rotations]
        stream = ", stream" if self.form == "stream" else ""
        return (f"{self.ways}-way {self.shots}-shot, {self.queries} queries per class{turned}{stream}, "
                f"{image_shape[0]}x{image_shape[1]}")


def _sample(protocol: Protocol, flat: bool, data, key: Array, split: str, num: int) -> Episodes:
    """`TaskDist.sample` of a protocol."""
    data = jax.tree.map(jnp.asarray, data)  # outside jit they are numpy's, which a traced index refuses
    task_B = jax.random.randint(key, (num,), 0, data["num_tasks"] if split == "train" else _ids.limit(0))
    draw = lambda task: _episode(data[split], _key(data["task_seed"], task, split), protocol, split)
    x_BTX, y_BT, index_BT = jax.vmap(draw)(task_B)
    if flat:
        x_BTX = x_BTX.reshape(*y_BT.shape, -1)
    support = protocol.support(split)
    mask_BT = jnp.ones(y_BT.shape, jnp.float32).at[:, :support].set(0.0)
    return Episodes(x_BTX, y_BT, mask_BT, task_B, index_BT, support=support, ways=protocol.ways_in(split))


def _load(names: str, which: str, field: str, image_size: int, channels: int) -> list[datasets.Dataset]:
    loaded = []
    for name in names.split("+"):
        try:
            loaded.append(datasets.load_classes(name, which, image_size=image_size, channels=channels))
        except ConfigError as error:
            if error.field == "split":  # the field of this task that said so
                raise ConfigError(field, error.value, error.allowed) from None
            raise
    return loaded


def _check_disjoint(sources: dict[str, tuple[str, str]], loaded: dict[str, list[datasets.Dataset]]) -> None:
    """ConfigError where a class of training comes again in a split that is not called `trained`, or one of the test in
    validation."""
    classes = lambda split: {(member.name, name) for member in loaded.get(split, ()) for name in member.class_V}
    for split in sorted(set(loaded) - {"train"}):
        again = classes("train") & classes(split)
        names, which = sources[split]
        require(not again or (which == "trained" and split != "new"),
                "new_dataset" if split == "new" else f"{split}_split", names if split == "new" else which,
                f"shares {len(again)} classes with train_split"
                + ("" if split == "new" else "; `trained` says so on purpose"))
    again = (classes("val") & classes("test")) - classes("train")
    require(not again, "val_split", sources.get("val", ("", ""))[1],
            f"shares {len(again)} classes with test_split; '' is no validation")


def _check_images(loaded: dict[str, list[datasets.Dataset]], protocol: Protocol) -> tuple[int, ...]:
    """(height, width, channels) of all images; ConfigError where they differ, or are too few for the protocol."""
    image_shape = loaded["train"][0].x_NX.shape[1:]
    for split, members in loaded.items():
        for member in members:
            have = member.x_NX.shape[1:]
            require(have == image_shape, "new_dataset" if split == "new" else "dataset", member.name,
                    f"has images of shape {have}, the others of {image_shape}: set image_size and channels")
            _check_enough(member, protocol, split)
    square = image_shape[0] == image_shape[1]
    require(protocol.rotations == "none" or square, "rotations", protocol.rotations,
            f"needs square images, not {image_shape}")
    return image_shape


def _check_enough(dataset: datasets.Dataset, protocol: Protocol, split: str) -> None:
    have, ways = dataset.num_classes * protocol.turns(split), protocol.ways_in(split)
    require(ways <= have, "ways" if ways == protocol.ways else "train_ways", ways,
            f"must be at most {have}, the classes of {dataset.name} in the {split} split")
    fewest = int(np.unique(dataset.y_N, return_counts=True)[1].min())
    require(protocol.shots + protocol.queries <= fewest, "queries", protocol.shots + protocol.queries,
            f"shots + queries must be at most {fewest}, the fewest examples of a class: {dataset.name}, {split} split")


def _statistics(members: list[datasets.Dataset]) -> tuple[float, float]:
    """(mean, std) of pixels, every source having the same weight, as in sampling."""
    mean = float(np.mean([m.x_NX.mean(dtype=np.float64) for m in members]))
    variance = np.mean([((m.x_NX - mean) ** 2).mean(dtype=np.float64) for m in members])
    return mean, max(float(np.sqrt(variance)), 1e-8)


def _provenance(sources: dict[str, tuple[str, str]], loaded: dict[str, list[datasets.Dataset]],
                protocol: Protocol) -> dict:
    """What reports say of the data: hashes, the classes of each split and where each comes from."""
    digests = {split: [m.sha256 for m in members] for split, members in loaded.items()}
    splits = {split: {"dataset": names, "classes": sum(m.num_classes for m in loaded[split]) * protocol.turns(split),
                      "of": which, "sha256": digests[split], "notes": [m.note for m in loaded[split] if m.note],
                      "split_sha256": [m.split_sha256 for m in loaded[split]]}
              for split, (names, which) in sources.items()}
    source_V = {split: tuple(v for m in members for v in m.source_V) for split, members in loaded.items()}
    return {"sha256": hashlib.sha256(repr(sorted(digests.items())).encode()).hexdigest()[:16], "splits": splits,
            "source_V": source_V}


def _join(members: list[datasets.Dataset], mean: float, std: float) -> dict:
    """All sources of one split as one array sorted by class, with where each class and each source begins."""
    classes_P = np.array([member.num_classes for member in members])
    first_P = np.cumsum(classes_P) - classes_P
    class_N = np.concatenate([member.y_N + first for member, first in zip(members, first_P, strict=True)])
    index_N = np.argsort(class_N, kind="stable")
    _, start_V, count_V = np.unique(class_N[index_N], return_index=True, return_counts=True)
    x_NX = (np.concatenate([member.x_NX for member in members])[index_N] - mean) / std
    whole = dict(start_V=start_V, count_V=count_V, index_N=index_N, first_P=first_P, classes_P=classes_P,
                 class_N=class_N)
    return {"x_NX": x_NX.astype(np.float32)} | {name: array.astype(np.int32) for name, array in whole.items()}


def _key(task_seed: Array, task: Array, split: str) -> Array:
    """The key of one task. Splits differ in classes already; their names are folded in so that drawings differ too."""
    key = jax.random.fold_in(jax.random.key(task_seed, impl="threefry2x32"), task)
    return jax.random.fold_in(key, ("train", "val", "test", "new").index(split))


def choose(key: Array, total: Array, num: int) -> Array:
    """`num` distinct integers below `total` (traced) in random order: Floyd's algorithm, then a shuffle.

    Unlike sorting random numbers its cost does not grow with `total`: classes may hold thousands of examples.
    """
    key_draw, key_order = jax.random.split(key)
    bound = total - num + 1 + jnp.arange(num)
    guess = jax.random.randint(key_draw, (num,), 0, bound)

    def step(taken, inputs):
        i, candidate, highest = inputs
        value = jnp.where((taken == candidate).any(), highest, candidate)
        return taken.at[i].set(value), None

    taken, _ = jax.lax.scan(step, jnp.full((num,), -1, guess.dtype), (jnp.arange(num), guess, bound - 1))
    return jax.random.permutation(key_order, taken)


def _episode(part, key, protocol: Protocol, split: str):
    """One episode: (x_TX, y_T, index_T); index counts a drawing turned k times as row + k * (rows of the dataset)."""
    ways, turns, shots, queries = protocol.ways_in(split), protocol.turns(split), protocol.shots, protocol.queries
    key_source, key_class, key_example, key_order = jax.random.split(key, 4)
    source = jax.random.randint(key_source, (), 0, part["first_P"].shape[0])
    num_classes = part["classes_P"][source]
    picked_V = choose(key_class, num_classes * turns, ways)
    turn_V, class_V = picked_V // num_classes, part["first_P"][source] + picked_V % num_classes
    pick = lambda key, c: part["start_V"][c] + choose(key, part["count_V"][c], shots + queries)
    row_VE = jax.vmap(pick)(jax.random.split(key_example, ways), class_V)

    # a random order within each part: a learner that knows its position must not know the label from it
    key_support, key_query, key_all = jax.random.split(key_order, 3)
    ids_VE = jnp.arange(ways * (shots + queries)).reshape(ways, -1)
    order_T = jnp.concatenate([jax.random.permutation(key_support, ids_VE[:, :shots].reshape(-1)),
                               jax.random.permutation(key_query, ids_VE[:, shots:].reshape(-1))])
    if protocol.form == "stream":
        order_T = jax.random.permutation(key_all, order_T)
    row_T, y_T = row_VE.reshape(-1)[order_T], order_T // (shots + queries)
    turn_T = turn_V[y_T]
    x_TX = part["x_NX"][row_T]
    if turns == 4:
        x_TX = jax.vmap(lambda image, turn: jnp.stack([jnp.rot90(image, k) for k in range(4)])[turn])(x_TX, turn_T)
    num_rows = part["x_NX"].shape[0]
    return x_TX, y_T.astype(jnp.int32), (part["index_N"][row_T] + turn_T * num_rows).astype(jnp.int32)
