"""Sentences that remember how they were made."""

from __future__ import annotations

import copy
import json
from datetime import datetime

from gateway.core.languages import spoken
from gateway.core.words import Said, date, packed, say, say_n, sentences, unpacked


def test_what_is_said_is_english_text() -> None:
    assert say("Please sign in.") == "Please sign in."
    assert say("At most {size} KiB.", size=64) == "At most 64 KiB."
    assert say_n("{count} day", "{count} days", 1) == "1 day"
    assert say_n("{count} day", "{count} days", 0) == "0 days"
    assert f"{say('now')}!" == "now!"
    assert json.dumps(say("now")) == '"now"'


def test_braces_in_values_are_nothing_but_text() -> None:
    said = say("There is no user {user}.", user="{user.__class__} %(x)s")
    assert said == "There is no user {user.__class__} %(x)s."
    assert spoken(said, "tr").count("{user.__class__} %(x)s") == 1


def test_sentences_leave_out_what_is_empty() -> None:
    assert sentences(say("One."), "", "Two.") == "One. Two."
    assert sentences("", "") == ""
    assert spoken(sentences("", ""), "tr") == ""
    assert spoken(Said("", "", {}), "tr") == ""  # gettext would give the head of the catalogue


def test_what_was_said_survives_the_store_and_copies() -> None:
    said = {"a": [say_n("{count} day", "{count} days", 3), ("x", say("in {time}", time=say("now")))], "b": 1}
    kept = json.loads(json.dumps(packed(said)))
    again = unpacked(kept)
    assert again == {"a": ["3 days", ["x", "in now"]], "b": 1}
    assert packed(again) == packed(said)
    assert (copy.deepcopy(said["a"]), copy.copy(say("now")).text) == (said["a"], "now")  # type: ignore[index]


def test_dates_have_their_month_as_a_word() -> None:
    assert date(datetime(2027, 2, 3)) == "3 February 2027"
