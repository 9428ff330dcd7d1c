"""Tables of the in-context learners' sweeps: rows by label, phases by number of tasks."""

import json

import pytest

from configs.tables import gpicl
from metalearn.reporting import plots
from metalearn.reporting.runs import Run


def numbers(last):
    names = ("seen_first", "seen_last", "learning_seen", "learning_unseen", "learning_newclass", "newclass_last",
             "random_last", "memorisation", "unseen_ci95", "unseen_1nn", "seen_random_labels_last",
             "seen_relabelled_last", "seen_old_labels_last")
    curves = dict.fromkeys(names, 0.25) | {"unseen_last": last, "phase": "general" if last > 0.5 else "memorise"}
    return {"curves": curves, "seconds": 1.0, "parameters": 5, "state_size": 7}


def test_a_learner_that_failed_takes_only_its_own_row():
    def run(name, state, parameters, *last):
        sizes = {"parameters": parameters, "state_size": state, "seconds": 1.0}
        return Run(name, {}, {"replicas": [{"setting": {}} | numbers(x) for x in last]} | sizes, "")

    # the LSTM between them failed; accuracy goes by state, and against parameters
    made = gpicl.models([run("vsml", 70, 2, 0.6, 0.8), run("mlp", 0, 3, 0.2, 0.2), run("transformer", 90, 1, 0.8, 0.9)])
    table, curve = made["tables"][0], made["curves"][0]
    assert [row[0] for row in table["rows"]] == ["transformer", "vsml", "mlp"]
    assert made["headline"]["vsml"]["unseen_last"] == [0.6, 0.8] and table["rows"][1][5] == "0.700 ± 1.271"
    assert all(len(row) == len(table["columns"]) for row in table["rows"])
    assert made["headline"]["rank_correlation"] == {"state_size": 1.0, "parameters": -1.0}
    drawn = [series["y"][i] for i, series in enumerate(curve["series"])]
    assert curve["x"] == [90, 70, 1] and drawn == pytest.approx([0.85, 0.7, 0.2])
    plots.draw(made["curves"])


def test_accuracy_by_examples_seen_is_of_each_arm_and_set_over_its_seeds(tmp_path):
    runs = []
    for label, right in (("a, seed 0", 0.2), ("a, seed 1", 0.6), ("b, seed 0", 0.9)):
        workdir = tmp_path / label
        (workdir / "eval").mkdir(parents=True)
        curves = [{"title": title, "series": [{"name": "1nn", "y": [0.0] * 12}, {"name": "learner", "y": [
            right + (t > 10) * (title == "new") / 10 for t in range(12)]}]} for title in ("unseen", "new")]
        (workdir / "eval" / "curves.json").write_text(json.dumps({"curves": curves}))
        head = {f"{name}_{what}": value for name in ("unseen", "newclass") for what, value in (
            ("last", right), ("ahead", right - 0.5), ("ahead_of", "lda" if right > 0.5 else "1nn"))}
        runs.append(Run(label, {}, {"curves": head}, str(workdir)))
    made = gpicl.examples(runs)
    rows = made["tables"][0]["rows"]
    assert made["tables"][0]["columns"][3:6] == ("0", "10", "11")
    assert [row[:3] for row in rows] == [["a", "unseen", 2], ["a", "new", 2], ["b", "unseen", 1], ["b", "new", 1]]
    mean = lambda row: [float(cell.split()[0]) for cell in row[3:7]]
    assert mean(rows[0]) == [0.4, 0.4, 0.4, -0.1] and mean(rows[1]) == [0.4, 0.4, 0.5, -0.1]
    assert rows[0][-1] == "1nn, lda" and rows[2][-1] == "lda"
    assert made["headline"]["a"]["new"]["ahead"] == pytest.approx([-0.3, 0.1])
    plots.draw(made["curves"])


def test_phases_by_number_of_tasks_unlimited_last(tmp_path):
    runs = []
    for i, (K, last) in enumerate(((0, 0.8), (8, 0.2), (8, 0.3))):
        (tmp_path / str(i) / "eval").mkdir(parents=True)
        (tmp_path / str(i) / "eval" / "history.jsonl").write_text(json.dumps({"step": 5} | numbers(last)) + "\n")
        runs.append(Run(f"run {i}", {"task.num_tasks": K}, numbers(last), str(tmp_path / str(i))))
    made = gpicl.phases(runs)
    head = made["headline"]
    assert head["K"] == [8, gpicl.UNLIMITED] and head["seeds"] == [2, 1] and head["unseen_last"] == [0.25, 0.8]
    assert head["K_star"] == gpicl.UNLIMITED
    assert made["tables"][0]["rows"][0][:3] == [8, 2, "2 x memorise"]
    assert len(made["tables"][0]["rows"][0]) == len(made["tables"][0]["columns"])


def test_pools_by_set_and_seed():
    def run(seed, mnist, fashion):
        ahead = {f"{s}_{k}": v for s, gap in (("pool_mnist", mnist), ("pool_fashion", fashion)) for k, v in dict(
            last=0.7, ahead=gap, ahead_ci95=0.01, ahead_of="lda", ahead_fresh=gap - 0.001).items()}
        return Run(f"mixture, seed {seed}", {"seed": seed}, {"curves": ahead}, "")

    made = gpicl.pools([run(0, 0.02, -0.03), run(1, -0.004, -0.01)])
    head = made["headline"]
    assert head["pool_mnist_ahead"] == [0.02, -0.004] and head["pools"] == 2
    assert head["pools_above"] == head["pools_within_01"] == 1
    (mnist, fashion), columns = made["tables"][0]["rows"], made["tables"][0]["columns"]
    assert len(mnist) == len(columns) and mnist[2] == "lda" and mnist[3].startswith("0.008 ± ")
    assert mnist[5] == "+0.020 ± 0.010; -0.004 ± 0.010" and fashion[4] == "-0.021"


def test_the_border_with_recall_and_without_it():
    runs = []
    for K, phase, recalled in ((8, "dataset-general, recalls", 0.6), (16, "general", 0.2)):
        found = numbers(0.8)
        found["curves"] |= dict(phase=phase, seen_random_labels_last=recalled)
        runs.append(Run(f"K = {K}", {"task.num_tasks": K}, found, ""))
    made = gpicl.phases(runs)
    assert made["headline"]["K_star"] == 8 and made["headline"]["K_star_without_recall"] == 16
    column = made["tables"][0]["columns"].index("true label, random context")
    assert [row[column] for row in made["tables"][0]["rows"]] == ["0.600", "0.200"]
    assert made["tables"][0]["rows"][0][2] == "1 x dataset-general, recalls"


def test_arms_are_over_seeds_and_a_plateau_that_is_never_left_is_called_so(tmp_path):
    (tmp_path / "eval").mkdir()
    at = lambda step, *values: {"step": step, "replicas": [
        {"curves": {"unseen_last": v, "generalisation_unseen": v - 0.2}} for v in values]}
    lines = (at(50, 0.21, 0.2), at(100, 0.39, 0.2), at(150, 0.5, 0.3))
    (tmp_path / "eval" / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    replicas = [{"setting": {"seed": i}} | numbers(last) for i, last in enumerate((0.5, 0.3))]
    made = gpicl.arms([Run("batch 8", {}, {"replicas": replicas, "parameters": 5, "state_size": 7}, str(tmp_path))])
    assert made["headline"]["batch 8"]["plateau"] == [150, None]
    assert made["headline"]["batch 8"]["unseen_last"] == [0.5, 0.3]
    (row,), columns = made["tables"][0]["rows"], made["tables"][0]["columns"]
    assert row[:4] == ["batch 8", 2, 5, 7] and row[-1] == "150, never" and len(row) == len(columns)
    assert row[5] == "0.400 ± 1.271"  # Student's t of two seeds, standard error .1


def test_a_grid_of_widths_and_tasks_shows_what_is_not_run_yet(tmp_path):
    def run(width, K, *last):
        folder = tmp_path / f"{width}-{K}" / "eval"
        folder.mkdir(parents=True)
        lines = [json.dumps({"step": step, "replicas": [numbers(unseen - gap) for unseen in last]})
                 for step, gap in ((250, 0.1), (500, 0.0))]
        (folder / "history.jsonl").write_text("\n".join(lines) + "\n")
        return Run(f"width {width} K {K}", {"learner.network.width": width, "task.num_tasks": K},
                   {"replicas": [{"setting": {}} | numbers(unseen) for unseen in last]}, str(folder.parent))

    made = gpicl.grid([run(32, 0, 0.7, 0.8), run(16, 64, 0.2, 0.4), run(32, 64, 0.3, 0.5)])
    ends, later = made["tables"]
    assert ends["columns"] == ("width", "", "64", "unlimited")
    assert ends["rows"][0] == [16, "unseen", "0.300 ± 1.271", ""] and ends["rows"][2][3] == "0.750 ± 0.635"
    assert later["rows"][:2] == [[16, 250, "0.200", ""], [16, 500, "0.300", ""]]
    narrow, wide = made["curves"]
    assert [one["name"] for one in narrow["series"]] == ["K = 64"] and narrow["x"] == [250, 500]
    assert wide["series"][1] | {"ci95": []} == {"name": "K = unlimited", "y": pytest.approx([0.65, 0.75]), "ci95": []}
    unlimited = made["headline"]["width 32 K unlimited"]["by_update"]
    assert unlimited == {"250": pytest.approx([0.6, 0.7]), "500": [0.7, 0.8]}
