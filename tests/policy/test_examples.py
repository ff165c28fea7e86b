from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gateway.core.errors import Problem
from gateway.core.identity import Level
from gateway.policy.examples import facts_of, identity_of, judge
from gateway.policy.schema import As, Example
from gateway.wire.target import readings
from tests.policy.conftest import INTERFACE, NOW, MakeBook

FACTORS = ("totp", "backup_code")


def who(**said: Any) -> As:
    return As.model_validate({"user": "ann", **said})


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('  - {request: "GET /admin/x", as: {user: bob}, expect: allow}', "got refuse (rule `admin`: not_allowed)"),
        ('  - {request: "GET https://h.example/", expect: allow}', "got sign_in (rule `everything-else`: no_session)"),
        ('  - {request: "GET /admin/x", expect: sign_in, rule: assets}', "of rule `assets`, got one of rule `admin`"),
        ('  - {request: "/admin/x", expect: sign_in}', "is not a request; write GET /path"),
        ('  - {request: "get /admin/x", expect: sign_in}', "is not a request; write GET /path"),
        ('  - {request: "GET admin", expect: sign_in}', "not in the form rules are matched against"),
        ('  - {request: "GET /a/../admin", expect: sign_in}', "not in the form rules are matched against"),
        ('  - {request: "GET /a%2fb", expect: sign_in}', "not in the form rules are matched against"),
        ('  - {request: "GET //admin", expect: sign_in}', "not in the form rules are matched against"),
        ('  - {request: "GET ftp://h/x", expect: sign_in}', "not a URL of http or https"),
        ('  - {request: "GET http://a@b/x", expect: sign_in}', "not a URL of http or https"),
        ('  - {request: "GET /", as: {user: a, level: aal1, factors: [totp]}, expect: allow}', "reach aal2, not aal1"),
        ('  - {request: "GET /", expect: throttle, over: per-user}', "has no limit called `per-user`"),
        ('  - {request: "GET /", at: "2026-99-01 00:00", expect: sign_in}', "does not match format"),
    ],
)  # fmt: skip
def test_one_wrong_answer_refuses_the_edit(problems: Callable[..., list[Problem]], line: str, said: str) -> None:
    found = problems(INTERFACE + line + "\n")
    assert len(found) == 1
    assert said in found[0].message
    assert found[0].line == INTERFACE.count("\n") + 1


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("  - {request: GET /, expect: alow}", "examples[5].expect` cannot be `alow` (did you mean `allow`?)"),
        ("  - {request: GET /}", "`examples[5].expect` is missing"),
        ("  - {request: GET /, as: {groups: [a]}, expect: allow}", "`examples[5].as.user` is missing"),
        ("  - {request: GET /, as: {user: a, proven: yesterday}, expect: allow}", "as.proven` is not written right"),
        ("  - {request: GET /, expect: throttle}", "go together"),
        ("  - {request: GET /, expect: allow, over: per-user}", "go together"),
        ("  - {request: GET /, expect: allow, risk: 2}", "less than or equal to 1"),
    ],
)
def test_an_example_with_a_mistake_is_told(problems: Callable[..., list[Problem]], line: str, said: str) -> None:
    found = problems(INTERFACE + line + "\n")
    assert [said in str(problem) for problem in found] == [True]


def test_who_asks_has_sensible_defaults() -> None:
    signed_in = identity_of(who(), FACTORS, NOW)
    assert (signed_in.level, signed_in.amr, signed_in.auth_time) == (Level.AAL1, ("pwd",), NOW)
    raised = identity_of(who(level="aal2", proven="2m ago"), FACTORS, NOW)
    assert raised.session is not None
    assert [(proof.factor, proof.at) for proof in raised.session.proofs] == [
        ("password", NOW - 120),
        ("totp", NOW - 120),
    ]
    shown = identity_of(who(factors=["backup_code"], proven="1h30m"), FACTORS, NOW)
    assert shown.level is Level.AAL2
    assert [proof.at for proof in shown.session.proofs if proof.factor == "backup_code"] == [NOW - 5400]
    assert identity_of(who(factors=[]), FACTORS, NOW).level is Level.AAL1
    assert identity_of(who(level="aal3"), ("totp", "webauthn"), NOW).level is Level.AAL3


def test_a_request_as_people_write_it() -> None:
    asked = facts_of("POST /a/b?x=1&y=2", host="h.example", headers={"X-A": ("1", "2")})
    assert (asked.method, asked.host, asked.path, asked.query) == ("POST", "h.example", "/a/b", "x=1&y=2")
    assert asked.header(b"x-a") == [b"1", b"2"]
    whole = facts_of("GET https://App.Example.com.:8443/x", host="h.example")
    assert (whole.scheme, whole.host, whole.port, whole.path) == ("https", "app.example.com", 8443, "/x")
    assert facts_of("GET http://h2.example", host="h.example").path == "/"


def test_a_limit_that_is_used_up_throttles_where_it_is_counted(book: MakeBook) -> None:
    made = book(INTERFACE)

    def answer(**said: Any) -> str:
        example = Example.model_validate({"request": "GET /admin/x", "expect": "throttle", **said})
        return judge(example, made, FACTORS, "f:1", NOW).answer

    ann, bob = {"user": "ann", "groups": ["admins"]}, {"user": "bob"}
    assert answer(over="per-address") == "throttle"  # before anybody is asked who they are
    assert answer(over="per-user") == "sign_in"  # nobody is known whom it could count
    assert answer(over="per-user", **{"as": ann}) == "throttle"
    assert answer(over="per-user", **{"as": bob}) == "throttle"  # counted before it is known whether they may


def test_examples_meet_the_readings_that_requests_meet(book: MakeBook) -> None:
    made = book(INTERFACE)
    example = Example.model_validate({"request": "GET /Admin/x", "as": {"user": "bob"}, "expect": "refuse"})
    assert judge(example, made, FACTORS, "f:1", NOW).answer == "allow"
    judgement = judge(example, made, FACTORS, "f:1", NOW, readings=readings)
    assert (judgement.answer, judgement.rule, judgement.problem) == ("refuse", "admin", None)


SESSIONS = """\
rules:
  - name: keys
    access: authenticated
    session: {absolute: 8h}
    limits:
      - {name: hard, key: user, rate: 5/m, spike: 2/s}
      - {name: soft, key: user, rate: 5/m, shadow: true}
    upstream: app
examples:
  - {request: GET /, as: {user: bob, proven: 8h ago}, expect: allow}
  - {request: GET /, as: {user: bob, proven: 9h ago}, expect: sign_in}
  - {request: GET /, as: {user: bob}, over: hard.spike, expect: throttle}
"""


def test_a_session_may_be_too_old_for_a_rule(book: MakeBook) -> None:
    assert len(book(SESSIONS).rules) == 1


def test_a_limit_in_shadow_throttles_nobody(problems: Callable[..., list[Problem]]) -> None:
    (found,) = problems(SESSIONS + "  - {request: GET /, as: {user: bob}, over: soft, expect: throttle}\n")
    assert "`soft` is in shadow, so it never throttles anybody" in found.message
