#!/usr/bin/env python3
"""Submits training, evaluation or a sweep to Slurm: what stands before `--` is for sbatch, what follows for metalearn.

  python launch/slurm.py --nodes=2 --gres=gpu:8 --time=4:00:00 -- --config=configs/gpicl.py:paper --workdir=runs/paper
  python launch/slurm.py --time=1:00:00 --array-limit=8 -- sweep --config=configs/gpicl.py:phases --out=runs/phases
  python launch/slurm.py --time=0:20:00 -- eval --workdir=runs/paper

  --print           shows what would be submitted, and submits nothing
  --array-limit=N   runs of a sweep at a time (default: as many as Slurm starts)

One task of a job is one process of a run (`--ntasks-per-node`, default 1); they meet at the first node's address. Two
minutes before the time limit Slurm sends TERM (`--signal` changes that): the run saves and ends with exit code 75, the
job is put back into the queue, and goes on to the same bits. A sweep is an array job for each of its stages, then a job
that makes its table; what is done already is not submitted again. The work directory, this repository and its .venv
must be seen by every node. The .venv is made here, so METALEARN_ACCELERATOR=cuda13 (or cuda12) where no GPU is.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROGRAMS = ("train", "eval", "sweep")

# Slurm sends the time limit's signal to the steps that srun starts, not to the script: hence srun for one task, too.
# The address comes from Slurm's own table, since the names of nodes need not resolve.
SCRIPT = """#!/usr/bin/env bash
first="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
address="$(scontrol show node "$first" | sed -n 's/.*NodeAddr=\\([^ ]*\\).*/\\1/p')"
export METALEARN_COORDINATOR="$address:$((20000 + SLURM_JOB_ID % 40000))"
export GLIBC_TUNABLES="${{GLIBC_TUNABLES-glibc.malloc.hugetlb=1}}"  # as launch/setup.sh says
{commands}
code=$?
if [ "$code" = 75 ]; then  # saved after a signal; the same command goes on
  scontrol requeue "${{SLURM_ARRAY_JOB_ID:+${{SLURM_ARRAY_JOB_ID}}_}}${{SLURM_ARRAY_TASK_ID:-$SLURM_JOB_ID}}"
fi
exit "$code"
"""
TOGETHER = '--processes="$SLURM_NTASKS" --process="$SLURM_PROCID" --coordinator="$METALEARN_COORDINATOR"'


def script(commands: list[str]) -> str:
    """The batch script that runs the command of its place in the array, or the only one."""
    if len(commands) == 1:
        return SCRIPT.format(commands=commands[0])
    cases = "".join(f"  {i}) {command} ;;\n" for i, command in enumerate(commands))
    return SCRIPT.format(commands=f'case "$SLURM_ARRAY_TASK_ID" in\n{cases}esac')


def step(words: list[str], together: bool = False) -> str:
    """srun of one program: on all tasks of the job, which train one run, or on one."""
    command = shlex.join(words)
    if together:
        # $SLURM_PROCID is known inside the step alone
        return f"srun --kill-on-bad-exit=1 bash -c {shlex.quote(f'exec {command} {TOGETHER}')}"
    return f"srun --nodes=1 --ntasks=1 {command}"


def jobs(program: str, words: list[str], limit: int) -> list[tuple[str, list[str], list[str]]]:
    """[(name, flags for sbatch, commands)], each job after the one before it."""
    python = [sys.executable, "-m", "metalearn", program]
    value = {word.partition("=")[0]: word.partition("=")[2] for word in words}
    if program != "sweep":
        where = os.path.abspath(value["--workdir"])
        name = f"{program}-{os.path.basename(where)}"
        return [(name, [f"--output={where}.slurm-%j.txt"], [step([*python, *words], program == "train")])]
    from metalearn import sweep
    out = os.path.abspath(value["--out"])
    runs = [run for run in sweep.expand(value["--config"], out) if sweep.done(run) is None]
    found = []
    for stage in sorted({run["stage"] for run in runs}):
        commands = [step(run["command"]) for run in runs if run["stage"] == stage]
        array = f"--array=0-{len(commands) - 1}" + (f"%{limit}" if limit else "")
        flags = [f"--output={out}/logs/slurm-%A-%a.txt", *([array] if len(commands) > 1 else [])]
        found.append((f"{os.path.basename(out)}-{stage}", flags, commands))
    table = step([*python, *words, "--on=table"])
    return [*found, (f"{os.path.basename(out)}-table", [f"--output={out}/logs/slurm-%j.txt"], [table])]


def submit(name: str, flags: list[str], commands: list[str], show: bool, after: str) -> str:
    """The number of the job, '' when only shown."""
    sbatch = ["sbatch", "--parsable", "--requeue", "--open-mode=append", "--signal=TERM@120", f"--job-name={name}",
              *([f"--dependency=afterany:{after}"] if after else []), *flags]
    text = script(commands)
    if show:
        print(f"$ {shlex.join(sbatch)} <<'EOF'\n{text}EOF\n")
        return "JOB"
    os.makedirs(os.path.dirname(next(f for f in flags if f.startswith("--output=")).partition("=")[2]), exist_ok=True)
    done = subprocess.run(sbatch, input=text, capture_output=True, text=True)
    if done.returncode:
        fail(f"sbatch refused {name}: {' '.join(done.stderr.split())}")
    number = done.stdout.strip().partition(";")[0]
    print(f"submitted {name} as job {number}; output: {flags[0].partition('=')[2]}")
    return number


def fail(text: str):
    print(f"error: {text}", file=sys.stderr)
    raise SystemExit(2)


def with_metalearn() -> None:
    """Goes on in the repository's .venv, made when needed, where this Python has no metalearn."""
    try:
        import metalearn  # noqa: F401
    except ImportError:
        setup = f"source {shlex.quote(os.path.join(ROOT, 'launch', 'setup.sh'))}; metalearn_setup; echo $PYTHON_VENV"
        made = subprocess.run(["bash", "-c", setup], stdout=subprocess.PIPE, text=True)
        if made.returncode:
            raise SystemExit(made.returncode) from None
        python = made.stdout.split()[-1]
        os.execv(python, [python, os.path.abspath(__file__), *sys.argv[1:]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     usage="slurm.py [--print] [FLAGS OF SBATCH] -- [train|eval|sweep] ...")
    parser.add_argument("--print", action="store_true", dest="show")
    parser.add_argument("--array-limit", type=int, default=0)
    words = sys.argv[1:] if "--" in sys.argv else [*sys.argv[1:], "--"]
    at = words.index("--")
    args, flags = parser.parse_known_args(words[:at])
    after = words[at + 1:]
    program = after.pop(0) if after and not after[0].startswith("-") else "train"
    if program not in PROGRAMS:
        fail(f"{program}: must be one of {', '.join(PROGRAMS)}")
    needed = {"train": ("--config", "--workdir"), "eval": ("--workdir",), "sweep": ("--config", "--out")}[program]
    for flag in needed:
        if not any(word.startswith(f"{flag}=") for word in after):
            fail(f"{flag}: is needed after -- (as {flag}=...)")
    with_metalearn()
    from metalearn.validate import ConfigError
    try:
        found = jobs(program, after, args.array_limit)
    except ConfigError as error:
        fail(str(error))
    last = ""
    for name, own, commands in found:
        last = submit(name, [*own, *flags], commands, args.show, last)


if __name__ == "__main__":
    main()
