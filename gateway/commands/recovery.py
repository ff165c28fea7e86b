"""`sallyport recovery`: which accounts are being recovered, and which were.

It only looks. A recovery is asked for, approved and refused by people who have proven who they are, on the pages and in
the API; who has a shell on this machine needs none of it: `sallyport user reset`.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from gateway.commands.common import add_config, add_json, as_json, as_table, when
from gateway.commands.opened import opened

if TYPE_CHECKING:
    from gateway.mfa.recovery_states import Recovery
    from gateway.store.sql import Records

HEADINGS = ("ID", "USER", "WAY", "STATE", "OUTCOME", "ASKED", "BY", "UNTIL")


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `recovery` to the command line."""
    parser = subparsers.add_parser(
        "recovery",
        help="show which accounts are being recovered",
        description="Accounts of people who have lost every second factor, and who asked for them.",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="show those that are open (--all: and those of the last 30 days)")
    listing.add_argument("--all", action="store_true", help="those that are over too")
    add_config(listing)
    add_json(listing)
    showing = actions.add_parser("show", help="show one of them")
    showing.add_argument("id", metavar="ID", help="as `list` shows it")
    add_config(showing)
    add_json(showing)


def run(args: argparse.Namespace) -> int:
    """Do it and return 0. Raises `UserError` for one that is not there, `ConfigError` for an unfit database."""
    import asyncio

    asyncio.run((_list if args.action == "list" else _show)(args))
    return 0


async def _list(args: argparse.Namespace) -> None:
    from gateway.core.identity import DEFAULT_TENANT
    from gateway.mfa.recovery_states import every

    async with _records(args) as records:
        found = await every(records, DEFAULT_TENANT, over=args.all)
    if args.json:
        print(as_json([_as_json(one) for one in found]))
    else:
        print(as_table([HEADINGS, *(_as_row(one) for one in found)]))


async def _show(args: argparse.Namespace) -> None:
    from gateway.core.errors import UserError
    from gateway.core.identity import DEFAULT_TENANT
    from gateway.mfa.recovery_states import find

    async with _records(args) as records:
        found = await find(records, DEFAULT_TENANT, args.id)
    if found is None:
        raise UserError("ERR-RECOVERY", f"There is no recovery {args.id}.", 404)
    if args.json:
        print(as_json(_as_json(found)))
        return
    for what, value in _as_json(found).items():
        print(f"{what + ':':<12} {value or '-'}")


@asynccontextmanager
async def _records(args: argparse.Namespace) -> AsyncIterator[Records]:
    from gateway import settings

    async with opened(settings.load(args.config, os.environ)) as (records, _):
        yield records


def _as_row(one: Recovery) -> tuple[str, ...]:
    return (
        one.id, one.user, one.way, one.state, one.outcome or "-", when(one.asked_at), one.asker, when(one.expires_at),
    )  # fmt: skip


def _as_json(one: Recovery) -> dict[str, str | None]:
    return {
        "id": one.id,
        "user": one.user,
        "way": str(one.way),
        "state": str(one.state),
        "outcome": one.outcome,
        "reason": one.reason,
        "asked_at": when(one.asked_at),
        "asked_by": one.asker,
        "due_at": when(one.due_at),
        "expires_at": when(one.expires_at),
        "settled_at": when(one.settled_at) if one.settled_at else None,
        "settled_by": one.settled_by,
    }
