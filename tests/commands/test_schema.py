from __future__ import annotations

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from gateway.commands import reference
from gateway.policy import document
from tests.commands.conftest import Run
from tests.policy.conftest import INTERFACE as POLICY
from tests.test_settings import INTERFACE as CONFIG

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", sorted(reference.files()))
def test_what_is_in_docs_is_what_the_models_say(name: str) -> None:
    written = (ROOT / "docs" / name).read_text()
    assert written == reference.files()[name], "run: sallyport schema --write docs"


@pytest.mark.parametrize("kind", ["config", "policy", "test"])
def test_a_schema_is_a_schema_and_is_printed(sallyport: Run, kind: str) -> None:
    said = sallyport("schema", kind)
    assert said.code == 0
    Draft202012Validator.check_schema(json.loads(said.out))


def errors(kind: str, text: str) -> list[str]:
    data = document.read(text.encode(), "f.yaml", environ={}).data
    return [error.message for error in Draft202012Validator(reference.schema_of(kind)).iter_errors(data)]


def test_editors_accept_what_we_accept() -> None:
    assert errors("config", CONFIG) == []
    assert errors("config", (ROOT / "config.yaml").read_text()) == []
    assert errors("policy", POLICY) == []


@pytest.mark.parametrize(
    "file", sorted((ROOT / "policies").rglob("*.yaml")), ids=lambda file: str(file.relative_to(ROOT))
)
def test_editors_accept_our_policies(file: Path) -> None:
    assert errors("policy", file.read_text()) == []


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("config", "upstreams: {app: {url: 'http://x'}}\nlisten: 5\n"),
        ("config", "upstreams: {app: {url: 'http://x'}}\nprefx: /a/\n"),
        ("config", "listen: 127.0.0.1:1\n"),
        ("config", "upstreams: {app: {url: 'http://x'}}\nsessions: {idle: 60}\n"),
        ("policy", "rules: [{name: a, upstream: app}]\n"),
        ("policy", "rules: [{name: a, access: autenticated, upstream: app}]\n"),
        ("policy", "rules: [{name: a, access: public, upstream: app, limits: [{name: l, key: user, rate: 5}]}]\n"),
        ("test", "examples: []\n"),
    ],
)
def test_editors_refuse_what_we_refuse(kind: str, text: str) -> None:
    assert errors(kind, text) != []


def test_references_and_usage(sallyport: Run, tmp_path: Path) -> None:
    said = sallyport("schema", "policy", "--markdown")
    assert said.out.startswith("# Policy reference\n")
    assert "| `max_age` | duration | – |" in said.out
    assert sallyport("schema").code == 2
    assert sallyport("schema", "test", "--markdown").code == 2
    written = sallyport("schema", "--write", str(tmp_path / "out"))
    assert len(written.out.splitlines()) == len(reference.files())
    assert (tmp_path / "out" / "reference" / "config.md").exists()


def test_every_setting_is_in_the_reference_and_says_what_it_is_for() -> None:
    for kind in ("config", "policy"):
        schema = reference.schema_of(kind)
        text = reference.markdown_of(kind)
        for section in (schema, *schema["$defs"].values()):
            for name, field in section.get("properties", {}).items():
                assert f"| `{name}` |" in text, name
                assert "description" in field or "$ref" in str(field), name
        assert "|  |\n" not in text, "a key without a meaning"
