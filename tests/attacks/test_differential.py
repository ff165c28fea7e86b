"""Case 42: the path that was judged is the path that a real service takes the forwarded target for.

Ten thousand generated paths, each that the gateway accepts, asked of nginx, Starlette, Flask and Express themselves;
and some of them, as a client spelled them, through the running gateway over one connection that stays open. Where a
service reads a path in another way, that way stands in `OTHERWISE` and among the readings that rules are applied to.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.policy.glob import segments
from gateway.wire.target import BadTarget, Target, normalise
from tests.attacks import origins
from tests.rig.gateway import Gateway, request, running
from tests.rig.messages import Response, read_response

pytestmark = pytest.mark.asyncio(loop_scope="module")

COUNT = 10_000
THROUGH = 2_500
"""Paths sent through the gateway, to each service."""

PIECES = (
    rb"/ / / / // /// . .. ... %2e %2E %2e%2e .%2e /./ /../ /%2e/ ;/ ; ;a=b ;.. %3b %3B : @ + %2b %2B * %2A ! $ & ' ( "
    rb") %26 = , ~ %7e - _ %5f admin admin /admin/ /admin Admin ADMIN %61dmin %41dmin adm%69n adm%49N %2561dmin "
    rb"public /public/ a A b %62 foo secret index.html .css .json .php %20 %20. . %20/ %25 %2520 %2541 %c3%a9 %C3%A9 "
    rb"%c3%89 %ef%bc%8f %ef%bc%8e %ef%bc%a1 %e2%80%ae %cc%81 %f0%9f%98%80 ? ?a=b ?/../admin ??x=%2f ?..%2f //admin// "
    rb"[ ] { } | ^ ` < > "
).split()
SELDOM = (
    *rb"%2f %5c %252f \ # %00 %0a %c0%ae %c0%af %ff %zz % %u002e ..; ..;/ %252e %25%32%65 /.;/".split(),
    b"\xc3\xa9",
    b"\xef\xbc\x8f",
)
"""What is refused whatever stands around it, and raw UTF-8, which the parser before `normalise` refuses."""


def _as_sent(target: Target) -> str:
    """The path without any decoding."""
    return target.raw.partition(b"?")[0].decode("ascii")


OTHERWISE: dict[str, dict[str, Callable[[Target], str]]] = {
    "nginx": {},
    "starlette": {},
    "flask": {},
    "express": {"the path is routed by as it was sent, percent-encoded": _as_sent},
}
"""Every way in which a service reads a forwarded target that is not ours."""


def _accepted(seed: int, count: int) -> list[tuple[bytes, Target]]:
    """`count` different generated targets that the gateway accepts, with what it makes of them."""
    dice = random.Random(seed)
    alphabet = (*PIECES, *SELDOM)
    weights = [4] * len(PIECES) + [1] * len(SELDOM)
    found: dict[bytes, Target] = {}
    while len(found) < count:
        raw = b"/" + b"".join(dice.choices(alphabet, weights, k=dice.randint(1, 8)))
        try:
            found[raw] = normalise(raw)
        except BadTarget:
            continue
    return list(found.items())


def _is_admin(path: str) -> bool:
    """What a rule on `/admin/**` is about, as an operator means it."""
    return segments(path)[:1] == ["admin"]


def _agrees(service: str, target: Target, seen: bytes) -> str:
    """How the service's reading is known to the gate: `same`, or a line of `OTHERWISE`. Fails where it is not."""
    route, _, path = seen.decode("utf-8").partition("\n")
    if route == "admin":
        assert any(map(_is_admin, (target.path, *target.readings))), (target, seen)
    if path == target.path:
        return "same"
    for otherwise, reading in OTHERWISE[service].items():
        if path == reading(target):
            assert path in target.readings, (target, seen)
            return otherwise
    raise AssertionError(f"{service} reads {target} as {seen!r}")


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int | str]]:
    """The port of each service that is here; why it is left out, of each that is not."""
    found: dict[str, int | str] = {}
    with ExitStack() as ending:
        for name in origins.NAMES:
            try:
                found[name] = ending.enter_context(origins.running(name, tmp_path_factory.mktemp(name)))
            except origins.NotHere as reason:
                found[name] = str(reason)
        yield found


def _port(services: dict[str, int | str], name: str) -> int:
    port = services[name]
    if isinstance(port, str):
        pytest.skip(f"LEFT OUT, the differential test against {name}: {port}")
    return port


async def _answers(port: int, requests: Sequence[bytes], at_once: int) -> list[Response]:
    """The answer to each request, all on one connection, `at_once` of them on their way at a time."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answers: list[Response] = []
    try:
        async with asyncio.timeout(60):
            for start in range(0, len(requests), at_once):
                batch = requests[start : start + at_once]
                writer.write(b"".join(batch))
                answers += [
                    await read_response(reader.readuntil, reader.readexactly, reader.read, "GET") for _ in batch
                ]
    finally:
        writer.close()
        await writer.wait_closed()
    return answers


@pytest.mark.parametrize("name", origins.NAMES)
async def test_case_42_ten_thousand_paths_as_real_services_read_them(services: dict[str, int | str], name: str) -> None:
    port = _port(services, name)
    targets = [target for _, target in _accepted(42, COUNT)]
    requests = [b"GET %s HTTP/1.1\r\nHost: good.test\r\n\r\n" % target.raw for target in targets]
    at_once = 1 if name == "flask" else 50  # gunicorn leaves requests lying that were sent ahead
    shares = [requests[start : start + COUNT // 8] for start in range(0, COUNT, COUNT // 8)]
    heard = await asyncio.gather(*(_answers(port, share, at_once) for share in shares))
    answers = [answer for share in heard for answer in share]
    assert [answer.raw for answer in answers if answer.status != 200] == []
    ways = [_agrees(name, target, answer.body) for target, answer in zip(targets, answers, strict=True)]
    assert len(ways) == COUNT
    assert set(ways) == {"same", *OTHERWISE[name]}  # a way that no longer occurs is to be taken out of the table
    assert sum(answer.body.startswith(b"admin") for answer in answers) > 200


POLICY = """
rules:
  - {name: admin, match: {paths: [/admin/**]}, access: {groups: [admins]}, upstream: nginx}
""" + "".join(
    f"  - {{name: {name}, match: {{hosts: [{name}.test]}}, access: public, upstream: {name}}}\n"
    for name in origins.NAMES
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def before_services(
    services: dict[str, int | str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Gateway]:
    """A gateway in front of all of them, each under a host of its own."""
    ports = {name: port if isinstance(port, int) else 9 for name, port in services.items()}
    upstreams = {name: {"url": f"http://127.0.0.1:{port}"} for name, port in ports.items()}
    async with running(
        Path(tmp_path_factory.mktemp("gateway")), policy=POLICY, config={"upstreams": upstreams}
    ) as gateway:
        yield gateway


@pytest.mark.parametrize("name", origins.NAMES)
async def test_case_42_through_the_gateway_on_one_connection(
    services: dict[str, int | str], before_services: Gateway, name: str
) -> None:
    """A stranger asks; whatever of it arrives is what was judged, and `/admin` never is."""
    _port(services, name)
    targets = [(raw, target) for raw, target in _accepted(43, THROUGH) if raw.isascii()]
    host = b"Host: %s.test\r\n" % name.encode()
    answers = await _answers(before_services.port, [request(b"GET", raw, host=host) for raw, _ in targets], 20)
    reached = refused = 0
    for (raw, target), answer in zip(targets, answers, strict=True):
        judged = any(map(_is_admin, (target.path, *target.readings)))
        assert answer.status == (401 if judged else 200), (raw, target, answer.raw)
        if judged:
            refused += 1
        else:
            reached += 1
            assert answer.body.startswith(b"other\n"), (raw, answer.body)
            _agrees(name, target, answer.body)
    assert refused > 100
    assert reached > 1_000
