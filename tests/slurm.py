"""A Slurm of two nodes on this machine, and `launch/slurm.py` on it: a run of two nodes into its time limit, a sweep.

  python -m tests.slurm      (bash launch/test.sh --slurm)

Needs root and Debian's packages slurmctld, slurmd, slurm-client and munge, which it installs where apt can; where they
cannot be had it says so and ends with 0. A case that does not hold is told with what was seen, and the exit code is 1.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from tests.faults import processes, together

LONGER = 90  # seconds of a run that a limit of one minute is sure to meet, if the machine is busier now than then
NEEDED = ("slurmctld", "slurmd", "sbatch", "srun", "scontrol", "munged")
# cred_expire: a job that is put back waits for so many seconds; ReturnToService: nodes that were thought lost come back
CONF = """ClusterName=two
SlurmctldHost={host}
SlurmUser=root
AuthType=auth/munge
AuthInfo=cred_expire=5
SlurmctldPort={ports[0]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/ctld.pid
SlurmdPidFile={folder}/d-%n.pid
SlurmctldLogFile={folder}/ctld.log
SlurmdLogFile={folder}/d-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs={cpus}
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs={cpus}
PartitionName=all Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


def absent() -> str:
    """Why there can be no Slurm here; '' where there is one."""
    if os.geteuid():
        return "needs root"
    if any(shutil.which(name) is None for name in NEEDED) and shutil.which("apt-get"):
        quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | {
            "DEBIAN_FRONTEND": "noninteractive"})
        subprocess.run(["timeout", "120", "apt-get", "update", "-q"], **quiet)
        subprocess.run(["timeout", "300", "apt-get", "install", "-qy", "--no-install-recommends", "slurmctld", "slurmd",
                        "slurm-client", "munge"], **quiet)
    gone = [name for name in NEEDED if shutil.which(name) is None]
    return f"no {', '.join(gone)}, and apt could not install them" if gone else ""


class NoSlurm(Exception):
    """It is installed and does not start here, as in a container that may not."""


@contextlib.contextmanager
def cluster(folder: str) -> Iterator[None]:
    """Two nodes that are up, SLURM_CONF saying where. Raises NoSlurm."""
    os.makedirs(os.path.join(folder, "state"))
    conf = os.path.join(folder, "slurm.conf")
    ports = [together._port() for _ in range(3)]
    with open(conf, "w", encoding="utf-8") as file:
        file.write(CONF.format(host=socket.gethostname().partition(".")[0], folder=folder, ports=ports,
                               cpus=os.cpu_count()))
    os.environ["SLURM_CONF"] = conf
    started = []
    try:
        try:
            if subprocess.run(["munge", "-n"], capture_output=True).returncode:
                os.makedirs("/run/munge", exist_ok=True)
                shutil.chown("/run/munge", "munge", "munge")
                subprocess.run(["runuser", "-u", "munge", "--", "munged"], check=True)
            for words in (["slurmctld", "-D"], ["slurmd", "-D", "-N", "n1"], ["slurmd", "-D", "-N", "n2"]):
                log = open(os.path.join(folder, f"{'-'.join(words)}.txt"), "w")
                started.append(subprocess.Popen([*words, "-f", conf], stdout=log, stderr=log))
            wait(lambda: told("sinfo", "-h", "-t", "idle", "-o", "%D") == "2", 60, "two idle nodes", folder)
        except (OSError, LookupError, TimeoutError, subprocess.SubprocessError) as error:
            raise NoSlurm(" ".join(str(error).split())[-400:]) from None
        yield
    finally:
        subprocess.run(["scancel", "--user=root"], capture_output=True)
        for process in reversed(started):
            process.terminate()
        for process in started:
            process.wait()


def told(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True).stdout.strip()


def wait(ready, seconds: float, what: str, folder: str) -> None:
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            logs = "".join(open(os.path.join(folder, n)).read()[-600:] for n in os.listdir(folder) if n.endswith("log"))
            raise TimeoutError(f"no {what} after {seconds} s: {logs}")
        time.sleep(0.5)


def submit(*words: str) -> list[str]:
    """The numbers of the jobs."""
    done = subprocess.run([sys.executable, "launch/slurm.py", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [line.partition("as job ")[2].partition(";")[0] for line in done.stdout.splitlines()]


def over(jobs: list[str], seconds: float, folder: str) -> None:
    wait(lambda: not told("squeue", "-h", "-j", ",".join(jobs)), seconds, f"end of jobs {', '.join(jobs)}", folder)


def time_limit(folder: str) -> Iterator[processes.Case]:
    """A run of two nodes that lasts longer than its time limit, against one of two processes without Slurm."""
    def plain(steps: int) -> tuple[str, float]:
        began, path = time.monotonic(), os.path.join(folder, f"plain-{steps}")
        codes, said = together._ends(together._both(path, *changes(steps), devices=1, timeout=400))
        assert codes == [0, 0], f"{codes}: {said}"
        return path, time.monotonic() - began

    changes = lambda steps: (f"train.steps={steps}", "train.steps_per_call=20", "train.log_every=200",
                             "train.save_every=1000000", "train.eval_every=0")
    steps = 1600
    reference, seconds = plain(steps)
    if seconds < LONGER:  # the limit is a minute at least
        steps *= int(LONGER / seconds) + 1
        reference, seconds = plain(steps)
    minutes = max(1, round(0.6 * seconds / 60))
    began, path = time.monotonic(), os.path.join(folder, "slurm")
    job, = submit("--nodes=2", f"--time={minutes}", "--signal=TERM@15", "--",
                  *processes.words("gpicl", path, *changes(steps)))
    restarts = 0
    while told("squeue", "-h", "-j", job) and time.monotonic() - began < 10 * seconds:
        shown = dict(word.partition("=")[::2] for word in told("scontrol", "show", "job", job).split())
        restarts = max(restarts, int(shown.get("Restarts", 0)))
        time.sleep(0.5)
    with open(f"{path}.slurm-{job}.txt", encoding="utf-8") as file:
        output = file.read()
    differ = processes.differing(processes.left(path), processes.left(reference))
    yield processes.Case("two nodes into their time limit", restarts and not differ,
                         f"{restarts} restarts, other: {differ}; {output[-600:]}",
                         f"limit {minutes} min, put back {restarts} times, {time.monotonic() - began:.0f} s against "
                         f"{seconds:.0f} s; the same bits as without Slurm")


SWEEP = """
from configs import gpicl
def get_config(arg=""):
    return gpicl.get_config("smoke")
def sweep(arg=""):
    yield {"_label": "one"}
    yield {"_label": "two", "seed": 1}
    yield {"_label": "bad", "optim.lr": 1e30, "train.max_bad_steps": 1}
    yield {"_label": "later", "_stage": 1, "seed": 2}
"""


def sweep(folder: str) -> Iterator[processes.Case]:
    """Two stages, one of whose runs fails."""
    config, out = os.path.join(folder, "few.py"), os.path.join(folder, "sweep")
    with open(config, "w", encoding="utf-8") as file:
        file.write(SWEEP)
    jobs = submit("--time=5", "--", "sweep", f"--config={config}", f"--out={out}")
    over(jobs, 300, folder)
    table = os.path.join(out, "sweep.json")
    runs = [run["label"] for run in json.load(open(table))["runs"]] if os.path.exists(table) else []
    yield processes.Case("a sweep of two stages", len(jobs) == 3 and runs == ["one", "two", "later"], f"{jobs} {runs}",
                         f"jobs {', '.join(jobs)}; the failed run is not in the way")
    again = submit("--print", "--time=5", "--", "sweep", f"--config={config}", f"--out={out}")
    shown = subprocess.run([sys.executable, "launch/slurm.py", "--print", "--", "sweep", f"--config={config}",
                            f"--out={out}"], capture_output=True, text=True).stdout
    yield processes.Case("what is done is not submitted again", "002-bad" in shown and "000-one" not in shown, shown,
                         f"{len(again)} lines")


def main() -> int:
    if why := absent():
        print(f"skipped: Slurm: {why}")
        return 0
    folder = tempfile.mkdtemp(prefix="metalearn-slurm-")
    bad = 0
    try:
        with cluster(folder):
            for section in (sweep, time_limit):
                for case in section(folder):
                    print(f"{'held' if case.held else 'LOST'}  {case.name}: {case.note if case.held else case.seen}",
                          flush=True)
                    bad += not case.held
    except NoSlurm as error:
        print(f"skipped: Slurm does not start here: {error}")
    if not bad:
        shutil.rmtree(folder)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
