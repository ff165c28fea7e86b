"""WebSocket frames as narrow as they can be written and read (RFC 6455, section 5.2), and both ends of a handshake."""

from __future__ import annotations

import base64
import hashlib
from asyncio import IncompleteReadError
from dataclasses import dataclass

from tests.rig.client import RawClient
from tests.rig.gateway import Gateway, request
from tests.rig.messages import Request, parse_response_head
from tests.rig.upstream import Line

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
MASK = b"\x1f\x2e\x3d\x4c"
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
HANDSHAKE = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + KEY + b"\r\n"
)


@dataclass(frozen=True)
class Frame:
    """A frame as it was received."""

    opcode: int
    payload: bytes = b""
    final: bool = True
    masked: bool = False

    @property
    def code(self) -> int:
        """What a Close says."""
        assert self.opcode == CLOSE, self
        return int.from_bytes(self.payload[:2], "big")


def frame(
    opcode: int, payload: bytes = b"", *, final: bool = True, mask: bytes | None = MASK, reserved: int = 0
) -> bytes:
    """A frame; masked as a client's, unless `mask` is None."""
    size = len(payload)
    length = bytes((size,)) if size < 126 else b"\x7f" + size.to_bytes(8, "big")
    if 126 <= size <= 0xFFFF:
        length = b"\x7e" + size.to_bytes(2, "big")
    first = bytes(((0x80 if final else 0) | reserved | opcode,))
    if mask is None:
        return first + length + payload
    hidden = bytes(byte ^ mask[at & 3] for at, byte in enumerate(payload))
    return first + bytes((length[0] | 0x80,)) + length[1:] + mask + hidden


def accept(key: bytes) -> bytes:
    """What a service answers to `key`."""
    return base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())


def agreed(key: bytes, *more: bytes) -> bytes:
    """The 101 of a service."""
    lines = b"".join(line + b"\r\n" for line in more)
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %s\r\n%s\r\n" % (accept(key), lines)
    )


async def read_frame(source: RawClient | Line) -> Frame:
    """The next frame. Raises IncompleteReadError."""
    first, second = await source.read_exactly(2)
    assert not first & 0x70, "a reserved bit"
    size = second & 0x7F
    if size > 125:
        size = int.from_bytes(await source.read_exactly(2 if size == 126 else 8), "big")
    mask = await source.read_exactly(4) if second & 0x80 else bytes(4)
    payload = bytes(byte ^ mask[at & 3] for at, byte in enumerate(await source.read_exactly(size)))
    return Frame(first & 0x0F, payload, bool(first & 0x80), bool(second & 0x80))


async def echo_frames(request: Request, line: Line) -> None:
    """A service that agrees, and sends every message back until it is told to close."""
    await line.send(agreed(request.one("Sec-WebSocket-Key")))
    try:
        while True:
            got = await read_frame(line)
            assert got.masked
            if got.opcode == PING:
                await line.send(frame(PONG, got.payload, mask=None))
            elif got.opcode != PONG:
                await line.send(frame(got.opcode, got.payload, final=got.final, mask=None))
            if got.opcode == CLOSE:
                break
    except IncompleteReadError:
        pass
    line.close()


class Socket:
    """A client's end of an open WebSocket."""

    def __init__(self, client: RawClient) -> None:
        self.client = client

    async def __aenter__(self) -> Socket:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.client.close()

    async def send(self, *frames: bytes) -> None:
        """Send each by itself."""
        await self.client.send(*frames)

    async def frame(self) -> Frame:
        """The next frame, which must not be masked."""
        got = await read_frame(self.client)
        assert not got.masked
        return got

    async def closes(self) -> int:
        """The code of a Close and nothing after it; 0 where the connection ends without."""
        rest = await self.client.read_rest()
        assert rest in (b"", b"\x88\x02" + rest[2:4])
        return int.from_bytes(rest[2:4], "big")


async def open_socket(
    gateway: Gateway, target: bytes = b"/public/ws", head: bytes = b"", *, cookie: bytes = b"", buffers: int = 0
) -> Socket:
    """Shake hands through the gateway."""
    client = await gateway.connect(buffers=buffers)
    await client.send(request(b"GET", target, HANDSHAKE + head, cookie=cookie))
    answer = parse_response_head(await client.read_until(b"\r\n\r\n"))
    assert answer.status == 101, answer.raw
    assert answer.one("Sec-WebSocket-Accept") == accept(KEY)
    assert answer.one("Upgrade") == b"websocket"
    assert answer.one("Connection") == b"Upgrade"
    return Socket(client)
