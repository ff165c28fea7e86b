"""A mutator for where atheris is not: blind, seeded, and fond of what parsers stumble over."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

NASTY = (
    *(bytes([octet]) for octet in (0, 1, 9, 10, 11, 13, 32, 34, 44, 58, 59, 61, 92, 127, 128, 133, 160, 192, 255)),
    *rb"%2e %2f %5c %25 %00 .. ./ // \ ; : :: = == , ,, 0 -1 +5 0x5 1e9 [::1] admin good.test evil".split(),
    *(b"\r\n", b"\r\n\r\n", b"\r\n ", b"\n--\n", b"0\r\n\r\n", b"5\r\nhello\r\n", b"HTTP/1.1 ", b" HTTP/1.1\r\n"),
    *(b"GET /p HTTP/1.1\r\nHost: good.test\r\n\r\n", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"),
    *(
        b"Content-Length: 3\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: close\r\n",
        b"Expect: 100-continue\r\n",
    ),
    *(b"X-Forwarded-User: evil\r\n", b"X_Forwarded_For: 1.1.1.1\r\n", b"Upgrade: websocket\r\nConnection: upgrade\r\n"),
    *(b"\x81\x85abcd", b"\x88\x02\x03\xe8", b"\x01\x7e\xff\xff", b"\x82\x7f\x00\x00\x00\x01\x00\x00\x00\x00"),
    *(b"sallyport=", b"__Host-sallyport=", b"a" * 43, b"for=", b"10.0.0.1", b"PROXY TCP4 ", b"\r\n\r\n\0\r\nQUIT\n"),
)


def mutations(dice: random.Random, corpus: Sequence[bytes]) -> Iterator[bytes]:
    """Inputs made of `corpus`, without end."""
    while True:
        data = bytearray(dice.choice(corpus))
        for _ in range(dice.choice((1, 1, 2, 3, 5, 8))):
            at = dice.randrange(len(data) + 1)
            end = min(len(data), at + dice.choice((1, 1, 2, 4, 16)))
            way = dice.randrange(6)
            if way < 2:
                data[at:at] = dice.choice(NASTY)
            elif way == 2:
                del data[at:end]
            elif way == 3:
                data[at:end] = bytes(dice.randrange(256) for _ in range(end - at))
            elif way == 4:
                data[at:at] = data[at:end] * dice.choice((1, 2, 40))
            else:
                other = dice.choice(corpus)
                data[at:] = other[dice.randrange(len(other) + 1) :]
        yield bytes(data[:4096])
