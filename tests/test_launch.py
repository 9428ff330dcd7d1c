"""What the launchers would start, seen without Slurm, TPU, Kubernetes or a cloud. A real Slurm: tests/slurm.py."""

import os
import shutil
import subprocess
import sys

import pytest
import yaml

from metalearn import train

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LAUNCH = os.path.join(ROOT, "launch")


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_finds_nothing():
    scripts = sorted(os.path.join(LAUNCH, name) for name in os.listdir(LAUNCH) if name.endswith(".sh"))
    done = subprocess.run(["shellcheck", "-x", "-S", "warning", *scripts, os.path.join(ROOT, ".ci", "run")],
                          capture_output=True, text=True, cwd=LAUNCH)
    assert done.returncode == 0, done.stdout
    shown = slurm("--print", "--", "sweep", "--config=configs/gpicl.py:phases", "--out=runs/none").stdout
    done = subprocess.run(["shellcheck", "-S", "warning", "-"], input=script(shown), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("given, seen", [(None, "glibc.malloc.hugetlb=1"), ("", ""), ("glibc.malloc.check=1", None)])
def test_buffers_lie_in_huge_pages_unless_something_else_is_asked_for(given, seen):
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    environment |= {} if given is None else {"GLIBC_TUNABLES": given}
    done = subprocess.run(["bash", "-c", 'source setup.sh; echo "$GLIBC_TUNABLES"'], capture_output=True, text=True,
                          cwd=LAUNCH, env=environment)
    assert done.stdout.strip() == (given if seen is None else seen)


def slurm(*words):
    environment = os.environ | {"PYTHONPATH": ROOT, "JAX_PLATFORMS": "cpu"}
    return subprocess.run([sys.executable, os.path.join(LAUNCH, "slurm.py"), *words], capture_output=True, text=True,
                          env=environment, cwd=ROOT)


def parses(text: str) -> bool:
    return subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0


def script(shown: str) -> str:
    return shown.partition("<<'EOF'\n")[2].partition("\nEOF")[0]


def test_a_run_of_two_nodes(tmp_path):
    shown = slurm("--print", "--nodes=2", "--time=1:00:00", "--", "--config=configs/gpicl.py:smoke",
                  f"--workdir={tmp_path}/a b")
    assert shown.returncode == 0, shown.stderr
    head, text = shown.stdout.splitlines()[0], script(shown.stdout)
    assert "--requeue" in head and "--signal=TERM@120" in head and head.index("--nodes=2") > head.index("--signal")
    assert parses(text)
    assert '--processes="$SLURM_NTASKS" --process="$SLURM_PROCID" --coordinator="$METALEARN_COORDINATOR"' in text
    assert f'{tmp_path}/a b' in text and 'if [ "$code" = 75 ]' in text


def test_a_sweep_is_an_array_for_each_stage_and_a_table(tmp_path):
    config = tmp_path / "few.py"
    config.write_text("from configs import gpicl\n\ndef get_config(arg=''):\n    return gpicl.get_config('smoke')\n\n"
                      "def sweep(arg=''):\n    yield {'_label': 'a'}\n    yield {'_label': 'b', 'seed': 1}\n"
                      "    yield {'_label': 'c', '_stage': 1, 'seed': 2}\n")
    shown = slurm("--print", "--array-limit=1", "--", "sweep", f"--config={config}", f"--out={tmp_path}/out")
    assert shown.returncode == 0, shown.stderr
    first, second, table = shown.stdout.split("$ sbatch")[1:]
    assert "--array=0-1%1" in first and "000-a" in first and "001-b" in first and parses(script(first))
    assert "--array" not in second and "--dependency=afterany:" in second and "002-c" in second
    assert "--dependency=afterany:" in table and "--on=table" in table
    assert not (tmp_path / "out").exists()
    words = [f"--config={config}", f"--out={tmp_path}/out", "--on=slurm", "--sbatch=--print --array-limit=1"]
    by_sweep = subprocess.run([sys.executable, "-m", "metalearn.sweep", *words], capture_output=True, text=True,
                              cwd=ROOT)
    assert by_sweep.stdout == shown.stdout and not by_sweep.returncode, by_sweep.stderr


@pytest.mark.parametrize("words, said", [
    (("--", "sew", "--config=x"), "error: sew: must be one of train, eval, sweep"),
    (("--", "eval"), "error: --workdir: is needed after -- (as --workdir=...)"),
    (("--nodes=2",), "error: --config: is needed after -- (as --config=...)"),
    (("--print", "--", "sweep", "--config=configs/none.py", "--out=x"), "error: --config=configs/none.py"),
])
def test_bad_words_are_one_line(words, said):
    shown = slurm(*words)
    assert shown.returncode == 2 and said in shown.stderr and "Traceback" not in shown.stderr, shown.stderr


def test_a_tpu_slice(tmp_path):
    """With a `gcloud` that writes down how it was called, and one that runs the command as a worker would."""
    (tmp_path / "gcloud").write_text(f'#!/bin/bash\nprintf "%s\\n" "$@" >> {tmp_path}/called\n')
    (tmp_path / "gcloud").chmod(0o755)
    words = ["bash", os.path.join(LAUNCH, "tpu_pod.sh"), "slice", "--config=configs/gpicl.py:paper",
             "--workdir=/mnt/a b"]
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "ZONE": "here"}
    subprocess.run(words, env=environment, check=True)
    called = (tmp_path / "called").read_text()
    remote = called.partition("--command=")[2]
    assert called.count("--worker=all") == 2 and "--zone=here" in called and parses(remote)
    # on a worker: the second of two
    worker = tmp_path / "worker"
    (worker / "bin").mkdir(parents=True)
    (worker / "bin" / "curl").write_text(
        '#!/bin/bash\ncase "${@: -1}" in\n*endpoints) echo a:8470:10.0.0.1,b:8470:10.0.0.2 ;;\n*) echo 1 ;;\nesac\n')
    (worker / "bin" / "tar").write_text("#!/bin/bash\nmkdir -p metalearn/launch\n"
                                        "echo 'printf \"%s\\n\" \"$@\" >> ../told' > metalearn/launch/local.sh\n")
    for name in ("curl", "tar"):
        (worker / "bin" / name).chmod(0o755)
    subprocess.run(["bash", "-c", remote], cwd=worker, check=True,
                   env=os.environ | {"PATH": f"{worker}/bin:{os.environ['PATH']}"})
    assert (worker / "told").read_text().split("\n") == [
        "train", "--processes=2", "--process=1", "--coordinator=10.0.0.1:8476", "--join_timeout=600",
        "--config=configs/gpicl.py:paper", "--workdir=/mnt/a b", ""]
    assert subprocess.run(words[:2], capture_output=True).returncode == 2


def test_files_for_clusters_say_what_the_program_takes(capsys, monkeypatch):
    """Flags of `train`, and one number of processes everywhere."""
    with open(os.path.join(LAUNCH, "jobset.yaml"), encoding="utf-8") as file:
        job = yaml.safe_load(file)
    spec = job["spec"]["replicatedJobs"][0]["template"]["spec"]
    command = spec["template"]["spec"]["containers"][0]["command"]
    assert spec["parallelism"] == spec["completions"] == int(next(
        w for w in command if w.startswith("--processes=")).partition("=")[2])
    group = f"{job['metadata']['name']}-{job['spec']['replicatedJobs'][0]['name']}-0-0.{job['metadata']['name']}"
    assert f"--coordinator={group}:8476" in command
    with open(os.path.join(LAUNCH, "sky.yaml"), encoding="utf-8") as file:
        sky = yaml.safe_load(file)
    assert parses(sky["run"]) and parses(sky["setup"]) and sky["envs"].keys() == {"CONFIG", "NAME"}
    monkeypatch.setattr(sys, "argv", ["train", "--help"])
    with pytest.raises(SystemExit):
        train.main()
    known = capsys.readouterr().out
    for flag in ("--processes", "--process", "--coordinator", "--join_timeout"):
        assert flag in known and flag in sky["run"] and any(w.startswith(f"{flag}=") for w in command)
