"""People are told what happened to their account (NIST SP 800-63B-4, section 4.6; ASVS 5.0, 6.3.5 and 6.3.7).

A notice follows from an event, whoever caused it: a page, the API, the command line, another replica. It is written
into the outbox in the transaction that keeps the event, so that there is none without the other, and none twice.

It goes to the address the account has at that moment, and says nothing that a client made up: of its browser the name,
if we know it. Notices of changes to the security of an account cannot be turned off; `MORE` are those that can. What is
kept is what was said and in which language, not how: it is written when it is sent.

What changed must not be the only way by which that is told (section 4.6). What concerns the factor `email`, that the
address of the account was confirmed, and how a recovery ended, goes to every other address that codes go to, telephones
first of all: whoever has stolen a mailbox reads, and removes, what is told there. Where codes by e-mail are a factor of
somebody, such a thief may be in already: then changes of any factor, of backup codes, of trusted browsers and of the
password, and guesses at a second factor, go there too. What concerns `sms` goes by e-mail, as everything does. Where an
account has no address that is written to, everything goes to those others but what somebody may do without.

Of attempts those are told in which somebody had the password: a sign-in from a new browser, and every fifth wrong
answer to a second factor. Of wrong passwords nobody is told: anybody could have letters sent by giving some.

(That a recovery was asked for, that it has taken the factors away, that a factor goes, and that an account has another
address, those other addresses are told by `mfa.aside`: in the transaction that does it, for afterwards they are not
known any more.)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.core.agents import recognised
from gateway.core.events import Kind
from gateway.core.words import Said, date_and_time, packed, say
from gateway.store.outbox_table import put
from gateway.store.suppressed_table import is_suppressed
from gateway.store.tables import users

LIFETIME: Final = 86_400.0
"""Seconds that a notice is tried to be sent."""
CHANNEL: Final = "email"

NOT_YOU = say("If this was not you, change your password and look at your account, or ask whoever looks after it.")
STOLEN = say(
    "If this was not you, somebody else has your password: have it changed, and sign out everywhere else on the page "
    "of your account."
)
ASK = say("If you do not know why, ask whoever looks after your account.")
BRIEF: Final[Mapping[str, Said]] = {
    NOT_YOU: say("Not you? Sign in and look at your account."),
    STOLEN: say("Not you? Somebody has your password: have it changed."),
    ASK: say("Not your wish? Ask whoever looks after your account."),
}
"""What to do, by what a letter says of it, where there is room for a line."""
FACTORS: Final[Mapping[str, str]] = {
    "totp": say("An authenticator app"),
    "backup_code": say("A set of backup codes"),
    "webauthn": say("A passkey or security key"),
    "sms": say("A telephone number for codes"),
    "email": say("An e-mail address for codes"),
    "all": say("Every second factor"),
}
METHODS: Final[Mapping[str, str]] = {
    "totp": say("Authenticator app"),
    "backup_code": say("Backup code"),
    "webauthn": say("Security key"),
    "sms": say("Code by text message"),
    "email": say("Code by e-mail"),
}
"""What was asked for, where it was."""

WORDS: Final[Mapping[Kind, tuple[Said, Said, Said]]] = {
    Kind.SIGN_IN: (
        say("A sign-in from a new browser"),
        say("Somebody signed in to your account from a browser that had not been used for it before."),
        NOT_YOU,
    ),
    Kind.STEP_UP_GUESSED: (
        say("Wrong answers to your second factor"),
        say(
            "Somebody who had your password was asked for your second factor, and gave {count} wrong answers in a row. "
            "None was accepted."
        ),
        STOLEN,
    ),
    Kind.FACTOR_ENROLLED: (say("A second factor was added"), say("{factor} was added to your account."), NOT_YOU),
    Kind.FACTOR_REMOVED: (say("A second factor was removed"), say("{factor} was removed from your account."), NOT_YOU),
    Kind.FACTOR_DISABLED: (
        say("A second factor is out of use"),
        say(
            "After too many wrong answers in a row, one of your second factors is out of use and has to be set up anew."
        ),
        NOT_YOU,
    ),
    Kind.FACTOR_COPIED: (
        say("There may be a copy of your security key"),
        say("A security key of yours gave an answer that does not follow on its last one, and was refused."),
        say("If you did not use it just now, remove that key from your account, and ask whoever looks after it."),
    ),
    Kind.BACKUP_CODES_MADE: (
        say("New backup codes were made"),
        say("New backup codes were made for your account; the old ones do not work any more."),
        NOT_YOU,
    ),
    Kind.MFA_REQUIRED: (
        say("Your account needs a second factor"),
        say("An administrator asks you to set up a second factor. You are shown how when you sign in."),
        ASK,
    ),
    Kind.MFA_REQUIREMENT_LIFTED: (
        say("Your account need not have a second factor any more"),
        say("An administrator no longer asks you to have a second factor."),
        ASK,
    ),
    Kind.BACKUP_CODES_FEW: (
        say("Your backup codes are running out"),
        say("Few of your backup codes are left, or they end soon."),
        say("Make new ones on the page of your account."),
    ),
    Kind.FACTOR_SINGLE: (
        say("A single second factor is all you have"),
        say("Your account has one second factor and nothing beside it. Without it you could not get in."),
        say("Set up another one on the page of your account, or make backup codes there."),
    ),
    Kind.MFA_DUE: (
        say("Your account needs a second factor soon"),
        say("Your account must have a second factor from {until} on, and has none that will do."),
        say("Set one up on the page of your account before that; afterwards nothing else is open to you."),
    ),
    Kind.NOTICES_CHOSEN: (
        say("What you are told was changed"),
        say(
            "It was changed whether you are told of sign-ins from new browsers, and reminded of what you may need "
            "soon. Changes to the security of your account are told in any case."
        ),
        NOT_YOU,
    ),
    Kind.BACKUP_CODE_USED: (say("A backup code was used"), say("One of your backup codes was used."), NOT_YOU),
    Kind.TRUSTED_DEVICE_ADDED: (
        say("A browser is trusted now"),
        say(
            "Somebody who showed your second factor chose to have their browser trusted: your password is enough there "
            "for a while."
        ),
        NOT_YOU,
    ),
    Kind.TRUSTED_DEVICE_REVOKED: (
        say("A browser of yours is trusted no more"),
        say("An administrator ended the trust in a browser of yours. Your second factor is asked for there again."),
        ASK,
    ),
    Kind.TRUSTED_DEVICE_STOLEN: (
        say("A browser you trusted may have been copied"),
        say("A browser that you trusted was used in two places. It is not trusted any more, and it was signed out."),
        NOT_YOU,
    ),
    Kind.RECOVERED: (
        say("Your account was recovered"),
        say(
            "All second factors were removed from your account, because they were lost, and you were signed out "
            "everywhere. With your password you set up a new one."
        ),
        NOT_YOU,
    ),
    Kind.RECOVERY_ENDED: (
        say("The recovery of your account has ended"),
        say(
            "It was asked for to remove your second factors, because they were lost. That has ended, and nothing was "
            "changed."
        ),
        NOT_YOU,
    ),
    Kind.ADDRESS_CONFIRMED: (
        say("The e-mail address of your account was confirmed"),
        say(
            "It was confirmed that you read what is sent to the e-mail address of your account, so it may be used to "
            "get back in when every second factor is lost."
        ),
        NOT_YOU,
    ),
    Kind.ADDRESS_CHANGED: (
        say("Your account has another e-mail address"),
        say("Messages about your account come to this address from now on, and not to the one it had before."),
        ASK,
    ),
    Kind.PASSWORD_CHANGED: (
        say("Your password was changed"),
        say("The password of your account was changed, and you were signed out everywhere."),
        ASK,
    ),
    Kind.USER_DISABLED: (
        say("Your account was disabled"),
        say("Your account was disabled; nobody can sign in to it."),
        ASK,
    ),
    Kind.USER_ENABLED: (
        say("Your account was enabled again"),
        say("Your account was enabled; you can sign in again."),
        ASK,
    ),
    Kind.SESSION_ENDED: (say("You were signed out"), say("An administrator ended one of your sessions."), ASK),
    Kind.SESSIONS_ENDED: (say("You were signed out"), say("An administrator ended your sessions."), ASK),
}
"""By event: the subject, what happened, what to do."""
MORE: Final = frozenset({Kind.SIGN_IN, Kind.BACKUP_CODES_FEW, Kind.FACTOR_SINGLE, Kind.MFA_DUE})
"""Those that are not about a change, and that somebody may do without."""

ONLY_BY_MAIL: Final = MORE | {Kind.RECOVERED, Kind.ADDRESS_CHANGED}
"""What nobody but the mailbox of the account is told from here."""
OPENS: Final = frozenset(
    {
        Kind.FACTOR_ENROLLED,
        Kind.FACTOR_REMOVED,
        Kind.FACTOR_DISABLED,
        Kind.STEP_UP_GUESSED,
        Kind.BACKUP_CODES_MADE,
        Kind.BACKUP_CODE_USED,
        Kind.TRUSTED_DEVICE_ADDED,
        Kind.PASSWORD_CHANGED,
    }
)
"""What is told elsewhere too where codes by e-mail get in: a thief of the mailbox would begin with it."""

Count = Callable[[str, str], None]
Bound = Callable[[AsyncConnection, str, str, str, str], Awaitable[Sequence[tuple[str, str]]]]
"""`(channel, address)` of all that codes of a user (tenant, subject) go to; of one factor (id, empty: of all), but not
of another one. `mfa.codes.bound`."""


class Notices:
    """Writes notices beside events; `store.event_table.Also`."""

    def __init__(
        self,
        *,
        issuer: str,
        account: str,
        language: str = "en",
        count: Count = lambda channel, outcome: None,
        mail: bool = True,
        bound: Bound | None = None,
    ) -> None:
        """`issuer` is who signs; `account` the URL of the account page, from the configuration alone.

        `language` is for people of whom none is known. `count` is told `(channel, outcome)`: queued, or dropped where
        too many wait for one address. `mail`: whether anybody carries e-mail; `bound`: None where nothing but the
        mailbox of the account is told.
        """
        self._mail = mail
        self._bound = bound
        self._issuer = issuer
        self._account = account
        self._language = language
        self._count = count

    async def __call__(self, connection: AsyncConnection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Put a notice into the outbox for each of `rows` that is worth one and about somebody with an address."""
        for row in rows:
            kind = row["kind"]
            if not row["user"] or not _worth(kind, row["detail"]):
                continue
            told = (users.c.subject, users.c.email, users.c.display_name, users.c.name, users.c.quiet, users.c.language)
            query = select(*told).where(users.c.tenant == row["tenant"], users.c.name == row["user"])
            user = (await connection.execute(query)).first()
            if user is None or (user.quiet and kind in MORE):
                continue
            by_mail = self._mail and bool(user.email)
            targets = [(CHANNEL, user.email)] if by_mail else []
            if by_mail and await is_suppressed(connection, row["tenant"], CHANNEL, user.email):
                by_mail = False  # `put` takes nothing for it, and counts that
            if (
                self._bound is not None
                and (_about_mail(row) or kind in OPENS or not by_mail)
                and kind not in ONLY_BY_MAIL
            ):
                # What was added need not be told that it was.
                new = str(row["detail"].get("id", "")) if kind == Kind.FACTOR_ENROLLED else ""
                bound = await self._bound(connection, row["tenant"], user.subject, "", new)
                if _about_mail(row) or not by_mail or any(channel == CHANNEL for channel, _ in bound):
                    targets += [one for one in bound if one[1].casefold() != user.email.casefold()]
            content = self._content(row, user.name, user.display_name or user.name)
            content["language"] = user.language or self._language
            for channel, target in targets:
                put_in = await put(
                    connection,
                    tenant=row["tenant"],
                    subject=user.subject,
                    channel=channel,
                    target=target,
                    kind=kind,
                    content=packed(content),
                    now=row["at"],
                    lifetime=LIFETIME,
                )
                self._count(channel, "queued" if put_in else "dropped")

    def _content(self, row: Mapping[str, Any], user: str, name: str) -> dict[str, Any]:
        title, said, advice = WORDS[Kind(row["kind"])]
        kind = str(row["detail"].get("factor", ""))
        until, count = _when(float(row["detail"].get("until", 0.0))), int(row["detail"].get("wrong", 0))
        factor = FACTORS.get(kind, say("A second factor"))
        said = Said(said.text, "", {"factor": factor, "until": until, "count": count})
        facts: list[tuple[str, str]] = [(say("Account"), user), (say("When"), _when(row["at"]))]
        if row["kind"] == Kind.STEP_UP_GUESSED and kind in METHODS:
            facts.append((say("Second factor"), METHODS[kind]))
        if row["detail"].get("by"):
            facts.append((say("By"), say("an administrator")))
        else:
            facts += [(say("Browser"), recognised(row["agent"]) or say("not known"))] if row["agent"] else []
            facts += [(say("Address"), row["address"])] if row["address"] else []
        return {
            "title": title,
            "name": name,
            "user": user,
            "said": said,
            "facts": facts,
            "advice": advice,
            "brief": BRIEF.get(advice, BRIEF[NOT_YOU]),
            "link": self._account,
            "from_whom": self._issuer,
        }


def _about_mail(row: Mapping[str, Any]) -> bool:
    """Whether e-mail alone might tell the wrong one: it is what changed, or what somebody gets in by."""
    return bool(row["detail"].get("factor") == "email" or row["kind"] in (Kind.RECOVERY_ENDED, Kind.ADDRESS_CONFIRMED))


def _worth(kind: str, detail: Mapping[str, Any]) -> bool:
    if kind == Kind.SIGN_IN:
        return bool(detail.get("new_browser"))
    if kind == Kind.ADDRESS_CONFIRMED:
        return not detail.get("factor")  # of which they are told anyway
    if kind in (Kind.SESSION_ENDED, Kind.SESSIONS_ENDED, Kind.TRUSTED_DEVICE_REVOKED):
        return bool(detail.get("by"))
    return kind in WORDS


def _when(at: float) -> Said:
    return date_and_time(datetime.fromtimestamp(at, UTC))
