"""How counters stand, wherever they are, and having them begin anew: for operators, by command line and API.

What is asked about is a rule's name, a limit's, and who is counted; each may be left out. A reset has to name the rule,
and says whom it means or that it means everybody.

    local      this process: limits of that mode, all of them where nothing is shared, and what it has counted by
               itself while the shared store was away
    shared     counters on the shared store

A reset takes away the shared ones first, where that is impossible nothing was done; then those of this process; then
it tells all replicas, which take away theirs, and believe nothing they remember of shared ones any more.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from gateway.core.errors import StoreAway, UserError
from gateway.core.events import NOWHERE, Event, Kind, Place, Severity
from gateway.core.identity import DEFAULT_TENANT
from gateway.limits.away import AWAY
from gateway.limits.limiter import Limiter
from gateway.limits.spelling import EVERYBODY, Who
from gateway.limits.standing import How, Standing

if TYPE_CHECKING:
    from gateway.limits.shared_counters import Named, SharedCounters

Tell = Callable[[bytes], Coroutine[Any, Any, None]]
"""Tells every replica of a reset."""


class Standings:
    """The counters of one process and of what it shares with others. `limits` answers every limit there is now."""

    def __init__(
        self,
        limits: Callable[[], Sequence[Named]],
        local: Limiter,
        shared: SharedCounters | None = None,
        tell: Tell | None = None,
    ) -> None:
        self._limits = limits
        self._local = local
        self._shared = shared
        self._tell = tell

    async def status(self, rule: str, limit: str, who: Who, most: int) -> tuple[list[Standing], bool]:
        """How they stand, `most` at the most; and whether the shared ones could be asked.

        Raises `UserError` ERR-LIMIT-UNKNOWN.
        """
        named = named_by(self._limits(), rule, limit)
        standings = local_standings(self._local, named, rule, limit, who, most)
        if self._shared is None:
            return standings, True
        try:
            shared = await self._shared.status(not_local(named), who, most)
        except StoreAway:
            return standings, False
        return (shared + standings)[:most], True

    async def reset(self, rule: str, limit: str, who: Who) -> int:
        """Have them begin anew; how many there were, here and on the shared store.

        Raises `UserError` ERR-LIMIT-UNKNOWN, `StoreAway`.
        """
        named = named_by(self._limits(), rule, limit)
        gone = 0 if self._shared is None else await self._shared.reset(not_local(named), who)
        gone += local_reset(self._local, rule, limit, who)
        if self._tell is not None:
            await self._tell(message(rule, limit, who))
        return gone

    def local_status(self, rule: str, limit: str, who: Who, most: int) -> list[Standing]:
        """How those of this process stand. Raises as `status` does."""
        return local_standings(self._local, named_by(self._limits(), rule, limit), rule, limit, who, most)

    def local_reset(self, rule: str, limit: str, who: Who) -> int:
        """Have those of this process begin anew. Raises as `reset` does."""
        named_by(self._limits(), rule, limit)
        return local_reset(self._local, rule, limit, who)


def named_by(limits: Sequence[Named], rule: str, limit: str) -> list[Named]:
    """Those of `limits` that are meant. Raises `UserError` ERR-LIMIT-UNKNOWN where there are none, saying what is."""
    found = [one for one in limits if rule in ("", one[0]) and limit in ("", one[1].name)]
    if found or not (rule or limit):
        return found
    rules = {name for name, _ in limits}
    if rule and rule not in rules:
        raise _unknown(f"No rule {rule} has limits", rule, rules)
    names = {each.name for of_rule, each in limits if rule in ("", of_rule)}
    raise _unknown(f"Rule {rule} has no limit {limit}" if rule else f"No rule has a limit {limit}", limit, names)


def not_local(limits: Iterable[Named]) -> list[Named]:
    """Those that are counted elsewhere where something is shared."""
    return [one for one in limits if one[1].mode != "local"]


def local_standings(
    local: Limiter, limits: Sequence[Named], rule: str, limit: str, who: Who, most: int
) -> list[Standing]:
    """How the counters in this process stand."""
    shadows = {(of_rule, each.name): each.shadow for of_rule, each in limits}
    found = local.status(rule, limit, who, most)
    if rule:
        found += local.status(rule + AWAY, limit, who, most - len(found))
    standings = []
    for one in found:
        of_rule = one.rule.removesuffix(AWAY)
        how: How = "local" if of_rule == one.rule else "away"
        standings.append(one._replace(rule=of_rule, how=how, shadow=shadows.get((of_rule, one.limit), False)))
    return standings


def local_reset(local: Limiter, rule: str, limit: str, who: Who) -> int:
    """Have the counters in this process begin anew; how many there were."""
    return local.reset(rule, limit, who) + (local.reset(rule + AWAY, limit, who) if rule else 0)


def message(rule: str, limit: str, who: Who) -> bytes:
    """A reset, as replicas are told of it."""
    return orjson.dumps({"rule": rule, "limit": limit, "who": [sorted(each) for each in who.named]})


def told(message: bytes) -> tuple[str, str, Who] | None:
    """What a message says; None where it makes no sense."""
    try:
        said = orjson.loads(message)
        return str(said["rule"]), str(said["limit"]), Who(said["who"]) if said["who"] else EVERYBODY
    except (ValueError, KeyError, TypeError):
        return None


def reset_event(
    rule: str,
    limit: str,
    who: str,
    counters: int,
    reason: str,
    by: str,
    where: str = "command line",
    *,
    tenant: str = DEFAULT_TENANT,
    user: str = "",
    place: Place = NOWHERE,
) -> Event:
    """That somebody has had counters begin anew."""
    detail = {"limit": limit, "who": who, "counters": counters, "reason": reason, "by": by, "from": where}
    return place.event(Kind.LIMIT_RESET, Severity.NOTICE, tenant=tenant, user=user, rule=rule, detail=detail)


def _unknown(what: str, name: str, known: Iterable[str]) -> UserError:
    near = difflib.get_close_matches(name, list(known), n=1)
    there = f"; did you mean {near[0]}" if near else f"; there is {', '.join(sorted(known)[:8])}" if known else ""
    return UserError("ERR-LIMIT-UNKNOWN", f"{what}{there}.", 404)
