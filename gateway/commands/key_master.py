"""`sallyport key … master`: rotate the master key while gateways run, and retire old ones.

    publish    the file appears; every gateway reads it, and could open what it seals
    wait       until its time has come everywhere: from then on gateways seal with it
    seal anew  every secret that an older key has sealed, while people go on using them
    retire     another day: the old file goes once nothing needs it

A rotation is over when nothing is left under an older key and the records say that the new one seals them. Until then
`rotate master` goes on with it, whatever ended it the last time.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.commands.common import as_json, as_table, when
from gateway.commands.opened import opened
from gateway.core.clock import SystemClock
from gateway.core.errors import StoreAway
from gateway.core.events import Event, Kind, Severity
from gateway.crypto.masters import Master, MasterStanding

if TYPE_CHECKING:
    from gateway.audit.recorder import Recorder
    from gateway.crypto.keys import KeyRing
    from gateway.mfa.sealed import Need
    from gateway.settings import Settings
    from gateway.store.sql import Records

SETTLED = 2.0
"""Seconds after a key's time until every gateway that reads the folder each second seals with it."""
SHOW_EVERY = 0.2
"""Seconds between two lines of progress."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A master key, and what an old one is still needed for."""

    standing: MasterStanding
    needs: Sequence[Need] = ()

    @property
    def may_go_from(self) -> float | None:
        """From when on nothing needs it; None while that depends on somebody sealing anew."""
        return None if any(not need.until for need in self.needs) else max((n.until for n in self.needs), default=0.0)


def publish(ring: KeyRing, overlap: float, *, json: bool) -> None:
    """Make the file of the next key, if none is waiting already."""
    key = ring.rotate_master(overlap)
    if json:
        print(as_json(as_row(_found(ring, key))))
    else:
        print(f"master key {key.id.hex()} is published in {key.path} and seals from {when(key.not_before)} on")
        print("copy it to where other gateways read their keys, then: sallyport key rotate master")


async def rotate(settings: Settings, ring: KeyRing, overlap: float, *, json: bool) -> int:
    """Publish, wait and seal anew; or what is left of it. 1 where secrets open under no key, or else 0."""
    from gateway.mfa import sealed

    async with opened(settings) as (records, recorder):
        await sealed.demand_keys(records, ring)
        if await _is_whole(records, ring):
            key = ring.rotate_master(overlap)
            _say(f"master key {key.id.hex()} is published and seals from {when(key.not_before)} on")
            resumed = False
        else:
            key = ring.masters.standings()[-1].key
            _say(f"going on with master key {key.id.hex()}, which seals from {when(key.not_before)} on")
            resumed = True
        # A kill between the file and this line leaves no trace of the publication, so whoever goes on tells of it too.
        about = {"key": "master", "id": key.id.hex(), "seals_from": when(key.not_before), "resumed": resumed}
        await recorder.record(Event(Kind.KEY_ROTATED, Severity.NOTICE, detail=about))
        await _settled(ring, key)
        await sealed.remember_key(records, ring)
        try:
            done, broken = await _seal_anew(records, ring)
        except StoreAway:
            _say("broken off; `sallyport key rotate master` goes on where it was")
            raise
        key = ring.masters.current
        outcome = {"key": "master", "id": key.id.hex(), "sealed_anew": done, "broken": len(broken)}
        await recorder.record(Event(Kind.KEY_ROTATED, Severity.NOTICE, detail=outcome))
    for tenant, factor in sorted(broken):
        _say(f"factor {factor} of tenant {tenant} opens under no key, and stays as it is")
    if json:
        print(as_json({**as_row(_found(ring, key)), "sealed_anew": done, "broken": len(broken)}))
    else:
        print(f"master key {key.id.hex()} seals; {done:,} secrets sealed anew, {len(broken)} do not open")
        print("the one before it still opens what expires: `sallyport key retire` removes it once nothing needs it")
    return 1 if broken else 0


async def retire(settings: Settings, ring: KeyRing, *, force: bool, json: bool) -> int:
    """Remove old keys. 1 where one is still needed."""
    from gateway.mfa import sealed
    from gateway.mfa.backup_codes import BackupCodes

    clock = SystemClock()
    gone, kept = [], []
    async with opened(settings) as (records, recorder):
        await sealed.demand_keys(records, ring)
        await _settled(ring, ring.masters.current)
        for standing in [one for one in ring.masters.standings() if one.status == "old"]:
            one = await _needed(settings, records, standing)
            if one.needs and (not force or one.may_go_from is None):
                kept.append(one)
                continue
            await sealed.remember_key(records, ring)  # before what it said so far cannot be met any more
            codes = BackupCodes(records, ring.mac, clock)
            name = standing.key.id
            voided = await sealed.void_codes(records, codes, name, clock.now()) if force else 0
            ring.retire_master(standing.key)
            await _tell_retired(recorder, name, forced=bool(one.needs), voided=voided)
            gone.append(name.hex())
    if json:
        print(as_json({"retired": gone, "needed": [as_row(one) for one in kept]}))
        return 1 if kept else 0
    for gone_one in gone:
        print(f"master key {gone_one} is gone")
    for one in kept:
        print(f"master key {one.standing.key.id.hex()} stays: {_why(one)}")
    if not gone and not kept:
        print("there is no old master key")
    return 1 if kept else 0


async def listed(settings: Settings, ring: KeyRing) -> list[Listed]:
    """Every master key, oldest first; the records are opened only where there is an old one to ask about."""
    from gateway.store.sql import Records

    standings = ring.masters.standings()
    there = None
    if settings.store.records is not None and any(one.status == "old" for one in standings):
        there = await Records.find(settings.store.records.place, clock=SystemClock())
    if there is None:
        return [Listed(one) for one in standings]
    await there.close()
    async with opened(settings) as (records, _):
        return [await _needed(settings, records, one) if one.status == "old" else Listed(one) for one in standings]


def table(masters: Sequence[Listed]) -> str:
    """For people."""
    rows = [("MASTER KEY", "STATUS", "SEALS FROM", "NEEDED BY")]
    for one in masters:
        key, status = one.standing.key, one.standing.status
        rows.append((key.id.hex(), status, when(key.not_before), _why(one) if status == "old" else "-"))
    return as_table(rows)


def as_row(one: Listed) -> dict[str, object]:
    """For programs."""
    standing = one.standing
    return {
        "key": "master",
        "id": standing.key.id.hex(),
        "status": standing.status,
        "seals_from": standing.key.not_before,
        "until": standing.replaced_at or None,
        "file": str(standing.key.path),
        "needed_by": [{"what": need.what, "count": need.count, "until": need.until or None} for need in one.needs],
        "may_go_from": one.may_go_from if standing.status == "old" else None,
    }


async def _is_whole(records: Records, ring: KeyRing) -> bool:
    """Whether no rotation is under way."""
    from gateway.mfa import sealed

    newest = ring.masters.standings()[-1]
    sealed_by = await records.sealed_by()
    return (
        newest.status == "current"
        and sealed_by in (None, ring.sealer.current)
        and not await sealed.left(records, ring.sealer)
    )


async def _settled(ring: KeyRing, key: Master) -> None:
    """Wait until gateways everywhere seal with `key`."""
    shown = False
    while (wait := key.not_before + SETTLED - time.time()) > 0:
        if sys.stderr.isatty():
            sys.stderr.write(f"\rwaiting until every gateway has read it: {wait:.0f} s \033[K")
            sys.stderr.flush()
            shown = True
        await asyncio.sleep(min(wait, 1.0))
    if shown:
        sys.stderr.write("\r\033[K")
    ring.refresh()


async def _seal_anew(records: Records, ring: KeyRing) -> tuple[int, set[tuple[str, str]]]:
    """How many were sealed anew, and which do not open. Looks again until nothing is left but those."""
    from gateway.mfa import sealed

    done = 0
    broken: set[tuple[str, str]] = set()
    began, shown = time.monotonic(), 0.0
    while (left := await sealed.left(records, ring.sealer)) > len(broken):
        whole = done + left
        async for row in sealed.reseal(records, ring.sealer):
            if row.opened:
                done += 1
            else:
                broken.add((row.tenant, row.id))
            now = time.monotonic()
            if sys.stderr.isatty() and now - shown >= SHOW_EVERY:
                shown = now
                rate = done / max(now - began, 0.001)
                sys.stderr.write(f"\r{done:,} of {whole:,} sealed anew, {rate:,.0f}/s \033[K")
                sys.stderr.flush()
    if shown:
        sys.stderr.write("\r\033[K")
    return done, broken


async def _needed(settings: Settings, records: Records, standing: MasterStanding) -> Listed:
    from gateway.mfa import sealed

    _, longest = settings.sessions.lifetimes
    return Listed(standing, await sealed.needs(records, standing, time.time(), longest))


async def _tell_retired(recorder: Recorder, name: bytes, *, forced: bool, voided: int) -> None:
    detail = {"key": "master", "id": name.hex(), "forced": forced, "backup_codes_void_of": voided}
    severity = Severity.WARNING if forced else Severity.NOTICE
    await recorder.record(Event(Kind.KEY_RETIRED, severity, detail=detail))


def _found(ring: KeyRing, key: Master) -> Listed:
    return Listed(next(standing for standing in ring.masters.standings() if standing.key.id == key.id))


def _why(one: Listed) -> str:
    if not one.needs:
        return "nothing: sallyport key retire"
    each = ", ".join(f"{need.count:,} {need.what}" if need.count else need.what for need in one.needs)
    from_when = one.may_go_from
    return f"{each}; " + (f"may go from {when(from_when)} on" if from_when else "first: sallyport key rotate master")


def _say(line: str) -> None:
    print(line, file=sys.stderr)
