from __future__ import annotations

from gateway.core.identity import Level
from gateway.core.rule import LimitSpec, StepUpDemand
from tests.policy.conftest import INTERFACE, MakeBook, somebody


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
