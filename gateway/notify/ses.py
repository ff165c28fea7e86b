"""E-mail by Amazon SES, API v2 (https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendEmail.html).

Signed with SigV4. The `MessageId` of the answer is what they will call the message when they tell of bounces. Refusals
that are about our account (`ABOUT_US`) come with 400 as well as those about the message.
"""

from __future__ import annotations

from typing import Final

import orjson

from gateway.core.clock import Clock
from gateway.core.errors import Undelivered
from gateway.core.message import Message, Receipt
from gateway.notify.api import Api
from gateway.notify.sigv4 import Keys, signed

ABOUT_US: Final = frozenset(
    {
        "AccountSuspendedException",
        "SendingPausedException",
        "MailFromDomainNotVerifiedException",
        "LimitExceededException",
        "TooManyRequestsException",
    }
)


class SesSender:
    """A `Sender` of e-mail."""

    name = "ses"

    def __init__(
        self,
        keys: Keys,
        clock: Clock,
        *,
        sender: str,
        configuration_set: str = "",
        url: str = "",
        timeout: float = 10.0,
    ) -> None:
        """`sender` is what the `From` header says; `configuration_set` names where bounces are published."""
        self._keys = keys
        self._clock = clock
        self._sender = sender
        self._set = {"ConfigurationSetName": configuration_set} if configuration_set else {}
        base = url or f"https://email.{keys.region}.amazonaws.com"
        self._api = Api(f"{base.rstrip('/')}/v2/email/outbound-emails", timeout=timeout)

    async def send(self, message: Message) -> Receipt:
        """As the contract says."""
        if not message.subject.isprintable():
            raise Undelivered("a subject is one line", final=True)
        body = orjson.dumps(
            {
                "FromEmailAddress": self._sender,
                "Destination": {"ToAddresses": [message.to]},
                "Content": {
                    "Simple": {
                        "Subject": {"Data": message.subject, "Charset": "UTF-8"},
                        "Body": {
                            "Text": {"Data": message.text, "Charset": "UTF-8"},
                            "Html": {"Data": message.html, "Charset": "UTF-8"},
                        },
                        "Headers": [{"Name": "Auto-Submitted", "Value": "auto-generated"}],
                    }
                },
                **self._set,
            }
        )
        headers = {"Content-Type": "application/json"}
        keys = await self._keys.current()
        answer = await self._api.post(body, signed(keys, "POST", self._api.url, headers, body, self._clock.now()))
        if answer.yes:
            return Receipt(str(answer.said.get("MessageId", "")))
        kind = answer.headers.get("x-amzn-ErrorType", "").partition(":")[0]
        code = kind if kind.isascii() and kind.isalpha() and len(kind) <= 64 else ""
        raise answer.refusal(code, final=False if code in ABOUT_US else None)

    async def close(self) -> None:
        """Let go of connections."""
        await self._api.close()
