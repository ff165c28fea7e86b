from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.core.errors import ConfigError
from gateway.policy import load as loading
from gateway.policy.book import Book
from gateway.policy.load import contents, digest, load, read_test

OPEN = "rules:\n  - {name: %s, match: {paths: [/%s]}, access: public, upstream: app}\n"


def loaded(path: Path) -> Book:
    return load(path, upstreams=["app"], factors=["totp"], admin_groups=["admins"], environ={})


def refused(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loaded(path)
    return [str(problem).replace(str(path), "") for problem in caught.value.problems]


def test_files_are_read_in_name_order_and_nothing_else(tmp_path: Path) -> None:
    for name in ("20-b.yaml", "10-a.yml", "30-c.yaml"):
        (tmp_path / name).write_text(OPEN % (name[3], name[3]))
    (tmp_path / "x.test.yaml").write_text("examples: []\n")
    (tmp_path / ".hidden.yaml").write_text("not: read\n")
    (tmp_path / "notes.txt").write_text("not read\n")
    (tmp_path / "library").mkdir()
    (tmp_path / "library" / "d.yaml").write_text("not: read\n")
    (tmp_path / "folder.yaml").mkdir()
    book = loaded(tmp_path)
    assert [rule.name for rule in book.rules] == ["a", "b", "c"]
    assert [rule.where.rpartition("/")[2] for rule in book.rules] == ["10-a.yml:2", "20-b.yaml:2", "30-c.yaml:2"]


def test_one_file_is_a_policy_too(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(OPEN % ("a", "a"))
    assert [rule.name for rule in loaded(tmp_path / "p.yaml").rules] == ["a"]


def test_mistakes_of_every_file_come_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(OPEN % ("a", "a") + "rules: []\n")
    (tmp_path / "b.yaml").write_text("rules: [\n")
    (tmp_path / "c.yaml").write_text(OPEN % ("c", "c") + "  - {name: x}\n")
    said = refused(tmp_path)
    assert [line[:10] for line in said] == ["/a.yaml:3:", "/b.yaml:2:", "/c.yaml:3:"]


def test_the_same_name_in_two_files(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(OPEN % ("a", "a"))
    (tmp_path / "b.yaml").write_text(OPEN % ("a", "b"))
    assert refused(tmp_path) == ["/b.yaml:2: a second rule called `a` (the first is at /a.yaml:2)"]


def test_examples_judge_the_whole_policy(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("examples:\n  - {request: GET /b, expect: allow}\n")
    (tmp_path / "b.yaml").write_text(OPEN % ("b", "b"))
    assert len(loaded(tmp_path).rules) == 1


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in refused(tmp_path / "gone")[0]
    assert refused(tmp_path) == [": no policy file (*.yaml) here (add one)"]
    (tmp_path / "a.yaml").write_text("examples:\n  - {request: GET /b, expect: allow}\n")
    assert "no rule in any policy file" in refused(tmp_path)[0]


def test_the_digest_is_of_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(OPEN % ("a", "a"))
    first = loaded(tmp_path).digest
    assert first == digest(contents(tmp_path))
    os.utime(tmp_path / "a.yaml", (1, 1))
    assert loaded(tmp_path).digest == first
    (tmp_path / "a.yaml").rename(tmp_path / "b.yaml")
    assert loaded(tmp_path).digest != first


def test_a_folder_that_is_being_swapped_is_read_until_it_holds_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, looks = contents, 0

    def torn(path: Path) -> loading.Contents:
        nonlocal looks
        looks += 1
        (tmp_path / "a.yaml").write_text(OPEN % ("a", "old" if looks < 3 else "new"))
        return real(path)

    monkeypatch.setattr(loading, "contents", torn)
    assert [glob.text for glob in loaded(tmp_path).entries[0].globs] == ["/old"]

    def restless(path: Path) -> loading.Contents:
        nonlocal looks
        looks += 1
        (tmp_path / "a.yaml").write_text(OPEN % ("a", str(looks)))
        return real(path)

    monkeypatch.setattr(loading, "contents", restless)
    assert "keeps changing" in refused(tmp_path)[0]


def test_ten_thousand_rules_load(tmp_path: Path) -> None:
    rules = "".join(
        f"  - {{name: r{n}, match: {{paths: [/s{n}/**]}}, access: {{groups: [g{n}]}}, upstream: app}}\n"
        for n in range(10_000)
    )
    (tmp_path / "a.yaml").write_text("rules:\n" + rules)
    assert len(loaded(tmp_path).rules) == 10_000


def test_a_test_file(tmp_path: Path) -> None:
    file = tmp_path / "a.test.yaml"
    file.write_text("policy: ..\nexamples:\n  - {request: GET /, expect: refuse}\n")
    text, document = read_test(file, environ={})
    assert (text.policy, len(text.examples), document.line_of(("examples", 0))) == ("..", 1, 3)
    for content, said in (("examples: []\n", "is empty"), ("rules: []\n", "not a known key"), ("{}\n", "is missing")):
        file.write_text(content)
        with pytest.raises(ConfigError, match=said):
            read_test(file, environ={})
    with pytest.raises(ConfigError, match="cannot be read"):
        read_test(tmp_path / "gone.test.yaml")
