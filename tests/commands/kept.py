"""The command line on a folder where commands keep things: users, keys, events."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import main


@dataclass
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Sallyport:
    """Runs `sallyport …` on one folder."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        (folder / "config.yaml").write_text("upstreams: {app: {url: http://127.0.0.1:9000}}\n")
        self.folder = folder
        self._capsys = capsys
        self._monkeypatch = monkeypatch

    def __call__(self, *arguments: str, stdin: str = "") -> Said:
        self._monkeypatch.setattr("sys.stdin", StringIO(stdin))
        try:
            code = main([*arguments, "--config", str(self.folder / "config.yaml")])
        except SystemExit as stopped:
            code = int(str(stopped.code or 0))
        return Said(code, *self._capsys.readouterr())

    def events(self) -> list[tuple[str, str]]:
        """`(kind, user)` of every recorded event."""
        database = sqlite3.connect(self.folder / "data" / "sallyport.db")
        rows = database.execute("SELECT kind, user FROM events ORDER BY id").fetchall()
        database.close()
        return rows
