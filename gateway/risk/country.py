"""Is this a country they have been in?

Needs a MaxMind database with countries (`risk: {geoip: path}`), read with `maxminddb`, which is imported only then.
An address without a record is unknown, and what is unknown is not suspicious.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.core.clock import Clock
from gateway.core.errors import ConfigError
from gateway.core.facts import Facts
from gateway.core.identity import Identity
from gateway.risk.history import known, teach


class CountrySignal:
    """New country. Raises `ConfigError` when `maxminddb` is not installed or `path` is no such database."""

    name = "country"

    def __init__(self, path: Path, clock: Clock) -> None:
        self._clock = clock
        try:
            import maxminddb
        except ImportError as error:
            raise ConfigError("risk.geoip needs the package maxminddb", "pip install 'sallyport[geoip]'") from error
        self._unknown = (ValueError, maxminddb.InvalidDatabaseError)
        try:
            self._reader = maxminddb.open_database(str(path))
        except (OSError, ValueError, maxminddb.InvalidDatabaseError) as error:
            raise ConfigError(
                f"risk.geoip: {path} cannot be read: {getattr(error, 'strerror', None) or error}",
                "give the path of a GeoIP2 or GeoLite2 country or city database (.mmdb)",
            ) from error

    def country(self, address: str) -> str:
        """ISO 3166-1 code of the country of `address`, or an empty text."""
        try:
            record = self._reader.get(address)
        except self._unknown:  # no address, IPv6 in a database of IPv4, a damaged record
            return ""
        for part in ("country", "registered_country"):
            place = record.get(part) if isinstance(record, dict) else None
            code = place.get("iso_code") if isinstance(place, dict) else None
            if isinstance(code, str) and code:
                return code
        return ""

    def weigh(self, facts: Facts, identity: Identity, history: Mapping[str, Any]) -> float | None:
        """1.0 never seen, 0.0 seen; None where it is unknown or there is nothing to compare with."""
        seen = known(history, "countries", identity)
        here = self.country(facts.address)
        if not seen or not here:
            return None
        return 0.0 if here in seen else 1.0

    def learn(self, facts: Facts, identity: Identity, history: dict[str, Any]) -> None:
        """Remember the country."""
        if here := self.country(facts.address):
            teach(history, "countries", here, identity, self._clock.now())

    def close(self) -> None:
        """Let go of the file."""
        self._reader.close()
