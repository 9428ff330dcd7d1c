"""What a person sees: tables in columns, curves in a file."""

import json

from metalearn.reporting import plots, tables

CURVE = dict(title="seen", x=[0, 1, 2], xlabel="examples", ylabel="accuracy", levels={"chance": 0.2}, series=[
    dict(name="learner", y=[0.1, None, 0.9], ci95=[0.1, None, 0.1]), dict(name="1nn", y=[0.2, 0.4], dashed=True),
    dict(name="runs", y=[0.2, None, 0.3], points=True)])


def test_tables_are_aligned(capsys):
    tables.show({"headline": {}, "tables": [{"title": "T", "columns": ["set", "last"],
                                             "rows": [["unseen", 0.5], ["x", "0.25 ± 0.1"]]}]})
    assert capsys.readouterr().out == ("\nT\n"
                                       "set     last\n"
                                       "------------------\n"
                                       "unseen  0.5\n"
                                       "x       0.25 ± 0.1\n")
    tables.show({"tables": [{"title": "T\nnot here: x", "columns": ["a"], "rows": []}]})
    assert capsys.readouterr().out == "\nT\nnot here: x\na\n-\n"
    tables.show({"headline": {}})
    assert capsys.readouterr().out == ""


def test_wide_tables_fit_the_terminal(capsys):
    """In pieces, each with the rows' names; long cells in lines of their own; nothing is lost."""
    row = ["a name of a row that is longer than thirty letters", *range(10**8, 10**8 + 12), "word " * 30]
    tables.show({"tables": [{"title": "long " * 30, "columns": ["set", *"abcdefghijkl", "words"], "rows": [row]}]})
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80 and out.count("a name of a row") > 1
    assert all(str(cell) in out for cell in row[1:-1]) and out.count("word") == 30 + 1


def test_series_differ_in_colour_and_in_more_than_colour():
    series = [dict(name=f"series {i}", y=[0.1 * i, 0.2, 0.3]) for i in range(12)]
    levels = {"oracle": 0.1, "random": 0.2, "behaviour": 0.3}
    figure = plots.draw([CURVE | dict(series=series, levels=levels)] * 2)
    lines = figure.axes[0].get_lines()
    looks = {(l.get_color(), l.get_marker(), str(l._dash_pattern)) for l in lines}
    assert len(looks) == len(lines) == 15 and len({l.get_color() for l in lines[:8]}) == 8
    assert len({str(l._dash_pattern) for l in lines[12:]}) == 3  # levels
    again = figure.axes[1].get_lines()
    assert [l.get_color() for l in again] == [l.get_color() for l in lines]  # the same name looks alike everywhere
    figure.draw_without_rendering()
    box, page = figure.legends[0].get_window_extent(), figure.bbox
    assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0, "the legend is clipped"


def test_what_a_run_logged_is_drawn(tmp_path):
    lines = [{"step": n, "loss": 1 / n, "grad_norm": 1.0, "skipped": 0.0, "same": 2.0} for n in (1, 2, 3)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (loss,) = plots.training(str(tmp_path))
    assert loss["x"] == [1, 2, 3] and loss["series"][0]["y"] == [1, 1 / 2, 1 / 3] and "loss" in loss["title"]
    assert plots.training(str(tmp_path / "nowhere")) == []


def test_curves_become_a_picture(tmp_path):
    path = plots.plot({"curves": [CURVE] * 4}, str(tmp_path / "plots" / "curves"))
    assert path.endswith("plots/curves.png") and (tmp_path / "plots" / "curves.png").read_bytes()[:4] == b"\x89PNG"
    assert plots.plot({"curves": []}, str(tmp_path / "none")) is None and not (tmp_path / "none.png").exists()


def test_one_panel_per_curve():
    figure = plots.draw([CURVE] * 5)
    shown = [a for a in figure.axes if a.axison]
    assert len(figure.axes) == 6 and [a.get_title() for a in shown] == ["seen"] * 5
    lines = shown[0].get_lines()
    assert [l.get_linestyle() for l in lines] == ["-", "--", "None", ":"] and len(lines[1].get_xdata()) == 2
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["learner", "1nn", "runs", "chance"]
