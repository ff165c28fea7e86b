"""SMS by Vonage: the Messages API, `POST /v1/messages` (https://developer.vonage.com/en/api/messages).

202 is a yes, and the `message_uuid` in it what they will call the message. 402 (no credit) and 401 are about us, 422 is
about the message. They ask that no message is given less than half an hour to arrive, so a code may come too late.
"""

from __future__ import annotations

import hmac
import math
from base64 import b64encode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Final

import orjson

from gateway.core.clock import Clock
from gateway.core.errors import Broken
from gateway.core.message import Message, Outcome, Receipt, Report
from gateway.notify.api import Api
from gateway.notify.reported import json_object

URL: Final = "https://api.nexmo.com"
OUTCOMES: Final[Mapping[str, Outcome]] = {
    "delivered": "delivered",
    "undeliverable": "undelivered",
    "rejected": "undelivered",
}
"""Their words for an end; what is on its way has others."""
FRESH: Final = 300.0
"""Seconds that a token may be old, or clocks differ."""
LEAST: Final = 1800
"""Seconds that a message has to be given."""


class VonageSender:
    """A `Sender` of SMS."""

    name = "vonage"

    def __init__(
        self, key: str, secret: str, *, sender: str, callback: str = "", url: str = URL, timeout: float = 10.0
    ) -> None:
        """`key` and `secret` are those of the API. `sender`: a number or a name. `callback`: where they tell what
        became of it; empty: where their account says.
        """
        self._api = Api(f"{url.rstrip('/')}/v1/messages", timeout=timeout)
        self._who = "Basic " + b64encode(f"{key}:{secret}".encode()).decode()
        self._sender = sender.removeprefix("+")
        self._callback = {"webhook_url": callback, "webhook_version": "v1"} if callback else {}

    async def send(self, message: Message) -> Receipt:
        """As the contract says."""
        body: dict[str, object] = {
            "message_type": "text",
            "channel": "sms",
            "to": message.to.removeprefix("+"),
            "from": self._sender,
            "text": message.text,
            "client_ref": message.id,
            **self._callback,
        }
        if message.useful:
            body["ttl"] = max(LEAST, math.ceil(message.useful))
        headers = {"Authorization": self._who, "Content-Type": "application/json", "Accept": "application/json"}
        answer = await self._api.post(orjson.dumps(body), headers)
        if answer.yes:
            return Receipt(str(answer.said.get("message_uuid", "")))
        raise answer.refusal()

    async def close(self) -> None:
        """Let go of connections."""
        await self._api.close()


class VonageCallback:
    """A `Callback`: what became of a message, as a signed webhook
    (https://developer.vonage.com/en/getting-started/concepts/webhooks#decoding-signed-webhooks).

    A JWT in `Authorization`, HS256 under the signature secret of the account, has the SHA-256 of the body and when it
    was made. No other algorithm is read.
    """

    def __init__(self, key: str, secret: str, clock: Clock) -> None:
        """`key` is the API's; `secret` the signature secret."""
        self._key = key
        self._secret = secret.encode()
        self._clock = clock

    async def read(self, headers: Mapping[str, str], body: bytes) -> Sequence[Report]:
        """As the contract says."""
        scheme, _, token = headers.get("Authorization", "").partition(" ")
        said, _, given = token.rpartition(".")
        right = urlsafe_b64encode(hmac.digest(self._secret, said.encode(errors="replace"), "sha256")).rstrip(b"=")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.encode(errors="replace"), right):
            raise Broken("not signed by them")
        head, _, claims = said.partition(".")
        kind, told = json_object(_decoded(head)), json_object(_decoded(claims))
        made = told.get("iat")
        if (
            kind.get("alg") != "HS256"
            or not hmac.compare_digest(str(told.get("payload_hash", "")).encode(), sha256(body).hexdigest().encode())
            or told.get("api_key") != self._key
            or not isinstance(made, int | float)
            or not abs(self._clock.now() - made) <= FRESH
        ):
            raise Broken("not meant for us, or not now")
        news = json_object(body)
        outcome = OUTCOMES.get(str(news.get("status", "")))
        if outcome is None:
            return ()
        reference = str(news.get("message_uuid", ""))
        return (Report(reference, outcome, f"{reference}/{outcome}"),)


def _decoded(part: str) -> bytes:
    try:
        return urlsafe_b64decode(part.encode() + b"=" * (-len(part) % 4))
    except ValueError:
        raise Broken("not a token") from None
