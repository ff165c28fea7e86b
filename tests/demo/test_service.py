from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import resource
from collections.abc import AsyncIterator
from types import SimpleNamespace

import aiohttp
import pytest
import pytest_asyncio

from demo import service


@pytest_asyncio.fixture
async def address() -> AsyncIterator[tuple[str, int]]:
    runner = await service.start("127.0.0.1", 0)
    yield runner.addresses[0]
    await runner.cleanup()


@pytest_asyncio.fixture
async def client(address: tuple[str, int]) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(f"http://{address[0]}:{address[1]}", auto_decompress=False) as session:
        yield session


async def answer(reader: asyncio.StreamReader) -> dict[str, object]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(re.search(rb"(?i)content-length: (\d+)", head)[1])
    return json.loads(await reader.readexactly(length))


async def test_echo_tells_target_headers_and_body_as_they_came(address: tuple[str, int]) -> None:
    reader, writer = await asyncio.open_connection(*address)
    writer.write(
        b"POST /public/echo/a%2Fb//c?x=%20&y HTTP/1.1\r\nhOsT: a.example\r\nX-Two: 1\r\nx-two: 2\r\n"
        b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x00\xff\r\n"
    )
    received = await answer(reader)
    writer.close()
    await writer.wait_closed()
    assert received["method"] == "POST"
    assert received["target"] == "/public/echo/a%2Fb//c?x=%20&y"
    assert received["headers"] == [
        ["hOsT", "a.example"],
        ["X-Two", "1"],
        ["x-two", "2"],
        ["Content-Encoding", "gzip"],
        ["Content-Length", "4"],
    ]
    assert base64.b64decode(received["body"]) == b"\x00\xff\r\n"


async def test_connections_and_their_requests_are_numbered(address: tuple[str, int]) -> None:
    places = []
    for _ in range(2):
        reader, writer = await asyncio.open_connection(*address)
        for _ in range(2):
            writer.write(b"GET /echo HTTP/1.1\r\nHost: a\r\n\r\n")
            received = await answer(reader)
            places.append((received["connection"], received["request"]))
        writer.close()
        await writer.wait_closed()
    assert places == [(1, 1), (1, 2), (2, 1), (2, 2)]


@pytest.mark.parametrize("prefix", service.PREFIXES)
async def test_every_path_answers_under_every_prefix(client: aiohttp.ClientSession, prefix: str) -> None:
    statuses = {}
    for path in ("", "echo", "bytes/3", "slow/0", "status/418", "upload", "form"):
        async with client.get(prefix + path) as response:
            statuses[path] = response.status
    assert statuses == {
        "": 200,
        "echo": 200,
        "bytes/3": 200,
        "slow/0": 200,
        "status/418": 418,
        "upload": 200,
        "form": 200,
    }


@pytest.mark.parametrize("code", [200, 204, 302, 304, 404, 503])
async def test_status(client: aiohttp.ClientSession, code: int) -> None:
    async with client.get(f"/status/{code}", allow_redirects=False) as response:
        assert response.status == code
        assert ("Location" in response.headers) == (code == 302)


@pytest.mark.parametrize("path", ["/status/99", "/status/101", "/bytes/x", "/slow/-1", "/nothing"])
async def test_what_it_does_not_have_is_not_found(client: aiohttp.ClientSession, path: str) -> None:
    async with client.get(path) as response:
        assert response.status == 404


async def test_bytes_and_upload_agree_and_stay_flat(client: aiohttp.ClientSession) -> None:
    size = 96 * 2**20 + 1
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    digest = hashlib.sha256()
    async with client.get(f"/bytes/{size}") as response:
        assert response.content_length == size
        async for part in response.content.iter_any():
            digest.update(part)

    async def body() -> AsyncIterator[bytes]:
        block, left = bytes(range(256)) * 1024, size
        while left:
            part = block[: min(left, len(block))]
            left -= len(part)
            yield part

    async with client.post("/upload", data=body()) as response:
        assert await response.json() == {"bytes": size, "sha256": digest.hexdigest()}
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024


async def test_websocket_echoes_text_and_bytes(client: aiohttp.ClientSession) -> None:
    async with client.ws_connect("/ws") as socket:
        await socket.send_str("grüß")
        assert await socket.receive_str() == "grüß"
        await socket.send_bytes(b"\x00" * 70_000)
        assert await socket.receive_bytes() == b"\x00" * 70_000


async def test_first_event_comes_at_once(client: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch) -> None:
    it_came = asyncio.Event()

    async def sleep(_: float) -> None:
        await it_came.wait()
        await asyncio.sleep(0)

    monkeypatch.setattr(service, "asyncio", SimpleNamespace(sleep=sleep))
    async with client.get("/sse") as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        event = await asyncio.wait_for(response.content.readuntil(b"\n\n"), 10.0)
        it_came.set()
    assert event.startswith(b"id: 1\nevent: tick\ndata: {")


async def test_form_counts_each_submission(client: aiohttp.ClientSession) -> None:
    async with client.get("/public/form") as response:
        submission = re.search(r"name='submission' value='([^']+)'", await response.text())[1]
    pages = []
    for path in ("/form", "/admin/form"):
        async with client.post(path, data={"submission": submission, "name": "<b>"}) as response:
            pages.append(await response.text())
    async with client.post("/form", data={"submission": "another"}) as response:
        pages.append(await response.text())
    assert [re.search(r"data-count='(\d+)'", page)[1] for page in pages] == ["1", "2", "1"]
    assert "&lt;b&gt;" in pages[0]
    assert "<b>" not in pages[0]


async def test_index_shows_identity_escaped_and_the_assertions_claims(client: aiohttp.ClientSession) -> None:
    claims = base64.urlsafe_b64encode(b'{"sub":"<ann>"}').decode().rstrip("=")
    headers = {"X-Forwarded-User": "<ann>", "Sallyport-Assertion": f"e30.{claims}.c2ln"}
    async with client.get("/", headers=headers) as response:
        told = await response.text()
    async with client.get("/public/") as response:
        anonymous = await response.text()
    assert "You are <strong>&lt;ann&gt;</strong>" in told
    assert "&quot;sub&quot;: &quot;&lt;ann&gt;&quot;" in told
    assert "Nobody is signed in." in anonymous
    assert "/.sallyport/account" in anonymous
