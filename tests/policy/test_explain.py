from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.decision import Allow, Refuse, SignIn, StepUp
from gateway.core.reasons import Reason
from gateway.policy.decide import choose
from gateway.policy.explain import explain
from tests.policy.conftest import INTERFACE, NOW, MakeBook, facts, somebody
from tests.policy.test_book import a_book, an_entry, entry, word


def test_every_rule_is_told_with_what_it_met_or_missed(book: MakeBook) -> None:
    story = explain(book(INTERFACE), facts("/admin/users", "POST", "other.example"), somebody(), NOW)
    assert [(one.rule.name, one.outcome, one.why) for one in story.tried] == [
        ("assets", "miss", "hosts: [app.example.com], not other.example"),
        ("admin", "hit", "paths: [/admin/**]"),
        ("everything-else", "not reached", "rule `admin` decides"),
    ]
    assert story.decision == Refuse((Reason.NOT_ALLOWED,))
    assert story.entry is not None
    assert story.entry.access == "groups: [admins]"


def test_a_reading_that_decides_is_told(book: MakeBook) -> None:
    asked = facts("/Admin/x", readings=(("GET", "/admin/x"),))
    story = explain(book(INTERFACE), asked, somebody(groups=["admins"]), NOW)
    assert [(one.path, one.rule, one.answer, one.decisive) for one in story.readings] == [
        ("/admin/x", "admin", "step_up", True)
    ]
    assert isinstance(story.decision, StepUp)
    assert story.entry is not None
    assert story.entry.rule.name == "admin"
    calm = explain(book(INTERFACE), facts("/a.x", readings=(("GET", "/a"),)), None, NOW)
    assert [one.decisive for one in calm.readings] == [False]
    assert isinstance(calm.decision, SignIn)


def test_criteria_of_every_kind(book: MakeBook) -> None:
    made = book(
        "rules:\n"
        "  - {name: m, match: {methods: [PUT]}, access: nobody}\n"
        "  - {name: n, match: {networks: [10.0.0.0/8]}, access: nobody}\n"
        "  - {name: h, match: {headers: {X-A: '1'}}, access: nobody}\n"
        "  - {name: q, match: {query: {a: ['1', '2']}}, access: nobody}\n"
        "  - {name: g, match: {groups: [pilots]}, access: nobody}\n"
        "  - {name: s, shadow: true, access: nobody}\n"
        "  - {name: all, access: authenticated, upstream: app}\n"
    )
    anonymous = explain(made, facts(), None, NOW)
    assert [(one.outcome, one.why) for one in anonymous.tried] == [
        ("miss", "methods: [PUT], not GET"),
        ("miss", "networks: [10.0.0.0/8]"),
        ("miss", "headers.x-a: [1]"),
        ("miss", "query.a: [1, 2]"),
        ("miss", "groups: [pilots], and nobody is signed in"),
        ("shadow", "it is about every request"),
        ("hit", "it is about every request"),
    ]
    assert anonymous.shadow is not None
    assert anonymous.shadow.name == "s"
    torn = explain(made, facts(headers=[(b"x-a", b"1"), (b"x-a", b"2")]), somebody(), NOW)
    assert [one.outcome for one in torn.tried] == ["miss", "miss", "contradiction", *["not reached"] * 4]
    assert torn.decision == Refuse((Reason.NO_RULE,))


def test_no_rule_at_all(book: MakeBook) -> None:
    made = book("rules:\n  - {name: r, match: {paths: [/a]}, access: public, upstream: app}\n")
    story = explain(made, facts("/b"), None, NOW)
    assert story.entry is None
    assert story.decision == Refuse((Reason.NO_RULE,))
    assert isinstance(explain(made, facts("/a"), None, NOW).decision, Allow)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(entry, max_size=6),
    st.sampled_from(["x.example", "y.x.example", "other"]),
    st.lists(word, max_size=3).map(lambda parts: "/" + "/".join(parts)),
    st.booleans(),
)
def test_the_rule_it_names_is_the_rule_that_is_chosen(
    wanted: list[dict[str, object]], host: str, path: str, known: bool
) -> None:
    made = a_book([an_entry(order, **criteria) for order, criteria in enumerate(wanted)])
    asked, caller = facts(path, host=host), somebody() if known else None
    chosen = choose(made.find(asked), asked, caller)
    told = [one.rule for one in explain(made, asked, caller, NOW).tried if one.outcome == "hit"]
    assert told == ([chosen] if chosen is not None else [])
