from __future__ import annotations

import json
from pathlib import Path

from tests.commands.conftest import POLICY, Run


def test_good(sallyport: Run) -> None:
    assert sallyport("check") == (0, "good: 3 rules\n", "")
    assert json.loads(sallyport("check", "--json").out) == {"ok": True, "problems": [], "warnings": [], "rules": 3}


def test_mistakes_of_config_and_policies_come_at_once(sallyport: Run, folder: Path) -> None:
    (folder / "config.yaml").write_text("upstreams: {app: {url: http://127.0.0.1:9000}}\nprefix: x\n")
    (folder / "policies" / "b.yaml").write_text("rules:\n  - {name: b, access: public, upstream: ap}\n")
    said = sallyport("check")
    assert said.code == 1
    assert [line.split(": ")[0] for line in said.out.splitlines()] == [
        "config.yaml:2",
        "policies/b.yaml:2",
        "",
        "2 problems",
    ]
    report = json.loads(sallyport("check", "--json").out)
    assert report["ok"] is False
    assert report["problems"][1] == {
        "file": "policies/b.yaml",
        "line": 2,
        "message": "there is no upstream `ap`",
        "suggestion": "did you mean `app`?",
    }


def test_policies_are_checked_by_what_a_broken_config_still_says(sallyport: Run, folder: Path) -> None:
    (folder / "config.yaml").write_text(
        "nonsense: 1\npolicies: elsewhere.yaml\nupstreams: {svc: {url: ftp://x}}\n"
        "mfa: {totp: null, backup_codes: null, required_groups: [ops]}\n"
    )
    (folder / "elsewhere.yaml").write_text("rules:\n  - {name: a, access: {groups: [ops]}, upstream: svc}\n")
    lines = sallyport("check").out.splitlines()
    assert [line.split(": ")[0] for line in lines[:3]] == ["config.yaml:1", "config.yaml:3", "elsewhere.yaml:2"]
    assert "never act at aal1, but no factor is configured" in lines[2]


def test_a_config_that_is_no_yaml_or_not_there(sallyport: Run, folder: Path) -> None:
    (folder / "config.yaml").write_text("a: [\n")
    assert sallyport("check").out.startswith("config.yaml:2: not YAML")
    (folder / "config.yaml").write_text("- a\n")
    assert "config.yaml:1: the file must be a mapping" in sallyport("check").out
    said = sallyport("check", "--config", "gone.yaml")
    assert said.code == 1
    assert said.out.startswith("gone.yaml: cannot be read")


def test_warnings_do_not_fail(sallyport: Run, folder: Path) -> None:
    extra = "  - {name: late, access: public, upstream: app}\nexamples"
    (folder / "policies" / "a.yaml").write_text(POLICY.replace("examples", extra))
    said = sallyport("check")
    assert said.code == 0
    assert "rule `late` is never reached" in said.out
    assert json.loads(sallyport("check", "--json").out)["warnings"][0]["line"] == 16


def test_a_wrong_example_fails(sallyport: Run, folder: Path) -> None:
    (folder / "policies" / "a.yaml").write_text(POLICY + "  - {request: GET /Admin, as: {user: bob}, expect: allow}\n")
    said = sallyport("check")
    assert said.code == 1
    assert "expected allow, got refuse (rule `admin`: not_allowed)" in said.out, "readings are judged, too"


def test_trust_in_everybody_is_a_warning(sallyport: Run, folder: Path) -> None:
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(
        text + "trusted_proxies:\n  - 10.0.0.0/8\n  - {network: '::/0', i_trust_everybody: true}\n"
    )
    said = sallyport("check")
    assert said.code == 0
    assert said.out.startswith("config.yaml:4: ::/0 is everybody: whoever connects can choose their own address (")
    assert json.loads(sallyport("check", "--json").out)["warnings"][0]["line"] == 4


def test_certificates_that_cannot_be_used_are_told(sallyport: Run, folder: Path) -> None:
    text = (folder / "config.yaml").read_text()
    (folder / "key.pem").write_text("nonsense")
    (folder / "key.pem").chmod(0o600)
    listen = "listen: [{address: '127.0.0.1:1', tls: {certificate: gone.pem, key: %s}}]\n"
    for key, problem in (("gone.key", "gone.key: key file cannot be read"), ("key.pem", "gone.pem: cannot be used")):
        (folder / "config.yaml").write_text(text + listen % key)
        said = sallyport("check")
        assert said.code == 1
        assert said.out.startswith(problem)


def test_tls_to_a_service_is_looked_at(sallyport: Run, folder: Path) -> None:
    config = folder / "config.yaml"
    config.write_text("upstreams:\n  app: {url: 'https://app', tls: {ca: gone.pem}}\n")
    said = sallyport("check")
    assert said.code == 1
    assert said.out.startswith("upstream `app`: its TLS files cannot be used: ")
    config.write_text("upstreams:\n  app:\n    url: https://app\n    tls: {verify: insecure}\n")
    said = sallyport("check")
    assert said.code == 0
    assert said.out.startswith("config.yaml:4: the certificate of `app` is not verified")
