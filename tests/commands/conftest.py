"""The command line, run in this process, in a folder of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from gateway.cli import main

CONFIG = "upstreams: {app: {url: http://127.0.0.1:9000}}\n"
POLICY = """\
rules:
  - name: public
    match: {paths: [/public/**]}
    access: public
    upstream: app
  - name: admin
    match: {paths: [/admin/**]}
    access: {groups: [admins]}
    step_up: {factors: [totp], max_age: 10m}
    limits: [{name: per-user, key: user, rate: 100/m}]
    risk: {refuse_at: 0.8}
    upstream: app
  - name: everything-else
    access: authenticated
    upstream: app
examples:
  - {request: GET /public/x, expect: allow}
"""


class Said(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


Run = Callable[..., Said]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A good configuration and policy, and the current folder."""
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "a.yaml").write_text(POLICY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SALLYPORT_CONFIG", raising=False)
    return tmp_path


@pytest.fixture
def sallyport(folder: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `sallyport …`."""

    def run(*arguments: str) -> Said:
        try:
            code = main(arguments)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        out, err = capsys.readouterr()
        return Said(code, out, err)

    return run
