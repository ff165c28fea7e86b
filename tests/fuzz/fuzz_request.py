"""Whatever a client sends: services get whole requests that the policy allows, the client one answer to each.

The input has two parts: where to cut, and what the client sends.
"""

from __future__ import annotations

from tests.fuzz.memory import Conversation, cut, house, readable_as_admin, split
from tests.rig.messages import framing, parse_response_head

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def one(data: bytes) -> None:
    places, stream = split(data, 2)

    async def attack(talk: Conversation) -> None:
        await talk.say(*cut(stream, places))
        answered = 0
        while len((came := await talk.came())[0]) > answered:
            assert len(came[0]) == answered + 1  # the next waits for its turn
            answered += 1
            await talk.answer(ANSWER)
        requests, began = came
        for request in requests:
            assert not readable_as_admin(request.target), request.target
            assert request.all("X-Forwarded-For") == [b"192.0.2.9"]
            assert len(request.all("Host")) == 1
            assert not request.names & {"x-forwarded-user", "sallyport-assertion", "te", "expect", "keep-alive"}
        said = answers_in(bytes(talk.pipe.written))
        assert said.count(200) >= len(requests) - began, (requests, said)
        assert not talk.pipe.aborted

    house().run(attack)


def answers_in(data: bytes) -> list[int]:
    """The status of each final answer. One to HEAD, which may have been refused, has no body whatever it says."""
    found = []
    while data:
        raw, mark, data = data.partition(b"\r\n\r\n")
        assert mark, raw
        head = parse_response_head(raw + mark)
        if head.status < 200:
            continue
        found.append(head.status)
        length = framing(head) or 0
        if data and not data.startswith(b"HTTP/1.1 "):
            assert 0 < length <= len(data), (head, data)
            data = data[length:]
    return found
