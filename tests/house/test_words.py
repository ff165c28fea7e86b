"""Every word of a closed list is used, nothing is left to do, and nothing rests on `assert`."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

import pytest

from gateway.core.events import Kind
from gateway.core.reasons import Reason
from gateway.wire.answers import REFUSALS, code_of

ROOT = Path(__file__).resolve().parents[2]
GATEWAY = ROOT / "gateway"
OURS = ("gateway", "tests", "docs", "demo", "bench", "helm", "policies", "scripts", ".ci")
TEXT = {".py", ".md", ".yaml", ".yml", ".html", ".css", ".js", ".json", ".toml", ".tpl", ".txt", ".go", ".sh", ""}

ANSWERED_OTHERWISE = {
    Reason.PUBLIC: "lets in",
    Reason.GRANTED: "lets in",
    Reason.NO_SESSION: "asks to sign in",
    Reason.SESSION_ENDED: "asks to sign in",
    Reason.SESSION_TOO_OLD: "asks to sign in",
    Reason.LEVEL_TOO_LOW: "asks to step up",
    Reason.FACTOR_NOT_ACCEPTED: "asks to step up",
    Reason.PROOF_TOO_OLD: "asks to step up",
    Reason.RISK_STEP_UP: "asks to step up",
}
"""Reasons that never refuse."""


def files() -> Iterator[Path]:
    for folder in OURS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and path.suffix in TEXT and "__pycache__" not in path.parts:
                yield path
    for path in sorted(ROOT.iterdir()):
        if path.is_file() and path.suffix in {".md", ".yaml", ".toml", ""} and path.name != ".gitignore":
            yield path


def used(words: type[StrEnum], home: str) -> set[str]:
    """Names of members that some file other than the one that defines them mentions."""
    name = words.__name__
    found = set()
    for path in GATEWAY.rglob("*.py"):
        if path.name == home:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == name:
                found.add(node.attr)
    return found


def test_nothing_is_left_to_do() -> None:
    marks = re.compile(r"\b(?:" + "|".join(("TO" + "DO", "FIX" + "ME", "X" * 3, "HA" + "CK")) + r")\b")
    found = []
    for path in files():
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if marks.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert found == []


def test_nothing_rests_on_assert() -> None:
    """`python -O` takes them away; a check that can vanish guards nothing."""
    found = []
    for folder in ("gateway", "demo"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            found += [
                f"{path.relative_to(ROOT)}:{node.lineno}"
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Assert) or (isinstance(node, ast.Name) and node.id == "__debug__")
            ]
    assert found == []


@pytest.mark.parametrize(("options", "runs"), [(["-O"], True), (["-OO"], True)])
def test_it_works_without_asserts_and_docstrings(options: list[str], runs: bool) -> None:
    script = "import gateway.app, gateway.commands.run; from gateway.cli import main; raise SystemExit(main(['check']))"
    done = subprocess.run([sys.executable, *options, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode == 0) is runs, done.stderr + done.stdout
    assert "good" in done.stdout


def test_every_reason_is_given_somewhere() -> None:
    assert set(Reason.__members__) - used(Reason, "reasons.py") == set()


def test_every_kind_of_event_happens_somewhere() -> None:
    assert set(Kind.__members__) - used(Kind, "events.py") == set()


def test_every_reason_that_can_refuse_has_a_status_and_a_sentence() -> None:
    assert set(REFUSALS) == set(Reason) - set(ANSWERED_OTHERWISE)
    for reason, (status, sentence) in REFUSALS.items():
        assert 400 <= status <= 599, reason
        assert sentence.endswith("."), reason
        assert sentence[0].isupper(), reason
        assert re.fullmatch(r"ERR(?:-[A-Z]+)+", code_of(reason)), reason
    assert len({sentence for _, sentence in REFUSALS.values()}) == len(REFUSALS)


@pytest.mark.parametrize("words", [Reason, Kind])
def test_a_word_is_its_own_name(words: type[StrEnum]) -> None:
    """One spelling in code, logs, metrics and documents."""
    assert [word for word in words if word.value != word.name.lower()] == []
    assert all(re.fullmatch(r"[a-z]+(?:_[a-z]+)*", word.value) for word in words)
