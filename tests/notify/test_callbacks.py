"""What providers tell is theirs, meant for us, of now, and unchanged; or it is nobody's."""

from __future__ import annotations

import asyncio
import base64
import datetime
import hashlib
import hmac
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import jwt
import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from gateway.core.clock import ManualClock
from gateway.core.contracts import Callback
from gateway.core.errors import Broken, UserError
from gateway.core.message import Report
from gateway.notify.fetched import fetched
from gateway.notify.topic import WAITING, Topic
from gateway.notify.twilio import TwilioCallback, signature
from gateway.notify.vonage import VonageCallback
from gateway.notify.webhook import WebhookCallback, signed

URL = "https://gate.example/.sallyport/callbacks/twilio"
ARN = "arn:aws:sns:eu-central-1:123456789012:gate"
CERT_URL = "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0123456789abcdef.pem"
HOOK_SECRET = b"s" * 32


async def broken(callback: Callback, headers: Mapping[str, str], body: bytes) -> None:
    with pytest.raises(Broken) as caught:
        await callback.read(headers, body)
    assert "secret" not in str(caught.value)


# -- Twilio ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "made"),
    [("+14158675309", b"RSOYDt4T1cUTdK1PDd93/VVr8B8="), ("+12349013030", b"0/KCTR6DLpKmkAf8muzZqo1nDgQ=")],
)
def test_the_examples_of_twilio(number: str, made: bytes) -> None:
    fields = [("CallSid", "CA1234567890ABCDE"), ("Caller", number), ("Digits", "1234"), ("From", number)]
    fields.append(("To", "+18005551212"))
    assert signature(b"12345", "https://mycompany.com/myapp.php?foo=1&bar=2", fields) == made


def twilio(status: str = "delivered", token: bytes = b"secret", url: str = URL) -> tuple[dict[str, str], bytes]:
    fields = [("MessageSid", "SM1"), ("MessageStatus", status), ("To", "+90530"), ("ErrorCode", "")]
    return {"X-Twilio-Signature": signature(token, url, fields).decode()}, urlencode(fields).encode()


async def test_twilio() -> None:
    callback = TwilioCallback(URL, "secret")
    assert await callback.read(*twilio()) == (Report("SM1", "delivered", "SM1/delivered"),)
    assert await callback.read(*twilio("failed")) == (Report("SM1", "undelivered", "SM1/undelivered"),)
    assert await callback.read(*twilio("sending")) == ()
    headers, body = twilio()
    await broken(callback, {}, body)
    await broken(callback, {"X-Twilio-Signature": "\udcff"}, body)
    await broken(callback, headers, body + b"&x=y")
    await broken(callback, headers, body.replace(b"delivered", b"failed"))
    await broken(callback, headers, b"\xff\xfe")
    await broken(callback, *twilio(token=b"secret2"))
    await broken(callback, *twilio(url=URL.replace("https", "http")))


# -- Vonage ------------------------------------------------------------------------------------------------------------


def vonage(now: float, body: bytes, *, secret: str = "v" * 64, alg: str = "HS256", **more: Any) -> dict[str, str]:
    """Signed by somebody else's implementation of JWT."""
    claims = {
        "iat": int(now), "jti": "j1", "iss": "Vonage", "api_key": "a1b2c3d4",
        "payload_hash": hashlib.sha256(body).hexdigest(), **more,
    }  # fmt: skip
    return {"Authorization": "Bearer " + jwt.encode(claims, secret if alg != "none" else None, algorithm=alg)}


async def test_vonage(clock: ManualClock) -> None:
    callback = VonageCallback("a1b2c3d4", "v" * 64, clock)
    body, now = orjson.dumps({"message_uuid": "u1", "status": "delivered", "to": "90530"}), clock.now()
    assert await callback.read(vonage(now, body), body) == (Report("u1", "delivered", "u1/delivered"),)
    for status, outcome in (("undeliverable", "undelivered"), ("rejected", "undelivered"), ("submitted", None)):
        told = orjson.dumps({"message_uuid": "u1", "status": status})
        reports = await callback.read(vonage(now, told), told)
        assert [report.outcome for report in reports] == ([outcome] if outcome else [])
    await broken(callback, {}, body)
    await broken(callback, {"Authorization": "Bearer a.b.c\udcff"}, body)
    await broken(callback, {"Authorization": "Bearer"}, body)
    await broken(callback, vonage(now, body), body + b" ")
    await broken(callback, vonage(now, body, secret="w" * 64), body)
    await broken(callback, vonage(now, body, alg="none"), body)
    await broken(callback, vonage(now, body, alg="HS512", secret="v" * 64), body)
    await broken(callback, vonage(now, body, api_key="somebody"), body)
    await broken(callback, vonage(now - 301, body), body)
    await broken(callback, vonage(now + 301, body), body)
    await broken(callback, vonage(now, b"[]"), b"[]")


async def test_vonage_reads_no_other_algorithm_that_the_secret_would_sign(clock: ManualClock) -> None:
    """The head says one, and the MAC is right: it is still not what they sign with."""
    callback, body = VonageCallback("a1b2c3d4", "v" * 64, clock), b"{}"
    token = vonage(clock.now(), body)["Authorization"].split(".")
    head = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
    said = f"{head}.{token[1]}"
    mac = base64.urlsafe_b64encode(hmac.digest(b"v" * 64, said.encode(), "sha256")).rstrip(b"=").decode()
    await broken(callback, {"Authorization": f"Bearer {said}.{mac}"}, body)


# -- a program of the operator's ---------------------------------------------------------------------------------------


async def test_webhook(clock: ManualClock) -> None:
    callback, now = WebhookCallback(HOOK_SECRET, clock), clock.now()
    body = b'{"id": "t1", "status": "bounced"}'
    good = signed(HOOK_SECRET, "w1", now, body)
    assert await callback.read(good, body) == (Report("t1", "bounced", "w1"),)
    several = good | {"webhook-signature": "v1,AAAA " + good["webhook-signature"]}
    assert await callback.read(several, body) == (Report("t1", "bounced", "w1"),)
    await broken(callback, {}, body)
    await broken(callback, good, body + b" ")
    await broken(callback, good | {"webhook-id": "w2"}, body)
    await broken(callback, good | {"webhook-timestamp": str(int(now) + 1)}, body)
    await broken(callback, good | {"webhook-timestamp": "9" * 400}, body)
    await broken(callback, good | {"webhook-signature": "v1,AAAA " * 6 + good["webhook-signature"]}, body)
    await broken(callback, signed(b"t" * 32, "w1", now, body), body)
    await broken(callback, signed(HOOK_SECRET, "w1", now - 301, body), body)
    await broken(callback, signed(HOOK_SECRET, "", now, body), body)
    for odd in (b"[]", b"{}", b'{"id": 1, "status": "bounced"}', b"\xff"):
        await broken(callback, signed(HOOK_SECRET, "w1", now, odd), odd)
    unheard = b'{"id": "t1", "status": "exploded"}'
    assert await callback.read(signed(HOOK_SECRET, "w1", now, unheard), unheard) == ()


# -- Amazon ------------------------------------------------------------------------------------------------------------


class Amazon:
    """Signs as SNS does, with a certificate of its own."""

    def __init__(self, now: float, kind: str = "rsa") -> None:
        self.now = now
        self._key = rsa.generate_private_key(65537, 2048) if kind == "rsa" else ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
        at = datetime.datetime.fromtimestamp(now, datetime.UTC)
        day = datetime.timedelta(days=1)
        made = x509.CertificateBuilder(name, name, self._key.public_key(), 1, at - day, at + day)
        self.pem = made.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)
        self.fetched: list[str] = []

    async def fetch(self, url: str) -> bytes:
        self.fetched.append(url)
        return self.pem

    def told(self, message: Any, *, after: Mapping[str, str] = {}, version: str = "2", **more: str) -> bytes:
        """A notification; `after` is changed once it is signed."""
        at = datetime.datetime.fromtimestamp(self.now, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        said = {
            "Type": "Notification", "MessageId": "m1", "TopicArn": ARN, "Message": orjson.dumps(message).decode(),
            "Timestamp": at, "SignatureVersion": version, "SigningCertURL": CERT_URL, **more,
        }  # fmt: skip
        names = ["Message", "MessageId", "Subject", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"]
        text = "".join(f"{name}\n{said[name]}\n" for name in names if name in said).encode()
        assert isinstance(self._key, rsa.RSAPrivateKey)
        algorithm = hashes.SHA256() if version == "2" else hashes.SHA1()
        made = self._key.sign(text, padding.PKCS1v15(), algorithm)
        return orjson.dumps({**said, "Signature": base64.b64encode(made).decode(), **after})


@pytest.fixture(scope="module")
def amazon() -> Amazon:
    return Amazon(ManualClock().now())


BOUNCE = {"eventType": "Bounce", "mail": {"messageId": "s1"}, "bounce": {"bounceType": "Permanent"}}


@pytest.mark.parametrize(
    ("message", "report"),
    [
        (BOUNCE, Report("s1", "bounced", "m1")),
        ({**BOUNCE, "bounce": {"bounceType": "Transient"}}, Report("s1", "undelivered", "m1")),
        ({**BOUNCE, "bounce": "odd"}, Report("s1", "undelivered", "m1")),
        ({"notificationType": "Complaint", "mail": {"messageId": "s1"}}, Report("s1", "complained", "m1")),
        ({"eventType": "Delivery", "mail": {"messageId": "s1"}}, Report("s1", "delivered", "m1")),
        ({"eventType": "Open", "mail": {"messageId": "s1"}}, None),
        ({"notification": {"messageId": "n1"}, "status": "SUCCESS"}, Report("n1", "delivered", "m1")),
        ({"notification": {"messageId": "n1"}, "status": "FAILURE"}, Report("n1", "undelivered", "m1")),
        ({"something": "else"}, None),
    ],
)
async def test_what_amazon_tells(
    amazon: Amazon, clock: ManualClock, message: dict[str, Any], report: Report | None
) -> None:
    topic = Topic(ARN, clock, certificate=amazon.pem)
    assert list(await topic.read({}, amazon.told(message, Subject="Amazon SES"))) == ([report] if report else [])


@pytest.mark.parametrize(
    "changed",
    [
        {"Message": "{}"},
        {"MessageId": "m2"},
        {"Subject": "added"},
        {"Timestamp": "2023-11-14T22:13:21.000Z"},
        {"Signature": "AAAA"},
        {"Signature": "not base64 \u00e9"},
        {"SignatureVersion": "1"},
        {"TopicArn": ARN + "2"},
        {"Type": "UnsubscribeConfirmation"},
        {"Type": "SubscriptionConfirmation"},
    ],
)
async def test_changed_on_the_way(amazon: Amazon, clock: ManualClock, changed: dict[str, str]) -> None:
    await broken(Topic(ARN, clock, certificate=amazon.pem), {}, amazon.told(BOUNCE, after=changed))


async def test_from_others_or_of_another_day(amazon: Amazon, clock: ManualClock) -> None:
    topic = Topic(ARN, clock, certificate=amazon.pem)
    await broken(topic, {}, amazon.told(BOUNCE, TopicArn=ARN + "2"))
    await broken(topic, {}, amazon.told(BOUNCE, version="1"))
    await broken(topic, {}, Amazon(clock.now()).told(BOUNCE))
    for odd in (b"", b"[]", b"{}", b"\xff", b"[" * 10_000):
        await broken(topic, {}, odd)
    body = amazon.told(BOUNCE)
    clock.advance(3599)
    await topic.read({}, body)
    clock.advance(2)
    await broken(topic, {}, body)
    clock.jump(-2 * 3600)
    await broken(topic, {}, body)
    with pytest.raises(ValueError):
        Topic(ARN, clock, certificate=b"none")


async def test_a_certificate_out_of_its_time_and_one_with_another_key(amazon: Amazon, clock: ManualClock) -> None:
    later = Amazon(clock.now() + 3 * 86_400)
    later.now = clock.now()
    await broken(Topic(ARN, clock, certificate=later.pem), {}, later.told(BOUNCE))
    await broken(Topic(ARN, clock, certificate=Amazon(clock.now(), "ec").pem), {}, amazon.told(BOUNCE))


async def test_the_certificate_is_fetched_once_and_from_nobody_else(amazon: Amazon, clock: ManualClock) -> None:
    amazon.fetched.clear()
    topic = Topic(ARN, clock, fetch=amazon.fetch)
    await topic.read({}, amazon.told(BOUNCE))
    await topic.read({}, amazon.told(BOUNCE))
    assert amazon.fetched == [CERT_URL]
    for url in (
        "http://sns.eu-central-1.amazonaws.com/SimpleNotificationService-1.pem",
        "https://sns.eu-central-1.amazonaws.com.evil.example/SimpleNotificationService-1.pem",
        "https://evil.example/https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-1.pem",
        "https://sns.eu-central-1.amazonaws.com:8443/SimpleNotificationService-1.pem",
        "https://sns.eu-central-1.amazonaws.com@evil.example/SimpleNotificationService-1.pem",
        "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-1.pem",
        "https://sns-eu-central-1xamazonaws.com/SimpleNotificationService-1.pem",
        "https://s3.eu-central-1.amazonaws.com/SimpleNotificationService-1.pem",
        "https://sns.eu-central-1.amazonaws.com/x.pem",
        "https://sns.eu-central-1.amazonaws.com/?Action=Publish&x=/SimpleNotificationService-1.pem?",
        "https://sns.eu-central-1.amazonaws.com/?Action=GetEndpointAttributes&x=/SimpleNotificationService-1.pem",
        "https://sns.eu-central-1.amazonaws.com/?/SimpleNotificationService-1.pem",
        "https://sns.eu-central-1.amazonaws.com/#/SimpleNotificationService-1.pem",
        "https://sns.eu-central-1.amazonaws.com/x/SimpleNotificationService-1.pem",
        "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-1.pem/..",
        "",
    ):
        await broken(topic, {}, amazon.told(BOUNCE, SigningCertURL=url))
    assert amazon.fetched == [CERT_URL]


async def test_what_cannot_be_fetched_is_left_alone_for_a_while(amazon: Amazon, clock: ManualClock) -> None:
    asked = []

    async def away(url: str) -> bytes:
        asked.append(url)
        if len(asked) == 1:
            raise OSError("away")
        return amazon.pem

    topic = Topic(ARN, clock, fetch=away)
    await broken(topic, {}, amazon.told(BOUNCE))
    await broken(topic, {}, amazon.told(BOUNCE))
    assert len(asked) == 1
    clock.advance(61)
    assert await topic.read({}, amazon.told(BOUNCE))


async def test_few_wait_for_certificates_that_somebody_makes_up(amazon: Amazon, clock: ManualClock) -> None:
    """Each would keep a connection to our pages for as long as the ones before it take."""
    asked, answers = list[str](), asyncio.Event()

    async def slow(url: str) -> bytes:
        asked.append(url)
        await answers.wait()
        if url != CERT_URL:
            raise OSError("not there")
        return amazon.pem

    topic = Topic(ARN, clock, fetch=slow)
    made_up = [CERT_URL.replace("0123", f"{number:04}") for number in range(WAITING)]
    async with asyncio.TaskGroup() as tasks:
        for url in made_up:
            tasks.create_task(broken(topic, {}, amazon.told(BOUNCE, SigningCertURL=url)))
        while not asked:
            await asyncio.sleep(0)
        with pytest.raises(UserError) as busy:
            await topic.read({}, amazon.told(BOUNCE))
        answers.set()
    assert (busy.value.code, busy.value.status) == ("ERR-BUSY", 503)
    assert busy.value.retry_after > 0
    assert asked == made_up
    assert await topic.read({}, amazon.told(BOUNCE)), "and afterwards all is well"


async def test_a_topic_that_asks_is_told_yes_and_no_other(amazon: Amazon, clock: ManualClock) -> None:
    amazon.fetched.clear()
    topic = Topic(ARN, clock, certificate=amazon.pem, fetch=amazon.fetch)
    url = "https://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn=x&Token=t"
    asks = {"Type": "SubscriptionConfirmation", "Token": "t"}
    assert await topic.read({}, amazon.told("You have chosen", SubscribeURL=url, **asks)) == ()
    assert amazon.fetched == [url]
    await broken(topic, {}, amazon.told("x", SubscribeURL="https://evil.example/", **asks))
    await broken(topic, {}, amazon.told("x", SubscribeURL=url, after={"Token": "u"}, **asks))
    await broken(topic, {}, amazon.told("x", SubscribeURL=url, TopicArn=ARN + "2", **asks))
    assert amazon.fetched == [url]


async def test_what_is_fetched_comes_whole_or_not_at_all() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/moved":
            return web.Response(status=302, headers={"Location": "/large"})
        stream = web.StreamResponse()
        await stream.prepare(request)
        for _ in range(2 if request.path == "/parts" else 40):
            await stream.write(b"x" * 4000)
        return stream

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    server = TestServer(app)
    await server.start_server()
    assert await fetched(str(server.make_url("/parts"))) == b"x" * 8000
    for path in ("/large", "/moved"):
        with pytest.raises(OSError):
            await fetched(str(server.make_url(path)))
    await server.close()
    with pytest.raises(OSError):
        await fetched("http://127.0.0.1:1/")
