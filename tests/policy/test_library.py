"""The policies that come with Sallyport are good, and prove themselves by examples of every kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.policy.load import read
from gateway.wire.target import readings

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "policies").rglob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=[str(file.relative_to(ROOT)) for file in FILES])
def test_a_policy_of_ours(file: Path) -> None:
    book, judgements = read(
        file,
        upstreams=["app"],
        factors=["totp", "backup_code"],
        admin_groups=["admins"],
        environ={},
        readings=readings,
    )
    assert [judgement.problem for judgement in judgements if judgement.problem] == []
    assert book.warnings == ()
    assert {judgement.example.rule or judgement.rule for judgement in judgements} - {""} == {
        rule.name for rule in book.rules if not rule.shadow
    }, "every rule answers an example"
    assert len({judgement.answer for judgement in judgements}) > 1


def test_the_library_is_where_it_is_said_to_be() -> None:
    assert len(FILES) >= 10
    for file in FILES:
        schema = file.read_text().splitlines()[0].rpartition("$schema=")[2]
        assert (file.parent / schema).resolve() == ROOT / "docs" / "schema" / "policy.json"
