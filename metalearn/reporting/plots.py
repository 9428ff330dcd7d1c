"""A result's curves as pictures. Knows no family, only the Result record. The only file that imports matplotlib."""

from __future__ import annotations

import os

from metalearn.types import Result


def plot(result: Result, path: str) -> str | None:
    """Draws the result's curves as small multiples into `path`.png; returns the file, None when there are none."""
    curves = result.get("curves", [])
    if not curves:
        return None
    figure = draw(curves)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    figure.savefig(path + ".png", dpi=110)
    return path + ".png"


def draw(curves: list[dict]):
    """A matplotlib Figure of small multiples, one panel per curve record (see types.Result)."""
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    columns = 2 if len(curves) == 4 else min(len(curves), 3)
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.2 * rows + 0.5), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=len({c["ylabel"] for c in curves}) == 1)
    for axis in axes.flat[len(curves):]:
        axis.axis("off")
    handles = {}
    for axis, curve in zip(axes.flat, curves, strict=False):
        for i, series in enumerate(curve["series"]):
            x, y = curve["x"][: len(series["y"])], series["y"]
            style = dict(color=series.get("color", f"C{i}"), lw=1.2, ls="--") if series.get("dashed") else dict(
                color=series.get("color", f"C{i}"), lw=2.2, ls="-")
            if series.get("points"):  # single runs: dots, no line
                style |= dict(ls="", marker="o", ms=4, alpha=0.6)
            handles[series["name"]] = axis.plot(x, y, **style)[0]
            if series.get("ci95") is not None:
                pairs = [(a, b, c or 0.0) for a, b, c in zip(x, y, series["ci95"], strict=True) if b is not None]
                axis.fill_between([p[0] for p in pairs], [p[1] - p[2] for p in pairs], [p[1] + p[2] for p in pairs],
                                  color=style["color"], alpha=0.25, lw=0)
        for name, level in curve.get("levels", {}).items():
            handles[name] = axis.axhline(level, color="0.6", lw=1, ls=":")
        axis.set(title=curve["title"], xlabel=curve["xlabel"], xscale=curve.get("xscale", "linear"))
        if curve.get("xscale", "linear") == "linear" and all(float(x).is_integer() for x in curve["x"]):
            axis.xaxis.get_major_locator().set_params(integer=True)  # there are no 2.5 examples
        axis.grid(alpha=0.25)
    for axis, curve in zip(axes[:, 0], curves[::columns], strict=False):
        axis.set_ylabel(curve["ylabel"])
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=min(len(handles), 6),
                  frameon=False)
    return figure
