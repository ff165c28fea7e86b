"""Keys of a machine's role: asked for as AWS documents it, in time, and nowhere else.

Against servers that behave as the documents say: STS, the agent of a container, the metadata service of EC2.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from gateway.core.clock import ManualClock
from gateway.core.errors import ConfigError, Undelivered
from gateway.notify.aws_role import EARLY, REST, AwsRole
from gateway.notify.fetched import LARGEST
from gateway.notify.sns import SnsSender
from tests.notify.test_providers import message
from tests.rig.providers import AWS_KEY, AWS_SECRET, provider

ROLE = "arn:aws:iam::123456789012:role/gate"
HOUR = 3600.0


@dataclass
class Amazon:
    """Whoever gives keys out on this machine; what it was asked is in `asked`."""

    clock: ManualClock
    url: str = ""
    secret: str = AWS_SECRET
    lasts: float = HOUR
    asked: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    answers: list[web.Response] = field(default_factory=list)
    """Instead of what it would answer."""
    roles: str = "gate"

    def given(self) -> dict[str, str]:
        ends = datetime.fromtimestamp(self.clock.now() + self.lasts, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {"AccessKeyId": AWS_KEY, "SecretAccessKey": self.secret, "Token": "session-token", "Expiration": ends}

    async def handle(self, request: web.Request) -> web.Response:
        self.asked.append(f"{request.method} {request.path}")
        body = (await request.read()).decode()
        if self.answers:
            return self.answers.pop(0)
        if request.path == "/latest/api/token" and request.method == "PUT":
            assert 1 <= int(request.headers["X-aws-ec2-metadata-token-ttl-seconds"]) <= 21_600
            return web.Response(text="imds-token")
        if request.path.startswith("/latest/meta-data/"):
            assert request.headers.get("X-aws-ec2-metadata-token") == "imds-token", "never by version 1"
            role = request.path.removeprefix("/latest/meta-data/iam/security-credentials/")
            if not role:
                return web.Response(text=self.roles)
            return web.json_response({"Code": "Success", "Type": "AWS-HMAC", **self.given()})
        if request.method == "POST":
            form = {name: values[0] for name, values in parse_qs(body, strict_parsing=True).items()}
            self.tokens.append(form["WebIdentityToken"])
            assert (form["Action"], form["Version"]) == ("AssumeRoleWithWebIdentity", "2011-06-15")
            assert (form["RoleArn"], form["RoleSessionName"]) == (ROLE, "sallyport")
            assert "Authorization" not in request.headers
            given = self.given()
            given["SessionToken"] = given.pop("Token")
            inner = "".join(f"<{name}>{value}</{name}>\n" for name, value in given.items())
            said = f"<AssumeRoleWithWebIdentityResponse><Credentials>{inner}</Credentials></...>"
            return web.Response(text=said, content_type="text/xml")
        self.tokens.append(request.headers.get("Authorization", ""))
        return web.json_response({**self.given(), "RoleArn": ROLE, "AccountId": "123456789012"})


@pytest.fixture
async def amazon(clock: ManualClock) -> AsyncIterator[Amazon]:
    rig = Amazon(clock)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", rig.handle)
    server = TestServer(app, host="127.0.0.1")
    await server.start_server()
    rig.url = str(server.make_url("/")).rstrip("/")
    yield rig
    await server.close()


@pytest.fixture
def token(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text("first-token\n")
    return file


def environ(way: str, amazon: Amazon, token: Path) -> dict[str, str]:
    if way == "sts":
        return {
            "AWS_WEB_IDENTITY_TOKEN_FILE": str(token), "AWS_ROLE_ARN": ROLE, "AWS_ENDPOINT_URL_STS": amazon.url,
        }  # fmt: skip
    if way == "container":
        url = f"{amazon.url}/v1/credentials"
        return {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": url, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(token),
            "AWS_CONTAINER_AUTHORIZATION_TOKEN": "not the one of the file",
        }  # fmt: skip
    return {"AWS_EC2_METADATA_SERVICE_ENDPOINT": amazon.url}


WAYS = ["sts", "container", "machine"]


@pytest.fixture(params=WAYS)
def role(request: pytest.FixtureRequest, amazon: Amazon, token: Path, clock: ManualClock) -> AwsRole:
    return AwsRole("us-east-1", "sns", clock, environ(request.param, amazon, token))


async def test_keys_come_and_sign(role: AwsRole, amazon: Amazon, clock: ManualClock) -> None:
    """What they sign is taken over by a server that knows them, with the token in what is signed."""
    async with provider("sns", clock) as sns:
        sender = SnsSender(role, clock, url=sns.url + "/", timeout=3.0)
        await sender.send(message())
        await sender.close()
        assert len(sns.box) == 1
    keys = await role.current()
    assert (keys.access_key, keys.session_token, keys.region, keys.service) == (
        AWS_KEY, "session-token", "us-east-1", "sns",
    )  # fmt: skip
    assert not any(secret in repr((role, keys, role._given)) for secret in (AWS_SECRET, "session-token"))


async def test_they_are_asked_for_once_and_again_before_they_end(
    role: AwsRole, amazon: Amazon, clock: ManualClock
) -> None:
    await asyncio.gather(*(role.current() for _ in range(8)))
    once = len(amazon.asked)
    assert once in (1, 3)
    clock.advance(HOUR - EARLY - 1)
    await role.current()
    assert len(amazon.asked) == once
    clock.advance(2)
    amazon.secret = "another-secret"
    assert (await role.current()).secret_key == "another-secret"
    assert len(amazon.asked) == 2 * once


async def test_those_that_last_are_used_while_nobody_answers(
    role: AwsRole, amazon: Amazon, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    await role.current()
    clock.advance(HOUR - EARLY + 1)
    amazon.answers = [web.Response(status=500, text=AWS_SECRET)]
    asked = len(amazon.asked)
    assert (await role.current()).secret_key == AWS_SECRET
    assert len(amazon.asked) == asked + 1
    await role.current()
    assert len(amazon.asked) == asked + 1, "not with every message"
    assert "answered 500" in caplog.text
    assert AWS_SECRET not in caplog.text
    clock.advance(REST)
    await role.current()
    assert len(amazon.asked) > asked + 1


async def test_without_any_a_message_waits(role: AwsRole, amazon: Amazon, clock: ManualClock) -> None:
    amazon.answers = [web.Response(status=403)]
    with pytest.raises(Undelivered) as caught:
        await role.current()
    assert (caught.value.final, caught.value.unsure) == (False, False)
    with pytest.raises(Undelivered):
        await role.current()
    assert len(amazon.asked) == 1, "whoever waits behind it does not wait for this"
    clock.advance(REST)
    assert (await role.current()).secret_key == AWS_SECRET
    amazon.answers = [web.Response(status=403)] * 2
    clock.advance(HOUR)
    with pytest.raises(Undelivered):
        await role.current()


ODD: dict[str, Any] = {
    "nothing": b"",
    "no JSON": b"<html>",
    "a list": b"[]",
    "an error": b'{"Code": "Failed", "Message": "m"}',
    "no end": b'{"AccessKeyId": "A", "SecretAccessKey": "s", "Token": "t"}',
    "an end that is none": b'{"AccessKeyId": "A", "SecretAccessKey": "s", "Token": "t", "Expiration": "soon"}',
    "an end of no zone": b'{"AccessKeyId":"A","SecretAccessKey":"s","Token":"t","Expiration":"2030-01-01T00:00:00"}',
    "two lines": b'{"AccessKeyId":"A\\r\\nx","SecretAccessKey":"s","Token":"t","Expiration":"2030-01-01T00:00:00Z"}',
    "a number": b'{"AccessKeyId": null, "SecretAccessKey": "", "Token": 7, "Expiration": "2030-01-01T00:00:00Z"}',
    "far too much": b" " * (LARGEST + 1),
}


@pytest.mark.parametrize("body", ODD.values(), ids=ODD)
async def test_what_is_not_keys(amazon: Amazon, token: Path, clock: ManualClock, body: bytes) -> None:
    for way in ("sts", "container"):
        role = AwsRole("us-east-1", "sns", clock, environ(way, amazon, token))
        amazon.answers = [web.Response(body=body)]
        with pytest.raises(Undelivered):
            await role.current()


async def test_a_redirect_is_not_followed(role: AwsRole, amazon: Amazon) -> None:
    amazon.answers = [web.Response(status=302, headers={"Location": f"{amazon.url}/elsewhere"})]
    with pytest.raises(Undelivered):
        await role.current()
    assert len(amazon.asked) == 1


async def test_a_token_is_read_each_time(amazon: Amazon, token: Path, clock: ManualClock) -> None:
    for way in ("sts", "container"):
        amazon.tokens = []
        token.write_text("first-token\n")
        role = AwsRole("us-east-1", "sns", clock, environ(way, amazon, token))
        await role.current()
        token.write_text("second-token")
        clock.advance(HOUR)
        await role.current()
        assert amazon.tokens == ["first-token", "second-token"]


@pytest.mark.parametrize("said", [None, b"", b"two words", b"a\r\nX-Evil: 1", b"\xff"])
async def test_a_token_that_is_none(
    amazon: Amazon, token: Path, clock: ManualClock, said: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    token.unlink() if said is None else token.write_bytes(said)
    role = AwsRole("us-east-1", "sns", clock, environ("container", amazon, token))
    if said == b"":
        await role.current()  # an endpoint that wants none
        return
    with pytest.raises(Undelivered):
        await role.current()
    assert amazon.asked == []
    assert "X-Evil" not in caplog.text


async def test_a_machine_without_a_role(amazon: Amazon, token: Path, clock: ManualClock) -> None:
    for roles in ("", "../../user-data", "<html>"):
        amazon.roles = roles
        with pytest.raises(Undelivered):
            await AwsRole("us-east-1", "sns", clock, environ("machine", amazon, token)).current()
    assert not any("user-data" in asked for asked in amazon.asked)


@pytest.mark.parametrize(
    ("name", "url"),
    [
        (name, url)
        for name in ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_EC2_METADATA_SERVICE_ENDPOINT")
        for url in (
            "http://evil.example/", "https://evil.example/", "http://10.0.0.1/", "http://127.0.0.1.evil.example/",
            "http://127.0.0.1@evil.example/", "http://u:p@127.0.0.1/", "http://169.254.1.1/", "http://0.0.0.0/",
            "http://2130706433/", "http://[::ffff:10.0.0.1]/", "http://[fd00::1]/", "file:///etc/passwd", "//127.0.0.1",
            "x",
        )
    ],
)  # fmt: skip
def test_keys_are_asked_for_on_this_machine_only(name: str, url: str, clock: ManualClock) -> None:
    with pytest.raises(ConfigError, match=name) as caught:
        AwsRole("us-east-1", "sns", clock, {name: url})
    assert "u:p" not in str(caught.value)


@pytest.mark.parametrize(
    "said",
    [
        {"AWS_CONTAINER_CREDENTIALS_FULL_URI": url}
        for url in (
            "http://169.254.170.23/v1/credentials", "http://[fd00:ec2::23]/v1/credentials", "http://127.8.9.1:80/",
            "http://169.254.170.2/x", "http://localhost:8080/", "http://[::1]/", "https://127.0.0.1/",
        )
    ]
    + [{"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://[fd00:ec2::254]"}]
    + [{"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2"}, {}],
)  # fmt: skip
def test_where_aws_documents_them(said: dict[str, str], clock: ManualClock) -> None:
    assert AwsRole("us-east-1", "sns", clock, said).region == "us-east-1"


@pytest.mark.parametrize(
    "said",
    [
        {"AWS_EC2_METADATA_DISABLED": "true"},
        {"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "@evil.example/"},
        {
            "AWS_WEB_IDENTITY_TOKEN_FILE": "/t", "AWS_ROLE_ARN": ROLE,
            "AWS_ENDPOINT_URL_STS": "http://evil.example",
        },
    ],
)  # fmt: skip
def test_what_cannot_be(said: dict[str, str], clock: ManualClock) -> None:
    with pytest.raises(ConfigError):
        AwsRole("us-east-1", "sns", clock, said)
