from __future__ import annotations

import orjson
import pytest

from gateway.core.strict_json import loads


@pytest.mark.parametrize(
    "text",
    [
        b'{"a": 1, "a": 1}',
        b'{"a": 1, "\\u0061": 2}',
        b'[{"b": {"": 0, "": 0}}]',
        b'{"a": NaN}',
        b'{"a": 1} {"a": 1}',
        b'\xef\xbb\xbf{"a": 1}',
        b'{"a": "\xff"}',
        b'{"a": "\\ud800"}',
        b'{"a": 1' + b"0" * 5000 + b"}",
        b"[" * 1000 + b"]" * 1000,
        b"",
    ],
)
def test_what_is_no_one_value_is_none(text: bytes) -> None:
    with pytest.raises(ValueError):
        loads(text)


@pytest.mark.parametrize(
    "text",
    [
        b'{"a": {"a": [{"a": 1}, {"a": 2}]}, "A": 1}',
        b'{"a": 1' + b"0" * 300 + b"}",
        b'{"a": 1e300, "b": -0.0, "c": "\\u0000"}',
        b'"a"',
        b"null",
    ],
)
def test_everything_else_is_read_as_ever(text: bytes) -> None:
    assert loads(text) == loads(text.decode()) == orjson.loads(text)
