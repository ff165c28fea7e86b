"""The link of a letter from end to end: the real gateway, a real mail server, and somebody who reads their mail."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from gateway.core.events import Kind
from gateway.core.identity import DEFAULT_TENANT
from tests.house.visitor import OURS, Visitor, location
from tests.rig.gateway import PASSWORD, running
from tests.rig.mail import mail_server

POLICY = """
rules:
  - {name: all, access: authenticated, step_up: {level: aal2, max_age: 10m}, upstream: app}
"""
ELSEWHERE = {"X-Forwarded-Host": "evil.example", "Forwarded": "host=evil.example", "X-Original-Host": "evil.example"}


async def test_from_the_letter_to_what_was_interrupted(tmp_path: Path) -> None:
    async with mail_server() as mail:
        config = {
            "mfa": {"email": {"counts_as_second_factor": True}},
            "notify": {
                "from": "Gate <gate@good.test>",
                "email": [{"smtp": {"host": "127.0.0.1", "port": mail.port, "tls": "none"}}],
            },
        }
        async with running(tmp_path, policy=POLICY, config=config) as gateway:
            outbox, app = gateway.app._outbox, gateway.app
            assert outbox is not None
            await app.users.add("bob", PASSWORD, email="bob@good.test")
            bob = Visitor(gateway.port)
            await bob.sign_in()
            begun = location(await bob.fill(await bob.get("enrol-code/email"), "enrol-code/email"))
            await outbox.turn()
            (letter,) = [one for one in mail.box if "confirm this address" in str(one["Subject"])]
            text = letter.get_body(("plain",)).get_content()  # type: ignore[union-attr]
            assert "/verify/link" not in text, "what is being set up has none"
            (code,) = re.findall(r"^ +(\d{6})\s*$", text, re.MULTILINE)
            page = await bob.get(begun)
            setup = begun.removeprefix(OURS).partition("?")[0]
            fields = {"csrf": re.findall(r'name="csrf" value="([^"]+)"', page.body.decode())[0]}
            assert (await bob.post(setup, {**fields, "code": code})).status == 200

            gateway.clock.advance(3600)
            thief = Visitor(gateway.port)
            await thief.sign_in()
            await bob.sign_in(query="?reauth=1&next=/orders")
            ticket = location(await bob.post("/orders", {"amount": "7"}))
            assert not gateway.upstream.requests
            bob.more = ELSEWHERE
            await bob.fill(await bob.get(f"{ticket}?method=email"), ticket.removeprefix(OURS) + "/send")
            bob.more = {}
            await outbox.turn()
            (letter,) = [one for one in mail.box if "confirm that it is you" in str(one["Subject"])]
            assert b"evil" not in letter.as_bytes()
            text = letter.get_body(("plain",)).get_content()  # type: ignore[union-attr]
            (found,) = re.findall(r"http\S*/verify/link\S*", text)
            assert found.startswith(f"http://good.test{OURS}verify/link?token="), "whatever host was asked"
            assert found in letter.get_body(("html",)).get_content()  # type: ignore[union-attr]
            link = f"{urlsplit(found).path}?{urlsplit(found).query}"

            for other in (Visitor(gateway.port), thief):
                assert (await other.get(link)).status == 410
            page = await bob.get(link)
            assert page.one("Referrer-Policy") == b"no-referrer"
            assert not gateway.upstream.requests
            assert location(await bob.fill(page, "verify/link")) == "/orders"
            assert (await bob.get("/orders")).status == 200
            (request,) = gateway.upstream.requests
            assert (request.method, request.body) == (b"POST", b"amount=7")
            assert (await bob.fill(page, "verify/link")).status == 410
            assert (await bob.get("/orders")).status == 200
            assert [one.method for one in gateway.upstream.requests] == [b"POST", b"GET"]
            assert location(await thief.get("/orders")).startswith(f"{OURS}verify/")
            await app.recorder.flush()
            events = await app.recorder.events(DEFAULT_TENANT, limit=500)
            assert [one.detail["factor"] for one in events if one.kind is Kind.STEP_UP_PASSED] == ["email"]
            secret = link.rpartition(".")[2]
            assert len(secret) == 43
            assert secret not in repr(events)
    log = (tmp_path / "access.log").read_bytes()
    assert b"verify/link" in log
    kept = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert secret.encode() not in kept, "written down somewhere"
