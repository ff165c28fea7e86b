"""`sallyport explain`: what would the gate answer to this request, and why?

The request is read by the code that reads requests from the network, and judged by the code that judges them.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import TYPE_CHECKING, Any

from gateway.commands.common import add_config, add_json, as_json

if TYPE_CHECKING:
    from gateway.core.facts import Facts
    from gateway.core.identity import Identity
    from gateway.core.rule import LimitSpec
    from gateway.policy.explain import Explanation


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `explain` to the command line."""
    parser = subparsers.add_parser(
        "explain",
        help="say what a request would be answered, and why",
        description='Say which rule decides a request, as in: sallyport explain "GET /admin/users" --as ann '
        "--groups admins. Rules are tried in order; limits are shown, not counted.",
    )
    parser.add_argument("request", nargs="+", metavar="REQUEST", help='"GET /path" or "GET https://host/path"')
    parser.add_argument("--as", dest="user", metavar="USER", help="who asks (default: nobody is signed in)")
    parser.add_argument("--groups", default="", metavar="A,B", help="groups of the user")
    parser.add_argument("--claim", action="append", default=[], metavar="NAME=VALUE", help="a claim of the user")
    parser.add_argument("--level", choices=("aal1", "aal2", "aal3"), help="assurance level of the session")
    parser.add_argument("--factors", metavar="A,B", help="factors shown beside the password")
    parser.add_argument("--verified", action="store_true", help="with a key that verified its user (PIN, finger)")
    parser.add_argument("--proven", default="0s", metavar="DURATION", help="how long ago they were shown, as in 5m")
    parser.add_argument("--address", default="192.0.2.1", metavar="IP", help="client address (default: %(default)s)")
    parser.add_argument(
        "--host", metavar="HOST", help="host asked (default: that of the URL, or the first in the rules)"
    )
    parser.add_argument("--header", action="append", default=[], metavar="NAME:VALUE", help="a header; may be repeated")
    parser.add_argument("--risk", type=float, default=0.0, metavar="SCORE", help="risk score, 0.0 … 1.0")
    parser.add_argument("--at", metavar="'YYYY-MM-DD HH:MM'", help="when, in UTC (default: now)")
    add_config(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Explain and return 0; 2 where the question itself makes no sense."""
    from gateway import settings
    from gateway.core.decision import Score
    from gateway.core.errors import ConfigError
    from gateway.policy.examples import first_host
    from gateway.policy.explain import explain
    from gateway.policy.load import load
    from gateway.wire.request import Rejected
    from gateway.wire.target import readings

    read = settings.load(args.config, os.environ)
    factors = read.mfa.factors
    book = load(
        read.policies,
        upstreams=read.upstreams,
        factors=factors,
        admin_groups=read.mfa.required_groups,
        trusted=read.mfa.trusted,
        people=read.store.keeps_records,
        counters=read.store.counts,
        together=read.store.counts_together,
        lifetimes=read.sessions.lifetimes,
        readings=readings,
    )
    try:
        now = _when(args.at)
        identity = _identity(args, factors, now) if args.user is not None else None
        facts = _facts(args, first_host(book), read.scheme)
    except Rejected as rejected:
        return _say_rejected(args, rejected.reason)
    except ValueError as error:
        raise ConfigError(f"explain: {error}") from None
    story = explain(book, facts, identity, now, Score(args.risk))
    print(as_json(_report(story, facts, identity)) if args.json else _tell(story, facts, identity))
    return 0


def _when(text: str | None) -> float:
    from datetime import UTC, datetime

    return datetime.strptime(text, "%Y-%m-%d %H:%M").replace(tzinfo=UTC).timestamp() if text else time.time()


def _identity(args: argparse.Namespace, factors: tuple[str, ...], now: float) -> Identity:
    from pydantic import ValidationError

    from gateway.policy.examples import identity_of
    from gateway.policy.schema import As

    said: dict[str, Any] = {
        "user": args.user,
        "groups": _words(args.groups),
        "claims": dict(claim.partition("=")[::2] for claim in args.claim),
        "level": args.level,
        "factors": _words(args.factors) if args.factors is not None else None,
        "verified": True if args.verified else None,
        "proven": args.proven,
    }
    try:
        return identity_of(As.model_validate(said), factors, now)
    except ValidationError as error:
        raise ValueError(f"{error.errors()[0]['loc'][0]}: {error.errors()[0]['msg']}") from None


def _facts(args: argparse.Namespace, host: str, scheme: str) -> Facts:
    """The request as the wire would read it. Raises ValueError, and `Rejected` as the wire would."""
    from gateway.wire.forwarded import TrustedProxies, canonical
    from gateway.wire.request import Caller, read

    method, _, target = " ".join(args.request).partition(" ")
    target = target.strip()
    if not target:
        raise ValueError(f"`{method}` is not a request; write GET /path")
    if "://" in target:
        scheme, _, rest = target.partition("://")
        authority, slash, path = rest.partition("/")
        host, target = authority, slash + path or "/"
    address = canonical(args.address)
    if address is None:
        raise ValueError(f"`{args.address}` is not an IP address")
    headers = [header.partition(":") for header in args.header]
    fields = [("Host", args.host or host), *((name.strip(), value.strip()) for name, _, value in headers)]
    encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields]
    caller = Caller(
        "1.1",
        encoded,
        peer=address,
        trusted=False,
        proxies=TrustedProxies(()),
        scheme=scheme.lower() if scheme.lower() in ("http", "https") else "http",
        strip_cookies=lambda cookie: cookie,
    )
    return read(method, target.encode(), caller, "explain")


def _say_rejected(args: argparse.Namespace, reason: str) -> int:
    report = {"answer": "rejected", "reasons": [str(reason)], "rule": "", "tried": [], "readings": []}
    print(as_json(report) if args.json else f"rejected before any rule: {reason}")
    return 0


def _report(story: Explanation, facts: Facts, identity: Identity | None) -> dict[str, Any]:
    from gateway.core.decision import ANSWERS

    rule = story.entry.rule if story.entry is not None else None
    return {
        "request": {"method": facts.method, "host": facts.host, "path": facts.path, "address": facts.address},
        "caller": {"user": identity.user, "groups": sorted(identity.groups), "level": identity.level.acr}
        if identity is not None
        else None,
        "answer": ANSWERS[type(story.decision)],
        "reasons": [reason.value for reason in story.decision.reasons],
        "rule": rule.name if rule is not None else "",
        "where": rule.where if rule is not None else "",
        "upstream": rule.upstream if rule is not None else "",
        "demands": _demands(story),
        "shadow": story.shadow.name if story.shadow is not None else "",
        "tried": [{"rule": one.rule.name, "outcome": one.outcome, "why": one.why} for one in story.tried],
        "readings": [
            {"method": one.method, "path": one.path, "rule": one.rule, "answer": one.answer, "decisive": one.decisive}
            for one in story.readings
        ],
    }


def _tell(story: Explanation, facts: Facts, identity: Identity | None) -> str:
    from gateway.core.decision import ANSWERS

    who = f"{identity.user} ({identity.level.acr})" if identity is not None else "nobody in particular"
    lines = [f"{facts.method} {facts.host}{facts.path} from {facts.address}, asked by {who}", ""]
    width = max((len(one.rule.name) for one in story.tried), default=0)
    for one in story.tried:
        if one.outcome == "not reached":
            break
        lines.append(f"  {one.outcome:13}  {one.rule.name.ljust(width)}  {one.why}")
    unreached = sum(one.outcome == "not reached" for one in story.tried)
    if unreached:
        lines.append(f"  {unreached} more {'rules were' if unreached > 1 else 'rule was'} not reached")
    for reading in story.readings:
        mark = "decides" if reading.decisive else "asks no more"
        lines.append(
            f"  read as {reading.method} {reading.path}: {reading.answer}, rule {reading.rule or '-'} ({mark})"
        )
    if story.shadow is not None:
        lines.append(f"  shadow rule {story.shadow.name} would have decided")
    lines += ["", f"{ANSWERS[type(story.decision)]}: {', '.join(story.decision.reasons)}"]
    if story.entry is not None:
        lines.append(f"  rule      {story.entry.rule.name}, {story.entry.rule.where}")
    lines += [f"  {name:9} {text}" for name, text in _demands(story).items()]
    return "\n".join(lines)


def _demands(story: Explanation) -> dict[str, str]:
    """What the deciding rule asks for, in words."""
    if story.entry is None:
        return {}
    rule = story.entry.rule
    said = {"access": story.entry.access}
    if rule.step_up is not None:
        demand = rule.step_up
        parts = [demand.level.acr]
        if demand.factors:
            parts.append("with " + " or ".join(sorted(demand.factors)))
        if demand.verified:
            parts.append("that verified its user")
        if demand.max_age is not None:
            parts.append(f"no older than {demand.max_age:g} s")
        if demand.trusted:
            parts.append(f"or a browser that is trusted, for {demand.trusted:g} s")
        if story.entry.administrators:
            parts.append("(administrators never act at aal1)")
        said["proof"] = " ".join(parts)
    if rule.session is not None:
        idle, absolute = rule.session.idle, rule.session.absolute
        said["session"] = ", ".join(
            f"{what} {most:g} s" for what, most in (("at rest", idle), ("in all", absolute)) if most is not None
        )
    if rule.fresh:
        said["fresh"] = "looked up in its store for each request"
    if rule.limits:
        said["limits"] = ", ".join([_limit(limit) for limit in rule.limits])
    if rule.risk.step_up_at is not None or rule.risk.refuse_at is not None:
        ask, refuse = rule.risk.step_up_at, rule.risk.refuse_at
        said["risk"] = ", ".join(
            f"{what} from {at:g}" for what, at in (("step up", ask), ("refuse", refuse)) if at is not None
        )
    if rule.upstream:
        said["upstream"] = rule.upstream
    return said


def _limit(limit: LimitSpec) -> str:
    """`per-user 100/60s by user (gcra, 20 at once, leased)`: only what is not as usual stands in brackets."""
    more = [limit.algorithm] if limit.algorithm != "sliding_window" else []
    if limit.algorithm in ("token_bucket", "gcra"):
        more.append(f"{limit.burst} at once")
    if limit.mode != "shared":
        more.append(limit.mode)
    if limit.when_away == "refuse":
        more.append("refuses while the store is away")
    elif limit.when_away == "allow":
        more.append("allows while the store is away")
    if limit.adapt is not None:
        adapt = limit.adapt
        ways = ("risk", adapt.risk), ("unknown device", adapt.unknown_device), ("latency", adapt.latency)
        by = " and ".join(name for name, value in ways if value is not None)
        more.append(f"down to {adapt.least:.0%} by {by}")
    if limit.backoff is not None:
        back = limit.backoff
        more.append(f"after {back.after} refusals {back.wait:g} to {back.longest:g} s of waiting")
    if limit.shadow:
        more.append("in shadow")
    said = f"{limit.name} {limit.rate}/{limit.window:g}s by {'+'.join(limit.key)}"
    return f"{said} ({'; '.join(more)})" if more else said


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]
