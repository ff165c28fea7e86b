from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gateway import __version__, cli
from tests.commands.conftest import Run


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_help(sallyport: Run, command: str) -> None:
    said = sallyport(command, "--help")
    assert said.code == 0
    assert said.out.startswith(f"usage: sallyport {command}")


def test_help_names_every_command(sallyport: Run) -> None:
    said = sallyport("--help")
    assert said.code == 0
    assert all(f"\n    {command} " in said.out for command in cli.COMMANDS)
    assert sallyport("--version").out == f"sallyport {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["chekc"], "`chekc` is not a command; did you mean `check`?"),
        (["xyzzy"], "`xyzzy` is not a command; commands: run, check"),
        (["check", "--jsn"], "unrecognized arguments: --jsn"),
        (["schema", "polcy"], "invalid choice"),
        (["explain"], "the following arguments are required"),
    ],
)
def test_wrong_usage_is_exit_2_and_says_what_was_meant(sallyport: Run, arguments: list[str], told: str) -> None:
    said = sallyport(*arguments)
    assert said.code == 2
    assert told in said.err
    assert said.out == ""


def test_no_command_shows_help_and_is_wrong_usage(sallyport: Run) -> None:
    said = sallyport()
    assert said.code == 2
    assert "COMMAND" in said.out


@pytest.mark.parametrize("command", [["run"], ["explain", "GET /"], ["test"]])
def test_a_broken_configuration_is_told_line_by_line_without_a_traceback(
    sallyport: Run, folder: Path, command: list[str]
) -> None:
    (folder / "config.yaml").write_text("upstreams: {}\nprefix: x\n")
    said = sallyport(*command)
    assert said.code == 2
    assert [line.split(": ")[0] for line in said.err.splitlines()] == ["config.yaml:1", "config.yaml:2"]
    assert sallyport(*command, "--config", "gone.yaml").err.startswith("gone.yaml: cannot be read: No such file")


def test_as_a_module_and_into_a_pipe_that_closes(folder: Path) -> None:
    command = [sys.executable, "-m", "gateway", "schema", "config"]
    done = subprocess.run(
        ["bash", "-c", f"{' '.join(command)} | head -1; echo ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=True,
    )
    assert done.stdout.startswith("{\n")
    assert done.stdout.strip().endswith(("0", "1"))
    assert done.stderr == ""


def test_asking_for_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom gateway.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print([m for m in ('pydantic', 'yaml', 'sqlalchemy', 'aiohttp', 'cryptography') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2], check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
