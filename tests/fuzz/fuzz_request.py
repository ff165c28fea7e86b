"""Whatever a client sends: services get whole requests that the policy allows, the client one answer to each.

The input has two parts: where to cut, and what the client sends.
"""

from __future__ import annotations

from tests.fuzz.memory import Conversation, cut, house, readable_as_admin, split

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
        said, cut_off = await talk.heard(*(request.method.decode() for request in requests), *["GET"] * 40)
        assert not cut_off
        fine = [response for response in said if response.status == 200]
        assert len(fine) >= len(requests) - began, (requests, said)

    house().run(attack)
