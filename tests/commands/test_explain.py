from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.commands.conftest import Run


def told(sallyport: Run, *arguments: str) -> dict[str, Any]:
    said = sallyport("explain", *arguments, "--json")
    assert said.code == 0, said.err
    report: dict[str, Any] = json.loads(said.out)
    return report


@pytest.mark.parametrize(
    ("arguments", "answer", "rule"),
    [
        (["GET /public/x"], "allow", "public"),
        (["GET", "/public/x"], "allow", "public"),
        (["GET /admin"], "sign_in", "admin"),
        (["GET /admin", "--as", "bob"], "refuse", "admin"),
        (["GET /admin", "--as", "ann", "--groups", "x,admins"], "step_up", "admin"),
        (["GET /admin", "--as", "ann", "--groups", "admins", "--level", "aal2"], "allow", "admin"),
        (
            ["GET /admin", "--as", "ann", "--groups", "admins", "--factors", "totp", "--proven", "1h"],
            "step_up",
            "admin",
        ),
        (["GET /admin", "--as", "ann", "--groups", "admins", "--level", "aal2", "--risk", "0.9"], "refuse", "admin"),
        (["GET /public/../admin/x"], "sign_in", "admin"),  # case 31
        (["GET /public/%2e%2e/admin"], "sign_in", "admin"),
        (["GET /ADMIN/users", "--as", "bob"], "refuse", "admin"),  # case 35
        (["GET /admin.json", "--as", "bob"], "refuse", "admin"),
        (["GET /admin;x=1", "--as", "bob"], "refuse", "admin"),  # case 33
        (["GET https://a.example/", "--as", "bob"], "allow", "everything-else"),
    ],
)
def test_the_answer(sallyport: Run, arguments: list[str], answer: str, rule: str) -> None:
    report = told(sallyport, *arguments)
    assert (report["answer"], report["rule"]) == (answer, rule)


def test_everything_a_script_wants_to_know(sallyport: Run) -> None:
    report = told(sallyport, "GET /Admin/x", "--as", "Ann", "--groups", "admins", "--address", "10.0.0.1")
    assert report["request"] == {"method": "GET", "host": "localhost", "path": "/Admin/x", "address": "10.0.0.1"}
    assert report["caller"] == {"user": "ann", "groups": ["admins"], "level": "aal1"}
    assert report["reasons"] == ["level_too_low"]
    assert report["where"] == "policies/a.yaml:6"
    assert report["upstream"] == "app"
    assert [(one["rule"], one["outcome"]) for one in report["tried"]] == [
        ("public", "miss"),
        ("admin", "miss"),
        ("everything-else", "hit"),
    ]
    assert report["readings"] == [
        {"method": "GET", "path": "/admin/x", "rule": "admin", "answer": "step_up", "decisive": True}
    ]
    assert report["demands"]["proof"] == "aal2 with totp no older than 600 s (administrators never act at aal1)"


def test_in_words(sallyport: Run) -> None:
    said = sallyport("explain", "GET /admin/users", "--as", "bob")
    assert said.code == 0
    for part in (
        "GET localhost/admin/users from 192.0.2.1, asked by bob (aal1)",
        "miss           public  ",
        "paths: [/public/**], not /admin/users",
        "1 more rule was not reached",
        "refuse: not_allowed",
        "admin, policies/a.yaml:6",
        "per-user 100/60s by user",
        "refuse from 0.8",
    ):
        assert part in said.out


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ("GET /public/..%2fadmin", "bad_target"),  # case 32
        ("GET /public\\..\\admin", "bad_target"),
        ("get /admin", "method_not_allowed"),  # case 45
        ("GET http://a@b/x", "bad_host"),  # case 48
    ],
)
def test_what_the_wire_rejects_is_rejected_here(sallyport: Run, request_: str, reason: str) -> None:
    report = told(sallyport, request_)
    assert (report["answer"], report["reasons"]) == ("rejected", [reason])
    assert sallyport("explain", request_).out == f"rejected before any rule: {reason}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["GET"], "`GET` is not a request; write GET /path"),
        (["GET /", "--address", "here"], "`here` is not an IP address"),
        (["GET /", "--as", "bob", "--proven", "yesterday"], "proven"),
        (["GET /", "--at", "noon"], "does not match format"),
        (["GET /", "--as", "bob", "--level", "aal1", "--factors", "totp"], "reach aal2, not aal1"),
    ],
)
def test_a_question_that_makes_no_sense_is_wrong_usage(sallyport: Run, arguments: list[str], said: str) -> None:
    ended = sallyport("explain", *arguments)
    assert ended.code == 2
    assert said in ended.err
    assert "Traceback" not in ended.err


WORDS = """\
rules:
  - name: search
    access: authenticated
    session: {idle: 15m, absolute: 8h}
    fresh: true
    limits:
      - {name: plain, key: address, rate: 5/s}
      - name: per-user
        key: [user, route]
        algorithm: gcra
        rate: 100/m
        burst: 20
        spike: 30/s
        when_away: refuse
        adapt: {risk: 0.3, latency: 500ms, least: 20%}
        backoff: {after: 3, wait: 30s}
      - {name: lent, key: route, rate: 900/m, mode: leased}
      - {name: soft, key: user, algorithm: fixed_window, rate: 9/h, when_away: allow, shadow: true}
    upstream: app
"""


def test_limits_and_sessions_are_told_with_whatever_is_not_as_usual(sallyport: Run, folder: Path) -> None:
    (folder / "policies" / "a.yaml").write_text(WORDS)
    demands = told(sallyport, "GET /", "--as", "bob", "--proven", "7h")["demands"]
    assert demands["session"] == "at rest 900 s, in all 28800 s"
    assert demands["fresh"] == "looked up in its store for each request"
    assert demands["limits"].split(", ") == [
        "plain 5/1s by address",
        "lent 900/60s by route (leased)",
        "per-user 100/60s by user+route (gcra; 20 at once; refuses while the store is away; "
        "down to 20% by risk and latency; after 3 refusals 30 to 3600 s of waiting)",
        "per-user.spike 30/1s by user+route (refuses while the store is away)",
        "soft 9/3600s by user (fixed_window; allows while the store is away; in shadow)",
    ]
    report = told(sallyport, "GET /", "--as", "bob", "--proven", "9h")
    assert (report["answer"], report["reasons"]) == ("sign_in", ["session_too_old"])


def test_where_nothing_is_shared_a_policy_that_says_how_is_warned_of(sallyport: Run, folder: Path) -> None:
    (folder / "policies" / "a.yaml").write_text(WORDS)
    warned = sallyport("check")
    assert warned.code == 0
    assert "the limit `lent` is counted in this process anyway, so `mode` changes nothing" in warned.out


def test_a_key_that_has_to_know_its_user(sallyport: Run, folder: Path) -> None:
    config = "public_url: https://app.example.com\nmfa: {webauthn: {}}\n"
    (folder / "config.yaml").write_text(config + (folder / "config.yaml").read_text())
    rule = "{name: r, access: authenticated, step_up: {user_verification: required, max_age: 1m}, upstream: app}"
    (folder / "policies" / "a.yaml").write_text(f"rules:\n  - {rule}\n")
    asked = ["GET /", "--as", "bob", "--factors", "webauthn"]
    report = told(sallyport, *asked)
    assert (report["answer"], report["reasons"]) == ("step_up", ["factor_not_accepted"])
    assert report["demands"]["proof"] == "aal2 with webauthn that verified its user no older than 60 s"
    assert told(sallyport, *asked, "--verified")["answer"] == "allow"
    assert told(sallyport, "GET /", "--as", "bob", "--verified")["answer"] == "allow"
    assert told(sallyport, *asked, "--verified", "--proven", "2m")["reasons"] == ["proof_too_old"]
    wrong = sallyport("explain", "GET /", "--as", "bob", "--factors", "totp", "--verified")
    assert (wrong.code, "only a key can have verified its user" in wrong.err) == (2, True)
