"""What a person sees: tables in columns, curves in a file."""

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
    tables.show({"headline": {}})
    assert capsys.readouterr().out == ""


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
