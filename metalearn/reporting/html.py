"""One static page of finished runs: the command, what was measured, curves, paths of agents. No network, no script.

Everything that comes out of files is escaped; pictures stand in the page itself.
"""

import base64
import glob
import html
import io
import os
from collections.abc import Iterable, Mapping
from typing import Any

from metalearn.reporting import plots
from metalearn.runtime import config as config_lib, manifest, workdir as workdir_lib
from metalearn.types import Result
from metalearn.validate import given

STYLE = """body {font: 15px/1.5 sans-serif; max-width: 76em; margin: 2em auto; padding: 0 1em; color: #222}
table {border-collapse: collapse; margin: .5em 0 1.5em} td, th {border-bottom: 1px solid #ccc; padding: .2em .8em;
text-align: left} pre {background: #f4f4f4; padding: .6em; white-space: pre-wrap; overflow-wrap: anywhere}
img {max-width: 100%} svg {border: 1px solid #ccc; margin: .3em}
.runs {display: flex; flex-wrap: wrap; gap: 2em} .runs > * {min-width: 0; max-width: 100%; overflow-x: auto}"""
PAGE = ('<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        "<style>{style}</style></head>\n<body><h1>{title}</h1>\n{body}\n</body></html>\n")
_plain = lambda value: "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
_text = lambda value: html.escape(_plain(value).replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}"))


def page(title: str, workdirs: list[str], sweep: Result | None = None,
         insides: Mapping[str, Mapping[str, Any]] | None = None) -> str:
    """The page of some runs, side by side, below the table of the sweep that they are of, where they are of one;
    `insides` is {work directory: what `inside.pictures` made of it}.

    ConfigError where a directory is none of a run.
    """
    configs = [workdir_lib.read_config(path) for path in workdirs]
    names = [os.path.basename(os.path.abspath(path)) for path in workdirs]
    names = names if len(set(names)) == len(names) else workdirs
    parts = _result(sweep) if sweep else []
    if len(configs) > 1:
        flat = [config_lib.flatten(config) for config in configs]
        fields = sorted({k for one in flat for k in one if any(o.get(k, "") != one[k] for o in flat)})
        rows = [[field, *(one.get(field, "") for one in flat)] for field in fields]
        shown = " open" * (len(rows) <= 20)  # of unlike runs it is nearly all
        parts += [f"<details{shown}><summary>What differs: {len(rows)} fields</summary>",
                  table(["field", *names], rows), "</details>"]
    parts.append(_picture(_together(names, [plots.training(path) for path in workdirs]), "<h2>Training</h2>"))
    parts += ['<div class="runs">', *(_run(*one, (insides or {}).get(one[1], {}))
              for one in zip(names, workdirs, configs, strict=True)), "</div>"]
    return PAGE.format(title=_text(title), style=STYLE, body="\n".join(parts))


def table(columns: Iterable, rows: Iterable[Iterable]) -> str:
    """An HTML table, every cell escaped."""
    row = lambda cells, tag: "<tr>" + "".join(f"<{tag}>{_text(cell)}</{tag}>" for cell in cells) + "</tr>"
    return "<table>" + row(columns, "th") + "".join(row(cells, "td") for cells in rows) + "</table>"


def _together(names: list[str], runs: list[list[dict]]) -> list[dict]:
    """Curves of the same title in one panel, each series by its run's name."""
    panels: dict[str, dict] = {}
    for name, curves in zip(names, runs, strict=True):
        for curve in curves:
            panel = panels.setdefault(curve["title"], curve | {"series": []})
            panel["x"] = max(panel["x"], curve["x"], key=len)
            panel["series"] += [one | {"name": name} for one in curve["series"]]
    return list(panels.values())


def _run(name: str, workdir: str, config, inside: Mapping[str, Any]) -> str:
    session, parts = manifest.read(workdir), [f"<h2>{_text(name)}</h2>"]
    parts += [f"<pre>{_text(session.get('command', 'not known'))}</pre>",
              table(["", ""], [[k, session[k]] for k in ("started", "git", "device", "machine") if k in session])]
    for path in sorted(glob.glob(os.path.join(glob.escape(workdir), "eval", "*.json"))):
        result = given(workdir_lib.read_json(path), "workdir", path, "is not valid JSON")
        parts += [f"<h3>{_text(os.path.basename(path)[:-5])}</h3>", *_result(result)]
    parts += [_image(figure, title, f"<h3>{_text(title)}</h3>") for title, figure in inside.items()]
    parts += ["<details><summary>configuration</summary>",
              table(["field", "value"], sorted(config_lib.flatten(config).items())), "</details>"]
    return "<section>" + "\n".join(parts) + "</section>"


def _result(result: Result) -> list[str]:
    """Tables, pictures and paths of one Result."""
    parts = [f"<h4>{_text(t['title'])}</h4>" + table(t["columns"], t["rows"]) for t in result.get("tables", [])]
    parts.append(_picture(result.get("curves", [])))
    facts = result.get("facts", {})
    for protocol, rounds in facts.get("paths", {}).items():
        parts.append(f"<h4>paths, {_text(protocol)}: episode after episode</h4>")
        parts += [_path([tasks[i] for tasks in rounds], goal) for i, goal in enumerate(facts.get("goals", [])[:6])
                  if all(i < len(tasks) for tasks in rounds)]
    return parts


def _picture(curves: list[dict], heading: str = "") -> str:
    if not curves:
        return ""
    return _image(plots.draw(curves), ", ".join(c["title"] for c in curves), heading)


def _image(figure: Any, says: str, heading: str) -> str:
    """A matplotlib Figure in the page itself."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100)
    data = base64.b64encode(file.getvalue()).decode()
    return f'{heading}<img alt="{_text(says)}" src="data:image/png;base64,{data}">'


def _path(episodes: list, goal: list) -> str:
    """A moving picture, SVG alone: an agent's way in the plane through its episodes, the goal as a cross."""
    at = lambda point: f"{float(point[0]) * 60 + 80:.1f},{80 - float(point[1]) * 60:.1f}"
    lines = "".join(f'<polyline points="{" ".join(map(at, way))}" fill="none" stroke="{plots.COLOURS[0]}" '
                    f'opacity="{0.2 + 0.8 * i / len(episodes):.2f}"/>' for i, way in enumerate(episodes))
    way = " L".join(at(point) for episode in episodes for point in episode)
    x, y = at(goal).split(",")
    return (f'<svg width="160" height="160">{lines}<text x="{x}" y="{y}" text-anchor="middle" '
            f'dominant-baseline="middle" fill="{plots.COLOURS[1]}">+</text><circle r="4" fill="{plots.COLOURS[1]}">'
            f'<animateMotion dur="{2 * len(episodes)}s" repeatCount="indefinite" path="M{way}"/></circle></svg>')
