"""The page of finished runs: static, escaped, complete; several runs side by side."""

import html.parser
import json
import pathlib
import shutil

import pytest

from metalearn import report
from metalearn.reporting import html as page_lib
from metalearn.runtime import config as config_lib
from metalearn.validate import ConfigError

EVIL = "<script>alert(1)</script>"
PATHS = {"zero": [[[[0, 0], [0.5, 0.5]]], [[[0, 0], [1, 1]]]]}


@pytest.fixture
def runs(tmp_path):
    """Two finished runs' files, whose texts try to be markup."""
    for i, name in enumerate(("a", "b")):
        folder = tmp_path / name / "eval"
        folder.mkdir(parents=True)
        config = config_lib.load("gpicl:smoke", [f"seed={i}", f"task.dataset={EVIL}"])
        (tmp_path / name / "config.json").write_text(config_lib.to_json(config))
        (tmp_path / name / "manifest.json").write_text(json.dumps({"command": f"metalearn train {EVIL}"}))
        lines = [{"step": n, "loss": n + i / 2} for n in (1, 2, 3)]
        (tmp_path / name / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        curve = dict(title="unseen", x=[0, 1], xlabel="x", ylabel="y", series=[dict(name="learner", y=[0.1, 0.2])])
        result = dict(tables=[dict(title=EVIL, columns=["set", EVIL], rows=[["unseen", EVIL]])], curves=[curve],
                      facts={"paths": PATHS, "goals": [[1.0, 1.0]]})
        (folder / "curves.json").write_text(json.dumps(result))
    return [str(tmp_path / name) for name in ("a", "b")]


class Tags(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen, self.open = [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page(runs, tmp_path):
    out = tmp_path / "page.html"
    assert report.write_page(runs, "", str(out)) == 0
    text, tags = out.read_text(), Tags()
    tags.feed(text)
    assert tags.open == []
    names = [tag for tag, _ in tags.seen]
    assert "script" not in names and "http" not in text and text.count("&lt;script&gt;") > 8
    pictures = [attrs["src"] for tag, attrs in tags.seen if tag == "img"]
    assert len(pictures) == 3 and all(p.startswith("data:image/png;base64,") for p in pictures)
    assert names.count("animateMotion".lower()) == 2 and "<td>seed</td><td>0</td><td>1</td>" in text


def test_curves_of_one_title_share_a_panel(runs):
    panels = page_lib._together(["a", "b"], [[dict(title="t", x=[1], series=[dict(name="s", y=[1])])],
                                             [dict(title="t", x=[1, 2], series=[dict(name="s", y=[1, 2])])]])
    assert [(p["x"], [s["name"] for s in p["series"]]) for p in panels] == [([1, 2], ["a", "b"])]


def test_what_is_no_run_is_refused(runs, tmp_path):
    for workdirs, sweep, words in (([], "", "name at least one run"), (["nowhere"], "", "no config.json"),
                                   ([], str(tmp_path), "no sweep.json")):
        with pytest.raises(ConfigError, match=words):
            report.write_page(workdirs, sweep, str(tmp_path / "x.html"))


def test_runs_of_one_base_name_keep_their_paths(runs):
    (again := pathlib.Path(runs[1]) / "a").mkdir()
    for name in ("config.json", "manifest.json", "metrics.jsonl"):
        shutil.copy(pathlib.Path(runs[1]) / name, again)
    text = page_lib.page("runs", [runs[0], str(again)])
    assert f"<h2>{runs[0]}</h2>" in text and f"<h2>{again}</h2>" in text


def test_a_damaged_evaluation_is_one_line(runs):
    path = pathlib.Path(runs[0]) / "eval" / "curves.json"
    path.write_text("{")
    with pytest.raises(ConfigError, match=f"{path}: is not valid JSON"):
        page_lib.page("runs", runs)
