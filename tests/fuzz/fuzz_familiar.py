"""The warm path: a request that is recognised by its bytes goes on exactly as one that is parsed.

The input has two parts: a target, and header lines.
"""

from __future__ import annotations

import re

from tests.fuzz.memory import Conversation, house, split

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
_REQUEST_ID = re.compile(rb"X-Request-Id: [0-9a-f]+\r\n")


def one(data: bytes) -> None:
    target, head = split(data, 2)
    head = head.replace(b"\r", b"").strip(b"\n").replace(b"\n", b"\r\n")
    if b"\r\n\r\n" in head:
        return  # two requests
    lines = b"Host: good.test\r\n" + head + (b"\r\n\r\n" if head else b"\r\n")
    outcomes: list[tuple[list[bytes], bytes]] = []

    async def ask(talk: Conversation, first: bool) -> None:
        if first:
            await talk.say(b"GET /first HTTP/1.1\r\n" + lines)
            await talk.answer(ANSWER)
            if talk.pipe.closing or len((await talk.came())[0]) != 1:
                return  # these lines are not of a request that can be followed by another
            for _, pipe in talk.services:
                pipe.written.clear()
            talk.pipe.written.clear()
        await talk.say(b"GET %b HTTP/1.1\r\n%b" % (target, lines))
        answer = bytes(talk.pipe.written[:12])
        outcomes.append(([_REQUEST_ID.sub(b"", bytes(pipe.written)) for _, pipe in talk.services], answer))

    house().run(lambda talk: ask(talk, True))
    house().run(lambda talk: ask(talk, False))
    if len(outcomes) == 2:
        assert [each for each in outcomes[0][0] if each] == [each for each in outcomes[1][0] if each], outcomes
        assert outcomes[0][1] == outcomes[1][1], outcomes
