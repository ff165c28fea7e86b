from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import ConfigError
from gateway.policy.document import LARGEST, Document, read


def value(text: str | bytes, **options: Any) -> Any:
    document = reading(text, **options)
    assert document.problems == ()
    return document.data


def reading(text: str | bytes, **options: Any) -> Document:
    encoded = text.encode() if isinstance(text, str) else text
    return read(encoded, "f.yaml", **{"environ": {}, **options})


def wrong(text: str | bytes, **options: Any) -> list[str]:
    """Every problem, whether it kept the file from being read or not."""
    try:
        return [str(problem) for problem in reading(text, **options).problems]
    except ConfigError as error:
        return [str(problem) for problem in error.problems]


def test_scalars_follow_the_core_schema_and_no_surprise_of_yaml_1_1() -> None:
    text = "a: 18:00\nb: no\nc: on\nd: 010\ne: 0x1f\nf: 1.5\ng: 2026-11-20\nh: ~\ni: True\nj: '5'\nk: 1_000\nl: .inf\n"
    assert value(text) == {
        "a": "18:00", "b": "no", "c": "on", "d": 10, "e": 31, "f": 1.5, "g": "2026-11-20", "h": None, "i": True,
        "j": "5", "k": "1_000", "l": ".inf",
    }  # fmt: skip


def test_lines_of_keys_and_items_are_known() -> None:
    document = reading("# first\na:\n  - x\n  -\n    b: 1\n    c:\n      - d\n")
    assert document.line_of(("a",)) == 2
    assert document.line_of(("a", 0)) == 3
    assert document.line_of(("a", 1, "c", 0)) == 7
    assert document.line_of(("a", 1, "missing")) == 5  # the nearest thing around it
    assert document.line_of(("a", 9)) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("a: 1\nb: 2\na: 3\n", "f.yaml:3: `a` is given twice (the first is on line 1)", id="duplicate key"),
        pytest.param("a: {x: 1, x: 2}\n", "f.yaml:1: `x` is given twice", id="duplicate key in flow"),
        pytest.param("a: !!python/object:os.system x\n", "f.yaml:1: the tag", id="python tag"),
        pytest.param("a: !!python/object/apply:os.system [ls]\n", "f.yaml:1: the tag", id="python tag on a list"),
        pytest.param("a: !secret x\n", "f.yaml:1: the tag `!secret` is not known", id="unknown tag"),
        pytest.param("a: !file x\n", "f.yaml:1: the tag `!file` is not known", id="no files in a policy"),
        pytest.param("a: 1\n---\nb: 2\n", "f.yaml:2: a second document", id="two documents"),
        pytest.param("", "f.yaml:1: the file is empty", id="empty"),
        pytest.param("# nothing\n", "f.yaml:1: the file is empty", id="comments only"),
        pytest.param("a: [1\nb: 2\n", "f.yaml:2: not YAML", id="syntax"),
        pytest.param("a:\n\t- b\n", "f.yaml:2: not YAML", id="tab"),
        pytest.param("? [a]\n: b\n", "f.yaml:1: a key must be a plain word", id="list as key"),
        pytest.param("a: &x {b: 1}\nc: {<<: *x}\n", "f.yaml:2: merge keys", id="merge key"),
        pytest.param("a: *nothing\n", "f.yaml:1: ", id="alias of nothing"),
        pytest.param("a: &a [*a]\n", "f.yaml:1: the alias `*a` repeats nothing", id="alias of itself"),
        pytest.param(b"a: \xff\n", "f.yaml:1: not UTF-8", id="not UTF-8"),
        pytest.param("a: b\n".encode("utf-16"), "f.yaml:1: not UTF-8", id="UTF-16"),
        pytest.param("a: b\x00c\n", "f.yaml:1: not YAML", id="NUL"),
        pytest.param("x: 1\na: '\x07'\n", "f.yaml:2: not YAML", id="control character"),
        pytest.param("[" * 100 + "]" * 100, "f.yaml:1: nested deeper than", id="deep"),
        pytest.param("[" * 200_000, "f.yaml:", id="very deep"),
        pytest.param("{a: " * 100_000, "f.yaml:", id="very deep mappings"),
        pytest.param("a: ${\n", "f.yaml:1: `${` without a name", id="open variable"),
        pytest.param("a: '${X Y}'\n", "f.yaml:1: `${` without a name", id="malformed variable"),
        pytest.param("b: 1\na: ${NOT_SET}\n", "f.yaml:2: the environment has no NOT_SET", id="variable not set"),
    ],
)
def test_case_123_what_has_no_one_plain_meaning_is_refused(text: str | bytes, said: str) -> None:
    assert wrong(text)[0].startswith(said)


def test_case_123_a_file_too_large_is_not_parsed() -> None:
    assert "at most" in wrong(b"a" * (LARGEST + 1))[0]


def test_case_123_an_alias_bomb_is_refused_in_little_memory() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    tracemalloc.start()
    said = wrong("\n".join(lines))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "aliases repeat more than" in said[0]
    assert peak < 5_000_000


def test_an_alias_of_something_small_is_fine() -> None:
    assert value("a: &x [1, 2]\nb: *x\n") == {"a": [1, 2], "b": [1, 2]}


def test_problems_come_all_at_once_and_in_order() -> None:
    said = wrong("a: ${ONE}\nb: !t x\nc: 1\nc: 2\n")
    assert [line.split(":")[1] for line in said] == ["1", "2", "4"]


def test_environment_variables_fill_in_as_text() -> None:
    environ = {"NAME": "x: {y}", "PORT": "8080", "EMPTY": ""}
    text = "a: ${NAME}\nb: ${PORT}\nc: pre-${PORT}-post\nd: ${MISSING:-7}\ne: '${EMPTY:-filled}'\nf: $${NAME} $$5 $5\n"
    assert value(text, environ=environ) == {
        "a": "x: {y}", "b": "8080", "c": "pre-8080-post", "d": "7", "e": "", "f": "${NAME} $5 $5"
    }  # fmt: skip


def test_a_variable_cannot_add_structure_or_another_variable() -> None:
    assert value("a: ${X}", environ={"X": "b\nc: 1", "Y": "y"}) == {"a": "b\nc: 1"}
    assert value("a: ${X}", environ={"X": "${Y}", "Y": "y"}) == {"a": "${Y}"}


def test_values_from_files(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret\n")
    assert value("a: !file secret\n", folder=tmp_path) == {"a": "s3cret"}
    assert value("a: !file ${D}/secret\n", folder=Path("/"), environ={"D": str(tmp_path)}) == {"a": "s3cret"}
    (tmp_path / "big").write_bytes(b"x" * 70_000)
    (tmp_path / "odd").write_bytes(b"\xff")
    said = wrong("a: !file gone\nb: !file big\nc: !file odd\nd: !file .\n", folder=tmp_path)
    assert len(said) == 4
    assert "gone cannot be read" in said[0]
    assert "s3cret" not in "".join(said)


def test_a_key_without_a_value_is_told_where_nulls_are_refused() -> None:
    assert wrong("a:\nb: 1\nc: ~\n", nulls=False) == [
        "f.yaml:1: `a` has no value (give it one, or remove the key)",
        "f.yaml:3: `c` has no value (give it one, or remove the key)",
    ]
    assert value("a:\n") == {"a": None}


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_and_never_more(text: bytes) -> None:
    wrong(text)


@given(st.text(alphabet="ab:-[]{}&*!|>'\"\n #?,$%@`~<", max_size=60))
def test_any_yaml_like_text_is_read_or_refused_and_never_more(text: str) -> None:
    wrong(text)
