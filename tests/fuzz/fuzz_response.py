"""Answers of a service: the client gets one well-formed answer, 502, or a broken connection; the next is its own.

The input has three parts: method and where to cut, the answer, and whether the service closes then (anything: it does).
"""

from __future__ import annotations

from tests.fuzz.memory import Conversation, cut, house, split

PROBE = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nmy probe"


def one(data: bytes) -> None:
    places, answer, ends = split(data, 3)
    method = "HEAD" if places.startswith(b"H") else "GET"

    async def attack(talk: Conversation) -> None:
        await talk.say(b"%b /x HTTP/1.1\r\nHost: good.test\r\n\r\n" % method.encode())
        asked = 0
        while asked < len(talk.services):  # a service that has not said a word may be asked again
            asked = len(talk.services)
            await talk.answer(*cut(answer, places), end=bool(ends))
        said, cut_off = await talk.heard(method)
        assert not (cut_off and talk.pipe.ended and not talk.pipe.aborted), bytes(talk.pipe.written)
        if ends:
            assert said or talk.pipe.aborted
        for response in said:
            assert response.status == 502 or b"%d" % response.status in answer, response
            assert response.one("X-Request-Id")
        if cut_off or not said or talk.pipe.ended:
            return
        await talk.say(b"GET /probe HTTP/1.1\r\nHost: good.test\r\n\r\n")
        probed = [pipe for _, pipe in talk.services if b"GET /probe " in pipe.written]
        assert len(probed) == 1
        talk.services.sort(key=lambda each: each[1] is probed[0])
        await talk.answer(PROBE)
        said, cut_off = await talk.heard(method, "GET")
        assert not cut_off
        assert said[1].body == b"my probe", said

    house().run(attack)
