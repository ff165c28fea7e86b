from __future__ import annotations

from gateway.core.identity import Level
from gateway.core.rule import Adaptation, Backoff, LimitSpec, SessionDemand, StepUpDemand
from tests.policy.conftest import INTERFACE, MakeBook, somebody

ALL_THE_WORDS = """\
rules:
  - name: x
    access: authenticated
    session: {idle: 15m, absolute: 8h}
    fresh: true
    limits:
      - name: per-user
        key: user
        algorithm: gcra
        rate: 100/m
        burst: 20
        spike: 20/s
        mode: shared
        when_away: refuse
        shadow: true
        adapt: {risk: 0.3, unknown_device: 50%, latency: 500ms, least: 20%}
        backoff: {after: 2, wait: 10s, longest: 10m, forget: 2h}
      - {name: plain, key: address, rate: 5/m, backoff: {}}
    upstream: app
"""


def test_a_rule_of_the_design_means_what_it_says(book: MakeBook) -> None:
    rule = book(INTERFACE).rules[1]
    assert rule.where.endswith("policy.yaml:6")
    assert not rule.public
    assert rule.admits(somebody("ann", groups=["admins"]))
    assert not rule.admits(somebody("bob"))
    assert rule.step_up == StepUpDemand(Level.AAL2, frozenset({"webauthn", "totp"}), 600.0)
    assert rule.request_limits == (LimitSpec("per-address", ("address",), "sliding_window", 100, 60.0, 100),)
    assert rule.subject_limits == (LimitSpec("per-user", ("user",), "token_bucket", 30, 60.0, 10),)
    assert (rule.risk.step_up_at, rule.risk.refuse_at) == (0.5, 0.8)
    assert (rule.upstream, rule.audience) == ("app", "app-admin")


def test_administrators_never_act_at_aal1(book: MakeBook) -> None:
    made = book(
        "rules:\n"
        "  - {name: says-nothing, match: {paths: [/a]}, access: {groups: [admins]}, upstream: app}\n"
        "  - {name: says-aal1, match: {paths: [/b]}, access: {groups: [admins]}, step_up: {level: aal1, max_age: 1h},"
        " upstream: app}\n"
        "  - {name: staff-too, match: {paths: [/c]}, access: {groups: [admins, staff]}, upstream: app}\n"
        "  - {name: nested, match: {paths: [/d]}, access: {all: [{groups: [admins]}, {users: [ann]}]}, upstream: app}\n"
    )
    assert [rule.step_up for rule in made.rules] == [
        StepUpDemand(Level.AAL2),
        StepUpDemand(Level.AAL2, max_age=3600.0),
        None,
        StepUpDemand(Level.AAL2),
    ]
    assert [entry.administrators for entry in made.entries] == [True, True, False, True]


def test_a_step_up_without_a_level_is_a_second_factor(book: MakeBook) -> None:
    made = book("rules:\n  - {name: r, access: authenticated, step_up: {max_age: 5m}, upstream: app}\n")
    assert made.rules[0].step_up == StepUpDemand(Level.AAL2, max_age=300.0)


def test_what_a_rule_leaves_out(book: MakeBook) -> None:
    rule = book("rules:\n  - {name: r, access: authenticated, upstream: other}\n").rules[0]
    assert rule.step_up is None
    assert rule.applies is None
    assert not rule.shadow
    assert rule.audience == "other"
    assert rule.headers == ()
    assert rule.request_limits == rule.subject_limits == ()


def test_limits_are_sorted_by_what_they_need_to_know(book: MakeBook) -> None:
    limits = "".join(
        f"      - {{name: l{n}, key: {key}, rate: 5/s}}\n"
        for n, key in enumerate(
            [
                "address",
                "route",
                "'header:X-Key'",
                "user",
                "session",
                "'claim:dept'",
                "[address, user]",
                "[address, route]",
            ]
        )
    )
    rule = book(f"rules:\n  - name: r\n    access: authenticated\n    upstream: app\n    limits:\n{limits}").rules[0]
    assert [limit.name for limit in rule.request_limits] == ["l0", "l1", "l2", "l7"]
    assert [limit.name for limit in rule.subject_limits] == ["l3", "l4", "l5", "l6"]
    assert rule.request_limits[2].key == ("header:x-key",)


def test_get_includes_head_and_nothing_else(book: MakeBook) -> None:
    made = book("rules:\n  - {name: r, match: {methods: [GET]}, access: public, upstream: app}\n")
    assert made.entries[0].methods == {"GET", "HEAD"}


def test_hosts_have_one_spelling(book: MakeBook) -> None:
    made = book(
        "rules:\n  - {name: r, match: {hosts: [App.Example.COM., '*.Example.com', '[::1]', 127.0.0.1, my_service]},"
        " access: public, upstream: app}\n"
    )
    assert made.entries[0].hosts == ("app.example.com", ".example.com", "::1", "127.0.0.1", "my_service")


def test_fixed_headers(book: MakeBook) -> None:
    made = book("rules:\n  - {name: r, access: public, upstream: app, headers: {X-Env: prod, X-Team: a b}}\n")
    assert made.rules[0].headers == (("X-Env", "prod"), ("X-Team", "a b"))


def test_the_environment_fills_in_policies_too(book: MakeBook) -> None:
    made = book(
        'rules:\n  - {name: r, match: {hosts: ["${HOST}"]}, access: public, upstream: app}\n',
        environ={"HOST": "a.example"},
    )
    assert made.entries[0].hosts == ("a.example",)


def test_every_word_about_limits_and_sessions(book: MakeBook) -> None:
    made = book(ALL_THE_WORDS)
    (rule,) = made.rules
    assert (rule.session, rule.fresh) == (SessionDemand(900.0, 28_800.0), True)
    assert rule.subject_limits == (
        LimitSpec(
            "per-user",
            ("user",),
            "gcra",
            100,
            60.0,
            20,
            "shared",
            "refuse",
            True,
            Adaptation(0.3, 0.5, 0.5, 0.2),
            Backoff(2, 10.0, 600.0, 7200.0),
        ),
        LimitSpec("per-user.spike", ("user",), "sliding_window", 20, 1.0, 20, "shared", "refuse", True),
    )
    assert rule.request_limits == (LimitSpec("plain", ("address",), "sliding_window", 5, 60.0, 5, backoff=Backoff()),)
    assert made.warnings == ()


def test_a_limit_that_looks_at_who_asks_waits_until_they_are_known(book: MakeBook) -> None:
    made = book(
        "rules:\n  - name: r\n    access: authenticated\n    upstream: app\n    limits:\n"
        "      - {name: risky, key: address, rate: 5/m, spike: 2/s, adapt: {risk: 0.5}}\n"
        "      - {name: slow, key: address, rate: 5/m, adapt: {latency: 1s}}\n"
    )
    assert [limit.name for limit in made.rules[0].subject_limits] == ["risky"]
    assert [limit.name for limit in made.rules[0].request_limits] == ["risky.spike", "slow"]
    assert made.rules[0].adaptive


def warned(book: MakeBook, words: str, **around: object) -> list[str]:
    made = book(f"rules:\n  - name: r\n    access: authenticated\n    upstream: app\n    {words}\n", **around)
    return [str(warning).partition("policy.yaml:")[2] for warning in made.warnings]


def test_where_nothing_is_shared_saying_how_is_worth_a_second_thought(book: MakeBook) -> None:
    words = "limits: [{name: l, key: user, rate: 5/m, mode: leased, when_away: allow}]"
    assert warned(book, words) == []
    mode, away = warned(book, words, together=False)
    assert mode.startswith("5: the limit `l` is counted in this process anyway, so `mode` changes nothing")
    assert "`when_away` changes nothing (name a Redis in `store.shared`" in away
    assert warned(book, "limits: [{name: l, key: user, rate: 5/m, mode: local}]", together=False) == []
    (never,) = warned(book, "limits: [{name: l, key: user, rate: 5/m, mode: local, when_away: refuse}]")
    assert "is counted in this process, so `when_away` changes nothing" in never


def test_a_session_that_never_gets_so_old_is_worth_a_second_thought(book: MakeBook) -> None:
    words = "session: {idle: 2h, absolute: 12h}"
    assert warned(book, words) == []
    assert warned(book, words, lifetimes=(7200.0, 86400.0)) == []
    (idle,) = warned(book, words, lifetimes=(3600.0, 86400.0))
    assert "`session.idle` is longer than any session lives, 3600 seconds (`sessions.idle`)" in idle
    assert len(warned(book, words, lifetimes=(3600.0, 7200.0))) == 2
