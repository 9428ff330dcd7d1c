"""Flags, exit codes, the RESULT line; and programs' one-line answers to bad input, nothing on disk changed."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from metalearn import cli, eval as eval_program, train
from metalearn.validate import ConfigError

SMOKE = "--config=configs/gpicl.py:smoke"


def run(monkeypatch, capsys, program, *argv):
    """(exit code, stdout, stderr) of a program, in this process."""
    monkeypatch.setattr(sys, "argv", ["program", *argv])
    with pytest.raises(SystemExit) as stop:
        cli.main(program)
    return stop.value.code, *capsys.readouterr()


def parser():
    made = cli.Parser("doc")
    made.add_argument("--config", required=True)
    made.add_argument("--jobs", type=int)
    return made


def test_overrides_are_gathered():
    args = parser().parse(["--config=x", "--config.a.b=1", "--jobs", "2", "--config.c", "-3", "--config.d=e=f"])
    assert (args.config, args.jobs, args.overrides) == ("x", 2, ["a.b=1", "c=-3", "d=e=f"])


@pytest.mark.parametrize("argv, words", [
    (["--config=x", "--job=2"], "--job=2: unknown flag.*nearest: --jobs"),
    (["--config=x", "--jobs=two"], "invalid int value"),
    ([], "required: --config"),
    (["--config=x", "more"], "more"),
])
def test_bad_flags(argv, words):
    with pytest.raises(ConfigError, match=words):
        parser().parse(argv)


def test_exit_codes(capsys):
    def code(program):
        with pytest.raises(SystemExit) as stop:
            cli.main(program)
        return stop.value.code

    def refuse():
        raise ConfigError("a.b", 1, "must be 2")

    def interrupt():
        raise KeyboardInterrupt

    assert (code(lambda: None), code(lambda: cli.EXIT_SIGNAL), code(interrupt)) == (0, 75, 130)
    assert capsys.readouterr().err == ""
    assert code(refuse) == 2 and capsys.readouterr().err == "error: a.b=1: must be 2\n"
    with pytest.raises(ZeroDivisionError):  # a crash stays a crash
        cli.main(lambda: 1 / 0)


def test_result_line(capsys):
    cli.print_result({"a": np.float32(1 / 3), "b": float("nan"), "c": (1, np.arange(2)), "d": {"e": np.inf}, "f": "x"})
    line = capsys.readouterr().out
    assert line.startswith("RESULT ") and line.count("\n") == 1
    assert json.loads(line[7:]) == {"a": 0.333333, "b": None, "c": [1, [0, 1]], "d": {"e": None}, "f": "x"}


BAD = [
    ("--config.optim.lrr=1", "config.optim.lrr=1: unknown field .nearest: optim.lr"),
    ("--config.task.wayz=1", "nearest: task.ways"),
    ("--config.optim.lr=fast", "config.optim.lr=fast: must be of type float"),
    ("--config.optim.lr=nan", "config.optim.lr=nan: must be finite"),
    ("--config.optim.lr=-1", "config.optim.lr=-1.0: must be a finite number above 0"),
    ("--config.optim.name=adma", "nearest: adam"),
    ("--config.optim.freeze=(", "config.optim.freeze=.: must be a regular expression"),
    ("--config.optim.warmup_steps=9", "config.optim.warmup_steps=9: must be at most train.steps=4"),
    ("--config.task.ways=6", "config.task.ways=6: must lie between 2 and 5"),
    ("--config.task.length=1", "config.task.length=1"),
    ("--config.task.pca=-1", "config.task.pca=-1: must lie between 0 and"),
    ("--config.task.image_size=5000", "config.task.image_size=5000: must be 0 .as it is. or a side, at most 4096"),
    ("--config.task.length=3000000000", "config.task.length=3000000000: must lie between -2147483648 and 2147483647"),
    ("--config.evaluators.curves.seed=-1", "config.evaluators.curves.seed=-1: must lie between 0 and"),
    ("--config.train.steps=1e20", "config.train.steps=1e.20: must be of type int"),
    ("--config.train.steps=10000000000", "config.train.steps=10000000000: must lie between -2147483648 and 2147483647"),
    ("--config.train.keep=True", "config.train.keep=True: must be of type int"),
    ("--config.replicas.num=70000", "config.replicas.num=70000: must be at most 65536"),
    ("--config.task.bias=1.5", "config.task.bias=1.5: must lie between 0 and 1"),
    ("--config.task.num_tasks=-1", "config.task.num_tasks=-1"),
    ("--config.task.dataset=digitz", "digitz.*nearest: digits"),
    ("--config.task.dataset=nowhere.npz", "nowhere.npz: no such file"),
    ("--config.task.name=projectd", "config.task.name=projectd.*nearest: projected"),
    ("--config.learner.name=incontxt", "nearest: incontext"),
    ("--config.learner.layout=qery", "nearest: query"),
    ("--config.learner.network.num_heads=3", "config.learner.network"),
    ("--config.evaluators.curves.sets=('seen','unsen')", "config.evaluators.curves.*nearest: unseen"),
    ("--config.evaluators.curves.episodes=0", "config.evaluators.curves.episodes=0"),
    ("--config.train.batch=0", "config.train.batch=0"),
    ("--config.train.log_every=3", "config.train.log_every=3: must be a multiple of train.steps_per_call=2"),
    ("--config.train.devices=64", "config.train.devices=64: this machine has"),
    ("--config.train.mesh.model=64", "config.train.mesh.model=64: must divide devices="),
    ("--config.train.mesh.params=shardd", "config.train.mesh.params=shardd.*nearest: sharded"),
    ("--config.train.accumulate=3", "config.train.batch=8: must be a multiple of train.accumulate=3"),
    ("--config.seed=-1", "config.seed=-1"),
    ("--config.init_from=nowhere", "config.init_from=nowhere: holds no checkpoint"),
    ("--workdr=x", "--workdr=x: unknown flag.*nearest: --workdir"),
    ("--config=configs/gpicl.py:smok", "smok: must be one of.*nearest: smoke"),
    ("--config=configs/gpcl.py", "no such file"),
]


@pytest.mark.parametrize("argument, words", BAD, ids=[argument for argument, _ in BAD])
def test_train_refuses_in_one_line(monkeypatch, capsys, tmp_path, argument, words):
    import re
    code, out, err = run(monkeypatch, capsys, train.main, SMOKE, f"--workdir={tmp_path}/new", argument)
    assert (code, out) == (2, "") and err.count("\n") == 1 and err.startswith("error: ")
    assert re.search(words, err), err
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("arrays, words", [
    (dict(x=np.zeros((4, 2, 2))), "must hold arrays x and y"),
    (dict(x=np.full((4, 2, 2), np.nan), y=np.arange(4)), "NaN"),
    (dict(x=np.zeros((4, 2, 2)), y=np.arange(3)), "4 images and 3 labels"),
    (dict(x=np.full((40, 2, 2), 7), y=np.arange(40) % 10), "all values of x are 7"),
    (dict(x=np.eye(40)[:, :, None] * 1e38, y=np.arange(40) % 10), "reaches from 0 to 1e+38"),
    (dict(x=np.arange(16).reshape(4, 2, 2), y=np.zeros(4, int)), "single class"),
    (None, "not a readable .npz"),
])
def test_bad_npz(monkeypatch, capsys, tmp_path, arrays, words):
    path = tmp_path / "dataset.npz"
    np.savez(path, **arrays) if arrays else path.write_bytes(b"PK\x03\x04 cut short")
    code, out, err = run(monkeypatch, capsys, train.main, SMOKE, f"--workdir={tmp_path}/new",
                         f"--config.task.dataset={path}")
    assert (code, out) == (2, "") and err.count("\n") == 1 and words in err
    assert os.listdir(tmp_path) == ["dataset.npz"]


@pytest.mark.parametrize("make, words", [
    (lambda path: path.write_text("a file"), "is a file"),
    (lambda path: path.mkdir() or (path / "thesis.tex").write_text("x"), "thesis.tex"),
    (lambda path: path.mkdir() or (path / "config.json").write_text("{"), "not valid JSON of a config"),
    (lambda path: path.mkdir() or (path / "config.json").write_text("[]"), "not valid JSON of a config"),
    (lambda path: path.mkdir() or (path / "config.json").write_text('{"seed": 0}'), "was made by another config"),
])
def test_a_workdir_that_is_not_ours(monkeypatch, capsys, tmp_path, make, words):
    make(tmp_path / "dir")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    code, out, err = run(monkeypatch, capsys, train.main, SMOKE, f"--workdir={tmp_path}/dir")
    assert (code, out) == (2, "") and err.count("\n") == 1 and words in err
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_a_workdir_below_a_file(monkeypatch, capsys, tmp_path):
    (tmp_path / "file").write_text("x")
    code, out, err = run(monkeypatch, capsys, train.main, SMOKE, f"--workdir={tmp_path}/file/run")
    assert (code, out) == (2, "") and err.count("\n") == 1 and "--workdir" in err


@pytest.mark.parametrize("argv, words", [
    (["--workdir=nowhere"], "no config.json"),
    ([], "required: --workdir"),
    (["--workdir=nowhere", "--step=last"], "invalid int value"),
])
def test_eval_refuses_in_one_line(monkeypatch, capsys, argv, words):
    code, out, err = run(monkeypatch, capsys, eval_program.main, *argv)
    assert (code, out) == (2, "") and err.count("\n") == 1 and words in err
    assert not os.path.exists("nowhere")


def test_a_real_process(tmp_path):
    done = subprocess.run([sys.executable, "-m", "metalearn.train", SMOKE, f"--workdir={tmp_path}/new",
                           "--config.optim.lrr=1"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert os.listdir(tmp_path) == []


def _places(tmp_path, **changes) -> list[str]:
    """Where a program of its own, and a process that it starts, keep what they compile."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    program = """
import os, subprocess, sys
from metalearn import cli
def program():
    child = "import jax; print(jax.config.jax_compilation_cache_dir)"
    print(os.environ.get("JAX_COMPILATION_CACHE_DIR"), flush=True)
    subprocess.run([sys.executable, "-c", child], check=True)
cli.main(program)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True,
                          env=ours | {"XDG_CACHE_HOME": str(tmp_path / "home")} | changes)
    return done.stdout.split()


def test_compiled_programs_are_kept_in_the_user_s_cache(tmp_path):
    ours, child = _places(tmp_path)
    assert ours == child and os.path.dirname(ours) == str(tmp_path / "home" / "metalearn" / "compiled")
    assert os.stat(ours).st_mode & 0o077 == 0  # what is in it is run
    assert _places(tmp_path, METALEARN_COMPILED="off") == ["None", "None"]
    assert _places(tmp_path, JAX_COMPILATION_CACHE_DIR="elsewhere") == ["elsewhere", "elsewhere"]
    (tmp_path / "file").write_text("")
    assert _places(tmp_path, XDG_CACHE_HOME=str(tmp_path / "file")) == ["None", "None"]


def test_old_programs_go_where_there_are_too_many(tmp_path):
    for age in range(8):
        path = tmp_path / f"{age}-cache"
        path.write_bytes(b"x" * 100)
        os.utime(path, (1000 - age, 1000 - age))
    cli.prune(str(tmp_path), 800)
    assert len(os.listdir(tmp_path)) == 8
    cli.prune(str(tmp_path), 799)
    assert sorted(os.listdir(tmp_path)) == [f"{age}-cache" for age in range(3)]  # at most half
