"""The attacks of the other files once more, as WebSocket handshakes: an upgrade excuses nothing.

Their parameters are taken from them, so that a case added there is proved here too. Each test runs a whole list, for
a stranger and for somebody who is signed in.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.attacks import test_framing, test_headers, test_methods_hosts, test_target
from tests.attacks.caller import IDENTITY_HEADERS, Caller
from tests.rig.frames import HANDSHAKE
from tests.rig.gateway import answers_until_close
from tests.rig.messages import Response

pytestmark = pytest.mark.asyncio(loop_scope="module")


def inputs(test: Any, name: str) -> Iterator[tuple[str, bytes]]:
    """Id and value of every parameter `name` of a test of another file."""
    (mark,) = [mark for mark in test.pytestmark if mark.name == "parametrize" and mark.args[0] == name]
    assert mark.args[1]
    for each in mark.args[1]:
        yield str(each.id), each.values[0]


async def _all_are_refused(caller: Caller, raws: Iterator[tuple[str, bytes]], *, closed: bool = True) -> None:
    count = 0
    for label, raw in raws:
        async with await caller.gateway.connect() as client:
            await client.send(raw)
            answers: list[Response] = await answers_until_close(client) if closed else [await client.response()]
        assert [400 <= answer.status < 500 for answer in answers] == [True], (label, [each.raw for each in answers])
        count += 1
        came = caller.gateway.upstream.requests + caller.gateway.other.requests
        assert [request.raw for request in came if request.complete or b"websocket" in request.raw] == [], label
    assert not closed or await caller.gateway.rejections() == count


@pytest.mark.parametrize("method", [b"GET", b"POST"])
async def test_ambiguous_heads(caller: Caller, method: bytes) -> None:
    """Cases 1 to 16."""
    smuggled = b"0\r\n\r\n" + test_framing.SMUGGLED
    heads = inputs(test_framing.test_ambiguous_heads_are_rejected, "head")
    await _all_are_refused(
        caller, ((label, caller.request(method, HANDSHAKE + head, smuggled)) for label, head in heads)
    )
    await caller.gateway.mark()
    heads = inputs(test_framing.test_ambiguous_heads_are_rejected, "head")
    await _all_are_refused(
        caller, ((label, caller.request(method, head + HANDSHAKE, smuggled)) for label, head in heads)
    )


async def test_targets_with_more_than_one_meaning(caller: Caller) -> None:
    """Cases 31 to 40."""
    targets = inputs(test_target.test_a_target_with_more_than_one_meaning_is_rejected, "target")
    await _all_are_refused(
        caller,
        (
            (label, caller.request(head=HANDSHAKE, target=target))
            for label, target in targets
            if target not in (b"//", b"//x@y/..")
        ),
    )


async def test_the_rule_of_the_final_path(caller: Caller) -> None:
    """Cases 31 to 40."""
    targets = inputs(test_target.test_the_rule_of_the_final_path_holds, "target")
    await _all_are_refused(
        caller,
        ((label, caller.request(head=HANDSHAKE, target=target)) for label, target in targets),
        closed=False,
    )


async def test_hosts_that_are_not_one_host(caller: Caller) -> None:
    """Case 48."""
    hosts = inputs(test_methods_hosts.test_a_host_that_is_not_one_host_is_rejected, "host")
    await _all_are_refused(caller, ((label, caller.request(head=HANDSHAKE, host=host)) for label, host in hosts))


async def test_hosts_that_nobody_knows(caller: Caller) -> None:
    """Case 50."""
    hosts = inputs(test_methods_hosts.test_an_unknown_host_is_refused, "host")
    await _all_are_refused(
        caller,
        ((label, caller.request(head=HANDSHAKE, host=b"Host: " + host + b"\r\n")) for label, host in hosts),
        closed=False,
    )


async def test_what_a_client_says_about_itself(caller: Caller) -> None:
    """Cases 52 and 53: the handshake goes on without it, and the service, which answers 200, hears of us alone."""
    for name in test_headers.OURS:
        spelled = test_headers.spellings(name).values()
        head = HANDSHAKE + b"".join(b"%s: evil-7\r\n" % spelling for spelling in spelled)
        answer = await caller.gateway.ask(caller.request(head=head))
        assert answer.status in (200, 502), (name, answer.raw)
        received = caller.gateway.upstream.requests[-1]
        assert b"evil-7" not in received.raw
        assert received.all("Upgrade") == [b"websocket"]
        caller.says_who_we_are(received)
    assert len(caller.gateway.upstream.requests) == len(test_headers.OURS)


async def test_naming_ours_away(caller: Caller) -> None:
    """Case 54: with the upgrade that has to be named beside it."""
    for _, connection in inputs(test_headers.test_our_headers_cannot_be_named_away, "connection"):
        await caller.gateway.ask(caller.request(head=HANDSHAKE + connection))
        received = caller.gateway.upstream.requests[-1]
        assert received.all("X-Forwarded-For") == [b"127.0.0.1"]
        assert len(received.all("X-Request-Id")) == 1
        caller.says_who_we_are(received)


async def test_case_56_routing_headers(caller: Caller) -> None:
    for name in test_headers.ROUTING:
        await caller.gateway.ask(caller.request(head=HANDSHAKE + name + b": /admin/evil-7\r\n"))
        received = caller.gateway.upstream.requests[-1]
        assert received.target == caller.target
        assert b"evil-7" not in received.raw
        assert not (received.names & set(IDENTITY_HEADERS)) or caller.user
