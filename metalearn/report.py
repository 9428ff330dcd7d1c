"""One page of finished runs: tables, curves, paths, the command, several side by side.

  metalearn report WORKDIR... [--out=report.html]     and from inside attention, memory, gradients, adaptation
  metalearn report --sweep=DIR                        the same of a sweep, without the pictures from inside
"""

import json
import os

from metalearn import api, cli
from metalearn.reporting import html, inside
from metalearn.runtime import workdir as workdir_lib
from metalearn.validate import ConfigError, require


def write_page(workdirs: list[str], sweep: str, out: str) -> int:
    """Writes the page of the runs, or of the sweep and its runs."""
    table = None
    if sweep:
        require(os.path.isfile(path := os.path.join(sweep, "sweep.json")), "--sweep", sweep, "holds no sweep.json")
        with open(path, encoding="utf-8") as file:
            table = json.load(file)
        workdirs = [*workdirs, *(os.path.join(sweep, run["workdir"]) for run in table.get("runs", []))]
    require(bool(workdirs), "WORKDIR", "", "name at least one run, or --sweep=DIR")
    require(not os.path.isdir(out), "--out", out, "is a directory")
    title = ", ".join(os.path.basename(os.path.abspath(path)) for path in ([sweep] if sweep else workdirs))
    insides = {} if sweep else {path: _inside(path) for path in workdirs}
    workdir_lib.write_text(os.path.abspath(out), html.page(title, workdirs, table, insides))
    cli.print_result({"out": os.path.abspath(out), "runs": len(workdirs)})
    return 0


def _inside(workdir: str) -> dict:
    """Pictures from inside the run's learner; {} with a word where it cannot be loaded, or its data are gone."""
    try:
        return inside.pictures(api.load(workdir))
    except (ConfigError, cli.Failure) as error:
        cli.say(f"no pictures from inside {workdir}: {error}")
        return {}


def main() -> int:
    parser = cli.Parser(__doc__, prog="metalearn report")
    parser.add_argument("workdir", nargs="*", help="finished runs")
    parser.add_argument("--sweep", default="", help="a finished sweep's directory")
    parser.add_argument("--out", default="report.html", help="the page to write")
    args = parser.parse()
    require(not args.overrides, "--config." + "".join(args.overrides[:1]), "", "a report takes no overrides")
    return write_page(args.workdir, args.sweep, args.out)


if __name__ == "__main__":
    cli.main(main)
