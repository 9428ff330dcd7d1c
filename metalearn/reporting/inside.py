"""Pictures of what happens inside a trained learner: attention over an episode with its images, reads and writes of a
memory, synthetic beside true gradients, accuracy by inner step. They are made of the run's own episodes."""

from typing import Any

import jax
import numpy as np

from metalearn.measure import losses
from metalearn.reporting import plots
from metalearn.types import Episodes

STEPS, EPISODES = 10, 64  # inner steps that are drawn, over how many episodes


def pictures(trained: Any) -> dict[str, Any]:
    """{title: matplotlib Figure} of `metalearn.api.Trained`: of those that its learner has something to show for; {}
    of a policy, whose paths its evaluation draws. ConfigError where the run's data are gone."""
    task, found = trained.experiment.task, {}
    split = next((name for name in ("test", "unseen", "exact", "balanced") if name in task.splits), task.splits[-1])
    # where a curriculum stands, which is what its feedback model knows
    schedule = trained.learner.batch_schedule
    batch = trained.sample(split, EPISODES, data=schedule(task.data, trained.carry)[0] if schedule else None)
    if not isinstance(batch, Episodes):
        return {}
    _, inside = trained.read(batch)
    if weights := [value for site, value in inside.items() if site.endswith("weights_BHLL")]:
        found["attention over an episode"] = _attention(weights[-1], batch, task)
    if memory := {site: value for site, value in inside.items() if "read_weights" in site or "write_weights" in site}:
        found["memory over an episode"] = _memory(memory, batch)
    if trained.learner.boundaries is not None:
        found["synthetic and true gradients"] = _gradients(*trained.learner.boundaries(trained.params, batch))
    if trained.learner.path is not None and batch.support:
        found["few-shot adaptation"] = _adaptation(trained, batch)
    return found


def _figure(width: float, height: float):
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _attention(weights_BHLL: Any, batch: Episodes, task: Any):
    """Row: who is asked; column: whom it looks at, below that example's picture, framed by its label. The last block,
    the mean over its heads."""
    T = batch.y_BT.shape[1]
    seen_TT = np.asarray(weights_BHLL)[0].mean(0)[-T:, :T]  # of layout `query` the supports alone
    figure, images = _figure(8, 8), _images(batch, task)
    grid = figure.add_gridspec(2, T, height_ratios=(1, T))
    for t in range(T):
        axis = figure.add_subplot(grid[0, t])
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set(color=plots.COLOURS[int(batch.y_BT[0, t]) % len(plots.COLOURS)], lw=3)
        if images is not None:
            axis.imshow(images[t], cmap="gray_r")
    axis = figure.add_subplot(grid[1, :])
    axis.imshow(seen_TT, cmap="Blues", aspect="auto")
    axis.set(xlabel="example in the context (frame: its label)", ylabel="example that is asked", xticks=range(T))
    axis.set_yticks(range(T), [str(int(label)) for label in batch.y_BT[0]])
    return figure


def _images(batch: Episodes, task: Any) -> np.ndarray | None:
    """(T, height, width[, 3]) of the first episode; None where its inputs are no images."""
    x_TX, shape = np.asarray(batch.x_BTX[0]), getattr(task.inputs, "shape", (1,))
    if "prepared" in task.facts:  # projected: the pictures are those of the dataset
        x_TX = task.facts["prepared"].raw["heldout"].x_NX[np.asarray(batch.index_BT[0])]
    elif shape[0] == 1 or x_TX[0].size != np.prod(shape):
        return None
    x_THWC = x_TX.reshape(len(x_TX), *(x_TX.shape[1:] if "prepared" in task.facts else shape))
    x_THWC = (x_THWC - x_THWC.min()) / max(float(np.ptp(x_THWC)), 1e-8)
    return x_THWC if x_THWC.shape[-1] == 3 else x_THWC.mean(-1)


def _memory(found: dict[str, Any], batch: Episodes):
    """The input by time, and below it each slot's weight, the strongest of several heads."""
    rows = {"input": np.asarray(batch.x_BTX[0]).reshape(batch.x_BTX.shape[1], -1)}
    for site, value in sorted(found.items(), reverse=True):  # writes first
        weights = np.asarray(value)[0]
        rows[site.rpartition("/")[2].rpartition("_")[0].replace("_", " ")] = (
            weights.max(-1) if site.endswith("R") else weights)
    figure = _figure(8, 2.2 * len(rows))
    for axis, (name, picture) in zip(figure.subplots(len(rows), 1, squeeze=False)[:, 0], rows.items(), strict=True):
        axis.imshow(picture.T, cmap="Blues", aspect="auto")
        axis.set(title=name, ylabel="entry" if name == "input" else "slot")
    axis.set(xlabel="time")
    return figure


def _gradients(true_KBI: np.ndarray, said_KBI: np.ndarray):
    figure = _figure(3.4 * len(true_KBI), 3.4)
    for k, axis in enumerate(figure.subplots(1, len(true_KBI), squeeze=False)[0]):
        a, b = np.ravel(true_KBI[k]), np.ravel(said_KBI[k])
        axis.plot(a, b, ".", ms=3, color=plots.COLOURS[0])
        axis.axline((0, 0), slope=1, color="0.6", ls=":")
        cosine = a @ b / (a @ a * (b @ b) + 1e-12) ** 0.5
        axis.set(title=f"boundary {k + 1}: cosine {cosine:.2f}", xlabel="true gradient", ylabel="synthetic gradient")
    return figure


def _adaptation(trained: Any, batch: Episodes):
    """The learner on its queries after 0, 1, ... steps on the support."""
    classes, S = trained.task.spec.classes, batch.support
    out_NBTV = jax.jit(trained.learner.path, static_argnums=3)(trained.params, trained.carry, batch, STEPS)[:, :, S:]
    score = losses.correct if classes else lambda out, y: ((out - y) ** 2).mean(-1)
    y = [float(score(out_BTV, batch.y_BT[:, S:]).mean()) for out_BTV in out_NBTV]
    return plots.draw([{"title": f"{EPISODES} episodes", "x": list(range(len(y))), "xlabel": "inner steps",
                        "ylabel": "accuracy" if classes else "squared error", "series": [{"name": "learner", "y": y}]}])
