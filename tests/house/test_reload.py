"""A policy edited while requests go on: all of it or none of it, soon, told everywhere, and nobody is dropped."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.core.events import Event, Kind, Severity
from gateway.core.identity import DEFAULT_TENANT
from tests.house.process import until
from tests.rig.client import RawClient
from tests.rig.gateway import POLICY, Gateway, request, running

pytestmark = pytest.mark.asyncio(loop_scope="module")

GOOD = POLICY
CLOSED = "rules:\n  - name: closed\n    access: nobody\n"
BROKEN = POLICY.replace("access: public", "acces: public", 1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edited(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    """A gateway whose policy folder is ours to edit."""
    async with running(Path(tmp_path_factory.mktemp("reload"))) as gateway:
        yield gateway


def file(gateway: Gateway) -> Path:
    return gateway.app.settings.policies / "rig.yaml"


async def write(gateway: Gateway, policy: str) -> None:
    """Edit, and wait until the gateway has looked at it."""
    before = len(await told(gateway))
    file(gateway).write_text(f"{policy}\n# edit {before}\n")
    await looked(gateway, before)


async def looked(gateway: Gateway, before: int) -> None:
    async def heard() -> bool:
        return len(await told(gateway)) > before

    await until(heard)


async def told(gateway: Gateway) -> list[Event]:
    await gateway.app.recorder.flush()
    events = await gateway.app.recorder.events(DEFAULT_TENANT, limit=1000)
    return [event for event in events if event.kind in (Kind.POLICY_LOADED, Kind.POLICY_REJECTED)]


async def metric(gateway: Gateway, name: str) -> float:
    async with await RawClient.connect(gateway.admin_port) as client:
        await client.send(b"GET /metrics HTTP/1.1\r\nHost: admin\r\n\r\n")
        text = (await client.response()).body.decode()
    (value,) = [line.split()[1] for line in text.splitlines() if line.startswith(f"sallyport_{name} ")]
    return float(value)


async def readiness(gateway: Gateway) -> tuple[int, dict[str, object]]:
    async with await RawClient.connect(gateway.admin_port) as client:
        await client.send(b"GET /readyz HTTP/1.1\r\nHost: admin\r\n\r\n")
        answer = await client.response()
    return answer.status, json.loads(answer.body)


async def test_a_broken_edit_keeps_the_last_good_policy_and_says_so(
    edited: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    book = edited.app.book
    loaded_at = await metric(edited, "policy_reload_timestamp_seconds")
    assert await metric(edited, "policy_reload_success") == 1.0
    edited.clock.advance(60)

    with caplog.at_level(logging.ERROR):
        await write(edited, BROKEN)
    assert edited.app.book is book
    assert (await edited.ask(request())).status == 200
    assert (await edited.ask(request(target=b"/app/x"))).status == 401
    assert await metric(edited, "policy_reload_success") == 0.0
    assert await metric(edited, "policy_reload_timestamp_seconds") == loaded_at
    status, said = await readiness(edited)
    assert status == 200, "the last good policy is as good as ever"
    assert f"{file(edited)}:3: " in str(said["policy"])
    assert f"{file(edited)}:3: " in caplog.text
    newest = (await told(edited))[0]
    assert (newest.kind, newest.severity) == (Kind.POLICY_REJECTED, Severity.WARNING)
    assert f"{file(edited)}:3: " in str(newest.detail["problems"])

    await write(edited, GOOD)
    assert edited.app.book is not book
    assert edited.app.gate.book is edited.app.book
    assert await metric(edited, "policy_reload_success") == 1.0
    assert await metric(edited, "policy_reload_timestamp_seconds") == loaded_at + 60
    assert await readiness(edited) == (200, {"ready": True, "store": "up", "policy": "loaded"})
    assert (await told(edited))[0].kind is Kind.POLICY_LOADED


@pytest.mark.parametrize(
    "policy",
    [
        "",
        "rules: []\n",
        "rules: [\n",
        "\x00\x01",
        "rules:\n  - name: open\n    access: public\n",
        GOOD + "examples:\n  - {request: GET /public/x, expect: refuse}\n",
        "a: &a [x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a]\nrules: [*b, *b, *b, *b, *b, *b]\n",
        "rules: !!python/object/apply:os.system [id]\n",
        GOOD + "rules: []\n",
    ],
    ids=["empty", "no-rules", "broken", "binary", "no-upstream", "wrong-example", "aliases", "tag", "twice"],
)
async def test_case_123_no_edit_opens_anything(edited: Gateway, policy: str) -> None:
    book = edited.app.book
    await write(edited, policy)
    assert edited.app.gate.book is book
    assert await metric(edited, "policy_reload_success") == 0.0
    assert (await edited.ask(request(target=b"/app/x"))).status == 401


async def test_policies_that_go_away_stay_in_force(edited: Gateway) -> None:
    await write(edited, GOOD)
    book, folder = edited.app.book, edited.app.settings.policies
    before = len(await told(edited))
    folder.rename(folder.with_name("gone"))
    try:
        await looked(edited, before)
        assert edited.app.gate.book is book
        assert (await edited.ask(request(target=b"/app/x"))).status == 401
        assert (await readiness(edited))[0] == 200
    finally:
        folder.with_name("gone").rename(folder)
    await until(lambda: not edited.app._reload_problem)


async def test_a_good_edit_counts_at_once_also_on_open_connections(edited: Gateway) -> None:
    await write(edited, GOOD)
    async with await edited.connect() as client:
        await client.send(request())
        assert (await client.response()).status == 200
        await write(edited, CLOSED)
        await client.send(request())
        assert (await client.response()).status == 403
        await write(edited, GOOD)
        await client.send(request())
        assert (await client.response()).status == 200


async def test_a_new_audience_is_in_the_very_next_assertion(edited: Gateway) -> None:
    """What was remembered for the old rule goes with it."""
    await write(edited, GOOD)
    cookie = await edited.sign_in("bob")
    raw = request(target=b"/app/x", cookie=cookie)
    seen = []
    for audience in ("first", "second"):
        await write(edited, f"{GOOD}    audience: {audience}\n")
        edited.upstream.clear()
        assert (await edited.ask(raw)).status == 200
        claims = edited.upstream.only.one("Sallyport-Assertion").split(b".")[1]
        seen.append(json.loads(base64.urlsafe_b64decode(claims + b"=="))["aud"])
    assert seen == ["first", "second"]


async def test_a_config_map_swap_is_one_edit(tmp_path: Path) -> None:
    """Kubernetes: files are links to `..data/`, itself a link that is renamed to the next folder in one step."""
    mount = tmp_path / "mount"
    _version(mount, "..1", GOOD)
    (mount / "..data").symlink_to("..1")
    (mount / "rig.yaml").symlink_to("..data/rig.yaml")
    (tmp_path / "home").mkdir()
    async with running(tmp_path / "home", config={"policies": str(mount)}) as gateway:
        assert len(gateway.app.book.rules) == GOOD.count("- name:")
        for version, policy, status in (("..2", CLOSED, 403), ("..3", BROKEN, 403), ("..4", GOOD, 200)):
            before = len(await told(gateway))
            _swap(mount, version, policy)
            await looked(gateway, before)
            assert (await gateway.ask(request())).status == status
        assert [event.kind for event in reversed(await told(gateway))] == [
            Kind.POLICY_LOADED,
            Kind.POLICY_REJECTED,
            Kind.POLICY_LOADED,
        ]


def _version(mount: Path, name: str, policy: str) -> None:
    (mount / name).mkdir(parents=True)
    (mount / name / "rig.yaml").write_text(policy)


def _swap(mount: Path, name: str, policy: str) -> None:
    _version(mount, name, policy)
    old = (mount / "..data").readlink()
    (mount / "..data_tmp").symlink_to(name)
    os.replace(mount / "..data_tmp", mount / "..data")
    shutil.rmtree(mount / old)


async def test_no_request_is_lost_or_judged_by_two_books_while_policies_change(edited: Gateway) -> None:
    """Two policies that differ in whom they let in and in what they say; every answer belongs to one of them."""
    one = GOOD.replace("name: public", "name: one")
    other = CLOSED
    await write(edited, one)
    counts = {200: 0, 403: 0}
    stop = False

    async def ask() -> None:
        async with await edited.connect() as client:
            while not stop:
                await client.send(request())
                answer = await client.response()
                counts[answer.status] += 1
                assert (answer.status == 200) == (answer.body == b"GET /public/x 0")

    asking = [asyncio.create_task(ask()) for _ in range(4)]
    try:
        for policy in (other, one, other, one):
            await write(edited, policy)
    finally:
        stop = True
        await asyncio.gather(*asking)
    assert min(counts.values()) > 0
    assert await edited.rejections() == 0
