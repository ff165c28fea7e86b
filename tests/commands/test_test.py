from __future__ import annotations

import json
from pathlib import Path

from tests.commands.conftest import POLICY, Run

WRONG = "examples:\n  - {request: GET /admin, expect: allow}\n  - {request: GET /, as: {user: bob}, expect: allow}\n"


def test_good_examples(sallyport: Run) -> None:
    said = sallyport("test")
    assert said.code == 0
    assert said.out.splitlines()[1].split() == [
        *["ok", "policies/a.yaml:17", "GET", "/public/x", "-", "allow", "allow", "public", "public"]
    ]
    assert said.out.endswith("1 examples, 0 wrong\n")


def test_test_files_beside_the_policies_are_found(sallyport: Run, folder: Path) -> None:
    (folder / "policies" / "z.test.yaml").write_text(WRONG)
    said = sallyport("test")
    assert said.code == 1
    assert "WRONG  policies/z.test.yaml:2" in said.out
    assert "expected allow, got sign_in (rule `admin`: no_session)" in said.out
    assert said.out.endswith("3 examples, 1 wrong\n")
    report = json.loads(sallyport("test", "--json").out)
    assert [one["ok"] for one in report["examples"]] == [True, False, True]
    assert report["examples"][1]["answer"] == "sign_in"


def test_named_files_alone(sallyport: Run, folder: Path) -> None:
    (folder / "t.test.yaml").write_text("policy: other.yaml\n" + WRONG)
    (folder / "other.yaml").write_text("rules:\n  - {name: o, access: public, upstream: app}\n")
    said = sallyport("test", "t.test.yaml")
    assert (said.code, said.out.splitlines()[-1]) == (0, "2 examples, 0 wrong")
    assert sallyport("test", "policies/a.yaml").out.endswith("1 examples, 0 wrong\n")
    assert sallyport("test", "other.yaml") == (0, "no examples\n", "")


def test_a_wrong_example_in_a_policy_is_shown_not_only_refused(sallyport: Run, folder: Path) -> None:
    (folder / "policies" / "a.yaml").write_text(POLICY + "  - {request: GET /, expect: allow}\n")
    said = sallyport("test")
    assert said.code == 1
    assert said.out.endswith("2 examples, 1 wrong\n")


def test_a_policy_that_cannot_be_read_is_told(sallyport: Run, folder: Path) -> None:
    (folder / "policies" / "a.yaml").write_text("rules: 1\n")
    said = sallyport("test")
    assert said.code == 2
    assert said.err == "policies/a.yaml:1: `rules` must be a list\n"
