"""The open-loop generator, against services whose behaviour is known."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from bench.machine import ROOT, find
from bench.provider import id_token, provider
from bench.subjects import built, fetch
from tests.rig.ports import free_port

pytestmark = pytest.mark.skipif(find("go") is None, reason="Go is not here")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
Answer = Callable[[int, bytes], Awaitable[bytes | None]]


async def measured(answer: Answer, *arguments: str) -> dict[str, object]:
    """What the generator reports of a service that answers request n, with that head, as `answer` says (None: ends)."""
    count = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                count += 1
                told = await answer(count, head)
                if told is None:
                    break
                writer.write(told)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    program = await asyncio.create_subprocess_exec(
        await asyncio.to_thread(built, "openloop"),
        *arguments,
        f"http://127.0.0.1:{port}/path",
        stdout=subprocess.PIPE,
    )
    output, _ = await program.communicate()
    server.close()
    await server.wait_closed()
    return json.loads(output)


async def test_a_service_that_stalls_is_told_with_everybody_who_waited() -> None:
    """What a closed loop would hide: one stall of 200 ms in a second is met by a fifth of those who come."""

    async def answer(count: int, head: bytes) -> bytes:
        assert head.startswith(b"GET /path HTTP/1.1\r\n")
        assert b"\r\nCookie: a=b\r\n" in head
        if count == 500:
            import time

            time.sleep(0.2)  # the whole service stands still
        return OK

    report = await measured(
        answer, "-rate=1000", "-connections=4", "-seconds=1", "-warmup=0.2", "-header", "Cookie: a=b"
    )
    assert (report["requests"], report["errors"], report["unanswered"]) == (1000, 0, 0)
    latency = report["latency"]
    assert isinstance(latency, dict)
    assert latency["p90"] >= 80_000, "a tenth of them waited 100 ms and more"
    assert latency["max"] >= 150_000


async def test_refusals_and_lost_connections_are_errors_and_the_load_goes_on() -> None:
    async def answer(count: int, head: bytes) -> bytes | None:
        if count % 10 == 0:
            return None
        return OK.replace(b"200 OK", b"503 Away") if count % 10 == 1 else OK

    report = await measured(answer, "-rate=500", "-connections=4", "-seconds=0.4", "-warmup=0")
    assert (report["requests"], report["errors"]) == (200, 40)
    assert report["achieved"] == pytest.approx(400)


async def test_what_is_never_answered_counts_with_the_time_it_waited() -> None:
    async def answer(count: int, head: bytes) -> bytes:
        await asyncio.sleep(60 if count > 10 else 0)
        return OK

    report = await measured(answer, "-rate=100", "-connections=2", "-seconds=0.3", "-warmup=0")
    assert report["unanswered"] == 20
    latency = report["latency"]
    assert isinstance(latency, dict)
    assert latency["p50"] >= 1_000_000


def test_the_histogram_and_the_reader_of_answers() -> None:
    ended = subprocess.run(
        [find("go") or "go", "test", "."], cwd=ROOT / "bench" / "openloop", capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_programs_are_formatted() -> None:
    files = [str(path) for path in Path(ROOT / "bench").glob("*/*.go")]
    assert len(files) >= 6
    gofmt = str(Path(find("go") or "go").resolve().parent / "gofmt")
    assert subprocess.run([gofmt, "-l", *files], capture_output=True, text=True, check=True).stdout == ""


def test_the_provider_signs_who_it_was_asked_about() -> None:
    import jwt

    port, secret = free_port(), "s" * 48
    with provider(port, "bench", secret):
        address = f"http://127.0.0.1:{port}"
        status, answered, _ = fetch("GET", f"{address}/authorize?nonce=n1&state=s1&redirect_uri=http://here/back", {})
        assert (status, dict(answered)["Location"]) == (302, "http://here/back?code=n1&state=s1")
        _, _, body = fetch("POST", f"{address}/token", {}, b"grant_type=authorization_code&code=n1")
        token = json.loads(body)["id_token"]
    claims = jwt.decode(token, secret, algorithms=["HS256"], audience="bench", issuer=address)
    assert (claims["sub"], claims["nonce"]) == ("bench", "n1")
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(id_token({}, "another"), secret, algorithms=["HS256"])
