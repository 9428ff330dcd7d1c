"""GPICL's task distribution: randomly projected, label-permuted images (arXiv 2212.04458, section on tasks).

A task is (A, rho), both a function of its integer id: inputs are A x with A ~ N(0, 1/X), labels are rho(y). K, the
number of meta-training tasks, is a range of ids and travels as data. Splits (all but `train` unbiased):

  train       ids in [0, K), meta-training images, a fraction `bias` of the batch under one fixed rho
  seen        the same ids and images                      seen_image  the same ids, held-out images
  unseen      fresh ids, held-out images                   identity    A = 1, fresh rho, held-out images
  new         fresh ids, classes or a dataset never used in meta-training
  random      `random_points` points x ~ U(0, 1), normalised, each with a uniform label, shown again and again
  unseen_random_labels, seen_random_labels   labels of the context drawn anew, the last one true: a learner falls
              to chance, one that knows the task from x alone does not
  seen_relabelled   A and classes of a trained id, a fresh rho: an identifier keeps the old labels, a learner follows
  seen_old_labels   the same, but the last label is the id's own and alone is scored: chance for a learner
"""

import dataclasses
import hashlib

import jax
import jax.numpy as jnp
import numpy as np

from metalearn import datasets
from metalearn.nn import noise
from metalearn.tasks import _ids
from metalearn.tasks._ids import FIRST_EVAL_ID
from metalearn.types import Array, Episodes, EpisodeSpec, TaskDist
from metalearn.validate import fraction, one_of, require

SPLITS = ("train", "seen", "seen_image", "unseen", "new", "random", "identity", "unseen_random_labels",
          "seen_random_labels", "seen_relabelled", "seen_old_labels")


def make(*, dataset: str, split_by: str, train_classes: int, heldout_frac: float, new_dataset: str, image_size: int,
         channels: int, pca: int, ways: int, length: int, num_tasks: int, bias: float, random_points: int,
         task_seed: int, mixture: tuple[str, ...], spectra: float, projection: str) -> TaskDist:
    """The distribution; the fields from `dataset` to `pca` are those of `datasets.split_features`.

    ways           V, classes per task; a dataset with more gives each task its own subset
    length         T, examples per episode
    num_tasks      K; 0 is unlimited (2**30 ids)
    bias           p, the fraction of a training batch under one fixed label order
    random_points  distinct points of the `random` split
    task_seed      what (A, rho) of an id is a function of
    mixture        datasets whose training parts the split `train` draws from as well, each as often as `dataset`, all
                   classes of an episode from one of them: which, the id says. () none
    spectra        in `train` the features are multiplied by factors before A, a task's own for each feature: the std of
                   their logarithm. 0 none
    projection     how A is drawn: gaussian, or binomial (`nn.noise`; the same mean, variance and independence, nearly
                   normal, a fifth of the time)

    Images are drawn i.i.d.: a uniform class of the task, then a uniform example of it, with replacement.
    """
    fraction(bias=bias)
    require(length >= 2, "length", length, "must be at least 2")
    require(spectra >= 0, "spectra", spectra, "must be at least 0")
    one_of(("gaussian", "binomial"), projection=projection)
    require(random_points >= 1, "random_points", random_points, "must be at least 1")
    limit = _ids.limit(num_tasks)
    require(0 <= task_seed < 2**31, "task_seed", task_seed, "must lie between 0 and 2**31 - 1")
    prepared = datasets.split_features(dataset=dataset, split_by=split_by, train_classes=train_classes,
                                       new_dataset=new_dataset, heldout_frac=heldout_frac, image_size=image_size,
                                       channels=channels, pca=pca, mixture=tuple(mixture))
    parts = {"train": prepared.train, "heldout": prepared.heldout, "new": prepared.new}
    for name, part in parts.items():
        _enough(part, ways, f"the {name} part of dataset {new_dataset or dataset if name == 'new' else dataset}")
    if mixture:
        parts["mixture"] = prepared.mixture
    num_features = prepared.train.x_NX.shape[1]
    data = {"num_tasks": limit, "task_seed": np.int32(task_seed)}
    data |= {name: dataclasses.asdict(part) for name, part in parts.items()}

    def sample(data, key: Array, split: str, num: int) -> Episodes:
        key_id, key_bias, key_image = jax.random.split(key, 3)
        trained = split == "train" or split.startswith("seen")
        task_B = jax.random.randint(key_id, (num,), 0, data["num_tasks"] if trained else FIRST_EVAL_ID)
        task_B = task_B if trained else task_B + FIRST_EVAL_ID
        biased_B = jax.random.uniform(key_bias, (num,)) < (bias if split == "train" else 0.0)
        # every episode has its own key, so that what it shows does not depend on its place in the batch
        same = split, ways, length, random_points, spectra, projection
        one = lambda key, task, biased: _episode(data, key, task, biased, *same)
        x_BTX, y_BT, index_BT = jax.vmap(one)(jax.random.split(key_image, num), task_B, biased_B)
        mask_BT = jnp.ones((num, length), jnp.float32)
        if split.endswith("_labels"):  # the last label alone is of another kind, so only it can be scored
            mask_BT = mask_BT.at[:, :-1].set(0.0)
        return Episodes(x_BTX, y_BT, mask_BT, task_B, index_BT, ways=ways)

    def pool(name: str) -> TaskDist:
        part, of = prepared.pool(name)
        _enough(part, ways, f"dataset {name}")
        sha256 = hashlib.sha256(f"{prepared.sha256}{of.sha256}".encode()).hexdigest()[:16]
        return dataclasses.replace(dist, data=data | {"new": dataclasses.asdict(part)},
                                   facts=facts | {"new_dataset": name, "sha256": sha256})

    spec = EpisodeSpec(length=length, features=num_features, targets="classes", outputs=ways)
    facts = {"dataset": dataset, "new_dataset": new_dataset or dataset,
             "num_tasks": num_tasks, "sha256": hashlib.sha256(prepared.sha256.encode()).hexdigest()[:16],
             "prepared": prepared}
    dist = TaskDist(data, sample, SPLITS, spec, facts, {"num_tasks": _ids.limit}, pool=pool,
                    inputs=prepared.inputs)
    return dist


def _enough(part: datasets.Part, ways: int, of: str) -> None:
    most = part.num_classes
    require(2 <= ways <= most, "ways", ways, f"must lie between 2 and {most}, the classes of {of}")


def draw_task(task_seed: Array, task: Array, num_features: int, num_classes: int,
              projection: str = "gaussian") -> tuple[Array, Array]:
    """(A_XX, order_V) of one id: x -> A x, and the classes in the order of the task's labels.

    A typed threefry key: with rbg keys a draw under vmap is not a function of its key alone.
    """
    key = jax.random.fold_in(jax.random.key(task_seed, impl="threefry2x32"), task)
    key_A, key_order = jax.random.split(key)
    draw = {"gaussian": jax.random.normal, "binomial": noise.binomial}[projection]
    A_XX = draw(key_A, (num_features, num_features)) / num_features**0.5
    return A_XX, _permutation(key_order, num_classes)


def _permutation(key: Array, num: int) -> Array:
    """A uniform permutation; one draw and one sort compile several times faster than jax.random.permutation."""
    return jnp.argsort(jax.random.uniform(key, (num,)))


def _varied(task_seed, task, A_XX, order_V, part, ways, spectra):
    """(A_XX, order_V) of a training task: features louder or softer, classes from one dataset of the mixture."""
    first_P, num_classes = part["first_P"], part["start_V"].shape[0]
    key = jax.random.fold_in(jax.random.key(task_seed, impl="threefry2x32"), task)
    key_member, key_order, key_scales = jax.random.split(jax.random.fold_in(key, 1), 3)
    if len(first_P) > 1:
        which = jax.random.randint(key_member, (), 0, len(first_P))
        member_V = jnp.searchsorted(first_P, jnp.arange(num_classes), side="right") - 1
        # not a permutation of all: sorting a thousand numbers for each task takes half as long as a step of training
        drawn_V = jnp.where(member_V == which, jax.random.uniform(key_order, (num_classes,)), -1.0)
        order_V = jax.lax.top_k(drawn_V, ways)[1]
    if spectra:
        scales_X = jnp.exp(spectra * jax.random.normal(key_scales, A_XX.shape[:1]))
        A_XX = A_XX * scales_X / jnp.sqrt((scales_X**2).mean())
    return A_XX, order_V


def _episode(data, key, task, biased, split, ways, length, random_points, spectra, projection):
    """One episode: (x_TX, y_T, index_T)."""
    key_draws, key_extra = jax.random.split(key)
    where = {"train": "train", "seen": "train", "new": "new", "seen_random_labels": "train",
             "seen_relabelled": "train", "seen_old_labels": "train"}.get(split, "heldout")
    part = data["mixture" if split == "train" and "mixture" in data else where]
    num_features, num_classes = part["x_NX"].shape[1], part["start_V"].shape[0]
    A_XX, order_V = draw_task(data["task_seed"], task, num_features, num_classes, projection)
    if split == "identity":
        A_XX = jnp.eye(num_features)
    if split == "train":
        A_XX, order_V = _varied(data["task_seed"], task, A_XX, order_V, part, ways, spectra)
    own_V = order_V = jnp.where(biased, jnp.arange(ways), order_V[:ways])
    if split in ("seen_relabelled", "seen_old_labels"):
        order_V = own_V[_permutation(key_extra, ways)]

    # every integer of the episode comes from one draw of uniforms: each separate draw costs a second of compiling
    class_u_T, example_u_T, label_u_T = jax.random.uniform(key_draws, (3, length))
    below = lambda u, n: (u * n).astype(jnp.int32)
    if split == "random":
        uniforms = jax.random.uniform(key_extra, (random_points, num_features + 1))
        points, labels = (uniforms[:, 1:] - 0.5) * 12**0.5, below(uniforms[:, 0], ways)
        which_T = below(example_u_T, random_points)
        x_TX, y_T, index_T = points[which_T], labels[which_T], jnp.full((length,), -1, jnp.int32)
    else:
        y_T = below(class_u_T, ways)
        class_T = order_V[y_T]
        row_T = part["start_V"][class_T] + below(example_u_T, part["count_V"][class_T])
        x_TX, index_T = part["x_NX"][row_T], part["index_N"][row_T]
        if split.endswith("random_labels"):
            y_T = jnp.where(jnp.arange(length) == length - 1, y_T, below(label_u_T, ways))
        if split == "seen_old_labels":
            y_T = y_T.at[-1].set(jnp.argmax(own_V == class_T[-1]))
    return x_TX @ A_XX.T, y_T, index_T
