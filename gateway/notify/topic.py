"""What Amazon tells through a topic of SNS: bounces and complaints of SES, deliveries of SMS
(https://docs.aws.amazon.com/sns/latest/dg/sns-verify-signature-of-message.html).

- Signed with SHA-256 (`SignatureVersion` 2, an attribute of the topic): the older way signs SHA-1 and is not read.
- The certificate is fetched from where the message says, which has to be the path of one at SNS of the topic's region,
  over TLS. So nobody can have us ask anybody else; nor have SNS, which answers questions of everybody at the same host,
  say what they have put there. It is kept; what could not be fetched is not asked for again for a while. Few wait for
  one at a time: whoever makes up messages makes up certificates, and would keep our pages busy with waiting.
- Only the topic of the configuration is heard, and nothing older than an hour, which is how long they try again.
- A topic asks once whether we want to hear it; that is answered by visiting the URL they give, of the same kind.
"""

from __future__ import annotations

import asyncio
import logging
import re
from base64 import b64decode
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256

from gateway.core.clock import Clock
from gateway.core.errors import Broken, UserError
from gateway.core.message import Outcome, Report
from gateway.notify.fetched import fetched
from gateway.notify.reported import json_object

FRESH: Final = 3600.0
"""Seconds."""
AHEAD: Final = 300.0
"""Seconds that their clock may be ahead of ours."""
REST: Final = 60.0
"""Seconds before a certificate that could not be fetched is asked for again."""
MOST: Final = 16
"""Certificates remembered, and as many that could not be fetched."""
WAITING: Final = 16
"""Messages that wait for a certificate; further ones are told to come again, which SNS does after a 5xx."""
SIGNED: Final[Mapping[str, tuple[str, ...]]] = {
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    "SubscriptionConfirmation": ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
}

SMS: Final[Mapping[str, Outcome]] = {"SUCCESS": "delivered", "FAILURE": "undelivered"}
"""Words of the delivery logs of SMS."""

Fetch = Callable[[str], Awaitable[bytes]]
"""What is at a URL. Raises OSError."""

T = TypeVar("T")

_log = logging.getLogger("sallyport.notify")


class Topic:
    """A `Callback`."""

    def __init__(self, arn: str, clock: Clock, *, certificate: bytes | None = None, fetch: Fetch | None = None) -> None:
        """`arn` of the topic. `certificate` (PEM) is what they sign with, where it is known; else it is fetched.

        Raises ValueError for a certificate that is none.
        """
        self._arn = arn
        self._clock = clock
        region = re.escape(arn.split(":")[3])
        theirs = rf"https://sns\.{region}\.amazonaws\.com(\.cn)?/"
        self._theirs = re.compile(theirs + r"[^\s@\\]*")
        self._certificates = re.compile(theirs + r"SimpleNotificationService-[A-Za-z0-9]{1,64}\.pem")
        self._pinned = x509.load_pem_x509_certificate(certificate) if certificate is not None else None
        self._fetch = fetch or fetched
        self._known: dict[str, x509.Certificate] = {}
        self._failed: dict[str, float] = {}
        """Until when each is left alone."""
        self._fetching = asyncio.Lock()
        self._waiting = 0

    async def read(self, headers: Mapping[str, str], body: bytes) -> Sequence[Report]:
        """As the contract says."""
        told = json_object(body)
        names = SIGNED.get(str(told.get("Type")))
        if names is None or told.get("TopicArn") != self._arn or told.get("SignatureVersion") != "2":
            raise Broken("not of our topic, or not signed as it should be")
        age = self._clock.now() - _time(str(told.get("Timestamp", "")))
        if not -AHEAD <= age <= FRESH:
            raise Broken("not now")
        said = "".join(f"{name}\n{told[name]}\n" for name in names if isinstance(told.get(name), str))
        await self._demand_signed(said.encode(), str(told.get("Signature", "")), str(told.get("SigningCertURL", "")))
        if told["Type"] == "SubscriptionConfirmation":
            await self._subscribe(str(told.get("SubscribeURL", "")))
            return ()
        return reports(json_object(str(told.get("Message", "")).encode()), str(told["MessageId"]))

    async def _demand_signed(self, said: bytes, signature: str, url: str) -> None:
        certificate = self._pinned or await self._certificate(url)
        now = datetime.fromtimestamp(self._clock.now(), UTC)
        if certificate is None or not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
            raise Broken("no certificate of theirs")
        public = certificate.public_key()
        try:
            if not isinstance(public, RSAPublicKey):
                raise Broken("no key of theirs")
            public.verify(b64decode(signature, validate=True), said, PKCS1v15(), SHA256())
        except (InvalidSignature, ValueError):
            raise Broken("not signed by them") from None

    async def _certificate(self, url: str) -> x509.Certificate | None:
        if not self._certificates.fullmatch(url):
            return None
        if url in self._known:  # whoever makes us fetch what is not there keeps nobody else
            return self._known[url]
        if self._waiting >= WAITING:
            raise UserError("ERR-BUSY", "Too many messages wait to be looked at.", 503, REST)
        self._waiting += 1
        try:
            async with self._fetching:
                return await self._fetched(url)
        finally:
            self._waiting -= 1

    async def _fetched(self, url: str) -> x509.Certificate | None:
        if url in self._known or self._clock.monotonic() < self._failed.get(url, 0.0):
            return self._known.get(url)
        try:
            found = x509.load_pem_x509_certificate(await self._fetch(url))
        except (OSError, ValueError) as error:
            _log.error("the certificate of %s cannot be fetched: %s", self._arn, type(error).__name__)
            _remember(self._failed, url, self._clock.monotonic() + REST)
            return None
        _remember(self._known, url, found)
        return found

    async def _subscribe(self, url: str) -> None:
        if not self._theirs.fullmatch(url):
            raise Broken("not a URL of theirs")
        try:
            await self._fetch(url)
        except OSError as error:
            raise Broken("they do not answer") from error
        _log.info("%s tells us now", self._arn)


def reports(news: Mapping[str, Any], key: str) -> Sequence[Report]:
    """What `news` says: an event or notification of SES, or a delivery log of SNS."""
    kind = news.get("eventType", news.get("notificationType"))
    outcome: Outcome | None = None
    if kind is not None:
        reference = str(_inner(news, "mail").get("messageId", ""))
        if kind == "Delivery":
            outcome = "delivered"
        elif kind == "Complaint":
            outcome = "complained"
        elif kind == "Bounce":
            outcome = "bounced" if _inner(news, "bounce").get("bounceType") == "Permanent" else "undelivered"
        elif kind in ("Reject", "Rendering Failure"):
            outcome = "undelivered"
    else:
        reference = str(_inner(news, "notification").get("messageId", ""))
        outcome = SMS.get(str(news.get("status")))
    return () if outcome is None else (Report(reference, outcome, key),)


def _remember(what: dict[str, T], url: str, value: T) -> None:
    while len(what) >= MOST:
        what.pop(next(iter(what)))
    what[url] = value


def _inner(news: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = news.get(name)
    return found if isinstance(found, dict) else {}


def _time(text: str) -> float:
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise Broken("not a time") from None
