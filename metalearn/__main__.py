"""The command `metalearn PROGRAM ...`: one name for all programs.

  metalearn train --config=gpicl:smoke --workdir=runs/smoke    built-in configs;
                             a file of your own is --config=FILE.py[:argument]
  metalearn PROGRAM --help                                 a program's own flags
  metalearn list learners [maml]                 what there is, and its fields:
      tasks envs networks backbones learners evaluators datasets configs
"""

import ast
import importlib.util
import os
import pathlib
import sys

from metalearn import cli
from metalearn.validate import one_of

# by the module that each lies in, where it has another name
PROGRAMS = {name: f"metalearn.{name}" for name in (
    "train", "eval", "collect", "sweep", "report", "checkpoint", "export")}
PROGRAMS |= {"datasets": "metalearn.datasets.__main__", "list": "metalearn.listing", "doctor": "metalearn.doctor"}
REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
if os.path.isfile(os.path.join(REPOSITORY, "docs", "reproduce.py")):  # in a clone alone
    sys.path += [REPOSITORY] if REPOSITORY not in sys.path else []
    PROGRAMS |= {"reproduce": "docs.reproduce", "benchmark": "tests.benchmark"}


def usage() -> str:
    """What there is: every program with its first line, the kinds of thing that `list` lists."""
    lines = []
    for name, module in PROGRAMS.items():
        spec = importlib.util.find_spec(module)
        doc = ast.get_docstring(ast.parse(pathlib.Path(str(spec and spec.origin)).read_text("utf-8"))) or ""
        lines.append(cli.entry(name, doc.partition("\n")[0]))
    return "\n".join([(__doc__ or "").strip(), "", *lines])


def run() -> int | None:
    """Hands the command line on to the program that its first word names."""
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help", "help"):
        print(usage())
        return 0 if sys.argv[1:] else cli.EXIT_CONFIG
    one_of(PROGRAMS, program=sys.argv[1])
    program = importlib.import_module(PROGRAMS[sys.argv[1]])
    sys.argv[:2] = [sys.argv[1]]
    return program.main()


def main() -> None:
    cli.main(run)


if __name__ == "__main__":
    main()
