"""`sallyport limit`: how often somebody may still come, and letting them begin anew.

Limits that replicas count together are looked at where they are, on Redis, whether a gateway runs or not. What is
counted in the memory of a gateway only it can tell: it is asked on its control socket, on this machine.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from gateway.commands.common import add_config, add_json, as_json
from gateway.commands.opened import opened

if TYPE_CHECKING:
    from gateway.audit.recorder import Recorder
    from gateway.identity.local import LocalUsers
    from gateway.limits.shared_counters import Named
    from gateway.limits.spelling import Who
    from gateway.limits.standing import Standing
    from gateway.settings import Settings
    from gateway.store.redis import Redis

MOST = 100
LONGEST = 500
"""Characters of a reason."""

HEADINGS = ("RULE", "LIMIT", "WHO", "COUNTED", "NOW", "LEFT", "NEXT IN", "WHOLE IN", "OFFENCES")


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `limit` to the command line."""
    parser = subparsers.add_parser(
        "limit",
        help="show how limits stand, and have them begin anew",
        description="How limits stand, and having them begin anew. Limits on Redis are looked at there; those that a "
        "gateway keeps in its memory it is asked about, on this machine.",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    showing = actions.add_parser("status", help="show who is counted, and how much they have left")
    _add_what(showing, required=False)
    showing.add_argument("--most", type=int, default=MOST, metavar="N", help="show no more (default: %(default)s)")

    resetting = actions.add_parser(
        "reset",
        help="have counters begin anew, in every gateway",
        description="Have counters begin anew, and offences be forgotten, in every gateway. An event says who did it, "
        "and why.",
    )
    _add_what(resetting, required=True)
    resetting.add_argument("--all", action="store_true", help="of everybody whom the rule counts")
    resetting.add_argument("--reason", required=True, metavar="TEXT", help="why; it is kept with the event")


def _add_what(parser: argparse.ArgumentParser, required: bool) -> None:
    parser.add_argument("--rule", default="", required=required, metavar="RULE", help="of this rule")
    parser.add_argument("--limit", default="", metavar="LIMIT", help="of its limit of this name")
    parser.add_argument(
        "--key",
        default="",
        metavar="KEY",
        help="of user:NAME, address:IP, session:ID, header:VALUE, claim:VALUE or route:RULE; `a + b` for both",
    )
    add_config(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Do it and return 0. Raises `UserError` for what cannot be, `ConfigError` for what is not fit, and for usage."""
    import asyncio

    from gateway import settings
    from gateway.core.errors import ConfigError

    if args.action == "status" and args.most < 1:
        raise ConfigError("--most is a number from 1 on")
    if args.action == "reset":
        if bool(args.key) == args.all:
            raise ConfigError("say whom a reset is for", "write --key user:NAME, or --all for everybody")
        if not args.reason.strip() or len(args.reason) > LONGEST:
            raise ConfigError(f"--reason is a sentence of up to {LONGEST} characters", "write --reason 'why'")
    read = settings.load(args.config, os.environ)
    asyncio.run((_status if args.action == "status" else _reset)(args, read))
    return 0


async def _status(args: argparse.Namespace, read: Settings) -> None:
    from gateway import control
    from gateway.core.errors import ConfigError, StoreAway
    from gateway.limits.standings import named_by, not_local

    named = named_by(_limits(read), args.rule, args.limit)
    async with AsyncExitStack() as stack:
        users = None
        if read.store.keeps_records:
            try:
                users = await stack.enter_async_context(_users(read))
            except (ConfigError, StoreAway) as error:
                _say(f"users are shown by their ids: {error}")
        who = await _who(args.key, users)
        found: list[Standing] = []
        if read.store.redis is not None:
            from gateway.sharing import shared_counters

            redis = await stack.enter_async_context(_redis(read))
            found += await shared_counters(redis).status(not_local(named), who, args.most + 1)
        folder = read.control_folder
        here = None if folder is None else await control.status(folder, args.rule, args.limit, who, args.most + 1)
        if here is None:
            _nobody_runs(read, named)
        found = (found + (here or []))[: args.most + 1]
        shown = found[: args.most]
        spelled = await _spelled(shown, users)
    if args.json:
        print(as_json([_as_json(one, whom) for one, whom in zip(shown, spelled, strict=True)]))
    elif shown:
        print(_as_table(shown, spelled))
    else:
        print("nobody is counted" + (" there" if args.rule or args.limit or args.key else ""))
    if len(found) > len(shown):
        _say(f"these are the first {len(shown)}; --most shows more, --rule, --limit and --key narrow it")


async def _reset(args: argparse.Namespace, read: Settings) -> None:
    from gateway import control
    from gateway.limits.spelling import without_secrets
    from gateway.limits.standings import message, named_by, not_local, reset_event

    key = without_secrets(args.key)
    named = named_by(_limits(read), args.rule, args.limit)
    async with _ledger(read) as (recorder, users):
        who = await _who(args.key, users)
        about = args.rule, args.limit, who
        gone = 0
        async with AsyncExitStack() as stack:
            redis = None
            if read.store.redis is not None:
                from gateway.sharing import TOPIC, shared_counters

                redis = await stack.enter_async_context(_redis(read))
                gone = await shared_counters(redis).reset(not_local(named), who)
            folder = read.control_folder
            try:
                here = None if folder is None else await control.reset(folder, *about, spelled=key, reason=args.reason)
            finally:
                if redis is not None:
                    await redis.publish(TOPIC, message(*about))
                    by = control.user_of(os.getuid())
                    await recorder.record(reset_event(args.rule, args.limit, key, gone, args.reason, by))
        if here is None:
            _nobody_runs(read, named)
        gone += here or 0
    if args.json:
        print(as_json({"rule": args.rule, "limit": args.limit, "key": key, "counters": gone}))
        return
    of = f" of {key}" if key else ""
    what = f"rule {args.rule}" + (f", limit {args.limit}" if args.limit else "")
    print(f"{gone} counter{'s' if gone != 1 else ''}{of} in {what} {'were' if gone != 1 else 'was'} reset")


def _limits(read: Settings) -> list[Named]:
    """Every limit there is. Raises `ConfigError` for a policy that is not fit, `UserError` where nothing is counted."""
    from gateway.core.errors import UserError
    from gateway.policy.load import load
    from gateway.web.own_limits import GUESSES, RULE
    from gateway.wire.target import readings

    if not read.store.counts:
        raise UserError("ERR-LIMIT-UNKNOWN", "`store.shared` is none: nothing is counted.")
    book = load(
        read.policies,
        upstreams=read.upstreams,
        factors=read.mfa.factors,
        admin_groups=read.mfa.required_groups,
        trusted=read.mfa.trusted,
        people=read.store.keeps_records,
        counters=read.store.counts,
        together=read.store.counts_together,
        lifetimes=read.sessions.lifetimes,
        readings=readings,
    )
    own = [(RULE, limit) for limit in GUESSES] if read.store.keeps_records else []
    return [*((rule.name, limit) for rule in book.rules for limit in rule.limits), *own]


def _nobody_runs(read: Settings, named: Sequence[Named]) -> None:
    """Say that nobody was asked what is counted in memory, or raise `UserError` where all of it is."""
    from gateway.core.errors import UserError

    folder = read.control_folder
    nobody = (
        f"no gateway runs on {folder}; start it, or run this on its machine and as its user"
        if folder is not None
        else "no gateway can be asked; name a folder for its control socket, as in `control: data/control`"
    )
    if read.store.redis is None:
        raise UserError("ERR-NO-GATEWAY", f"Limits are counted in the memory of the gateway, and {nobody}.")
    if any(limit.mode == "local" for _, limit in named):
        _say(f"limits of mode `local` are left out here: {nobody}")


async def _who(key: str, users: LocalUsers | None) -> Who:
    """Whom `--key` means. Raises `ConfigError`."""
    from gateway.core.errors import ConfigError
    from gateway.limits.spelling import user_in, who

    name = user_in(key)
    user = await users.find(name) if name and users is not None else None
    try:
        return who(key, [user.subject] if user is not None else [])
    except ValueError as error:
        raise ConfigError(f"--key: {error}") from None


async def _spelled(standings: Sequence[Standing], users: LocalUsers | None) -> list[str]:
    """Who is counted, in words; users by name where they are known."""
    from gateway.core.errors import StoreAway
    from gateway.limits.spelling import people_in, spell

    names = {}
    try:
        for tenant, subject in {person for one in standings for person in people_in(one.key)} if users else ():
            if (user := await users.get(subject, tenant)) is not None:  # type: ignore[union-attr]
                names[tenant, subject] = user.name
    except StoreAway as error:
        _say(f"users are shown by their ids: {error}")
    return [spell(one.key, lambda tenant, subject: names.get((tenant, subject), subject)) for one in standings]


@asynccontextmanager
async def _users(read: Settings) -> AsyncIterator[LocalUsers]:
    from gateway.core.errors import ConfigError

    async with _ledger(read) as (_, users):
        if users is None:
            raise ConfigError("`store.records` is none: there are no users", "write store: {records: sqlite:path}")
        yield users


@asynccontextmanager
async def _ledger(read: Settings) -> AsyncIterator[tuple[Recorder, LocalUsers | None]]:
    """Where events go, and who is known. Raises `ConfigError` for records that are not fit to be used."""
    from gateway.audit.event_log import EventLog
    from gateway.audit.recorder import Recorder
    from gateway.core.clock import SystemClock
    from gateway.identity.local import LocalUsers
    from gateway.identity.passwords import Passwords

    if not read.store.keeps_records:
        _log_events()
        yield Recorder(EventLog(), SystemClock()), None
        return
    passwords = Passwords()
    try:
        async with opened(read) as (records, recorder):
            yield recorder, LocalUsers(records, passwords, SystemClock(), recorder)
    finally:
        passwords.close()


def _log_events() -> None:
    """Events go to standard error, as those of a gateway without records do."""
    import logging

    events = logging.getLogger("sallyport.events")
    events.addHandler(logging.StreamHandler(sys.stderr))
    events.setLevel(logging.INFO)
    events.propagate = False


@asynccontextmanager
async def _redis(read: Settings) -> AsyncIterator[Redis]:
    import logging

    from gateway.core.clock import SystemClock
    from gateway.core.errors import ConfigError
    from gateway.store.redis import Redis

    logging.getLogger("sallyport").setLevel(logging.ERROR)  # what is worth a warning to a gateway is none to us
    where = read.store.redis
    if where is None:
        raise ConfigError("`store.shared` is no Redis", "limits in memory are asked of the gateway that runs")
    redis = await Redis.open(where, clock=SystemClock())
    try:
        yield redis
    finally:
        await redis.close()


def _say(what: str) -> None:
    print(what, file=sys.stderr)


def _as_table(standings: Sequence[Standing], spelled: Sequence[str]) -> str:
    rows = [HEADINGS, *(_as_row(one, whom) for one, whom in zip(standings, spelled, strict=True))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _as_row(one: Standing, whom: str) -> tuple[str, ...]:
    now = "allowed" if one.allowed else "waiting" if one.wait > 0.0 else "refused"
    return (
        one.rule,
        one.limit,
        "".join(char if char.isprintable() else "?" for char in whom),
        one.how,
        f"{now} (shadow)" if one.shadow else now,
        str(one.remaining),
        _time(one.retry_after),
        _time(one.reset),
        str(one.offences) if one.offences else "-",
    )


def _time(seconds: float) -> str:
    """Rounded up, in the two largest units: `59s`, `1m30s`, `2h5m`."""
    whole = math.ceil(seconds)
    if whole <= 0:
        return "-"
    parts = [f"{value}{unit}" for value, unit in zip(_split(whole), "dhms", strict=True) if value]
    return "".join(parts[:2])


def _split(seconds: int) -> tuple[int, int, int, int]:
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return days, hours, minutes, seconds


def _as_json(one: Standing, whom: str) -> dict[str, object]:
    return {
        "rule": one.rule,
        "limit": one.limit,
        "key": whom,
        "counted": one.how,
        "shadow": one.shadow,
        "allowed": one.allowed,
        "remaining": one.remaining,
        "reset": one.reset,
        "retry_after": one.retry_after,
        "offences": one.offences,
        "wait": one.wait,
    }
