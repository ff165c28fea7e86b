"""Providers of messages as they document themselves: HTTP servers that check what they are asked, and can misbehave.

`PROVIDERS` makes a `Sender` to each, for whatever must hold of all of them.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import orjson
from aiohttp import web
from aiohttp.test_utils import TestServer

from gateway.core.clock import Clock
from gateway.core.contracts import Sender
from gateway.notify.ses import SesSender
from gateway.notify.sigv4 import AwsKeys, signed
from gateway.notify.sns import SnsSender
from gateway.notify.twilio import TwilioSender
from gateway.notify.vonage import VonageSender
from gateway.notify.webhook import WebhookSender

ACCOUNT, TOKEN = "AC" + "1" * 32, "twilio-token"
API_KEY, API_SECRET = "SK" + "3" * 32, "twilio-key-secret"
KEY, SECRET = "a1b2c3d4", "vonage-secret"
AWS_KEY, AWS_SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
HOOK_SECRET = b"s" * 32
NUMBER = "+905301234567"


@dataclass
class Asked:
    """One request that was taken over."""

    to: str
    text: str
    fields: dict[str, Any]
    reference: str


@dataclass
class Provider:
    """Takes messages into `box`, or does what it was told to: a status, with headers and a body of its own."""

    clock: Clock
    url: str = ""
    box: list[Asked] = field(default_factory=list)
    answers: list[tuple[int, dict[str, str], bytes]] = field(default_factory=list)
    asked: int = 0
    late: float = 0.0
    """Seconds before an answer."""
    cut: bool = False
    """Take it over, and hang up without a word."""
    drip: bool = False
    """Say yes, and never end the body."""
    flood: bool = False
    """Say yes with a body without an end."""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        body = await request.read()
        if self.answers:
            status, headers, said = self.answers.pop(0)
            return web.Response(status=status, headers=headers, body=said)
        assert not request.headers.get("Cookie")
        answer = self.take(request, body)
        if answer.status < 300 and self.cut and request.transport is not None:
            request.transport.abort()
        if self.late:
            await asyncio.sleep(self.late)
        if self.drip or self.flood:
            stream = web.StreamResponse(status=answer.status)
            await stream.prepare(request)
            try:
                for _ in itertools.count() if self.flood else range(1):
                    await stream.write(b"{" * 65_536)
                await asyncio.sleep(30)
            except (ConnectionError, asyncio.CancelledError):
                pass
            return stream
        return answer

    def take(self, request: web.Request, body: bytes) -> web.Response:
        raise NotImplementedError

    def sender(self, **more: Any) -> Sender:
        raise NotImplementedError

    def refused(self) -> tuple[int, dict[str, str], bytes]:
        """What it says to a message it will never take."""
        raise NotImplementedError

    def keep(self, to: str, text: str, fields: dict[str, Any], reference: str) -> None:
        self.box.append(Asked(to, text, fields, reference))


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


class Twilio(Provider):
    def take(self, request: web.Request, body: bytes) -> web.Response:
        if request.path != f"/2010-04-01/Accounts/{ACCOUNT}/Messages.json":
            return web.json_response({"code": 20404, "status": 404}, status=404)
        if request.headers.get("Authorization") not in (basic(ACCOUNT, TOKEN), basic(API_KEY, API_SECRET)):
            return web.json_response({"code": 20003, "message": "Authenticate", "status": 401}, status=401)
        form = {name: values[0] for name, values in parse_qs(body.decode(), strict_parsing=True).items()}
        sid = f"SM{len(self.box):032x}"
        self.keep(form["To"], form["Body"], form, sid)
        return web.json_response({"sid": sid, "status": "queued", "error_code": None}, status=201)

    def sender(self, **more: Any) -> Sender:
        values: dict[str, Any] = {"sender": "+15005550006", "url": self.url, "timeout": 3.0, **more}
        return TwilioSender(values.pop("account", ACCOUNT), values.pop("token", TOKEN), **values)

    def refused(self) -> tuple[int, dict[str, str], bytes]:
        said = {"code": 21211, "message": f"The 'To' number {NUMBER} is not valid", "status": 400}
        return 400, {}, orjson.dumps(said)


class Vonage(Provider):
    def take(self, request: web.Request, body: bytes) -> web.Response:
        if request.path != "/v1/messages":
            return web.json_response({"title": "Not found"}, status=404)
        if request.headers.get("Authorization") != basic(KEY, SECRET):
            return web.json_response({"title": "You did not provide correct credentials."}, status=401)
        asked = orjson.loads(body)
        if asked["to"].startswith("+") or asked["from"].startswith("+") or asked["channel"] != "sms":
            return web.json_response({"title": "Your request parameters did not validate"}, status=422)
        uuid = f"aaaaaaaa-bbbb-4ccc-8ddd-{len(self.box):012x}"
        self.keep("+" + asked["to"], asked["text"], asked, uuid)
        return web.json_response({"message_uuid": uuid}, status=202)

    def sender(self, **more: Any) -> Sender:
        values: dict[str, Any] = {"sender": "+447700900001", "url": self.url, "timeout": 3.0, **more}
        return VonageSender(values.pop("key", KEY), values.pop("secret", SECRET), **values)

    def refused(self) -> tuple[int, dict[str, str], bytes]:
        return 422, {}, orjson.dumps({"title": "Invalid", "detail": f"{NUMBER} is not a number"})


class Aws(Provider):
    service = ""

    def keys(self, secret: str = AWS_SECRET) -> AwsKeys:
        return AwsKeys(AWS_KEY, secret, "us-east-1", self.service)

    def is_signed(self, request: web.Request, body: bytes) -> bool:
        """Signed by whoever has the secret, over these headers and this body, now."""
        given = request.headers["Authorization"]
        names = given.partition("SignedHeaders=")[2].partition(",")[0].split(";")
        headers = {name: request.headers[name] for name in names if name not in ("host", "x-amz-date")}
        assert {"content-type", "host", "x-amz-date"} <= set(names)
        again = signed(self.keys(), request.method, str(request.url), headers, body, self.clock.now())
        return hmac.compare_digest(again["authorization"], given)


class Sns(Aws):
    service = "sns"

    def take(self, request: web.Request, body: bytes) -> web.Response:
        if not self.is_signed(request, body):
            return web.Response(status=403, body=_xml("SignatureDoesNotMatch"), content_type="text/xml")
        form = {name: values[0] for name, values in parse_qs(body.decode(), strict_parsing=True).items()}
        if (form["Action"], form["Version"]) != ("Publish", "2010-03-31"):
            return web.Response(status=400, body=_xml("InvalidAction"), content_type="text/xml")
        number = f"567910cd-659e-55d4-8ccb-{len(self.box):012x}"
        self.keep(form["PhoneNumber"], form["Message"], form, number)
        said = (
            '<PublishResponse xmlns="https://sns.amazonaws.com/doc/2010-03-31/"><PublishResult>'
            f"<MessageId>{number}</MessageId></PublishResult><ResponseMetadata>"
            "<RequestId>d74b8436-ae13-5ab4-a9ff-ce54dfea72a0</RequestId></ResponseMetadata></PublishResponse>"
        )
        return web.Response(body=said.encode(), content_type="text/xml")

    def sender(self, **more: Any) -> Sender:
        values: dict[str, Any] = {"sender": "Gate", "url": self.url + "/", "timeout": 3.0, **more}
        return SnsSender(self.keys(values.pop("secret", AWS_SECRET)), self.clock, **values)

    def refused(self) -> tuple[int, dict[str, str], bytes]:
        return 400, {}, _xml("InvalidParameter")


class Ses(Aws):
    service = "ses"

    def take(self, request: web.Request, body: bytes) -> web.Response:
        if not self.is_signed(request, body):
            return web.json_response({}, status=403, headers={"x-amzn-ErrorType": "SignatureDoesNotMatchException"})
        if request.path != "/v2/email/outbound-emails":
            return web.json_response({}, status=404, headers={"x-amzn-ErrorType": "UnknownOperationException"})
        asked = orjson.loads(body)
        number = f"0100017{len(self.box):x}-000000"
        (to,) = asked["Destination"]["ToAddresses"]
        self.keep(to, asked["Content"]["Simple"]["Body"]["Text"]["Data"], asked, number)
        return web.json_response({"MessageId": number})

    def sender(self, **more: Any) -> Sender:
        values: dict[str, Any] = {"sender": "Gate <gate@good.test>", "url": self.url, "timeout": 3.0, **more}
        return SesSender(self.keys(values.pop("secret", AWS_SECRET)), self.clock, **values)

    def refused(self) -> tuple[int, dict[str, str], bytes]:
        said = orjson.dumps({"message": f"Address {NUMBER} blacklisted"})
        return 400, {"x-amzn-ErrorType": "MessageRejected:http://internal.amazon.com/"}, said


class Hook(Provider):
    """A program that takes what we post, signed as Standard Webhooks says, and gives one id away only once."""

    def take(self, request: web.Request, body: bytes) -> web.Response:
        token, at = request.headers["webhook-id"], request.headers["webhook-timestamp"]
        mac = hmac.digest(HOOK_SECRET, f"{token}.{at}.".encode() + body, "sha256")
        if request.headers["webhook-signature"] != "v1," + base64.b64encode(mac).decode():
            return web.Response(status=401)
        asked = orjson.loads(body)
        if token not in [each.reference for each in self.box]:
            self.keep(asked["to"], asked["text"], asked, token)
        return web.Response(status=202)

    def sender(self, **more: Any) -> Sender:
        values: dict[str, Any] = {"channel": "sms", "timeout": 3.0, **more}
        secret = values.pop("secret", HOOK_SECRET)
        return WebhookSender(f"{self.url}/hook", secret, self.clock, **values)

    def refused(self) -> tuple[int, dict[str, str], bytes]:
        return 400, {}, b""


def _xml(code: str) -> bytes:
    return (
        '<ErrorResponse xmlns="https://sns.amazonaws.com/doc/2010-03-31/"><Error><Type>Sender</Type>'
        f"<Code>{code}</Code><Message>{NUMBER} cannot be</Message></Error></ErrorResponse>"
    ).encode()


PROVIDERS: dict[str, type[Provider]] = {"twilio": Twilio, "vonage": Vonage, "sns": Sns, "ses": Ses, "webhook": Hook}


@asynccontextmanager
async def provider(name: str, clock: Clock) -> AsyncIterator[Provider]:
    """One of them, on a port of its own."""
    rig = PROVIDERS[name](clock)
    app = web.Application()
    handle: Callable[[web.Request], Awaitable[web.StreamResponse]] = rig.handle
    app.router.add_post("/{path:.*}", handle)
    server = TestServer(app)
    await server.start_server()
    rig.url = str(server.make_url("/")).rstrip("/")
    try:
        yield rig
    finally:
        await server.close()
