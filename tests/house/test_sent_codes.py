"""Codes from the page to the phone and back: the real gateway, a mail server, a provider of text messages."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import orjson
from prometheus_client.parser import text_string_to_metric_families

from gateway.core.clock import SystemClock
from gateway.core.identity import DEFAULT_TENANT
from tests.house.visitor import OURS, Visitor, location
from tests.rig.client import RawClient
from tests.rig.forms import Forms
from tests.rig.gateway import PASSWORD, Gateway, running
from tests.rig.mail import mail_server
from tests.rig.messages import Response
from tests.rig.providers import ACCOUNT, NUMBER, TOKEN, provider

POLICY = """
rules:
  - {name: all, access: authenticated, step_up: {level: aal2, max_age: 10m}, upstream: app}
"""


NUMBERS = {
    "users": {"": 2},
    "users_able": {"any": 1, "sms": 1, "email": 1, "backup_code": 1, "totp": 0},
    "factor_setups_total": {"sms completed": 1, "sms started": 1, "email completed": 1, "email started": 1,
                            "email failed": 1},
    "challenges_total": {"any asked": 2, "sms sent": 1, "sms failed": 1, "sms passed": 1, "other over": 1,
                         "backup_code passed": 1},
    "deliveries_total": {"smtp accepted": 6, "twilio accepted": 3, "twilio failed": 1},
    "delivery_duration_seconds_count": {"smtp": 6, "twilio": 4},
}  # fmt: skip
"""What is told of a day like that: who could answer with what, setups, answers, backup codes, who carried how much."""


async def numbers(gateway: Gateway) -> dict[str, dict[str, float]]:
    """As somebody who scrapes them sees them; by the values of their labels."""
    async with await RawClient.connect(gateway.admin_port) as client:
        await client.send(b"GET /metrics HTTP/1.1\r\nHost: admin\r\n\r\n")
        scraped = (await client.response("GET")).body.decode()
    found: dict[str, dict[str, float]] = {name: {} for name in NUMBERS}
    for family in text_string_to_metric_families(scraped):
        for sample in family.samples:
            if (name := sample.name.removeprefix("sallyport_")) in found:
                labels = " ".join(sample.labels[one] for one in ("factor", "sender", "outcome") if one in sample.labels)
                found[name][labels] = sample.value
    return found


def code_in(text: str) -> str:
    found = set(re.findall(r"(?<![\d+])\d{6}(?!\d)", text))
    assert len(found) == 1, text
    return found.pop()


async def test_from_the_page_to_the_phone_and_back(tmp_path: Path) -> None:
    async with mail_server() as mail, provider("twilio", SystemClock()) as twilio:
        config = {
            "mfa": {"sms": {}, "email": {"counts_as_second_factor": True}},
            "notify": {
                "from": "Gate <gate@good.test>",
                "email": [{"smtp": {"host": "127.0.0.1", "port": mail.port, "tls": "none"}}],
                "sms": [{"twilio": {"account": ACCOUNT, "token": TOKEN, "from": "Gate", "url": twilio.url}}],
            },
        }
        async with running(tmp_path, policy=POLICY, config=config) as gateway:
            outbox, app = gateway.app._outbox, gateway.app
            assert outbox is not None
            user = await app.users.add("bob", PASSWORD, email="bob@good.test")
            await app.users.add("ann", PASSWORD)
            bob = Visitor(gateway.port)
            await bob.sign_in()

            # An e-mail address, by a mail server.
            begun = await bob.fill(await bob.get("enrol-code/email"), "enrol-code/email")
            assert not mail.box, "it leaves off the request's way"
            await outbox.turn()
            (letter,) = [one for one in mail.box if "confirm this address" in str(one["Subject"])]
            assert letter["To"] == "bob@good.test"
            mailed = code_in(letter.get_body(("plain",)).get_content())  # type: ignore[union-attr]
            page = await bob.get(location(begun))
            wrong = "000000" if mailed != "000000" else "000001"
            assert (await bob.post(location(begun), {**_fields(page, location(begun)), "code": wrong})).status == 400
            done = await bob.post(location(begun), {**_fields(page, location(begun)), "code": mailed})
            assert (done.status, b"Save your backup codes" in done.body) == (200, True)
            paper = re.findall(r"<li>([0-9a-z]{5}-[0-9a-z]{5})</li>", done.body.decode())[0]

            # A number, by a provider.
            twilio.answers.append((503, {}, b""))
            begun = await bob.fill(await bob.get("enrol-code/sms"), "enrol-code/sms", address=NUMBER)
            await outbox.turn()
            assert not twilio.box
            gateway.clock.advance(10)
            await outbox.turn()
            assert [one.to for one in twilio.box] == [NUMBER]
            page = await bob.get(location(begun))
            texted = code_in(twilio.box[-1].text)
            await bob.post(location(begun), {**_fields(page, location(begun)), "code": texted})
            assert {one.kind for one in await app.people.factors.of(DEFAULT_TENANT, user.subject)} == {
                "sms", "email", "backup_code",
            }  # fmt: skip

            # And what they are for.
            gateway.clock.advance(3000)
            await bob.sign_in(query="?reauth=1&next=/orders")
            ticket = location(await bob.get("/orders"))
            assert ticket.startswith(f"{OURS}verify/")
            page = await bob.get(f"{ticket}?method=sms")
            assert b"+90 *** ** 67" in page.body
            sent = await bob.fill(page, ticket.removeprefix(OURS) + "/send")
            await outbox.turn()
            code = code_in(twilio.box[-1].text)
            page = await bob.get(location(sent))
            fields = _fields(page, ticket)
            assert (await bob.post(ticket, {**fields, "code": texted if texted != code else "1"})).status == 400
            assert not gateway.upstream.requests
            right = await bob.post(ticket, {**fields, "code": code})
            assert location(right) == "/orders"
            assert (await bob.post(ticket, {**fields, "code": code})).status == 410
            assert (await bob.get("/orders")).status == 200
            (request,) = gateway.upstream.requests
            claims = request.one("Sallyport-Assertion").split(b".")[1]
            told = orjson.loads(base64.urlsafe_b64decode(claims + b"=" * (-len(claims) % 4)))
            assert (told["acr"], told["amr"]) == ("aal2", ["pwd", "sms", "mfa"])

            await bob.sign_in(query="?reauth=1&next=/orders")
            gateway.clock.advance(3000)
            ticket = location(await bob.get("/orders"))
            await bob.fill(await bob.get(f"{ticket}?method=backup_code"), ticket.removeprefix(OURS), code=paper)
            await app.recorder.flush()
            await outbox.turn()
            assert app.people is not None
            app._rounds = 0  # what the database holds is counted at the next look
            await app._look_at_store(app.people)
            assert await numbers(gateway) == NUMBERS

            # What goes is told where it went to, whoever reads the mail.
            (number,) = [one for one in await app.people.factors.of(DEFAULT_TENANT, user.subject) if one.kind == "sms"]
            path = f"account/factors/{number.id}/remove"
            assert (await bob.fill(await bob.get("account"), path)).status == 303
            await outbox.turn()
            assert (twilio.box[-1].to, twilio.box[-1].text) == (
                NUMBER,
                "good.test: Codes for your account do not come here any more (bob). "
                "Not you? Sign in and look at your account.",
            )
            assert mail.box[-1]["Subject"] == "A second factor was removed"
    kept = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    for one in (mailed, texted, code):
        assert not re.search(rb"(?<![\d.])%b(?!\d)" % one.encode(), kept), "written down somewhere"


def _fields(page: Response, action: str) -> dict[str, str]:
    """Those of the form that goes to `action` itself."""
    parser = Forms()
    parser.feed(page.body.decode())
    path = action.partition("?")[0]
    (form,) = [one for one in parser.forms if one.action == path]
    return form.fields
