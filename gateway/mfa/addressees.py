"""To whom a message went, kept so that the database does not tell.

An address is in clear only while a message waits for it. Once that is settled there are left

    target     masked, for whoever looks after it: `a***@example.com`
    whose      a MAC, by which messages to one address are counted together
    address    sealed and bound to its row, for the one thing that has to know it: that it bounced

for the week in which somebody may tell what became of it. After a new master key counting begins anew, and what the old
one sealed is waited for (`mfa.sealed`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.core.mailbox import mailbox
from gateway.crypto.mac import Mac
from gateway.crypto.sealing import Sealer, Unsealable
from gateway.mfa.codes.masked import masked_email, masked_number


class Addressees:
    """`store.outbox_table.Addressees`, under our keys."""

    def __init__(self, sealer: Sealer, mac: Mac) -> None:
        self._sealer = sealer
        self._mac = mac

    def whose(self, channel: str, address: str) -> str:
        """One mark for one mailbox or number, whoever of which tenant it belongs to."""
        return self._mac.token("outbox-address", channel, mailbox(address))

    def kept(self, tenant: str, token: str, channel: str, address: str) -> Mapping[str, Any]:
        """What stands for it in the row of `tenant` that is called `token`: masked, marked, and sealed into it."""
        return {
            "target": masked_number(address) if channel == "sms" else masked_email(address),
            "whose": self.whose(channel, address),
            "address": self._sealer.seal(address.encode(), **_place(tenant, token)),
        }

    def open(self, tenant: str, token: str, sealed: bytes) -> str:
        """What was sealed there; empty where it does not open: the key is gone, or it was moved."""
        try:
            return self._sealer.unseal(sealed, **_place(tenant, token)).decode()
        except Unsealable:
            return ""


def _place(tenant: str, token: str) -> dict[str, str]:
    return {"table": "outbox", "column": "address", "row": f"{tenant}/{token}"}
