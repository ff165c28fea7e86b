"""Events that tell where a request came from."""

from __future__ import annotations

from gateway.core.events import NOWHERE, Event, Kind, Place, Severity


def test_an_event_of_a_place_tells_all_it_is_given() -> None:
    place = Place("192.0.2.7", "Firefox", "r1")
    about = {"tenant": "acme", "user": "ann", "session": "s1", "rule": "wiki"}
    assert place.event(Kind.REFUSED, Severity.ALARM, **about, detail={"why": "x"}) == Event(
        Kind.REFUSED,
        Severity.ALARM,
        address="192.0.2.7",
        agent="Firefox",
        request_id="r1",
        detail={"why": "x"},
        **about,
    )


def test_an_event_of_nowhere_is_a_plain_one() -> None:
    assert NOWHERE.event(Kind.STARTED) == Event(Kind.STARTED)
