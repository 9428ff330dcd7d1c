"""Pictures from inside a learner: each learner's own, of numbers that are checked against the learner itself."""

import numpy as np
import pytest

from metalearn import api, report, train
from metalearn.reporting import inside
from metalearn.runtime import config as config_lib

RUNS = {"gpicl:smoke": ["attention over an episode"], "fewshot:smoke,maml": ["few-shot adaptation"],
        "memnet:smoke": ["memory over an episode", "synthetic and true gradients"]}
SMALL = {"fewshot:smoke,maml": ["learner.backbone.depth=1"], "memnet:smoke": ["replicas.num=1"]}


@pytest.mark.parametrize("name", RUNS)
def test_each_learner_shows_what_it_has(name, tmp_path, monkeypatch):
    workdir, out = str(tmp_path / "run"), tmp_path / "page.html"
    train.run(config_lib.load(name, ["train.steps=2", *SMALL.get(name, ())]), workdir, quiet=True)
    trained = api.load(workdir)
    found = inside.pictures(trained)
    assert list(found) == RUNS[name]
    if name == "gpicl:smoke":
        batch = trained.sample("unseen", inside.EPISODES)
        axes = found["attention over an episode"].axes
        assert len(axes) == batch.y_BT.shape[1] + 1
        raw = trained.experiment.task.facts["prepared"].raw["heldout"].x_NX[batch.index_BT[0, 2], ..., 0]
        np.testing.assert_allclose(axes[2].images[0].get_array(), raw / raw.max(), atol=1e-6)
        weights = np.asarray(trained.read(batch)[1]["blocks_0/attention/weights_BHLL"])[0].mean(0)
        np.testing.assert_allclose(axes[-1].images[0].get_array(), weights[-len(axes) + 1:, :len(axes) - 1])
    elif name == "memnet:smoke":
        write = found["memory over an episode"].axes[-1].images[0].get_array()
        np.testing.assert_allclose(write.sum(0), 1, rtol=1e-5)  # of all slots at each time
    else:
        line = found["few-shot adaptation"].axes[0].lines[0].get_ydata()
        batch = trained.sample("test", inside.EPISODES)
        out_BTV = trained.learner.path(trained.params, trained.carry, batch, inside.STEPS)[4]
        right = (out_BTV.argmax(-1) == batch.y_BT)[:, batch.support:].mean()
        assert line[4] == pytest.approx(float(right)) and len(line) == inside.STEPS + 1
    monkeypatch.setattr(inside, "pictures", lambda trained: found)
    assert report.write_page([workdir], "", str(out)) == 0
    assert all(f"<h3>{title}</h3><img" in out.read_text() for title in RUNS[name])


def test_a_perfect_feedback_model_lies_on_the_diagonal():
    true_KBI = np.random.default_rng(0).normal(size=(2, 3, 4))
    figure = inside._gradients(true_KBI, np.stack([true_KBI[0], -true_KBI[1]]))
    assert [axis.get_title()[-5:].strip() for axis in figure.axes] == ["1.00", "-1.00"]
