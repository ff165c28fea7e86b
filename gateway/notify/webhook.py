"""Any carrier behind a URL: one POST of JSON for each message, signed as Standard Webhooks 1.0 says.

    webhook-id         the message's, the same at each try: whoever has seen it answers 2xx and does nothing
    webhook-timestamp  seconds since the epoch
    webhook-signature  v1,base64(HMAC-SHA-256(secret, id.timestamp.body))

2xx is yes; an `id` in a JSON object that comes with it is what they will call the message, else it is called as we do.
408, 425, 429 and 5xx are "not now" (`Retry-After` in seconds is obeyed), everything else is no; redirects are not
followed.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping, Sequence
from pathlib import Path

import orjson

from gateway.core.clock import Clock
from gateway.core.errors import Broken
from gateway.core.message import Message, Outcome, Receipt, Report
from gateway.notify.api import Api

FRESH = 300.0
"""Seconds that what is signed may be old, or clocks differ."""
MOST_SIGNATURES = 5
"""Several may be given while a secret is replaced."""
OUTCOMES: Mapping[str, Outcome] = {
    "delivered": "delivered",
    "undelivered": "undelivered",
    "bounced": "bounced",
    "complained": "complained",
}
NOT_NOW = frozenset({408, 425, 429})


class WebhookSender:
    """A `Sender` to `url`. Raises `ConfigError` for authorities that cannot be read."""

    def __init__(
        self, url: str, secret: bytes, clock: Clock, *, channel: str, ca: Path | None = None, timeout: float = 10.0
    ) -> None:
        """`timeout`: seconds in all for one message."""
        self.name = "webhook" if channel == "email" else f"{channel}-webhook"
        self._api = Api(url, timeout=timeout, ca=ca)
        self._secret = secret
        self._clock = clock
        self._channel = channel

    async def send(self, message: Message) -> Receipt:
        """As the contract says."""
        body = orjson.dumps(
            {
                "id": message.id,
                "channel": self._channel,
                "kind": message.kind,
                "to": message.to,
                "subject": message.subject,
                "text": message.text,
                "html": message.html,
            }
        )
        headers = {"Content-Type": "application/json", **signed(self._secret, message.id, self._clock.now(), body)}
        answer = await self._api.post(body, headers)
        if answer.yes:
            return Receipt(str(answer.said.get("id", ""))[:128] or message.id)
        raise answer.refusal(final=answer.status < 500 and answer.status not in NOT_NOW)

    async def close(self) -> None:
        """Close what is kept open."""
        await self._api.close()


def signed(secret: bytes, token: str, now: float, body: bytes) -> dict[str, str]:
    """The three headers of Standard Webhooks for `body`."""
    at = str(int(now))
    mac = hmac.digest(secret, b".".join((token.encode(errors="replace"), at.encode(), body)), "sha256")
    return {
        "webhook-id": token,
        "webhook-timestamp": at,
        "webhook-signature": f"v1,{base64.b64encode(mac).decode()}",
    }


class WebhookCallback:
    """A `Callback` of the same program: JSON with `id` (as it called the message) and `status` (an `Outcome`), signed
    in the same way with the same secret.
    """

    def __init__(self, secret: bytes, clock: Clock) -> None:
        self._secret = secret
        self._clock = clock

    async def read(self, headers: Mapping[str, str], body: bytes) -> Sequence[Report]:
        """As the contract says."""
        token, at = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
        made = float(at) if at.isascii() and at.isdigit() and len(at) < 16 else 0.0
        right = signed(self._secret, token, made, body)["webhook-signature"].encode()
        good = False
        for given in headers.get("webhook-signature", "").split(" ")[:MOST_SIGNATURES]:
            good |= hmac.compare_digest(given.encode(errors="replace"), right)
        if not good or not token or abs(self._clock.now() - made) > FRESH:
            raise Broken("not signed by them, or not now")
        try:
            news = orjson.loads(body)
        except orjson.JSONDecodeError:
            news = None
        if not isinstance(news, dict) or not isinstance(news.get("id"), str):
            raise Broken("not an object with an id")
        outcome = OUTCOMES.get(str(news.get("status", "")))
        return () if outcome is None else (Report(news["id"], outcome, token),)
