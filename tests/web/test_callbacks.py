"""Providers call us through the gateway itself: what is theirs is kept, everything else looks alike."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from urllib.parse import urlencode

import pytest
import pytest_asyncio
from sqlalchemy import select

from gateway import cli
from gateway.core.events import Kind
from gateway.core.identity import DEFAULT_TENANT
from gateway.notify.twilio import signature
from gateway.notify.webhook import signed
from gateway.store.outbox_table import put
from gateway.store.tables import outbox
from tests.rig.gateway import Gateway, running
from tests.rig.messages import Response

HOOK = b"s" * 32
SECRET = "whsec_c3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3M="
NOTIFY = {
    "from": "Gate <gate@good.test>",
    "email": [{"webhook": {"url": "http://127.0.0.1:1/", "secret": SECRET, "callbacks": True}}],
    "sms": [
        {"twilio": {"account": "AC1", "token": "t", "from": "+15005550006", "callbacks": True}},
        {"twilio": {"account": "AC2", "token": "t2", "from": "+15005550006"}},
    ],
}

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    async with running(tmp_path_factory.mktemp("gateway"), config={"notify": NOTIFY}) as made:
        yield made


async def post(gateway: Gateway, sender: str, headers: dict[str, str], body: bytes, method: str = "POST") -> Response:
    lines = [f"{method} /.sallyport/callbacks/{sender} HTTP/1.1", "Host: good.test", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return await gateway.ask("\r\n".join([*lines, "", ""]).encode() + body)


async def taken_over(gateway: Gateway, via: str, reference: str, channel: str = "email") -> None:
    now = gateway.clock.now()
    async with gateway.app.records.begin() as connection:
        await put(
            connection, tenant="default", subject="s", channel=channel, target="ann@example.com", kind=reference,
            content={"user": "ann"}, now=now, lifetime=600.0,
        )  # fmt: skip
        this = outbox.c.kind == reference
        await connection.execute(outbox.update().where(this).values(state="sending", due_at=now + 600))
        row = await connection.scalar(select(outbox.c.id).where(this))
    box = gateway.app._outbox
    assert box is not None
    await box._shelf.settle(row or 0, 0, "sent", now=now, due_at=0.0, via=via, reference=reference)


async def delivery(gateway: Gateway, reference: str) -> str:
    async with gateway.app.records.read() as connection:
        return str(await connection.scalar(select(outbox.c.delivery).where(outbox.c.reference == reference)))


def of_the_hook(gateway: Gateway, reference: str, status: str, key: str) -> tuple[dict[str, str], bytes]:
    body = json.dumps({"id": reference, "status": status}).encode()
    return signed(HOOK, key, gateway.clock.now(), body), body


def of_twilio(reference: str, status: str, token: bytes = b"t", path: str = "twilio") -> tuple[dict[str, str], bytes]:
    fields = [("MessageSid", reference), ("MessageStatus", status)]
    made = signature(token, f"http://good.test/.sallyport/callbacks/{path}", fields).decode()
    return {"X-Twilio-Signature": made, "Content-Type": "application/x-www-form-urlencoded"}, urlencode(fields).encode()


async def test_what_became_of_a_message(gateway: Gateway) -> None:
    await taken_over(gateway, "webhook", "h1")
    await taken_over(gateway, "twilio", "SM1", "sms")
    assert (await post(gateway, "webhook", *of_the_hook(gateway, "h1", "delivered", "w1"))).status == 204
    assert (await post(gateway, "twilio", *of_twilio("SM1", "delivered"))).status == 204
    assert [await delivery(gateway, "h1"), await delivery(gateway, "SM1")] == ["delivered"] * 2
    again = await post(gateway, "webhook", *of_the_hook(gateway, "h1", "delivered", "w1"))
    assert again.status == 204, "who repeats it has not heard that we have it"
    shown = gateway.app.metrics.render()[0].decode()
    assert 'sallyport_delivery_reports_total{outcome="repeated",sender="webhook"} 1.0' in shown
    assert 'sallyport_delivery_reports_total{outcome="delivered",sender="twilio"} 1.0' in shown


async def test_everything_else_looks_alike(gateway: Gateway) -> None:
    await taken_over(gateway, "webhook", "h2")
    await taken_over(gateway, "twilio", "SM2", "sms")
    headers, body = of_the_hook(gateway, "h2", "bounced", "w2")
    before = gateway.clock.now()
    answers = [
        await post(gateway, "webhook", headers | {"webhook-signature": "v1,AAAA"}, body),
        await post(gateway, "webhook", {}, b""),
        await post(gateway, "webhook", *of_the_hook(gateway, "h3", "bounced", "w3")),
        await post(gateway, "webhook", *of_the_hook(gateway, "SM2", "bounced", "w4")),
        await post(gateway, "twilio", headers, body),
        await post(gateway, "twilio", *of_twilio("h2", "delivered")),
        await post(gateway, "twilio", *of_twilio("SM2", "delivered", b"t2")),
        await post(gateway, "twilio-2", *of_twilio("SM2", "delivered", b"t2", "twilio-2")),
        await post(gateway, "nobody", headers, body),
    ]
    gateway.clock.advance(301)
    answers.append(await post(gateway, "webhook", headers, body))
    gateway.clock.jump(before - gateway.clock.now())
    assert {answer.status for answer in answers} == {403}
    alike = {json.dumps({**json.loads(answer.body), "request_id": ""}, sort_keys=True) for answer in answers}
    assert len(alike) == 1
    assert json.loads(answers[0].body)["code"] == "ERR-CALLBACK"
    assert [await delivery(gateway, "h2"), await delivery(gateway, "SM2")] == ["", ""]
    await gateway.app.recorder.flush()
    events = await gateway.app.recorder.events(DEFAULT_TENANT, kind=Kind.CALLBACK_REFUSED)
    told: Counter[str] = Counter()
    for event in events:
        told[event.detail["reason"]] += event.detail.get("count", 1)
    assert told == {"signature": 5, "sender": 2, "message": 3}
    assert {event.detail.get("sender") for event in events} <= {"webhook", "twilio", None}


@pytest.mark.parametrize("signed_by_them", [True, False])
async def test_whatever_the_body_is_it_is_one_answer(gateway: Gateway, signed_by_them: bool) -> None:
    """Whoever has the secret may be wrong too: nothing that can be posted is a fault of ours."""
    reference = f"h8-{signed_by_them}"
    await taken_over(gateway, "webhook", reference)
    gateway.clock.advance(60)  # so many of one address take their time
    bodies = [
        b"", b"null", b"1e999", b"[]", b'"h8"', b"{", b"[" * 60_000, b'{"id": NaN}', b'{"id": "h8"}', b"\xff", b"\0",
        b'{"id": "h8", "status": "lost"}', b'{"id": ["h8"], "status": {"a": 1}}', b'{"id": "h8", "status": null}',
        b'{"id": "\\ud800", "status": "bounced"}', b'{"id": "\\u0000", "status": "bounced"}',
        b'{"id": "' + b"9" * 50_000 + b'", "status": "bounced"}', b'{"id": 1' + b"0" * 999 + b', "status": "bounced"}',
        b'{"a": ' * 9_000 + b"1" + b"}" * 9_000, "id=İ&status=ı".encode(), b"a&" * 30_000,
    ]  # fmt: skip
    answers = set()
    for number, body in enumerate(bodies):
        body = body.replace(b"h8", reference.encode())
        headers = {"webhook-signature": "v1,AAAA"}
        if signed_by_them:
            headers = signed(HOOK, f"b{number}", gateway.clock.now(), body)
        for sender, more in (("webhook", headers), ("twilio", {"X-Twilio-Signature": "A" * 28})):
            answer = await post(gateway, sender, more, body)
            assert answer.status in (403, 204), (sender, body[:40], answer.status, answer.body[:300])
            if answer.status == 403:
                answers.add(json.dumps({**json.loads(answer.body), "request_id": ""}, sort_keys=True))
    assert len(answers) == 1
    assert await delivery(gateway, reference) == ""
    await gateway.app.recorder.flush()
    assert await gateway.app.recorder.events(DEFAULT_TENANT, kind=Kind.FAULT) == []


async def test_what_is_not_one(gateway: Gateway) -> None:
    headers, body = of_the_hook(gateway, "h1", "delivered", "w9")
    assert (await post(gateway, "webhook", headers, body, "GET")).status == 405
    assert (await post(gateway, "webhook", headers, b"x" * 70_000)).status == 413
    assert (await post(gateway, "webhook", headers | {"Content-Encoding": "gzip"}, body)).status == 415


async def test_only_callbacks_need_no_origin(gateway: Gateway) -> None:
    raw = b"POST /.sallyport/%s HTTP/1.1\r\nHost: good.test\r\nContent-Length: 0\r\n\r\n"
    for path in (b"login", b"callbacks", b"Callbacks/webhook", b"callbacks/../login", b"x/callbacks/webhook"):
        assert (await gateway.ask(raw % path)).status in (400, 403, 404)
    assert b"ERR-CSRF" in (await gateway.ask(raw % b"login")).body


async def test_an_administrator_sees_and_releases_it(gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    await taken_over(gateway, "webhook", "h5")
    assert (await post(gateway, "webhook", *of_the_hook(gateway, "h5", "bounced", "w5"))).status == 204
    config = str(gateway.app.settings.keys.parent.parent / "config.yaml")

    async def run(*arguments: str) -> tuple[int, str]:
        code = await asyncio.to_thread(cli.main, ["address", *arguments, "--config", config])
        return code, capsys.readouterr().out

    _, shown = await run("list", "--json")
    (one,) = json.loads(shown)
    assert (one["target"], one["why"]) == ("ann@example.com", "bounced")
    assert "bounced     ann@example.com" in (await run("list"))[1]
    assert (await run("release", "bob@example.com"))[0] == 1
    assert await run("release", "ann@example.com") == (0, "it is sent to again\n")
    assert await run("list", "--json") == (0, "[]\n")
