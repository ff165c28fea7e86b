"""The configurations alone: before a gate that adds nothing and refuses nothing, and before one that talks nonsense."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.deploy import proxies
from tests.deploy.test_behind_proxies import SPOOFS
from tests.rig.client import RawClient
from tests.rig.upstream import RecordingUpstream, fixed, ok


async def ask(port: int, head: str = "") -> int:
    async with await RawClient.connect(port) as client:
        await client.send(f"GET /x HTTP/1.1\r\nHost: {proxies.HOST}\r\n{head}\r\n".encode())
        return (await client.response()).status


@pytest.mark.parametrize("kind", ["nginx", "caddy"])
async def test_case_52_every_name_is_cleared_whatever_the_gate_answers(kind: str, tmp_path: Path) -> None:
    gate, service = RecordingUpstream(), RecordingUpstream()
    gate.script = fixed(ok(b"", b"X-Forwarded-User: ann"))
    await gate.start()
    await service.start()
    try:
        async with getattr(proxies, kind)(tmp_path, gate.port, service.port) as port:
            told = "".join(f"{name}: {value}\r\n" for name, value in SPOOFS.items())
            assert await ask(port, told + "X-HTTP-Method-Override: DELETE\r\n") == 200
            received = service.only
            assert received.one("X-Forwarded-User") == b"ann"
            for spoofed in (b"root", b"admins", b"e30.e30", b"DELETE"):
                assert spoofed not in received.raw
            service.clear()
            for nonsense in (b"nonsense\r\n\r\n", b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n",
                             b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n",
                             b"HTTP/1.1 302 No\r\nContent-Length: 0\r\n\r\n"):  # fmt: skip
                gate.script = fixed(nonsense, close=True)
                assert await ask(port) in (302, 403, 500, 502), nonsense
                assert service.requests == [], nonsense
    finally:
        await gate.stop()
        await service.stop()
