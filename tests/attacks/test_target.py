"""B. Target and path: the path that was judged is the path the service gets."""

from __future__ import annotations

import random

import pytest

from gateway.policy.glob import segments
from gateway.wire.target import BadTarget, normalise
from tests.attacks.caller import Caller
from tests.rig.gateway import Gateway, request
from tests.wire.services import SERVICES

pytestmark = pytest.mark.asyncio(loop_scope="module")


def of(case: int, *targets: bytes) -> list[object]:
    """Parameters whose ids name the case."""
    return [pytest.param(target, id=f"case-{case}-{target[:40]!r}") for target in targets]


@pytest.mark.parametrize(
    "target",
    [
        *of(31, b"/public/%252e%252e/admin", b"/public/.%252e/admin", b"/public/%25252e%25252e/admin"),
        *of(32, b"/public/..%2fadmin", b"/public/..%5cadmin", b"/public\\..\\admin", b"/public/..%2Fadmin"),
        *of(32, b"/public/..%252fadmin", b"/public/%2e%2e%2fadmin", b"/public/x%5C..%5Cadmin", b"/public/\\admin"),
        *of(33, b"/public/..;/admin", b"/public/..;x=1/admin", b"/public/..%3b/admin", b"/public/%2e%2e;/admin"),
        *of(34, b"/admin%2f", b"/%2fadmin", b"/admin%2F%2e"),
        *of(35, b"/admin%00.css", b"/admin%00", b"/public/%00/../admin", b"/admin%0a", b"/admin%0d%0a", b"/admin%7f"),
        *of(37, b"/foo/secret#/public", b"/public/x#", b"/#", b"/public/x?y#z", b"/public/#/../admin"),
        *of(38, b"/public/%c0%ae%c0%ae/admin", b"/public/..%c0%afadmin", b"/public/%zz", b"/public/%", b"/public/%1"),
        *of(38, b"/public/%u002e%u002e/admin", b"/public/%ff", b"/public/%ed%a0%80", b"/public/%e0%80%af", b"/%2"),
        *of(39, b"admin", b"?x", b"*", b"http:/x", b"http:x", b"//", b"public/x", b":80", b"good.test/admin"),
        *of(39, b"http://", b"http:///admin", b"file:///etc/passwd", b"ftp://good.test/", b"javascript:alert(1)"),
        *of(40, b"http://other.test/admin", b"http://good.test@other.test/x", b"http://other.test:80/public/x"),
        *of(
            40,
            b"http://good.test:81/public/x",
            b"http://user@good.test/public/x",
            b"http://good.test\\@x/",
            b"//x@y/..",
        ),
        *of(40, b"http://good.test,other/public/x", b"HTTP://OTHER.TEST/public/x", b"http://[::1]/public/x"),
    ],
)
async def test_a_target_with_more_than_one_meaning_is_rejected(caller: Caller, target: bytes) -> None:
    if target in (b"//", b"//x@y/.."):  # merged slashes: one clear meaning after all, and it is not an authority
        answer = await caller.gateway.ask(caller.request(target=target))
        assert answer.status == (200 if caller.user else 401)
        assert all(received.target == b"/" for received in caller.gateway.upstream.requests)
        return
    await caller.is_rejected(caller.request(target=target))


@pytest.mark.parametrize("raw", [*of(39, b"", b" ", b"/ x", b"/a\tb", b"/\x00", b"/\x01", b"/\x7f", b"/a\x0bb")])
async def test_a_target_with_blanks_or_control_characters_is_rejected(caller: Caller, raw: bytes) -> None:
    await caller.is_rejected(caller.request(target=raw), status=(400, 505))


@pytest.mark.parametrize(
    "target",
    [
        *of(31, b"/public/../admin", b"/public/./../admin", b"/public/%2e%2e/admin", b"/public/.%2e/admin"),
        *of(31, b"/public/%2E%2E/admin", b"/public/x/../../admin/users", b"/../admin", b"/public/../public/../admin"),
        *of(33, b"/public;x=1/../admin", b"/admin;a=b", b"/admin;", b"/admin/;x", b"/admin/users;jsessionid=1"),
        *of(
            34,
            b"//admin",
            b"/admin//",
            b"/./admin",
            b"/admin/.",
            b"/admin/",
            b"/admin",
            b"///admin//users",
            b"/admin/./",
        ),
        *of(
            34, b"/%61dmin", b"/%61%64%6d%69%6e", b"/x/..//admin", b"/admin/users/..", b"/admin?", b"/admin?x=/public/"
        ),
        *of(
            35,
            b"/Admin",
            b"/ADMIN",
            b"/aDmIn/users",
            b"/admin%20",
            b"/admin.json",
            b"/admin.css",
            b"/admin.",
            b"/ADMIN.CSS",
        ),
        *of(35, b"/admin%20/users", b"/%2561dmin", b"/admin.json;x=1", b"/Admin%20.;x"),
        *of(36, b"/foo/secret?x=/foo/public", b"/foo/secret?/foo/public", b"/foo/secret/?..%2fpublic"),
        *of(36, b"/foo/public/../secret", b"/foo/secret/x?y#"[:-1], b"/foo/Secret"),
        *of(40, b"http://good.test/admin", b"http://good.test:80/public/../admin", b"http://good.test//admin"),
    ],
)
async def test_the_rule_of_the_final_path_holds(caller: Caller, target: bytes) -> None:
    await caller.is_denied(caller.request(target=target))


@pytest.mark.parametrize(
    ("target", "forwarded"),
    [
        pytest.param(target, forwarded, id=f"case-{case}-{target!r}")
        for case, target, forwarded in (
            (31, b"/public/../admin", b"/admin"),
            (31, b"/x/%2e%2e/admin/", b"/admin/"),
            (33, b"/admin;a=b", b"/admin;a=b"),
            (34, b"//admin//users", b"/admin/users"),
            (34, b"/./%61dmin?x=//..", b"/admin?x=//.."),
            (35, b"/ADMIN", b"/ADMIN"),
            (40, b"http://GOOD.test:80/admin?x", b"/admin?x"),
        )
    ],
)
async def test_who_may_gets_the_path_that_was_judged(gateway: Gateway, target: bytes, forwarded: bytes) -> None:
    cookie = await gateway.cookie("ann", "totp")
    answer = await gateway.ask(request(b"GET", target, cookie=cookie))
    assert answer.status == 200
    assert gateway.upstream.only.target == forwarded
    assert gateway.upstream.only.all("X-Forwarded-User") == [b"ann"]


async def test_an_administrator_without_a_second_factor_is_asked_for_it_under_every_spelling(gateway: Gateway) -> None:
    cookie = await gateway.cookie("ann")
    for target in (b"/admin", b"/ADMIN", b"/admin;x", b"/public/../admin", b"/admin.css", b"//admin"):
        answer = await gateway.ask(request(b"GET", target, cookie=cookie))
        assert answer.status == 401
        assert b"acr_values" in answer.one("WWW-Authenticate")
    assert gateway.upstream.requests == []


@pytest.mark.parametrize(
    ("target", "forwarded"),
    [
        pytest.param(target, forwarded, id=f"case-{case}-{target!r}")
        for case, target, forwarded in (
            (38, b"/public/%ef%bc%8f../admin", b"/public/%EF%BC%8F../admin"),
            (38, b"/public/%ef%bc%8e%ef%bc%8e/admin", b"/public/%EF%BC%8E%EF%BC%8E/admin"),
            (38, b"/public/100%25", b"/public/100%25"),
            (39, b"/public/a?b=/../%zz&c=d;e", b"/public/a?b=/../%zz&c=d;e"),
            (39, b"/public/a%20b", b"/public/a%20b"),
            (40, b"http://good.test/public/x", b"/public/x"),
            (40, b"http://good.test/public/x?y=http://other/", b"/public/x?y=http://other/"),
        )
    ],
)
async def test_what_has_one_meaning_passes_in_one_spelling(caller: Caller, target: bytes, forwarded: bytes) -> None:
    assert (await caller.gateway.ask(caller.request(target=target))).status == 200
    assert caller.gateway.upstream.only.target == forwarded


async def test_case_36_the_public_neighbour_is_public(caller: Caller) -> None:
    assert (await caller.gateway.ask(caller.request(target=b"/foo/public?x=/foo/secret"))).status == 200
    assert caller.gateway.upstream.only.target == b"/foo/public?x=/foo/secret"


@pytest.mark.parametrize("method", [b"CONNECT", b"TRACE", b"TRACK"])
@pytest.mark.parametrize("target", [b"/public/x", b"good.test:443", b"*"])
async def test_case_41_no_tunnel_and_no_echo(caller: Caller, method: bytes, target: bytes) -> None:
    head = b"X-Secret: do-not-echo\r\n"
    raw = caller.request(method, head, target=target, host=b"Host: good.test\r\n")
    status = (405,) if target == b"/public/x" and method != b"TRACK" else (400, 405)
    answer = await caller.is_rejected(raw + b"GET /public/x HTTP/1.1\r\nHost: good.test\r\n\r\n", status=status)
    assert b"do-not-echo" not in answer.raw + answer.body


async def test_case_42_ten_thousand_paths(gateway: Gateway) -> None:
    """Whatever eight kinds of service make of the path they were sent, bob is never let near `/admin` or a secret."""
    dice = random.Random(1)
    pieces = (
        rb"/ / / . .. %2e %2E ; ;x=1 %3b admin Admin public secret foo a %61dmin %2561dmin %20 .css . %ef%bc%8f ? ..;"
    )
    targets: list[bytes] = []
    while len(targets) < 10_000:
        target = b"/" + b"".join(dice.choices(pieces.split(), k=dice.randint(1, 8)))
        try:
            normalise(target)
        except BadTarget:
            continue  # these end the connection, one by one, above
        targets.append(target)
    cookie = await gateway.cookie("bob")
    allowed = denied = 0
    for start in range(0, len(targets), 500):
        batch = targets[start : start + 500]
        gateway.upstream.requests.clear()
        async with await gateway.connect() as client:
            await client.send(b"".join(request(b"GET", target, cookie=cookie) for target in batch))
            answers = await client.responses(*["GET"] * len(batch))
        came = iter(gateway.upstream.requests)
        for target, answer in zip(batch, answers, strict=True):
            ours = normalise(target)
            assert answer.status in (200, 403), target
            if answer.status == 403:
                denied += 1
                assert any(map(needs_admins, (ours.path, *ours.readings))), target
                continue
            allowed += 1
            received = next(came).target
            assert received == ours.raw
            for service in SERVICES:
                assert not needs_admins(service(received.decode("ascii"))), (target, service.__name__)
        assert next(came, None) is None
    assert allowed > 1_000
    assert denied > 1_000


def needs_admins(path: str) -> bool:
    """Whether the rig's rules keep `path` for administrators; written again, not asked of the policy."""
    parts = segments(path)
    return parts[:1] == ["admin"] or parts[:2] == ["foo", "secret"]


@pytest.mark.parametrize("target", of(43, b"/public../admin", b"/publicadmin", b"/public.admin", b"/public-x/admin"))
async def test_a_prefix_is_a_whole_segment(gateway: Gateway, target: bytes) -> None:
    assert (await gateway.ask(request(b"GET", target))).status == 401
    assert gateway.upstream.requests == []


@pytest.mark.parametrize(
    "target",
    of(
        44,
        *(b"/x/health/evil", b"/healthz2", b"/a/healthz", b"/healthz/x", b"/x/x/health", b"/healthz;/../app"),
        *(b"/healthz%20x", b"/x/healthz", b"/healthz.evil", b"/foo/public/x"),
    ),
)
async def test_a_plain_path_is_anchored_at_both_ends(gateway: Gateway, target: bytes) -> None:
    assert (await gateway.ask(request(b"GET", target))).status == 401
    assert gateway.upstream.requests == []


@pytest.mark.parametrize("target", of(44, b"/healthz", b"/x/health"))
async def test_the_plain_path_itself_is_open(gateway: Gateway, target: bytes) -> None:
    assert (await gateway.ask(request(b"GET", target))).status == 200
    assert gateway.upstream.only.target == target
