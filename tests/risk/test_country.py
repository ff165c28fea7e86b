from __future__ import annotations

from pathlib import Path

import pytest
from mmdb_writer import MMDBWriter
from netaddr import IPSet

from gateway.core.clock import ManualClock
from gateway.core.errors import ConfigError
from gateway.risk.country import CountrySignal
from tests.risk.conftest import ABROAD, HOME, ann, at


def geoip(folder: Path) -> Path:
    """A database in which home is in Norway, abroad in Brazil, and 192.0.2.0/24 has no country."""
    writer = MMDBWriter(ip_version=4, database_type="GeoLite2-Country")
    writer.insert_network(IPSet(["198.51.100.0/24"]), {"country": {"iso_code": "NO"}})
    writer.insert_network(IPSet(["203.0.113.0/24"]), {"registered_country": {"iso_code": "BR"}})
    writer.insert_network(IPSet(["192.0.2.0/24"]), {"traits": {"is_anycast": True}})
    path = folder / "country.mmdb"
    writer.to_db_file(str(path))
    return path


def test_how_strange(tmp_path: Path) -> None:
    signal, history = CountrySignal(geoip(tmp_path), ManualClock()), {}
    assert signal.weigh(at(HOME), ann("s2"), history) is None
    signal.learn(at(HOME), ann("s1"), history)
    assert signal.weigh(at(HOME), ann("s2"), history) == 0.0
    assert signal.weigh(at(ABROAD), ann("s2"), history) == 1.0
    for unknown in ("192.0.2.1", "10.0.0.1", "2001:db8::1", "unknown", ""):
        assert signal.country(unknown) == ""
        assert signal.weigh(at(unknown), ann("s2"), history) is None
        signal.learn(at(unknown), ann("s1"), history)
    assert list(history["countries"]) == ["NO"]
    signal.close()


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        CountrySignal(tmp_path / "missing.mmdb", ManualClock())
    (tmp_path / "bad.mmdb").write_bytes(b"<html>not found</html>" * 100)
    with pytest.raises(ConfigError, match=r"bad\.mmdb cannot be read"):
        CountrySignal(tmp_path / "bad.mmdb", ManualClock())
