"""A result's curves as pictures. Knows no family, only the Result record. The only file that imports matplotlib.

Colours are Okabe and Ito's, which colour-blind people tell apart; markers and dashes say the same again.
"""

import os

from metalearn.runtime import writer
from metalearn.types import Result

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D1F")
MARKERS = "os^Dvp*X"
DASHES = ("-", "--", "-.", (0, (5, 1, 1, 1, 1, 1)))
LEVELS = (":", (0, (5, 5)), (0, (1, 4)), (0, (6, 2, 1, 2)), (0, (3, 1)))


def plot(result: Result, path: str) -> str | None:
    """Draws the result's curves as small multiples into `path`.png and says so; returns the file, None when there are
    none."""
    curves = result.get("curves", [])
    if not curves:
        return None
    os.makedirs(os.path.dirname(path), exist_ok=True)
    draw(curves).savefig(path + ".png", dpi=110)
    print(f"plot: {os.path.relpath(path)}.png", flush=True)
    return path + ".png"


def training(workdir: str) -> list[dict]:
    """Curve records of what a run logged by update (metrics.jsonl): every number of one network, a panel each."""
    lines = writer.read(os.path.join(workdir, "metrics.jsonl"))
    names = [k for k, v in lines[-1].items() if k != "step" and isinstance(v, float)] if lines else []
    of = lambda name: tuple(line.get(name) for line in lines)  # what is constant, or drawn already, is no news
    names = list({of(n): n for n in names if n not in ("skipped", "grad_norm") and len(set(of(n))) > 1}.values())
    panel = lambda name: {"title": f"training: {name.replace('_', ' ')}", "x": [line["step"] for line in lines],
                          "xlabel": "updates", "ylabel": name.replace("_", " "),
                          "series": [{"name": "mean since the last line", "y": list(of(name))}]}
    return [panel(name) for name in names[:6]]


def draw(curves: list[dict]):
    """A matplotlib Figure of small multiples, one panel per curve record (see types.Result)."""
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    columns = 2 if len(curves) == 4 else min(len(curves), 3)
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.2 * rows + 0.5), layout="constrained")
    alike = len({c["ylabel"] for c in curves}) == 1
    axes = figure.subplots(rows, columns, squeeze=False, sharey=alike)
    for axis in axes.flat[len(curves):]:
        axis.axis("off")
    handles, looks = {}, {}
    for axis, curve in zip(axes.flat, curves, strict=False):
        for series in curve["series"]:
            x, y = curve["x"][: len(series["y"])], series["y"]
            i = looks.setdefault(series["name"], len(looks))
            colour = series.get("color", f"C{i}")  # C1 is the second one of ours
            colour = COLOURS[int(colour[1:]) % len(COLOURS)] if colour[1:].isdigit() and colour[0] == "C" else colour
            marker = MARKERS[(i + i // len(COLOURS)) % len(MARKERS)]  # no second pair of a colour and a marker
            few = dict(marker=marker, ms=5 if len(x) < 30 else 3.5, markevery=max(1, len(x) // 10))
            style = dict(color=colour, lw=1.2 if series.get("dashed") else 2,
                         ls="--" if series.get("dashed") else DASHES[i // len(COLOURS) % len(DASHES)], **few)
            if series.get("points"):  # single runs: dots, no line
                style |= dict(ls="", ms=4, alpha=0.6, markevery=1)
            handles[series["name"]] = axis.plot(x, y, **style)[0]
            if series.get("ci95") is not None:
                pairs = [(a, b, c or 0.0) for a, b, c in zip(x, y, series["ci95"], strict=True) if b is not None]
                axis.fill_between([p[0] for p in pairs], [p[1] - p[2] for p in pairs], [p[1] + p[2] for p in pairs],
                                  color=colour, alpha=0.2, lw=0)
        for name, level in curve.get("levels", {}).items():
            i = looks.setdefault(f"level {name}", sum(k.startswith("level ") for k in looks))
            shade, dash = str(0.2 + 0.15 * (i % 4)), LEVELS[i % len(LEVELS)]
            handles[name] = axis.axhline(level, color=shade, lw=1.2, ls=dash)
        axis.set(title=curve["title"], xlabel=curve["xlabel"], xscale=curve.get("xscale", "linear"))
        if not alike:
            axis.set_ylabel(curve["ylabel"])
        if curve.get("xscale", "linear") == "linear" and all(float(x).is_integer() for x in curve["x"]):
            axis.xaxis.get_major_locator().set_params(integer=True)  # there are no 2.5 examples
        axis.grid(alpha=0.25)
    for axis, curve in zip(axes[:, 0], curves[::columns], strict=False):
        axis.set_ylabel(curve["ylabel"])
    fit = int(12 * 4.2 * columns / (max(map(len, handles), default=1) + 7))  # so many labels fit side by side
    figure.legend(handles.values(), [name.replace("_", " ") for name in handles], loc="outside lower center",
                  ncols=max(1, min(len(handles), fit, 6)), frameon=False)
    return figure
