from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.audit import access_log as module
from gateway.audit.access_log import AccessLog
from gateway.core.errors import ConfigError
from gateway.core.identity import Identity, Session
from tests.audit.conftest import NASTY

ANN = Identity("default", "sub", "ann", session=Session("s1", 1, 0.0, 0.0, 0.0, (), "", ""))


def write(log: AccessLog, **more: Any) -> None:
    line: dict[str, Any] = {
        "at": 1_700_000_000.0625,
        "method": "GET",
        "host": "app.example",
        "path": "/a",
        "status": 200,
        "address": "192.0.2.1",
        "agent": "curl/8",
        "request_id": "r-1",
        "received": 3,
        "sent": 150,
        "seconds": 0.0015,
    }
    log.write(**{**line, **more})


def lines(path: Path) -> list[dict[str, Any]]:
    text = path.read_text(encoding="utf-8")
    assert text.endswith("\n")
    return [json.loads(line) for line in text[:-1].split("\n")]


def test_a_shadow_rule_is_told_beside_the_answer(tmp_path: Path) -> None:
    log = AccessLog(str(tmp_path / "access.log"))
    write(log, rule="everything-else", answer="allow")
    write(log, rule="everything-else", answer="allow", shadow=("reports-strict", "refuse"))
    log.close()
    plain, watched = lines(tmp_path / "access.log")
    assert "shadow" not in plain
    assert (watched["answer"], watched["shadow"]) == ("allow", {"rule": "reports-strict", "answer": "refuse"})


def test_no_log_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    log = AccessLog("")
    write(log)
    log.close()
    assert log.dropped == 0
    assert list(tmp_path.iterdir()) == []


def test_a_request_is_a_line(tmp_path: Path) -> None:
    log = AccessLog(str(tmp_path / "logs" / "access.log"))
    write(
        log,
        rule="admin",
        answer="allow",
        reason="granted",
        risk=0.25,
        identity=ANN,
        upstream="app",
        upstream_seconds=0.001,
    )
    log.close()
    assert lines(tmp_path / "logs" / "access.log") == [
        {
            "time": "2023-11-14T22:13:20.062Z",
            "status": 200,
            "method": "GET",
            "host": "app.example",
            "path": "/a",
            "address": "192.0.2.1",
            "agent": "curl/8",
            "user": "ann",
            "session": "s1",
            "rule": "admin",
            "answer": "allow",
            "reason": "granted",
            "risk": 0.25,
            "upstream": "app",
            "received": 3,
            "sent": 150,
            "duration_us": 1500,
            "upstream_us": 1000,
            "request_id": "r-1",
        }
    ]
    assert (tmp_path / "logs" / "access.log").stat().st_mode & 0o007 == 0


def test_lines_stay_in_order_over_batches(tmp_path: Path) -> None:
    log = AccessLog(str(tmp_path / "a.log"))
    for number in range(5000):
        write(log, status=number)
    assert len(log._batch) < module.BATCH  # several have been handed on
    log.close()
    assert [line["status"] for line in lines(tmp_path / "a.log")] == list(range(5000))
    assert log.dropped == 0


@pytest.mark.parametrize("field", ["method", "host", "path", "address", "agent", "request_id"])
@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY)
def test_whatever_is_sent_is_one_line(tmp_path: Path, field: str, text: str) -> None:
    """Case 120."""
    log = AccessLog(str(tmp_path / "a.log"))
    write(log, **{field: text})
    write(log)
    log.close()
    raw = (tmp_path / "a.log").read_bytes()
    assert raw.count(b"\n") == 2
    assert all(byte >= 0x20 and byte != 0x7F for byte in raw.replace(b"\n", b""))
    assert len(raw) < 4096
    first, second = lines(tmp_path / "a.log")
    assert first["status"] == second["status"] == 200
    assert set(first) == set(second)
    assert not set("\x1b\x9b\u2028\u202e") & set(raw.decode())


def test_a_moved_file_is_followed_by_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    first = AccessLog(str(path))
    write(first, status=201)
    first.close()
    log = AccessLog(str(path))
    path.rename(tmp_path / "a.log.1")
    write(log, status=202)
    log.close()
    assert [line["status"] for line in lines(tmp_path / "a.log.1")] == [201]
    assert [line["status"] for line in lines(path)] == [202]


def test_a_reader_who_stops_reading_stops_nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "BACKLOG", 200_000)
    monkeypatch.setattr(module, "BATCH", 50_000)
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    log = AccessLog(str(path))
    for _ in range(5000):
        write(log)
    log.flush()
    assert log.dropped > 0
    written = 5000 - log.dropped
    os.set_blocking(reader, True)
    seen = 0
    while seen < written:
        seen += os.read(reader, 65536).count(b"\n")
    log.close()
    os.close(reader)
    assert seen == written


def test_a_reader_who_went_away_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    log = AccessLog(str(path))
    os.close(reader)
    write(log)
    write(log)
    log.close()
    assert log.dropped == 2
    assert "lines are lost" in caplog.text


def test_standard_output() -> None:
    program = (
        "from gateway.audit.access_log import AccessLog\n"
        "log = AccessLog('-')\n"
        "for status in (200, 404):\n"
        "    log.write(1.5, 'GET', 'h', '/', status, 'a', 'b', 'r', 0, 0, 0.1)\n"
        "log.close()\n"
    )
    out = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, cwd=Path.cwd()).stdout
    assert [json.loads(line)["status"] for line in out.splitlines()] == [200, 404]


def test_a_place_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"access log .* cannot be opened"):
        AccessLog(str(tmp_path / "file" / "access.log"))
