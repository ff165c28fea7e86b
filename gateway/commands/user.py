"""`sallyport user`: who has an account here.

A password is asked for, read from standard input or made up; never an argument, which other users of the machine could
read. A gateway that is running sees every change within a second.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from gateway.commands.common import add_config, add_json, as_json, as_table, when
from gateway.commands.opened import opened
from gateway.core.identity import NEVER, Identity

if TYPE_CHECKING:
    from gateway.identity.local import LocalUsers
    from gateway.identity.users import User
    from gateway.mfa.demands import Demands
    from gateway.settings import Settings

BY = "command line"
_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"
"""Without those that are mistaken for each other."""


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `user` to the command line."""
    parser = subparsers.add_parser(
        "user",
        help="add, list, disable and enable users, change passwords, require second factors",
        description="Who has an account here. A running gateway sees every change within a second.",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    adding = actions.add_parser("add", help="make an account")
    _add_name(adding)
    adding.add_argument("--groups", default="", metavar="A,B", help="groups, with commas between them")
    adding.add_argument("--email", default="", metavar="ADDRESS")
    adding.add_argument(
        "--email-confirmed", action="store_true", help="you know that they read it: no code has to be sent there first"
    )
    adding.add_argument("--name", dest="display_name", default="", metavar="TEXT", help="name as people write it")
    _add_password(adding)

    listing = actions.add_parser("list", help="show every account")
    add_config(listing)
    add_json(listing)

    showing = actions.add_parser("show", help="show one account, and what it must have")
    _add_name(showing)
    add_json(showing)

    _add_name(actions.add_parser("disable", help="let somebody in no more, and end their sessions at once"))
    _add_name(actions.add_parser("enable", help="let somebody in again"))

    _add_name(
        actions.add_parser("reset", help="unbind the second factors of somebody who has lost them; ends their sessions")
    )

    requiring = actions.add_parser(
        "require-mfa", help="demand of somebody that they set up a second factor, or take that back"
    )
    _add_name(requiring)
    how = requiring.add_mutually_exclusive_group()
    how.add_argument("--grace", default="0s", metavar="DURATION", help="how long they have, as 7d (default: none)")
    how.add_argument("--lift", action="store_true", help="take it back; what the configuration demands stays")

    writing = actions.add_parser("email", help="write to somebody at another address, or say that theirs is confirmed")
    _add_name(writing)
    writing.add_argument("address", metavar="ADDRESS", help="whatever it was before; '' for none")
    writing.add_argument(
        "--confirmed", action="store_true", help="you know that they read it: no code has to be sent there first"
    )

    changing = actions.add_parser("passwd", help="give somebody another password, and end their sessions at once")
    _add_name(changing)
    _add_password(changing)


def run(args: argparse.Namespace) -> int:
    """Do it and return 0. Raises `UserError` for what cannot be, `ConfigError` for an unfit database or usage."""
    import asyncio

    actions: dict[str, Callable[[argparse.Namespace], Awaitable[None]]] = {
        "add": _add,
        "list": _list,
        "show": _show,
        "require-mfa": _require,
        "disable": _disable,
        "enable": _enable,
        "email": _set_email,
        "passwd": _passwd,
        "reset": _reset,
    }

    async def act() -> None:
        await actions[args.action](args)

    asyncio.run(act())
    return 0


async def _add(args: argparse.Namespace) -> None:
    from gateway.core.errors import ConfigError

    if args.email_confirmed and not args.email:
        raise ConfigError("--email-confirmed: there is no address to be confirmed", "give it with --email")
    groups = [group.strip() for group in args.groups.split(",") if group.strip()]
    async with _people(args) as people:
        password = _password(args)
        user = await people.add(
            args.user,
            password,
            email=args.email,
            email_confirmed=args.email_confirmed,
            display_name=args.display_name,
            groups=groups,
        )
    print(f"added {user.name}" + (f", groups {', '.join(sorted(user.groups))}" if user.groups else ""))
    _show_generated(args, password)


async def _passwd(args: argparse.Namespace) -> None:
    from gateway.core.errors import UserError

    async with _people(args) as people:
        if await people.find(args.user) is None:
            raise UserError("ERR-USER-UNKNOWN", f"There is no user {args.user}.")
        password = _password(args)
        user = await people.set_password(args.user, password)
    print(f"changed the password of {user.name}; every session of theirs is over")
    _show_generated(args, password)


async def _set_email(args: argparse.Namespace) -> None:
    from functools import partial

    from gateway import settings
    from gateway.core.clock import SystemClock
    from gateway.core.errors import ConfigError
    from gateway.crypto.keys import KeyRing
    from gateway.identity.local import LocalUsers
    from gateway.identity.passwords import Passwords

    if args.confirmed and not args.address:
        raise ConfigError("--confirmed: there is no address to be confirmed", "say which one it is")
    read, clock, passwords = settings.load(args.config, os.environ), SystemClock(), Passwords()
    moving = None
    if read.notify.channels:  # whoever read the old address hears of it: a gateway that runs sends it
        from gateway.post import make_aside

        moving = partial(make_aside(read, KeyRing.open(read.keys, create=False)).moving, at=clock.now())
    try:
        async with opened(read) as (records, recorder):
            people = LocalUsers(records, passwords, clock, recorder)
            user = await people.set_email(args.user, args.address, confirmed=args.confirmed, by=BY, moving=moving)
    finally:
        passwords.close()
    print(f"{user.name} is written to at {_email(user)}" if user.email else f"{user.name} is written to nowhere")


async def _disable(args: argparse.Namespace) -> None:
    async with _people(args) as people:
        user = await people.disable(args.user)
    print(f"disabled {user.name}; every session of theirs is over")


async def _enable(args: argparse.Namespace) -> None:
    async with _people(args) as people:
        user = await people.enable(args.user)
    print(f"enabled {user.name}")


async def _reset(args: argparse.Namespace) -> None:
    """Recovery by an administrator (NIST SP 800-63B-4, section 4.2): the next sign-in binds the first factor anew."""
    from gateway import settings
    from gateway.core.clock import SystemClock
    from gateway.core.errors import UserError
    from gateway.crypto.keys import KeyRing
    from gateway.identity.local import LocalUsers
    from gateway.identity.passwords import Passwords
    from gateway.identity.session_rows import SessionRows
    from gateway.identity.sessions import Sessions
    from gateway.mfa.backup_codes import BackupCodes
    from gateway.mfa.enrolment import Enrolment
    from gateway.mfa.factors import Factors
    from gateway.mfa.totp import Totp

    read, clock, passwords = settings.load(args.config, os.environ), SystemClock(), Passwords()
    keys = KeyRing.open(read.keys, create=False)
    try:
        async with opened(read) as (records, recorder):
            user = await LocalUsers(records, passwords, clock, recorder).find(args.user)
            if user is None:
                raise UserError("ERR-USER-UNKNOWN", f"There is no user {args.user}.")
            totp, codes = Totp(records, keys.sealer, clock), BackupCodes(records, keys.mac, clock)
            factors = Factors(records, {totp.name: totp, codes.name: codes}, clock)
            aside = None
            if read.notify.channels:  # a gateway that runs sends it
                from gateway.post import make_aside

                aside = make_aside(read, keys)
            terms = read.sessions.terms
            sessions = Sessions(SessionRows(records, clock, terms), records, clock, recorder, terms)
            enrolment = Enrolment(
                records, totp, codes, factors, clock, recorder, end_all=sessions.end_all, issuer="", aside=aside
            )
            await enrolment.reset(user.tenant, user.subject, user=user.name, by=BY)
            await sessions.close()
    finally:
        passwords.close()
    print(f"unbound the second factors of {user.name}; every session of theirs is over")
    print("whoever signs in next sets up the first one: give a new password too where the old one may be known")


async def _require(args: argparse.Namespace) -> None:
    from gateway.core.clock import SystemClock
    from gateway.core.errors import ConfigError
    from gateway.policy.units import duration

    try:
        grace = duration(args.grace)
    except ValueError as error:
        raise ConfigError(f"--grace: {error}") from error
    async with _demanded(args) as (demands, user, read):
        if args.lift:
            await demands.lift(user.tenant, user.subject, user=user.name, by=BY)
            still = " What the configuration demands of them stays." if demands.on(_identity(user)) else ""
            print(f"{user.name} need not have a second factor for an administrator's sake.{still}")
            return
        if set(read.mfa.factors) <= {"backup_code"}:
            raise ConfigError("no second factor could be set up: `mfa` offers none", "write mfa: {totp: {}}")
        at = SystemClock().now() + grace
        await demands.require(user.tenant, user.subject, user=user.name, at=at, by=BY)
    print(f"{user.name} must have a second factor " + (f"from {when(at)} on" if grace else "from now on"))


async def _show(args: argparse.Namespace) -> None:
    async with _demanded(args) as (demands, user, _):
        me = replace(_identity(user), required_from=user.required_from)
        must, by = bool(demands.on(me)), await demands.enrol_by(me, begin=False)
        kinds = sorted(await demands.kinds(me))
    if args.json:
        print(as_json({**_as_json(user), "devices": kinds, "required": must, "enrol_by": by if by < NEVER else None}))
        return
    owed = f", to be set up by {when(by)}" if 0.0 < by < NEVER else ", overdue" if by == 0.0 else ""
    print(
        as_table(
            [
                ("name", user.name),
                ("status", "disabled" if user.disabled else "active"),
                ("groups", ", ".join(sorted(user.groups)) or "-"),
                ("email", _email(user)),
                ("second factor", ", ".join(kinds) or "none"),
                ("required", f"yes{owed}" if must else "no"),
            ]
        )
    )


async def _list(args: argparse.Namespace) -> None:
    async with _people(args) as people:
        users = await people.all()
    if args.json:
        print(as_json([_as_json(user) for user in users]))
        return
    print(as_table([("NAME", "STATUS", "MFA", "GROUPS", "EMAIL"), *(_as_row(user) for user in users)]))


@asynccontextmanager
async def _demanded(args: argparse.Namespace) -> AsyncIterator[tuple[Demands, User, Settings]]:
    """What is demanded of everybody, and the user that is named."""
    from gateway import settings
    from gateway.core.clock import SystemClock
    from gateway.core.errors import UserError
    from gateway.identity.local import LocalUsers
    from gateway.identity.passwords import Passwords
    from gateway.mfa.demands import Demands

    read, clock, passwords = settings.load(args.config, os.environ), SystemClock(), Passwords()
    try:
        async with opened(read) as (records, recorder):
            user = await LocalUsers(records, passwords, clock, recorder).find(args.user)
            if user is None:
                raise UserError("ERR-USER-UNKNOWN", f"There is no user {args.user}.")
            yield Demands(records, clock, recorder, read.mfa.demands), user, read
    finally:
        passwords.close()


@asynccontextmanager
async def _people(args: argparse.Namespace) -> AsyncIterator[LocalUsers]:
    from gateway import settings
    from gateway.core.clock import SystemClock
    from gateway.identity.local import LocalUsers
    from gateway.identity.passwords import Passwords

    passwords = Passwords()
    try:
        async with opened(settings.load(args.config, os.environ)) as (records, recorder):
            yield LocalUsers(records, passwords, SystemClock(), recorder)
    finally:
        passwords.close()


def _password(args: argparse.Namespace) -> str:
    """From where the arguments say. Raises `ConfigError` where nobody can be asked, `UserError` for a mistyped one."""
    import getpass

    from gateway.core.errors import ConfigError, UserError

    if args.generate:
        return "-".join("".join(secrets.choice(_LETTERS) for _ in range(5)) for _ in range(4))
    if args.password_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise ConfigError("there is no terminal to ask for a password", "use --password-stdin or --generate")
    password = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != password:
        raise UserError("ERR-PASSWORD-MISTYPED", "The two passwords are not the same.")
    return password


def _show_generated(args: argparse.Namespace, password: str) -> None:
    if args.generate:
        print(f"password: {password}")
        print("it is shown this once and kept nowhere in clear", file=sys.stderr)


def _add_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("user", metavar="USER", help="user name; upper and lower case are one")
    add_config(parser)


def _add_password(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--password-stdin", action="store_true", help="read the password from standard input")
    source.add_argument("--generate", action="store_true", help="make a password up and show it once")


def _identity(user: User) -> Identity:
    """As the configuration knows them; what an administrator said of them is left out."""
    return Identity(user.tenant, user.subject, user.name, groups=user.groups)


def _email(user: User) -> str:
    if not user.email:
        return "-"
    return f"{user.email}, " + (f"confirmed {when(at)}" if (at := user.email_confirmed_at) else "not confirmed")


def _as_row(user: User) -> tuple[str, ...]:
    status, groups = "disabled" if user.disabled else "active", ",".join(sorted(user.groups))
    required = when(user.required_from) if user.required_from != NEVER else "-"
    return user.name, status, required, groups or "-", user.email or "-"


def _as_json(user: User) -> dict[str, object]:
    return {
        "name": user.name,
        "subject": user.subject,
        "email": user.email,
        "email_confirmed_at": user.email_confirmed_at or None,
        "display_name": user.display_name,
        "groups": sorted(user.groups),
        "disabled": user.disabled,
        "created_at": user.created_at,
        "mfa_required_from": user.required_from if user.required_from != NEVER else None,
    }
