"""Forward-auth: a yes is only said to a trusted proxy, about one request that no service takes for a protected one.

The input has two parts: the dialect (and for Envoy the client's target), and header lines of the question.
"""

from __future__ import annotations

from tests.fuzz.fuzz_headers import parsed
from tests.fuzz.memory import PROXY, Conversation, house, readable_as_admin, split
from tests.rig.messages import Response

NAMING = (b"x-original-url", b"x-original-uri", b"x-forwarded-uri")


def target_of(url: bytes) -> bytes:
    """The target in an absolute or relative URL; the shortest reading of it that could be protected."""
    _, mark, rest = url.partition(b"://")
    return b"/" + rest.partition(b"/")[2] if mark and not url.startswith(b"/") else url


def one(data: bytes) -> None:
    dialect, head = split(data, 2)
    name, _, rest = dialect.partition(b"/")
    if name not in (b"", b"nginx", b"traefik", b"caddy", b"envoy") or set(rest) & set(b" \r\n"):
        return
    target = b"/.sallyport/auth" + (b"/" + name if name else b"") + (b"/" + rest if rest else b"")
    lines = b"Host: good.test\r\n" + head.replace(b"\r", b"").strip(b"\n").replace(b"\n", b"\r\n")
    if b"\r\n\r\n" in lines or lines.endswith(b"\r\n"):
        return
    heard: list[Response] = []

    async def ask(talk: Conversation) -> None:
        await talk.say(b"GET " + target + b" HTTP/1.1\r\n" + lines + b"\r\n\r\n")
        said, cut_off = await talk.heard("GET")
        assert not cut_off
        assert not talk.sent or not target.partition(b"?")[0].startswith(b"/.sallyport/auth/"), talk.sent
        heard.extend(said)

    house().run(ask, PROXY)
    house().run(ask)
    fields = parsed(lines)
    if not heard or fields is None or heard[0].status != 200:
        return
    assert len(heard) == 2
    assert heard[1].status == 403, heard  # the same question of somebody who is no proxy
    named = [target_of(value) for name, value in fields if name.lower() in NAMING]
    if rest or name == b"envoy":
        named.append(b"/" + rest)
    assert named
    assert len(set(named)) == 1, named
    assert not any(map(readable_as_admin, named)), named
    assert not {name.lower() for name, _ in fields} & {b"x-forwarded-user", b"sallyport-assertion"}
