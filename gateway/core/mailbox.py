"""What two spellings of an address have in common: limits count by it, and who wants no mail is left alone by it.

Most hosts know no case, and deliver what stands behind a `+` into the same mailbox (RFC 5233 calls it detail). Those
that do tell them apart lose little: their users share a limit, and a complaint. What is written to somebody goes to the
address as they have spelled it (RFC 5321, 2.4: what is before the `@` belongs to its host).
"""

from __future__ import annotations


def mailbox(address: str) -> str:
    """Where what is sent to `address` comes together; a number is itself."""
    local, at, host = address.rpartition("@")
    return f"{local.partition('+')[0]}@{host}".casefold() if at else address
