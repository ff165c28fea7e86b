from __future__ import annotations

import ipaddress
from datetime import UTC, datetime

import pytest

from gateway.policy import criteria
from tests.policy.conftest import NOW, facts, somebody


@pytest.mark.parametrize(
    ("sent", "met"),
    [
        ([], False),
        ([b"admin"], True),
        ([b" admin\t"], True),
        ([b"user"], False),
        ([b"admin", b"root"], True),
        ([b"user", b"admin"], None),  # case 60: the service may believe either
        ([b"admin", b"user"], None),
        ([b"admin", b""], None),
        ([b"Admin"], False),
        ([b"admin, user"], False),
    ],
)
def test_case_60_every_value_of_a_header_has_to_fit(sent: list[bytes], met: bool | None) -> None:
    condition = criteria.header("X-Role", ("admin", "root"))
    assert condition.test(facts(headers=[(b"x-role", value) for value in sent]), NOW) is met


def test_header_names_ignore_case_however_they_are_spelled() -> None:
    condition = criteria.header("X-Role", ("admin",))
    assert condition.test(facts(headers=[(b"X-ROLE", b"admin"), (b"x-Role", b"user")]), NOW) is None


@pytest.mark.parametrize("wanted", ["admin", "*"])
@pytest.mark.parametrize("spelled", [b"X_Role", b"x.role", b"X~Role"])
def test_case_53_a_header_that_only_some_services_read_as_another_fits_no_rule(spelled: bytes, wanted: str) -> None:
    """Neither a rule that lets in by it nor one that keeps out."""
    condition = criteria.header("X-Role", (wanted,))
    assert condition.test(facts(headers=[(spelled, b"admin")]), NOW) is None
    assert condition.test(facts(headers=[(b"X-Role", b"admin"), (spelled, b"admin")]), NOW) is None
    assert condition.test(facts(headers=[(b"X-Other", b"admin")]), NOW) is False


def test_a_star_asks_only_that_a_header_is_sent() -> None:
    condition = criteria.header("x-any", ("*",))
    assert condition.test(facts(headers=[(b"x-any", b"1"), (b"x-any", b"2")]), NOW) is True
    assert condition.test(facts(headers=[]), NOW) is False


@pytest.mark.parametrize(
    ("query", "met"),
    [
        ("", False),
        ("action=delete", True),
        ("%61ction=%64elete", True),
        ("action=delete&action=view", None),
        ("action=view", False),
        ("other=delete", False),
        ("action", False),
        ("action=delete&action=delete", True),
    ],
)
def test_query_parameters(query: str, met: bool | None) -> None:
    assert criteria.query("action", ("delete",)).test(facts(query=query), NOW) is met


@pytest.mark.parametrize(
    ("address", "met"),
    [
        ("10.1.2.3", True),
        ("11.1.2.3", False),
        ("2001:db8::7", True),
        ("2001:db9::7", False),
        ("::ffff:10.1.2.3", True),
        ("unknown", False),
        ("", False),
        ("fe80::1%eth0", False),
    ],
)
def test_networks(address: str, met: bool) -> None:
    nets = [ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("2001:db8::/32")]
    assert criteria.networks(nets).test(facts(address=address), NOW) is met


def at(text: str) -> float:
    return datetime.strptime(text, "%Y-%m-%d %H:%M").replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("when", "met"),
    [
        ("2026-11-20 05:00", True),  # a Friday, 08:00 in Istanbul
        ("2026-11-20 04:59", False),
        ("2026-11-20 14:59", True),
        ("2026-11-20 15:00", False),
        ("2026-11-21 08:00", False),  # Saturday
    ],
)
def test_office_hours(when: str, met: bool) -> None:
    condition = criteria.times(("mon", "tue", "wed", "thu", "fri"), "08:00", "18:00", "Europe/Istanbul")
    assert condition.test(facts(), at(when)) is met


@pytest.mark.parametrize(
    ("when", "met"),
    [
        ("2026-11-20 22:00", True),  # Friday night
        ("2026-11-21 05:59", True),  # still the night that began on Friday
        ("2026-11-21 06:00", False),
        ("2026-11-21 22:00", False),  # Saturday night begins on Saturday
        ("2026-11-20 05:00", False),  # Thursday's night
    ],
)
def test_a_night_belongs_to_the_day_it_begins_on(when: str, met: bool) -> None:
    assert criteria.times(("fri",), "22:00", "06:00", "UTC").test(facts(), at(when)) is met


def test_a_remembered_minute_does_not_outlive_it() -> None:
    condition = criteria.times(("fri",), "08:00", "18:00", "UTC")
    friday = at("2026-11-20 17:59")
    assert condition.test(facts(), friday + 59)
    assert not condition.test(facts(), friday + 60)
    assert condition.test(facts(), friday + 59)  # the clock was set back


def test_daylight_saving_moves_with_the_zone() -> None:
    condition = criteria.times(criteria.DAYS, "08:00", "09:00", "Europe/Berlin")
    assert condition.test(facts(), at("2026-01-15 07:30"))
    assert condition.test(facts(), at("2026-07-15 06:30"))


def test_a_time_zone_nobody_knows() -> None:
    for name in ("Europe/Nowhere", "../../etc/passwd", ""):
        with pytest.raises(ValueError, match="time zone"):
            criteria.times(("mon",), "00:00", "24:00", name)


def test_caller_criteria_know_nobody() -> None:
    every = [
        criteria.users(("bob",)),
        criteria.groups(("staff",)),
        criteria.claims({"dept": ("hr",)}),
        criteria.levels(("aal1",)),
    ]
    assert [one.test(facts(), None) for one in every] == [False] * 4
    bob = somebody("bob", groups=["staff", "x"], claims={"dept": "hr"})
    assert [one.test(facts(), bob) for one in every] == [True] * 4
    eve = somebody("eve", "totp", groups=["x"], claims={"dept": "it"})
    assert [one.test(facts(), eve) for one in every] == [False] * 4


@pytest.mark.parametrize(
    ("claim", "wanted", "fits"),
    [
        ("hr", ("hr", "it"), True),
        (["x", "hr"], ("hr",), True),
        (["x"], ("hr",), False),
        ([["hr"]], ("hr",), False),
        (True, (True,), True),
        (1, (True,), False),
        (True, (1,), False),
        ("1", (1,), False),
        (None, ("None",), False),
        ({"hr": 1}, ("hr",), False),
    ],
)
def test_claims_compare_by_kind_and_value(claim: object, wanted: tuple[object, ...], fits: bool) -> None:
    assert criteria.claims_fit({"dept": wanted}, somebody(claims={"dept": claim})) is fits
