"""`metalearn PROGRAM`: every program is there under its name, with its first line; a wrong name is answered in one."""

import pathlib
import sys

import pytest

from metalearn import __main__ as command, cli, listing

ROOT = pathlib.Path(__file__).parent.parent


def run(monkeypatch, capsys, *argv):
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/metalearn", *argv])
    with pytest.raises(SystemExit) as stop:
        command.main()
    return stop.value.code, *capsys.readouterr()


def test_every_program_has_a_name():
    """A module with a `main` that no name leads to would be found by nobody."""
    with_main = {path.stem for path in (ROOT / "metalearn").glob("*.py") if "\ndef main() -> int:" in path.read_text()}
    elsewhere = {"datasets", "reproduce", "benchmark"}
    assert {module.split(".")[1] for module in command.PROGRAMS.values()} == with_main | elsewhere


@pytest.mark.parametrize("argv, code", [((), cli.EXIT_CONFIG), (("--help",), 0)])
def test_help_names_programs_and_kinds(monkeypatch, capsys, argv, code):
    found, out, err = run(monkeypatch, capsys, *argv)
    assert (found, err) == (code, "") and max(map(len, out.splitlines())) <= 80
    assert all(f"  {name} " in out for name in command.PROGRAMS) and all(kind in out for kind in listing.KINDS)


def test_a_wrong_name_is_answered_in_one_line(monkeypatch, capsys):
    code, out, err = run(monkeypatch, capsys, "trian", "--config=x")
    assert (code, out) == (2, "") and err.count("\n") == 1 and "nearest: train" in err


def test_a_program_gets_its_own_flags(monkeypatch, capsys):
    code, out, err = run(monkeypatch, capsys, "eval", "--workdir=nowhere")
    assert (code, out) == (2, "") and "no config.json" in err
    assert sys.argv == ["eval", "--workdir=nowhere"]
