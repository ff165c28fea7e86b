"""The PROXY protocol: a header is whole at one length, whatever follows, and no beginning of it is a fault."""

from __future__ import annotations

from gateway.wire.forwarded import UNKNOWN, canonical
from gateway.wire.proxy_protocol import LONGEST, Addressed, BadProxyHeader, parse


def read(data: bytes) -> Addressed | str | None:
    try:
        return parse(data)
    except BadProxyHeader:
        return "bad"


def one(data: bytes) -> None:
    found = read(data)
    if isinstance(found, Addressed):
        assert found.length <= min(len(data), LONGEST)
        assert found.address in (None, UNKNOWN) or canonical(found.address) == found.address, found
        assert all(read(data[:size]) is None for size in range(found.length)), found
        assert read(data[: found.length]) == found
        assert read(data + b"GET / HTTP/1.1\r\n\r\n") == found
        assert not data.startswith(b"PROXY") or data[: found.length].endswith(b"\r\n")
    elif found is None:
        assert len(data) < LONGEST
        assert all(read(data[:size]) is None for size in range(len(data)))
    else:
        assert read(data + b"\r\n") == read(data + b"\0" * LONGEST) == "bad"
