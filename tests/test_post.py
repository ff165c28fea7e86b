"""Who carries messages: what `notify` may say, and what comes of it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import yaml
from sqlalchemy import select

from gateway import post, settings
from gateway.core.clock import ManualClock
from gateway.core.errors import ConfigError
from gateway.notify.aws_role import AwsRole
from gateway.notify.ses import SesSender
from gateway.notify.sns import SnsSender
from gateway.notify.twilio import signature
from gateway.store.tables import outbox
from tests.rig.gateway import running
from tests.rig.providers import ACCOUNT, NUMBER, TOKEN, provider

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
FROM = "Gate <gate@good.test>"
SK = {"key": "SK" + "1" * 32, "secret": "very-secret"}


def read(folder: Path, **notify: Any) -> settings.Settings:
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump({"upstreams": {"app": {"url": "http://127.0.0.1:1"}}, "notify": notify}))
    return settings.load(file, {})


@pytest.mark.parametrize(
    ("notify", "said"),
    [
        ({"email": [{"smtp": {"host": "h"}}]}, "need `from`"),
        ({"from": FROM, "email": [{}]}, "exactly one"),
        ({"from": FROM, "email": [{"smtp": {"host": "h"}, "console": {}}]}, "exactly one"),
        ({"from": FROM, "email": [{"smtp": {"host": "h", "username": "u"}}]}, "go together"),
        (
            {"from": FROM, "email": [{"smtp": {"host": "h", "tls": "none", "username": "u", "password": "p"}}]},
            "reads the password",
        ),
        ({"from": FROM, "email": [{"smtp": {"host": "h\r\nx"}}]}, "host"),
        ({"from": "a@b.c, d@e.f"}, "one e-mail address"),
        ({"from": "x\r\nBcc: <a@b.c>"}, "one e-mail address"),
        ({"email": [{"webhook": {"url": "http://mail.example/", "secret": SECRET}}]}, "in clear"),
        ({"email": [{"webhook": {"url": "https://u:p@mail.example/", "secret": SECRET}}]}, "URL of a webhook"),
        ({"email": [{"webhook": {"url": "https://mail.example/", "secret": "c2hvcnQ="}}]}, "not a secret"),
        ({"sms": [{}]}, "exactly one"),
        ({"sms": [{"twilio": {"account": "AC1", "token": "t"}}]}, "from"),
        ({"sms": [{"twilio": {"account": "AC1", "from": "Gate"}}]}, "write `token`, or `key` and `secret`"),
        ({"sms": [{"twilio": {"account": "AC1", "key": "SK" + "1" * 32, "from": "Gate"}}]}, "go together"),
        ({"sms": [{"twilio": {"account": "AC1", "token": "t", "secret": "s", "from": "Gate"}}]}, "go together"),
        ({"sms": [{"twilio": {"account": "AC1", "key": "AC1", "secret": "s", "from": "Gate"}}]}, "key"),
        (
            {"sms": [{"twilio": {**SK, "account": "AC1", "from": "Gate", "callbacks": True}}]},
            "write `token` as well",
        ),
        ({"sms": [{"sns": {"region": "eu-central-1", "access_key": "A"}}]}, "go together"),
        ({"sms": [{"sns": {"region": "eu-central-1", "secret_key": "s"}}]}, "go together"),
        ({"sms": [{"sns": {"region": "eu-central-1", "session_token": "s"}}]}, "belongs to"),
        ({"sms": [{"twilio": {"account": "AC1/../x", "token": "t", "from": "Gate"}}]}, "account"),
        ({"sms": [{"twilio": {"account": "AC1", "token": "t", "from": "a\r\nb"}}]}, "from"),
        ({"sms": [{"vonage": {"key": "k", "secret": "s", "from": "G", "url": "http://far.example"}}]}, "in clear"),
        ({"sms": [{"sns": {"region": "evil.example/", "access_key": "A", "secret_key": "s"}}]}, "region"),
        ({"sms": [{"sns": {"region": "eu-central-1", "access_key": "A", "secret_key": "s", "topic": "x"}}]}, "topic"),
        ({"email": [{"ses": {"region": "eu-central-1", "access_key": "A", "secret_key": "s"}}]}, "need `from`"),
        ({"numbers": {"deny": ["1900"]}}, "deny"),
        ({"numbers": {"region": "Turkey"}}, "region"),
    ],
)
def test_what_cannot_be(notify: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        read(tmp_path, **notify)
    assert "c2hvcnQ" not in str(caught.value)
    assert "u:p@" not in str(caught.value)


@pytest.mark.parametrize(
    ("recovery", "said"),
    [
        ({}, "notify.email"),
        ({"delay": "30m"}, "delay"),
        ({"delay": "31d"}, "delay"),
        ({"expires": "1m"}, "expires"),
        ({"channel": "sms"}, "channel"),
        ({"administrators": True}, "administrators"),
    ],
)
def test_what_recovery_cannot_be(recovery: dict[str, Any], said: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    notify = {"email": [{"console": {}}]} if recovery else {}
    document = {"upstreams": {"app": {"url": "http://127.0.0.1:1"}}, "mfa": {"recovery": recovery}, "notify": notify}
    file.write_text(yaml.safe_dump(document))
    with pytest.raises(ConfigError, match=said):
        settings.load(file, {})


def test_secrets_show_themselves_to_nobody(tmp_path: Path) -> None:
    smtp = {"host": "h", "username": "u", "password": "very-secret"}
    known = read(
        tmp_path, **{"from": FROM, "email": [{"smtp": smtp}, {"webhook": {"url": "https://h/token", "secret": SECRET}}]}
    )
    assert not {"very-secret", SECRET, "token"} & set(repr(known.notify).replace("'", " ").split())
    assert "very-secret" not in repr(known)
    assert known.warnings == ()
    aws = {"region": "eu-central-1", "access_key": "A", "secret_key": "very-secret", "session_token": "very-secret"}
    sms = [
        {"twilio": {"account": "AC1", "token": "very-secret", "from": "Gate"}},
        {"vonage": {"key": "k", "secret": "very-secret", "signature_secret": "very-secret", "from": "Gate"}},
        {"twilio": {"account": "AC1", "from": "Gate", **SK}},
        {"sns": aws},
    ]
    assert "very-secret" not in repr(read(tmp_path, **{"from": FROM, "email": [{"ses": aws}], "sms": sms}))


def test_without_keys_it_is_the_role_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notify = {"from": FROM, "email": [{"ses": {"region": "eu-central-1"}}], "sms": [{"sns": {"region": "eu-west-1"}}]}
    known, clock = read(tmp_path, **notify), ManualClock()
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    ses = post._mail(known.notify.email[0], known, clock)
    sns = post._sms(known.notify.sms[0], "sns", known, clock)
    assert isinstance(ses, SesSender)
    assert isinstance(sns, SnsSender)
    assert isinstance(ses._keys, AwsRole)
    assert (ses._keys.region, sns._keys.region) == ("eu-central-1", "eu-west-1")
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://evil.example/")
    with pytest.raises(ConfigError, match="this machine"):
        post._mail(known.notify.email[0], known, clock)


def test_what_is_allowed_and_worth_a_thought(tmp_path: Path) -> None:
    known = read(
        tmp_path, **{"from": FROM, "email": [{"console": {}}, {"smtp": {"host": "far.example", "tls": "none"}}]}
    )
    assert [str(one).partition(": ")[2].partition(":")[0] for one in known.warnings] == [
        "messages go to standard output",
        "messages travel in clear",
    ]


async def test_without_it_there_is_no_post(tmp_path: Path) -> None:
    async with running(tmp_path) as gateway:
        assert gateway.app._outbox is None
        assert b"sallyport_notifications_waiting " not in gateway.app.metrics.render()[0]
    script = (
        "import sys, gateway.people, gateway.app; print('aiosmtplib' in sys.modules, 'gateway.post' in sys.modules)"
    )
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.split() == ["False", "False"]


async def test_a_code_goes_from_a_gateway_to_a_phone_and_word_of_it_comes_back(tmp_path: Path) -> None:
    """The first sender is not there, the second takes it over, and tells where the first one heard it should."""
    clock = ManualClock()
    async with provider("twilio", clock) as rig:
        ours = {"account": ACCOUNT, "token": TOKEN, "from": "+15005550006", "callbacks": True}
        sms = [{"twilio": {**ours, "url": "http://127.0.0.1:1"}}, {"twilio": {**ours, "url": rig.url}}]
        async with running(tmp_path, config={"notify": {"sms": sms}}) as gateway:
            assert gateway.app.people is not None
            post, outbox_ = gateway.app.people.post, gateway.app._outbox
            assert post is not None
            assert outbox_ is not None
            async with gateway.app.records.begin() as connection:
                await post.code(
                    connection, tenant="default", subject="s", channel="sms", to=post.address("sms", NUMBER),
                    code="271828", about="verify", language="en", expires_at=gateway.clock.now() + 600,
                )  # fmt: skip
            async with asyncio.timeout(20):
                while not rig.box:
                    await outbox_.turn()
            (got,) = rig.box
            url = got.fields["StatusCallback"]
            fields = [("MessageSid", got.reference), ("MessageStatus", "delivered")]
            body = urlencode(fields).encode()
            made = signature(TOKEN.encode(), url, fields).decode()
            path = url.removeprefix("http://good.test")
            head = f"POST {path} HTTP/1.1\r\nHost: good.test\r\nX-Twilio-Signature: {made}\r\n"
            head += f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n"
            async with asyncio.timeout(20):
                while (await gateway.ask(head.encode() + body)).status != 204:  # until it is written down whose it is
                    await outbox_.turn()
            async with gateway.app.records.read() as connection:
                row = (await connection.execute(select(outbox))).one()
    assert (got.to, got.text.splitlines()[-1]) == (NUMBER, "@good.test #271828")
    assert (row.state, row.via, row.delivery, row.sealed) == ("sent", "twilio-2", "delivered", None)
