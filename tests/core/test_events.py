"""Events that tell where a request came from, and whose it was."""

from __future__ import annotations

from dataclasses import replace

from gateway.core.events import NOWHERE, Event, Kind, Place, Severity
from gateway.core.identity import Identity, Session

ANN = Identity("acme", "s-ann", "ann", session=Session("s1", 1, 0.0, 9.0, 0.0, (), "", ""))


def test_an_event_of_a_place_tells_all_it_is_given() -> None:
    place = Place("192.0.2.7", "Firefox", "r1")
    from_there = Event(
        Kind.REFUSED,
        Severity.ALARM,
        tenant="acme",
        user="ann",
        address="192.0.2.7",
        agent="Firefox",
        request_id="r1",
        rule="wiki",
        detail={"why": "x"},
    )
    said = {"rule": "wiki", "detail": {"why": "x"}}
    assert place.event(Kind.REFUSED, Severity.ALARM, tenant="acme", user="ann", **said) == from_there
    assert place.event(Kind.REFUSED, Severity.ALARM, who=ANN, user="typed", **said) == replace(from_there, session="s1")
    no_session = replace(ANN, session=None)
    assert no_session.session_id == ""
    assert place.event(Kind.REFUSED, Severity.ALARM, who=no_session, **said) == from_there


def test_an_event_of_nowhere_is_a_plain_one() -> None:
    assert NOWHERE.event(Kind.STARTED) == Event(Kind.STARTED)
