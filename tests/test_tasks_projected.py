"""GPICL's tasks: an id says everything about a task, and each split breaks exactly what its name says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metalearn import datasets, lookup
from metalearn.tasks import projected
from metalearn.validate import ConfigError

FIELDS = dict(dataset="digits", split_by="class", train_classes=5, heldout_frac=0.22, new_dataset="", image_size=0,
              channels=0, pca=4, ways=5, length=6, num_tasks=3, bias=0.0, random_points=3, task_seed=0,
              mixture=(), spectra=0.0, projection="gaussian")
NUM = 24


def build(**changes):
    return lookup.build("tasks", "projected", **FIELDS | changes)


@pytest.fixture(scope="module")
def task():
    return build()


@pytest.fixture(scope="module")
def drawn(task):
    """One batch of every split, under one key."""
    key = jax.random.key(0, impl="threefry2x32")
    every = jax.jit(lambda data: {split: task.sample(data, key, split, NUM) for split in task.splits})
    return jax.tree.map(np.asarray, every(task.data))


def of(task_seed, ids, num_classes=5, projection="gaussian"):
    A, order = jax.vmap(lambda i: projected.draw_task(task_seed, i, 4, num_classes, projection))(jnp.asarray(ids))
    return np.asarray(A), np.asarray(order)


def features(task, part, index_BT):
    """The dataset's features and classes of the pictures that an episode showed."""
    p = task.data[part]
    row = {int(i): r for r, i in enumerate(p["index_N"])}
    rows = np.vectorize(row.__getitem__)(index_BT)
    return p["x_NX"][rows], np.searchsorted(p["start_V"], rows, side="right") - 1


def test_the_cheap_projection_is_like_the_exact_one_and_changes_nothing_else():
    (A, order), (cheap, same) = (of(0, np.arange(3000), projection=kind) for kind in ("gaussian", "binomial"))
    np.testing.assert_array_equal(order, same)
    for moment in (1, 2, 3, 4):
        assert abs((A**moment).mean() - (cheap**moment).mean()) < 0.01
    assert np.abs(A - cheap).max() > 0.1 and abs((A * cheap).mean()) < 0.01


def test_a_task_is_a_function_of_its_id_alone():
    alone = [jax.jit(projected.draw_task, static_argnums=(2, 3))(0, i, 4, 5) for i in (7, 2**30 + 5)]
    A, order = of(0, [3, 7, 2**30 + 5, 7])
    for (a, o), where in zip(alone, ((1, 3), (2,)), strict=True):
        for place in where:
            np.testing.assert_array_equal(a, A[place])
            np.testing.assert_array_equal(o, order[place])
    assert np.abs(A[0] - A[1]).max() > 0.1 and np.abs(of(1, [7])[0] - A[1]).max() > 0.1


def test_projections_and_label_orders_are_drawn_as_the_paper_says():
    A, order = of(0, np.arange(3000))
    assert abs(A.std() - 4**-0.5) < 0.01 and abs(A.mean()) < 0.01  # 48,000 draws of std 1 / sqrt(X)
    assert (np.sort(order, 1) == np.arange(5)).all()
    counts = np.stack([(order == v).mean(0) for v in range(5)])
    assert np.abs(counts - 0.2).max() < 0.04 and len({tuple(o) for o in order}) == 120


def test_trained_and_fresh_ids_are_disjoint(drawn):
    for split, batch in drawn.items():
        if split == "train" or split.startswith("seen"):
            assert set(batch.task_B.tolist()) == {0, 1, 2}
        else:
            assert (batch.task_B >= projected.FIRST_EVAL_ID).all() and len(set(batch.task_B.tolist())) == NUM


PARTS = dict(train="train", seen="train", seen_image="heldout", unseen="heldout", new="new", identity="heldout",
             seen_random_labels="train", unseen_random_labels="heldout", seen_relabelled="train",
             seen_old_labels="train")


@pytest.mark.parametrize("split, part", PARTS.items())
def test_inputs_are_the_task_s_projection_of_pictures_of_the_right_part(task, drawn, split, part):
    batch = drawn[split]
    others = np.concatenate([task.data[p]["index_N"] for p in {"train", "heldout", "new"} - {part}])
    assert not np.isin(batch.index_BT, others).any()
    f_BTX, class_BT = features(task, part, batch.index_BT)
    A, order = of(0, batch.task_B)
    if split == "identity":
        A = np.broadcast_to(np.eye(4), A.shape)
    np.testing.assert_allclose(batch.x_BTX, np.einsum("bxz,btz->btx", A, f_BTX), atol=1e-4)
    true_BT = np.argsort(order, 1)[np.arange(NUM)[:, None], class_BT]
    right = true_BT == batch.y_BT
    if split.endswith("_labels"):  # the context's labels are not the id's, the last is, and it alone is scored
        assert right[:, -1].all() and 0.05 < right[:, :-1].mean() < 0.5
        assert (batch.mask_BT[:, -1] == 1).all() and (batch.mask_BT[:, :-1] == 0).all()
    else:
        assert (batch.mask_BT == 1).all()
        assert right.all() or split == "seen_relabelled"
    if split in ("seen_relabelled", "seen_old_labels"):  # one consistent order per episode that is not the id's
        context = slice(-1 if split == "seen_old_labels" else None)
        assert right[:, context].mean() < 0.5
        for y, c in zip(batch.y_BT[:, context], class_BT[:, context], strict=True):
            assert len(set(zip(y, c, strict=True))) == len(set(y)) == len(set(c))


def test_relabelling_keeps_the_classes_of_a_task_that_has_a_part_of_them(task):
    key, three = jax.random.key(0, impl="threefry2x32"), build(ways=3)
    batch = jax.jit(lambda data: three.sample(data, key, "seen_old_labels", NUM))(three.data)
    class_BT = features(task, "train", np.asarray(batch.index_BT))[1]
    for own_V, c, y in zip(of(0, batch.task_B)[1], class_BT, batch.y_BT, strict=True):
        assert set(c) <= set(own_V[:3]) and own_V[y[-1]] == c[-1]


def test_random_points_come_back_with_their_labels(drawn):
    batch = drawn["random"]
    assert (batch.index_BT == -1).all()
    for x, y in zip(batch.x_BTX, batch.y_BT, strict=True):
        points = {}
        for a, b in zip(x.round(4), y, strict=True):
            points.setdefault(tuple(a), set()).add(int(b))
        assert len(points) <= 3 and all(len(labels) == 1 for labels in points.values())


def test_the_bias_is_the_training_split_s_alone(task):
    key = jax.random.key(1, impl="threefry2x32")
    full, half = build(bias=1.0), build(bias=0.5, num_tasks=0)
    train, seen = jax.jit(lambda d: (full.sample(d, key, "train", NUM), full.sample(d, key, "seen", NUM)))(full.data)
    assert (features(task, "train", train.index_BT)[1] == train.y_BT).all()  # p = 1: label v is class v
    assert (features(task, "train", seen.index_BT)[1] != seen.y_BT).any()  # evaluation knows no bias
    some = jax.jit(half.sample, static_argnums=(2, 3))(half.data, key, "train", 200)
    fixed_B = (features(task, "train", some.index_BT)[1] == some.y_BT).all(1)
    assert 0.35 < fixed_B.mean() < 0.65


def test_a_mixture_shows_each_training_task_classes_of_one_dataset():
    key, mixed = jax.random.key(0, impl="threefry2x32"), build(mixture=("textures", "blobs"))
    drawn = jax.jit(lambda data: mixed.sample(data, key, "train", 120))
    draw = lambda num_tasks: drawn(mixed.data | {"num_tasks": np.int32(num_tasks)})
    part = mixed.data["mixture"]

    def members(batch):
        """(B, T): which of the three datasets each example is of, found by its features."""
        A_BXX, _ = of(0, batch.task_B)
        f_BTX = np.linalg.solve(A_BXX[:, None], np.asarray(batch.x_BTX)[..., None])[..., 0]
        rows = np.array([[np.abs(part["x_NX"] - f_X).sum(1).argmin() for f_X in f_TX] for f_TX in f_BTX])
        class_BT = np.searchsorted(part["start_V"], rows, side="right") - 1
        return np.searchsorted(part["first_P"], class_BT, side="right") - 1

    member_BT = members(draw(2**30))
    assert (member_BT == member_BT[:, :1]).all()
    assert np.bincount(member_BT[:, 0]).shape == (3,) and np.bincount(member_BT[:, 0]).min() > 24
    few = draw(6)  # of an id it is always the same
    assert len({(int(i), int(m)) for i, m in zip(few.task_B, members(few)[:, 0], strict=True)}) == 6


def test_spectra_make_features_of_training_tasks_louder_or_softer():
    key, plain, varied = jax.random.key(0, impl="threefry2x32"), build(), build(spectra=1.0)
    draw = jax.jit(lambda data: [(t.sample(data, key, "train", NUM), t.sample(data, key, "seen", NUM))
                                 for t in (plain, varied)])
    (train, seen), (louder, same) = jax.tree.map(np.asarray, draw(plain.data))
    np.testing.assert_array_equal(seen.x_BTX, same.x_BTX)
    np.testing.assert_array_equal(train.index_BT, louder.index_BT)
    f_BTX, A = features(plain, "train", train.index_BT)[0], of(0, train.task_B)[0]
    for i in range(3):  # x = A (f * scales), the scales a task's own
        b = train.task_B == i
        found_XX = np.linalg.lstsq(f_BTX[b].reshape(-1, 4), louder.x_BTX[b].reshape(-1, 4), rcond=None)[0].T
        scales_XX = np.linalg.solve(A[b][0], found_XX)
        scales_X = np.diag(scales_XX)
        np.testing.assert_allclose(scales_XX, np.diag(scales_X), atol=1e-2)
        assert scales_X.min() > 0 and scales_X.std() > 0.1 and abs((scales_X**2).mean() - 1) < 1e-2


def test_a_pool_takes_the_place_of_new(task):
    key, pool = jax.random.key(0, impl="threefry2x32"), task.pool("blobs")
    assert pool.facts["new_dataset"] == "blobs" and pool.facts["sha256"] != task.facts["sha256"]
    batch = jax.jit(lambda data: pool.sample(data, key, "new", NUM))(pool.data)
    shown, class_BT = features(pool, "new", np.asarray(batch.index_BT))
    assert class_BT.max() < 60 and len(np.unique(class_BT)) > 30  # the test classes
    np.testing.assert_allclose(batch.x_BTX, np.einsum("bxz,btz->btx", of(0, batch.task_B)[0], shown), atol=1e-3)
    with pytest.raises(datasets.Absent):
        task.pool("cifar100")
    with pytest.raises(ConfigError, match="nearest: blobs"):
        task.pool("blob")


def test_the_number_of_tasks_is_data(task):
    traces = []

    @jax.jit
    def ids(data):
        traces.append(1)
        return task.sample(data, jax.random.key(0, impl="threefry2x32"), "train", NUM).task_B

    one, eight, all_ = (np.asarray(ids(build(num_tasks=k).data)) for k in (1, 8, 0))
    assert set(one.tolist()) == {0} and one.shape == (NUM,)
    assert len(set(eight.tolist())) > 3 and eight.max() < 8
    assert len(set(all_.tolist())) == NUM and all_.max() < projected.FIRST_EVAL_ID and len(traces) == 1


@pytest.mark.parametrize("changes, text", [
    (dict(ways=6), "ways=6: must lie between 2 and 5"), (dict(bias=1.5), "bias=1.5"), (dict(length=1), "length=1"),
    (dict(num_tasks=2**30 + 1), "num_tasks"), (dict(random_points=0), "random_points=0"),
    (dict(spectra=-0.1), "spectra=-0.1"), (dict(projection="uniform"), "projection=uniform"),
    (dict(task_seed=-1), "task_seed=-1"),
    (dict(dataset="digitz"), "dataset=digitz")])
def test_refusals(changes, text):
    with pytest.raises(ConfigError, match=text):
        build(**changes)


def test_an_error_names_the_dataset_that_it_is_about(tmp_path):
    np.savez(tmp_path / "two.npz", x=np.random.default_rng(0).random((20, 8, 8)), y=np.arange(20) % 2)
    with pytest.raises(ConfigError, match=r"the new part of dataset .*two\.npz"):
        build(new_dataset=str(tmp_path / "two.npz"))
