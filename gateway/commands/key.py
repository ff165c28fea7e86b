"""`sallyport key`: the keys that sign assertions.

Rotation makes a file; when it signs, and when the key before it is published no more, follows from the clock. So a
running gateway needs no command of its own, it reads the folder every second.
"""

from __future__ import annotations

import argparse
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from gateway.commands.common import add_config, add_json, as_json
from gateway.commands.opened import opened

if TYPE_CHECKING:
    from gateway.crypto.signing import Standing
    from gateway.settings import Settings


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `key` to the command line."""
    parser = subparsers.add_parser(
        "key",
        help="list and rotate the keys that sign assertions",
        description="The keys that sign assertions. A running gateway sees a new one within a second.",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    listing = actions.add_parser("list", help="show every signing key and what it is doing")
    add_config(listing)
    add_json(listing)

    rotating = actions.add_parser(
        "rotate",
        help="publish a new signing key, and sign with it after a while",
        description="Publish a new signing key now and sign with it after the overlap, so that services have fetched "
        "it before they need it. The key before it stays published until everything it signed has expired.",
    )
    rotating.add_argument(
        "--overlap",
        default="5m",
        metavar="DURATION",
        help="how long it is published before it signs (default: %(default)s); 0s: sign at once: "
        "services that keep a key set then refuse assertions until they fetch it again",
    )
    add_config(rotating)
    add_json(rotating)


def run(args: argparse.Namespace) -> int:
    """Do it and return 0. Raises `ConfigError`."""
    import asyncio

    from gateway import settings
    from gateway.crypto.keys import KeyRing

    overlap = _seconds(args.overlap) if args.action == "rotate" else 0.0
    read = settings.load(args.config, os.environ)
    ring = KeyRing.open(read.keys, create=False, assertion_lifetime=read.headers.assertion.lifetime)
    if args.action == "list":
        standings = ring.signer.standings()
        print(as_json([_as_json(standing) for standing in standings]) if args.json else _as_table(standings))
        return 0
    key = ring.rotate_signing(overlap)
    asyncio.run(_tell(read, key.kid, key.not_before))
    new = next(standing for standing in ring.signer.standings() if standing.key.kid == key.kid)
    if args.json:
        print(as_json(_as_json(new)))
    else:
        print(f"key {key.kid} is published and signs from {_when(key.not_before)} on")
    return 0


def _seconds(overlap: str) -> float:
    from gateway.core.errors import ConfigError
    from gateway.policy.units import duration

    try:
        return duration(overlap)
    except ValueError as error:
        raise ConfigError(f"--overlap: {error}") from error


async def _tell(settings: Settings, kid: str, not_before: float) -> None:
    from gateway.core.events import Event, Kind, Severity

    async with opened(settings) as (_, recorder):
        await recorder.record(
            Event(Kind.KEY_ROTATED, Severity.NOTICE, detail={"kid": kid, "signs_from": _when(not_before)})
        )


def _when(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _as_table(standings: list[Standing]) -> str:
    rows = [("KEY", "STATUS", "SIGNS FROM", "UNTIL")]
    for standing in standings:
        until = _when(standing.until) if standing.until else "-"
        rows.append((standing.key.kid, standing.status, _when(standing.key.not_before), until))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _as_json(standing: Standing) -> dict[str, object]:
    return {
        "kid": standing.key.kid,
        "status": standing.status,
        "signs_from": standing.key.not_before,
        "until": standing.until or None,
        "file": str(standing.key.path),
    }
