"""Answers of the REST API, held against its OpenAPI document: whatever a test asks there has to be as it says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import orjson
from jsonschema import Draft202012Validator

from gateway.web.api.openapi import describe


def demand_described(prefix: str, method: str, path: str, status: int, content_type: str, body: bytes) -> None:
    """Raises `AssertionError` for an answer to `path` (below `api/v1/`) that the document does not know."""
    found = _operation(prefix, method, path.partition("?")[0])
    if found is None:
        return  # not a path of the API
    where, responses = found
    assert str(status) in responses, f"{where} does not say that it may answer {status}"
    content = responses[str(status)].get("content")
    if content is None:
        assert body == b"", f"{where} says that {status} has no body"
        return
    assert content_type in content, f"{where} does not say that {status} is {content_type}"
    errors = [str(error.message) for error in _validator(prefix, where, status, content_type).iter_errors(_json(body))]
    assert errors == [], f"{where} {status}: {errors}"


def _json(body: bytes) -> Any:
    return orjson.loads(body)


def _operation(prefix: str, method: str, path: str) -> tuple[str, Mapping[str, Any]] | None:
    # A path without parameters comes before one with them.
    for template, item in sorted(describe(prefix)["paths"].items(), key=lambda one: "{" in one[0]):
        if re.fullmatch(re.sub(r"{\w+}", "[^/]+", template), f"/{path}") and method.lower() in item:
            return f"{method} {template}", item[method.lower()]["responses"]
    return None


@cache
def _validator(prefix: str, where: str, status: int, content_type: str) -> Draft202012Validator:
    document = describe(prefix)
    method, template = where.split()
    pointer = "/".join(
        part.replace("~", "~0").replace("/", "~1")
        for part in ("paths", template, method.lower(), "responses", str(status), "content", content_type, "schema")
    )
    return Draft202012Validator({**document, "$ref": f"#/{pointer}"})
