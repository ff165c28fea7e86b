"""`sallyport session`: where somebody is signed in, and how to end it, beside gateways that are running.

It speaks to the stores of the configuration, so it does what any replica would do, and all of them hear of it.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from gateway.commands.common import add_config, add_json, as_json
from gateway.commands.opened import opened

if TYPE_CHECKING:
    from gateway.core.clock import Clock
    from gateway.core.identity import Session
    from gateway.identity.session_store import SessionStore
    from gateway.identity.sessions import Sessions
    from gateway.identity.users import User
    from gateway.settings import Settings
    from gateway.store.sql import Records

BY = "command line"


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `session` to the command line."""
    parser = subparsers.add_parser(
        "session",
        help="list and end the sessions of a user",
        description="Where somebody is signed in. Running gateways obey within a second.",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _add_user(actions.add_parser("list", help="show where somebody is signed in"))
    ending = actions.add_parser("end", help="end one session of somebody (--id), or all")
    _add_user(ending)
    ending.add_argument("--id", default="", metavar="ID", help="only this session, as `list` shows it")


def run(args: argparse.Namespace) -> int:
    """Do it and return 0; 1 where there is no such session.

    Raises `UserError` for an unknown user, `ConfigError` for unfit stores, `StoreAway`.
    """
    import asyncio

    actions: dict[str, Callable[[argparse.Namespace], Awaitable[int]]] = {"list": _list, "end": _end}

    async def act() -> int:
        return await actions[args.action](args)

    return asyncio.run(act())


async def _list(args: argparse.Namespace) -> int:
    async with _sessions_of(args) as (sessions, user):
        every = await sessions.list(user.tenant, user.subject)
    if args.json:
        print(as_json([_as_json(one) for one in every]))
        return 0
    rows = [("ID", "SIGNED IN", "LAST SEEN", "UNTIL", "LEVEL", "ADDRESS", "AGENT"), *(_as_row(one) for one in every)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    return 0


async def _end(args: argparse.Namespace) -> int:
    async with _sessions_of(args) as (sessions, user):
        if args.id:
            ended = int(await sessions.end(user.tenant, user.subject, args.id, by=BY))
        else:
            ended = await sessions.end_all(user.tenant, user.subject, by=BY)
    if args.json:
        print(as_json({"user": user.name, "ended": ended}))
    elif args.id:
        print(f"ended session {args.id} of {user.name}" if ended else f"{user.name} has no session {args.id}")
    else:
        print(f"every session of {user.name} is over ({ended} ended)")
    return 1 if args.id and not ended else 0


@asynccontextmanager
async def _sessions_of(args: argparse.Namespace) -> AsyncIterator[tuple[Sessions, User]]:
    from gateway import settings
    from gateway.core.clock import SystemClock
    from gateway.core.errors import UserError
    from gateway.identity.local import LocalUsers
    from gateway.identity.passwords import Passwords
    from gateway.identity.sessions import Sessions

    read, clock, passwords = settings.load(args.config, os.environ), SystemClock(), Passwords()
    try:
        async with opened(read) as (records, recorder):
            user = await LocalUsers(records, passwords, clock, recorder).find(args.user)
            if user is None:
                raise UserError("ERR-USER-UNKNOWN", f"There is no user {args.user}.")
            without = args.action == "end" and not args.id
            async with _store(read, records, clock, without_redis=without) as store:
                yield Sessions(store, records, clock, recorder, read.sessions.terms), user
    finally:
        passwords.close()


@asynccontextmanager
async def _store(read: Settings, records: Records, clock: Clock, *, without_redis: bool) -> AsyncIterator[SessionStore]:
    """Where sessions are kept. `without_redis`: the database is enough, should Redis be away: what ends everything of
    somebody is written there.
    """
    from gateway.core.errors import ConfigError
    from gateway.identity.session_rows import SessionRows

    terms, where = read.sessions.terms, read.store.redis
    if where is None:
        yield SessionRows(records, clock, terms)
        return
    from gateway.crypto.keys import KeyRing
    from gateway.identity.session_keys import SessionKeys
    from gateway.store.redis import Redis

    keys = KeyRing.open(read.keys, create=False)
    try:
        redis = await Redis.open(where, clock=clock)
    except ConfigError as error:
        if not without_redis:
            raise
        print(f"{error}\nnot counted: what is there is void, and no gateway believes it", file=sys.stderr)
        yield SessionRows(records, clock, terms)
        return
    try:
        yield SessionKeys(redis, records, keys.sealer, terms)
    finally:
        await redis.close()


def _add_user(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("user", metavar="USER", help="user name; upper and lower case are one")
    add_config(parser)
    add_json(parser)


def _as_row(session: Session) -> tuple[str, ...]:
    from gateway.audit.visible import visible
    from gateway.core.identity import level_of

    return (
        session.id,
        _at(session.created_at),
        _at(session.last_seen_at),
        _at(session.expires_at),
        level_of(session.proofs).acr,
        session.address,
        visible(session.agent)[:60],
    )


def _as_json(session: Session) -> dict[str, object]:
    from gateway.core.identity import amr_of, level_of

    return {
        "id": session.id,
        "created_at": session.created_at,
        "last_seen_at": session.last_seen_at,
        "expires_at": session.expires_at,
        "acr": level_of(session.proofs).acr,
        "amr": list(amr_of(session.proofs)),
        "address": session.address,
        "agent": session.agent,
    }


def _at(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
