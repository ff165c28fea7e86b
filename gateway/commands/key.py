"""`sallyport key`: the keys that sign assertions, and those that seal what is kept.

Rotation makes a file; when its key is used, and when the one before it is published no more, follows from the clock. So
a running gateway needs no command of its own, it reads the folder every second.

`key rotate` alone rotates a signing key, as it did before master keys could be rotated: a script that calls it every
month must not begin to seal a database anew.
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from gateway.commands.common import add_config, add_json, as_json, as_table, when
from gateway.commands.opened import opened

if TYPE_CHECKING:
    from gateway.crypto.keys import KeyRing
    from gateway.crypto.signing import Standing
    from gateway.settings import Settings


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `key` to the command line."""
    parser = subparsers.add_parser(
        "key",
        help="list, rotate and retire keys",
        description="The keys that sign assertions, and the master keys that seal what is kept. A running gateway sees "
        "a new one within a second.",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    listing = actions.add_parser("list", help="show every key, what it is doing, and what still needs an old one")
    add_config(listing)
    add_json(listing)

    rotating = actions.add_parser(
        "rotate",
        help="publish a new key, and use it after a while",
        description="Publish a new key now and use it after the overlap. signing: services have fetched it before they "
        "need it, and the key before it stays published until everything it signed has expired. master: every gateway "
        "has read it before any of them seals with it; then every secret is sealed anew. A rotation of the master key "
        "that was broken off goes on where it was, instead of another one.",
    )
    rotating.add_argument(
        "what", nargs="?", choices=("signing", "master"), default="signing", help="which key (default: %(default)s)"
    )
    rotating.add_argument(
        "--overlap",
        metavar="DURATION",
        help="how long it is published before it is used (default: 5m for signing, 2m for master). 0s, signing: "
        "services that keep a key set refuse assertions until they fetch it again; master: only while no gateway runs",
    )
    rotating.add_argument(
        "--publish-only",
        action="store_true",
        help="master: make the file, to be copied to where other gateways read it, and neither wait nor seal",
    )
    add_config(rotating)
    add_json(rotating)

    retiring = actions.add_parser(
        "retire",
        help="remove old master keys that nothing needs any more",
        description="Remove old master keys that nothing needs any more. While something does, say what, and from when "
        "on it does not.",
    )
    retiring.add_argument(
        "--force",
        action="store_true",
        help="after a leak: do not wait for what expires; backup codes made under it are void, open forms, interrupted "
        "requests and sessions in Redis are lost. Secrets are still sealed anew first (`rotate master`)",
    )
    add_config(retiring)
    add_json(retiring)


def run(args: argparse.Namespace) -> int:
    """Do it; 0, or 1 where an old key is still needed or a secret does not open. Raises `ConfigError`."""
    import asyncio

    from gateway import settings
    from gateway.commands import key_master
    from gateway.crypto.keys import MASTER_OVERLAP, OVERLAP, KeyRing

    rotates = args.what if args.action == "rotate" else ""
    overlap = _seconds(args.overlap, MASTER_OVERLAP if rotates == "master" else OVERLAP) if rotates else 0.0
    read = settings.load(args.config, os.environ)
    ring = KeyRing.open(read.keys, create=False, assertion_lifetime=read.headers.assertion.lifetime)
    if args.action == "retire":
        return asyncio.run(key_master.retire(read, ring, force=args.force, json=args.json))
    if args.action == "list":
        return asyncio.run(_list(read, ring, json=args.json))
    if rotates == "signing":
        _rotate_signing(read, ring, overlap, json=args.json)
        return 0
    if args.publish_only:
        key_master.publish(ring, overlap, json=args.json)
        return 0
    return asyncio.run(key_master.rotate(read, ring, overlap, json=args.json))


async def _list(settings: Settings, ring: KeyRing, *, json: bool) -> int:
    from gateway.commands import key_master

    signing = ring.signer.standings()
    masters = await key_master.listed(settings, ring)
    if json:
        print(as_json([*map(_as_json, signing), *map(key_master.as_row, masters)]))
        return 0
    head = ("SIGNING KEY", "STATUS", "SIGNS FROM", "UNTIL")
    print(as_table([head, *map(_as_row, signing)]))
    print()
    print(key_master.table(masters))
    return 0


def _rotate_signing(settings: Settings, ring: KeyRing, overlap: float, *, json: bool) -> None:
    import asyncio

    key = ring.rotate_signing(overlap)
    asyncio.run(_tell(settings, key.kid, key.not_before))
    if json:
        print(as_json(_as_json(next(standing for standing in ring.signer.standings() if standing.key.kid == key.kid))))
    else:
        print(f"key {key.kid} is published and signs from {when(key.not_before)} on")


def _seconds(overlap: str | None, default: float) -> float:
    from gateway.core.errors import ConfigError
    from gateway.policy.units import duration

    if overlap is None:
        return default
    try:
        return duration(overlap)
    except ValueError as error:
        raise ConfigError(f"--overlap: {error}") from error


async def _tell(settings: Settings, kid: str, not_before: float) -> None:
    from gateway.core.events import Event, Kind, Severity

    detail = {"key": "signing", "kid": kid, "signs_from": when(not_before)}
    async with opened(settings) as (_, recorder):
        await recorder.record(Event(Kind.KEY_ROTATED, Severity.NOTICE, detail=detail))


def _as_row(standing: Standing) -> tuple[str, ...]:
    until = when(standing.until) if standing.until else "-"
    return standing.key.kid, standing.status, when(standing.key.not_before), until


def _as_json(standing: Standing) -> dict[str, object]:
    return {
        "key": "signing",
        "kid": standing.key.kid,
        "status": standing.status,
        "signs_from": standing.key.not_before,
        "until": standing.until or None,
        "file": str(standing.key.path),
    }
