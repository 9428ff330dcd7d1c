"""The README: short; programs accept its commands, which say their time; its Python runs; its links lead somewhere."""

from __future__ import annotations

import importlib
import os
import pathlib
import re
import shlex
import sys

import pytest

from metalearn import cli
from metalearn.__main__ import PROGRAMS
from metalearn.runtime import config as config_lib

ROOT = pathlib.Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
README = DOCUMENTS[0].read_text()
name = lambda path: str(path.relative_to(ROOT))


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.S | re.M)


def commands(text: str) -> list[str]:
    """Lines of the code blocks that start a program of ours, continued lines joined."""
    lines = "\n".join(blocks(text, "")).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith(("bash launch/", "metalearn "))]


def test_it_is_a_front_door():
    assert README.count("\n") <= 150 and README.splitlines()[2].startswith("Systems that learn to learn")


@pytest.mark.parametrize("line", commands(README))
def test_commands_carry_their_time(line):
    assert re.search(r"# .*\d+ (second|minute)", line), "say how long it takes"


class Accepted(Exception):
    pass


@pytest.mark.parametrize("line", [line for path in DOCUMENTS for line in commands(path.read_text())])
def test_commands_are_accepted_by_their_programs(line, monkeypatch):
    """Flags are parsed by the program itself, configs load with their overrides, a sweep has a sweep()."""
    words = [word for word in shlex.split(line, comments=True) if not re.fullmatch(r"\[.*|.*\]|\.\.\.", word)]
    script, words = ("", words[1:]) if words[0] == "metalearn" else (words[1], words[2:])
    assert not script or (ROOT / script).is_file()
    if script == "launch/test.sh":
        return
    program = words.pop(0) if not script or not words[0].startswith("-") else "train"
    parse = cli.Parser.parse

    def parse_only(self, argv=None):
        raise Accepted(parse(self, argv))

    monkeypatch.setattr(cli.Parser, "parse", parse_only)
    monkeypatch.setattr(sys, "argv", [program, *words])
    with pytest.raises(Accepted) as accepted:
        importlib.import_module(PROGRAMS[program]).main()
    args = accepted.value.args[0]
    specs = getattr(args, "config", None) or []
    for spec in [specs] if isinstance(specs, str) else specs:
        path, _, arg = spec.partition(":")
        if program == "sweep":
            assert next(iter(config_lib.import_file(str(ROOT / path)).sweep(arg))) is not None
        else:
            config_lib.load(f"{ROOT / path}:{arg}", args.overrides)


def test_the_library_in_ten_lines_runs(tmp_path, monkeypatch):
    (code,) = blocks(README, "python")
    assert len([line for line in code.splitlines() if line]) <= 10
    for folder in ("configs", "metalearn"):
        os.symlink(ROOT / folder, tmp_path / folder)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    assert (tmp_path / "runs").is_dir()


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", path.read_text()):
        assert (path.parent / target).exists(), f"{name(path)} links to {target}"
