"""Run an experiment again and compare it with its stored result.

  metalearn reproduce ID [--out=DIR]       ID is the name of a file in results/

Says for each claim of the record *reproduced* (within its tolerance), *better*, or *not*, with both numbers. The
directory (default runs/reproduce/ID) is reused: the same command again goes on. Exit codes: 0 everything reproduced or
better, 1 something not, 2 bad input, else that of the program that failed.
"""

import json
import os
import shlex
import subprocess
import sys

from docs import results as results_lib
from metalearn import cli
from metalearn.reporting import tables
from metalearn.validate import require


def verdict(claim: dict, value: float) -> str:
    """'reproduced' within the claim's tolerance, else 'better' or 'not' by the side that `value` lies on."""
    gap = value - claim["value"]
    if abs(gap) <= claim["tolerance"] * (1 + 1e-9):
        return "reproduced"
    return "better" if (gap > 0) == (claim["better"] == "higher") else "not"


def execute(command: str, out: str) -> tuple[int, dict]:
    """Runs one stored command with its output shown; returns its exit code and the numbers of its RESULT line."""
    program, *words = shlex.split(command)
    words = [word.replace("{out}", out) for word in words]
    found: dict = {}
    with subprocess.Popen([sys.executable, "-m", "metalearn", program, *words], cwd=results_lib.ROOT, text=True,
                          stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            if line.startswith("RESULT "):
                found = json.loads(line.removeprefix("RESULT "))
    return process.returncode, found


def compare(record: dict, numbers: dict) -> dict[str, dict]:
    """{claim: {stored, now, tolerance, verdict}}."""
    compared = {}
    for claim in record["claims"]:
        value = results_lib.measured([results_lib.by_replica(numbers, claim["path"])], claim["scale"])[0]
        compared[claim["name"]] = dict(stored=claim["value"], now=value, tolerance=claim["tolerance"],
                                       verdict=verdict(claim, value))
    return compared


def run(record: dict, out: str) -> tuple[int, dict]:
    """(exit code, RESULT numbers) of the record's commands run in `out`, and the comparison printed."""
    require(bool(record["claims"]), "id", record["id"], "has no claims to compare")
    took = "not known" if record["seconds"] is None else f"{record['seconds']:,.0f} s"
    print(f"{record['title']}\nexpected time: {took} on {record['machine'] or 'a machine not known'}", flush=True)
    numbers: dict = {}
    for command, shown in zip(record["commands"], results_lib.commands(record), strict=True):
        print(f"$ {shown}", flush=True)
        code, numbers = execute(command, out)
        if code:
            print(f"error: the command ended with exit code {code}", file=sys.stderr)
            return code, {}
    compared = compare(record, numbers)
    rows = [[name, c["stored"], f"{c['now']:.6g}", c["tolerance"], c["verdict"]] for name, c in compared.items()]
    tables.show({"tables": [{"title": f"{record['id']}: {record['title']}",
                             "columns": ["claim", "stored", "now", "tolerance", "verdict"], "rows": rows}]})
    if record["config_sha256"] and os.path.isdir(out) and results_lib.config_hash([out]) != record["config_sha256"]:
        print("note: the configuration is not the one that the stored result was made with", file=sys.stderr)
    worst = "not" if any(c["verdict"] == "not" for c in compared.values()) else "reproduced or better"
    return int(worst == "not"), {"id": record["id"], "verdict": worst, "claims": compared}


def main() -> int:
    parser = cli.Parser(__doc__, prog="metalearn reproduce")
    parser.add_argument("id")
    parser.add_argument("--out", default="", help="directory of the runs (default runs/reproduce/ID)")
    parser.add_argument("--root", default=results_lib.ROOT, help="where results/ lies")
    args = parser.parse()
    require(not args.overrides, "--config." + "".join(args.overrides[:1]), "", "a record is run as it is")
    record = results_lib.find(results_lib.load(args.root), args.id)
    code, numbers = run(record, os.path.abspath(args.out or os.path.join("runs", "reproduce", args.id)))
    if numbers:
        cli.print_result(numbers)
    return code


if __name__ == "__main__":
    cli.main(main)
