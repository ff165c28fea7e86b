"""SMS by Twilio: Programmable Messaging, `POST …/Messages.json` (https://www.twilio.com/docs/messaging/api).

201 is a yes, and the `sid` in it what they will call the message. They ask not to be asked about error codes, which
change; so only the status decides, but for a recipient who has said STOP to this sender, which no other try will mend.
It has no key against doing a thing twice: what may have been taken over can come twice, with the same code in it.
"""

from __future__ import annotations

import base64
import hmac
import math
from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import parse_qsl, quote, urlencode

from gateway.core.errors import Broken
from gateway.core.message import Message, Outcome, Receipt, Report
from gateway.notify.api import Api

URL: Final = "https://api.twilio.com"
OUTCOMES: Final[Mapping[str, Outcome]] = {
    "delivered": "delivered",
    "undelivered": "undelivered",
    "failed": "undelivered",
}
"""Their words for an end; what is on its way has others."""
OPTED_OUT: Final = 21610
LONGEST: Final = 36_000
"""Seconds that a message may be kept by them."""


class TwilioSender:
    """A `Sender` of SMS."""

    name = "twilio"

    def __init__(
        self,
        account: str,
        token: str,
        *,
        sender: str,
        key: str = "",
        callback: str = "",
        url: str = URL,
        timeout: float = 10.0,
    ) -> None:
        """`account` is its SID, `token` its auth token; or, with `key`, the SID of an API key, the secret of that one.
        `sender`: a number, a name, or the SID of a messaging service.
        `callback`: where they tell what became of it; empty: nowhere.
        """
        self._api = Api(
            f"{url.rstrip('/')}/2010-04-01/Accounts/{quote(account, safe='')}/Messages.json", timeout=timeout
        )
        self._who = "Basic " + base64.b64encode(f"{key or account}:{token}".encode()).decode()
        self._sender = {"MessagingServiceSid" if sender.startswith("MG") and len(sender) == 34 else "From": sender}
        self._callback = {"StatusCallback": callback} if callback else {}

    async def send(self, message: Message) -> Receipt:
        """As the contract says."""
        form = {"To": message.to, "Body": message.text, **self._sender, **self._callback}
        if message.useful:
            form["ValidityPeriod"] = str(min(LONGEST, max(1, math.ceil(message.useful))))
        headers = {"Authorization": self._who, "Content-Type": "application/x-www-form-urlencoded"}
        answer = await self._api.post(urlencode(form).encode(), headers)
        if answer.yes:
            return Receipt(str(answer.said.get("sid", "")))
        code = answer.said.get("code")
        known = code if isinstance(code, int) else 0
        raise answer.refusal(str(known) if known else "", final=True if known == OPTED_OUT else None)

    async def close(self) -> None:
        """Let go of connections."""
        await self._api.close()


class TwilioCallback:
    """A `Callback`: what became of a message, as they post it to `StatusCallback`
    (https://www.twilio.com/docs/usage/security#validating-requests).

    The signature is an HMAC over the URL as they know it and every field, in base64. It has no time in it: what they
    said once is recognised by whoever keeps it.
    """

    def __init__(self, url: str, token: str) -> None:
        """`url` is where they post to, from the configuration alone; `token` the account's auth token."""
        self._url = url
        self._token = token.encode()

    async def read(self, headers: Mapping[str, str], body: bytes) -> Sequence[Report]:
        """As the contract says."""
        try:
            fields = parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=True, max_num_fields=200)
        except ValueError:
            raise Broken("not a form") from None
        given = headers.get("X-Twilio-Signature", "")
        if not hmac.compare_digest(given.encode(errors="replace"), signature(self._token, self._url, fields)):
            raise Broken("not signed by them")
        told = dict(fields)
        outcome = OUTCOMES.get(told.get("MessageStatus", ""))
        if outcome is None:
            return ()
        reference = told.get("MessageSid", "")
        return (Report(reference, outcome, f"{reference}/{outcome}"),)


def signature(token: bytes, url: str, fields: Sequence[tuple[str, str]]) -> bytes:
    """What Twilio signs a request with."""
    said = url + "".join(name + value for name, value in sorted(set(fields)))
    return base64.b64encode(hmac.digest(token, said.encode(), "sha1"))
