from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.core.clock import SystemClock
from gateway.crypto.keys import KeyRing
from gateway.crypto.signing import Signer
from tests.commands.kept import Sallyport


@pytest.fixture
def sallyport(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Sallyport:
    return Sallyport(tmp_path, capsys, monkeypatch)


@pytest.fixture
def ring(sallyport: Sallyport) -> KeyRing:
    return KeyRing.open(sallyport.folder / "data" / "keys", create=True)


def test_before_the_first_start_it_says_what_to_do(sallyport: Sallyport) -> None:
    for action in ("list", "rotate"):
        said = sallyport("key", action)
        assert said.code == 2
        assert "does not exist (start the gateway once, it makes its keys)" in said.err


def test_listing(sallyport: Sallyport, ring: KeyRing) -> None:
    kid = ring.signer.jwks()["keys"][0]["kid"]
    header, line = sallyport("key", "list").out.splitlines()
    assert header.split() == ["KEY", "STATUS", "SIGNS", "FROM", "UNTIL"]
    assert line.split()[:2] == [kid, "signing"]
    (listed,) = sallyport("key", "list", "--json").json
    assert (listed["kid"], listed["status"], listed["until"]) == (kid, "signing", None)


def test_rotating_publishes_now_and_signs_later(sallyport: Sallyport, ring: KeyRing) -> None:
    running = Signer(ring.folder, SystemClock(), 60.0)
    before = SystemClock().now()
    said = sallyport("key", "rotate", "--json")
    assert said.code == 0
    new = said.json
    assert new["status"] == "next"
    assert 300 <= new["signs_from"] - before <= 310
    assert running.refresh()
    assert new["kid"] in [key["kid"] for key in running.jwks()["keys"]]
    assert [standing.status for standing in running.standings()] == ["signing", "next"]
    assert sallyport.events() == [("key_rotated", "")]


def test_rotating_with_another_overlap(sallyport: Sallyport, ring: KeyRing) -> None:
    said = sallyport("key", "rotate", "--overlap", "1h")
    at = datetime.strptime(said.out.split()[-2], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
    assert 3600 <= at - SystemClock().now() + 10 <= 3615


def test_rotating_at_once(sallyport: Sallyport, ring: KeyRing) -> None:
    for path in ring.folder.glob("signing-*"):  # as if it had been made a while ago
        path.rename(ring.folder / f"signing-20200101T000000Z-{path.name[-12:]}")
    new = sallyport("key", "rotate", "--overlap", "0s", "--json").json
    assert new["status"] == "signing"
    assert [key["status"] for key in sallyport("key", "list", "--json").json] == ["published", "signing"]


@pytest.mark.parametrize("overlap", ["5", "soon", "-5m", ""])
def test_an_overlap_that_is_none_changes_nothing(sallyport: Sallyport, ring: KeyRing, overlap: str) -> None:
    said = sallyport("key", "rotate", f"--overlap={overlap}")
    assert said.code == 2
    assert "--overlap: not a duration" in said.err
    assert len(list(ring.folder.glob("signing-*"))) == 1


def test_a_key_others_can_read_is_told(sallyport: Sallyport, ring: KeyRing) -> None:
    (path,) = ring.folder.glob("master-*")
    path.chmod(0o644)
    said = sallyport("key", "list")
    assert said.code == 2
    assert said.err == f"key file {path} can be read by others (chmod 600 {path})\n"
