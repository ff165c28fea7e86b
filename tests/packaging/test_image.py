from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HADOLINT = shutil.which("hadolint", path=str(Path(sys.executable).parent))


def instructions() -> list[tuple[str, str]]:
    """`(INSTRUCTION, rest)` in order, continued lines joined."""
    text = (ROOT / "Dockerfile").read_text()
    lines = re.sub(r"\\\n", " ", re.sub(r"(?m)^#.*\n", "", text)).splitlines()
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines if line.strip()]


def final_stage() -> dict[str, str]:
    """The last value of each instruction after the last FROM."""
    everything = instructions()
    last = max(index for index, (name, _) in enumerate(everything) if name == "FROM")
    return dict(everything[last:])


@pytest.mark.skipif(HADOLINT is None, reason="LEFT OUT: hadolint is not here")
def test_hadolint_has_nothing_to_say() -> None:
    ended = subprocess.run([HADOLINT, "Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "")


def test_it_runs_as_a_number_that_is_not_root() -> None:
    user, group = final_stage()["USER"].split(":")
    assert int(user) > 0
    assert int(group) > 0


def test_it_builds_in_one_stage_and_runs_in_another() -> None:
    stages = [rest for name, rest in instructions() if name == "FROM"]
    assert len(stages) == 2
    assert not any("pip install" in rest for name, rest in instructions()[-15:] if name == "RUN")


def test_what_is_written_is_written_to_the_volume() -> None:
    stage = final_stage()
    assert stage["VOLUME"] == "/var/lib/sallyport"
    assert "SALLYPORT_DATA=/var/lib/sallyport" in stage["ENV"]
    assert "PYTHONDONTWRITEBYTECODE=1" in stage["ENV"]


def test_it_stops_on_sigterm_and_says_how_it_is() -> None:
    stage = final_stage()
    assert stage["STOPSIGNAL"] == "SIGTERM"
    assert json.loads(stage["ENTRYPOINT"]) == ["sallyport"]
    command = json.loads(stage["HEALTHCHECK"].partition("CMD")[2])
    assert command[0] == "python"
    compile(command[2], "HEALTHCHECK", "exec")


def test_everything_it_copies_is_there_and_let_through() -> None:
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        source
        for name, rest in instructions()
        if name == "COPY" and "--from" not in rest
        for source in rest.split()[:-1]
    }
    assert copied == let_through
    assert [source for source in copied if not (ROOT / source).exists()] == []
