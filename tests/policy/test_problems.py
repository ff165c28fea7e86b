"""Rule 11: every mistake at once, each with its line and what to do."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.core.errors import Problem
from tests.policy.conftest import INTERFACE, MakeBook

Find = Callable[..., list[Problem]]

RULE = "  - name: r\n    access: authenticated\n    upstream: app\n"


def test_the_policy_of_the_design_is_accepted_as_it_stands(book: MakeBook) -> None:
    made = book(INTERFACE)
    assert [rule.name for rule in made.rules] == ["assets", "admin", "everything-else"]
    assert [str(warning).split(": ", 1)[1] for warning in made.warnings] == [
        "the factor `webauthn` is not configured, so nobody can answer with it (add it under `mfa` in config.yaml)"
    ]


def test_many_mistakes_are_told_at_once_in_the_order_of_the_file(problems: Find) -> None:
    found = problems(
        "rules:\n"
        "  - name: one\n"
        "    acess: public\n"
        "    upstream: app\n"
        "  - name: two\n"
        "    match: {paths: [admin], methods: [get]}\n"
        "    access: autenticated\n"
        "    upstream: app\n"
        "  - name: three\n"
        "    access: authenticated\n"
        "    upstream: ap\n"
        "  - name: three\n"
        "    access:\n"
        "    upstream: app\n"
        "example: []\n"
    )
    assert [(problem.line, problem.message, problem.suggestion) for problem in found] == [
        (2, "`rules[1].access` is missing", ""),
        (3, "`rules[1].acess` is not a known key", "did you mean `access`?"),
        (6, "`rules[2].match.methods[1]`: `get` is not a method; methods are written in capitals, as in GET", ""),
        (7, "`rules[2].access` cannot be `autenticated`", "did you mean `authenticated`?"),
        (11, "there is no upstream `ap`", "did you mean `app`?"),
        (13, "`access` has no value", "give it one, or remove the key"),
        (15, "`example` is not a known key", "did you mean `examples`?"),
    ]


PUBLIC = "rules:\n  - name: r\n    access: public\n    upstream: app\n"

ONE_MISTAKE = [
    # nothing that lets anybody in by being left out or empty (case 123)
    ("rules: []\n", 0, "no rule in any policy file"),
    ("examples: []\n", 0, "no rule in any policy file"),
    ("[]\n", 1, "the file must be a mapping"),
    ("rules: all\n", 1, "`rules` must be a list"),
    ("rules: [public]\n", 1, "`rules[1]` must be a mapping"),
    ("rules:\n  - {}\n", 2, "`rules[1].name` is missing"),
    ("rules:\n  - {name: r, upstream: app}\n", 2, "`rules[1].access` is missing"),
    ("rules:\n  - {name: r, access: {}, upstream: app}\n", 2, "an empty mapping names nobody"),
    ("rules:\n  - {name: r, access: {groups: []}, upstream: app}\n", 2, "`rules[1].access.groups` is empty"),
    ("rules:\n  - {name: r, access: {any: []}, upstream: app}\n", 2, "`rules[1].access.any` is empty"),
    ("rules:\n  - {name: r, access: {any: [{}]}, upstream: app}\n", 2, "an empty mapping names nobody"),
    ("rules:\n  - {name: r, access: [public], upstream: app}\n", 2, "`rules[1].access` must be a mapping"),
    ("rules:\n  - {name: r, access: true, upstream: app}\n", 2, "`rules[1].access` must be a mapping"),
    ("rules:\n  - {name: r, access: {group: [a]}, upstream: app}\n", 2, "`rules[1].access.group` is not a known key"),
    ("rules:\n  - {name: r, access: public, match: {}, upstream: app}\n", 2, "an empty `match` says nothing"),
    ("rules:\n  - {name: r, access: public, match: {paths: []}, upstream: app}\n", 2, "match.paths` is empty"),
    ("rules:\n  - {name: r, access: public, match: {headers: {}}, upstream: app}\n", 2, "match.headers` is empty"),
    ("rules:\n  - {name: r, access: public, match: {headers: {a: []}}, upstream: app}\n", 2, "headers.a` is empty"),
    ("rules:\n  - {name: r, access: authenticated, step_up: {}, upstream: app}\n", 2, "an empty `step_up` asks for"),
    ("rules:\n  - {name: r, access: authenticated, risk: {}, upstream: app}\n", 2, "an empty `risk` says nothing"),
    ("rules:\n  - {name: r, access: authenticated, limits: [], upstream: app}\n", 2, "limits` is empty"),
    # wrong types
    ("rules:\n  - {name: 7, access: public, upstream: app}\n", 2, "`rules[1].name` must be text"),
    ("rules:\n  - {name: r, access: public, upstream: app, match: {paths: /x}}\n", 2, "match.paths` must be a list"),
    ("rules:\n  - {name: r, access: {users: [7]}, upstream: app}\n", 2, "access.users[1]` must be text"),
    ("rules:\n  - {name: r, access: public, upstream: app, shadow: maybe}\n", 2, "shadow` must be true or false"),
    ("rules:\n  - {name: 'a b', access: public, upstream: app}\n", 2, "`rules[1].name` is not written right"),
    ("rules:\n  - {name: \"a\\nb\", access: public, upstream: app}\n", 2, "`rules[1].name` is not written right"),
    ("rules:\n  - {name: \"ab\\n\", access: public, upstream: app}\n", 2, "`rules[1].name` is not written right"),
    # what is matched
    (f"rules:\n{RULE}    match: {{hosts: ['a:80']}}\n", 5, "`a:80` is not a host name"),
    (f"rules:\n{RULE}    match: {{hosts: ['*']}}\n", 5, "`*` is not a host name"),
    (f"rules:\n{RULE}    match: {{hosts: ['a.*.b']}}\n", 5, "a star stands only in front"),
    (f"rules:\n{RULE}    match: {{hosts: ['http://a']}}\n", 5, "is not a host name"),
    (f"rules:\n{RULE}    match: {{hosts: ['bücher.example']}}\n", 5, "use its xn-- form"),
    (f"rules:\n{RULE}    match: {{paths: [admin]}}\n", 5, "does not start with a slash"),
    (f"rules:\n{RULE}    match: {{paths: ['/a?b=c']}}\n", 5, "no query"),
    (f"rules:\n{RULE}    match: {{paths: ['/a**']}}\n", 5, "must be a whole segment"),
    (f"rules:\n{RULE}    match: {{paths: ['/a%20b']}}\n", 5, "percent-decoded"),
    (f"rules:\n{RULE}    match: {{methods: [CONNECT]}}\n", 5, "CONNECT is never carried"),
    (f"rules:\n{RULE}    match: {{methods: [GET, GET]}}\n", 5, "`GET` is given twice"),
    (f"rules:\n{RULE}    match: {{networks: [10.0.0.1/8]}}\n", 5, "is not a network"),
    (f"rules:\n{RULE}    match: {{time: {{timezone: Europe/Istambul}}}}\n", 5, "did you mean `Europe/Istanbul`?"),
    (f"rules:\n{RULE}    match: {{time: {{from: '8:00'}}}}\n", 5, "match.time.from` is not written right"),
    (f"rules:\n{RULE}    match: {{time: {{from: 18:00, to: 18:00}}}}\n", 5, "are the same minute"),
    (f"rules:\n{RULE}    match: {{time: {{days: [monday]}}}}\n", 5, "cannot be `monday` (did you mean `mon`?)"),
    (f"rules:\n{RULE}    match: {{headers: {{Cookie: x}}}}\n", 5, "`Cookie` is not a header a rule can ask for"),
    (f"rules:\n{RULE}    match: {{headers: {{X-Forwarded-User: ann}}}}\n", 5, "is dropped, not believed"),
    (f"rules:\n{RULE}    match: {{headers: {{sallyport_assertion: '*'}}}}\n", 5, "is the gateway's own to write"),
    (f"rules:\n{RULE}    match: {{headers: {{'a b': x}}}}\n", 5, "`a b` is not a header a rule can ask for"),
    (f"rules:\n{RULE}    match: {{headers: {{a: '☃'}}}}\n", 5, "latin-1"),
    # what is asked for
    (f"rules:\n{RULE}    step_up: {{factors: [tpot]}}\n", 5, "`tpot` is not a factor (did you mean `totp`?)"),
    (f"rules:\n{RULE}    step_up: {{factors: [password]}}\n", 5, "it is not a second factor"),
    (f"rules:\n{RULE}    step_up: {{factors: [webauthn]}}\n", 5, "can step up, but no factor it names exists"),
    (f"rules:\n{RULE}    step_up: {{level: aal3}}\n", 5, "no configured factor reaches aal3"),
    (f"rules:\n{RULE}    step_up: {{level: aal3, factors: [totp]}}\n", 5, "but no factor it names reaches aal3"),
    (f"rules:\n{RULE}    step_up: {{level: aal4}}\n", 5, "step_up.level` cannot be `aal4`"),
    (f"rules:\n{RULE}    step_up: {{max_age: 10}}\n", 5, "10 is not a duration; write 10s"),
    (f"rules:\n{RULE}    risk: {{step_up_at: 0.9, refuse_at: 0.8}}\n", 5, "`step_up_at` is above `refuse_at`"),
    (f"rules:\n{RULE}    risk: {{step_up_at: 50}}\n", 5, "less than or equal to 1"),
    (f"rules:\n{RULE}    risk: {{refuse_at: .nan}}\n", 5, "risk.refuse_at` must be a number"),
    (f"rules:\n{RULE}    limits:\n      - {{name: l, key: address, rate: 10/q}}\n", 6, "not a rate"),
    (f"rules:\n{RULE}    limits:\n      - {{name: l, key: adress, rate: 5/s}}\n", 6, "nothing to count by"),
    (f"rules:\n{RULE}    limits:\n      - {{name: l, key: [user, user], rate: 5/s}}\n", 6, "`user` is given twice"),
    (f"rules:\n{RULE}    limits:\n      - {{name: l, key: user, rate: 5/s, burst: 2}}\n", 6, "`burst` belongs to"),
    (
        f"rules:\n{RULE}    limits:\n      - {{name: l, key: user, rate: 5/s, algorithm: token_bucket, burst: 0}}\n",
        6,
        "greater than or equal to 1",
    ),
    (f"rules:\n{RULE}    limits:\n      - {{name: l, key: user, rate: 5/s, algorithm: leak}}\n", 6, "cannot be `leak`"),
    (
        f"rules:\n{RULE}    limits:\n" + "      - {name: l, key: user, rate: 5/s}\n" * 2,
        7,
        "a second limit called `l`",
    ),
    *(
        (f"rules:\n{RULE}    limits:\n      - {{name: l, key: user, rate: 100/m, {words}}}\n", 6, said)
        for words, said in [
            ("algorithm: fixed_window, burst: 5", "not to `fixed_window`"),
            ("algorithm: gcra, burst: 200000000", "more than can be counted exactly; name a smaller `burst`"),
            ("spike: 5/m", "`spike` has to be about a shorter time"),
            ("spike: 100/s", "as many through at once as the limit itself"),
            ("mode: leased, backoff: {}", "`leased` limits are lent in shares"),
            ("mode: leased, adapt: {latency: 1s}", "they have no `adapt` and no `backoff`"),
            ("mode: everywhere", "mode` cannot be `everywhere` (one of: shared, leased, local)"),
            ("when_away: deny", "when_away` cannot be `deny`"),
            ("shadow: 1.5", "shadow` must be true or false"),
            ("adapt: {}", "`adapt` changes nothing"),
            ("adapt: {least: 20%}", "`adapt` changes nothing"),
            ("adapt: {risk: 1}", "less than 1"),
            ("adapt: {latency: 0s}", "greater than 0"),
            ("adapt: {unknown_device: 0.5}", "not a share; write 20%"),
            ("adapt: {unknown_device: 10%, least: 20%}", "`unknown_device` is below `least`, 20%"),
            ("adapt: {unknown_device: 10%, least: 0%}", "greater than 0"),
            ("adapt: {country: 10%}", "adapt.country` is not a known key"),
            ("backoff: {wait: 2h}", "`wait` is longer than `longest`"),
            ("backoff: {longest: 2d}", "would be forgotten before it is over"),
            ("backoff: {after: -1}", "greater than or equal to 0"),
            ("backoff: {wait: 30}", "30 is not a duration; write 30s"),
        ]
    ),
    (f"rules:\n{RULE}    limits: [{{name: l, key: user, rate: 1/999999d}}]\n", 5, "longer than can be counted exactly"),
    (
        f"rules:\n{RULE}    limits:\n"
        "      - {name: l, key: user, rate: 5/m, spike: 1/s}\n      - {name: l.spike, key: user, rate: 5/s}\n",
        7,
        "a second limit called `l.spike`",
    ),
    (f"rules:\n{RULE}    session: {{}}\n", 5, "an empty `session` says nothing"),
    (f"rules:\n{RULE}    session: {{idle: 2h, absolute: 1h}}\n", 5, "`idle` is longer than `absolute`"),
    (f"rules:\n{RULE}    session: {{idle: 0}}\n", 5, "greater than 0"),
    (f"rules:\n{RULE}{RULE}", 5, "a second rule called `r` (the first is at"),
    ("rules:\n  - {name: r, access: authenticated}\n", 2, "rule `r` names no `upstream` (one of: app, other)"),
    (f"rules:\n{RULE}    headers: {{X-Forwarded-User: root}}\n", 5, "is the gateway's own to write"),
    (f"rules:\n{RULE}    headers: {{X_Forwarded_For: x}}\n", 5, "is the gateway's own to write"),
    *(
        (f"rules:\n{RULE}    headers: {{{name}: x}}\n", 5, "is the gateway's own to write")
        for name in "Signature Signature_Input Remote Sallyport X-Forwarded Proxy-Status TE Cookie".split()
    ),
    (f"rules:\n{RULE}    headers: {{content-length: '5'}}\n", 5, "is the gateway's own to write"),
    (f"rules:\n{RULE}    headers: {{a: \"b\\r\\nc: d\"}}\n", 5, "must be printable ASCII"),
    (f"rules:\n{RULE}    headers: {{'a b': c}}\n", 5, "`a b` is not a header name"),
    # demands on nobody in particular
    (
        "rules:\n  - name: r\n    access: public\n    upstream: app\n    step_up: {level: aal2}\n",
        5,
        "`step_up` has no effect: the rule lets anybody in",
    ),
    *(
        (
            PUBLIC + "    limits: [{name: l, key: address, rate: 5/s, adapt: {" + word + "}}]\n",
            5,
            "shrinks with who asks, but a public rule asks nobody who they are",
        )
        for word in ("risk: 0.3", "unknown_device: 50%")
    ),
    (PUBLIC + "    session: {idle: 5m}\n", 5, "`session` has no effect: the rule lets anybody in"),
    (PUBLIC + "    fresh: true\n", 5, "`fresh` has no effect: the rule lets anybody in"),
    (
        "rules:\n  - name: r\n    access: public\n    upstream: app\n    limits: [{name: l, key: user, rate: 5/s}]\n",
        5,
        "asks nobody who they are",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "said"), ONE_MISTAKE, ids=[said for _, _, said in ONE_MISTAKE])
def test_one_mistake_is_one_problem(problems: Find, text: str, line: int, said: str) -> None:
    found = problems(text)
    assert said in str(found[0])
    assert found[0].line == line
    assert found[0].file.endswith("policy.yaml")
    beside = [problem for problem in found[1:] if "is missing" not in problem.message]
    assert beside == [], "one mistake is told once"


@pytest.mark.parametrize(
    "rule",
    [
        "{name: r, access: authenticated, upstream: app, risk: {step_up_at: 0.5}}",
        "{name: r, access: {groups: [admins]}, upstream: app}",
        "{name: r, access: authenticated, upstream: app, step_up: {max_age: 1h}}",
        "{name: r, access: authenticated, upstream: app, step_up: {factors: [totp]}}",
    ],
)
def test_a_rule_that_can_step_up_needs_a_factor_to_do_it_with(problems: Find, rule: str) -> None:
    found = problems(f"rules:\n  - {rule}\n", factors=[])
    assert len(found) == 1
    assert "factor" in found[0].message
    assert found[0].line == 2


def test_a_value_that_may_hold_a_password_is_not_repeated(problems: Find) -> None:
    found = problems(f"rules:\n{RULE}    step_up: {{level: '${{URL}}'}}\n", environ={"URL": "redis://:hunter2@x"})
    assert "hunter2" not in "".join(map(str, found))


def test_rules_that_are_never_reached_are_a_warning(book: MakeBook) -> None:
    made = book(
        "rules:\n"
        "  - {name: a, match: {paths: [/x/**]}, access: authenticated, upstream: app}\n"
        "  - {name: b, match: {paths: [/x/y], methods: [GET]}, access: public, upstream: app}\n"
        "  - {name: c, match: {paths: [/x/y, /z]}, access: public, upstream: app}\n"
        "  - {name: d, match: {groups: [g]}, access: authenticated, upstream: app}\n"
        "  - {name: e, access: authenticated, upstream: app}\n"
        "  - {name: f, match: {hosts: [a.example]}, access: public, upstream: app}\n"
    )
    assert [(warning.line, warning.message) for warning in made.warnings] == [
        (3, "rule `b` is never reached: `a` takes all its requests"),
        (7, "rule `f` is never reached: `e` takes all its requests"),
    ]


def test_shadow_and_conditional_rules_hide_nothing(book: MakeBook) -> None:
    made = book(
        "rules:\n"
        "  - {name: a, shadow: true, access: nobody}\n"
        "  - {name: b, match: {networks: [10.0.0.0/8]}, access: authenticated, upstream: app}\n"
        "  - {name: c, match: {hosts: ['*.example']}, access: authenticated, upstream: app}\n"
        "  - {name: d, match: {hosts: [example]}, access: authenticated, upstream: app}\n"
    )
    assert made.warnings == ()
