"""The OpenAPI 3.1 document and the page made of it, both from the list of endpoints."""

from __future__ import annotations

import re
from functools import cache
from http import HTTPStatus
from typing import Any

from aiohttp import web
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from gateway.core.languages import ENGLISH
from gateway.web.answers import json, page
from gateway.web.api import (
    addresses,
    factors,
    limits,
    notices,
    own_address,
    recoveries,
    requirements,
    sessions,
    stepup,
    trusted,
    webauthn,
)
from gateway.web.api.endpoint import Empty, Endpoint
from gateway.web.desk import DESK

ENDPOINTS: tuple[Endpoint, ...] = (
    *factors.ENDPOINTS,
    *webauthn.ENDPOINTS,
    *stepup.ENDPOINTS,
    *trusted.ENDPOINTS,
    *recoveries.ENDPOINTS,
    *sessions.ENDPOINTS,
    *notices.ENDPOINTS,
    *own_address.ENDPOINTS,
    *requirements.ENDPOINTS,
    *limits.ENDPOINTS,
    *addresses.ENDPOINTS,
)

COMMON = (
    (401, "ERR-SIGN-IN"),
    (403, "ERR-CSRF"),
    (403, "ERR-MFA-ENROL"),
    (429, "ERR-THROTTLED"),
    (500, "ERR-FAULT"),
    (503, "ERR-STORE-AWAY"),
)
"""Errors that any endpoint may answer with."""

PROBLEM = {
    "type": "object",
    "description": "Problem details (RFC 9457).",
    "required": ["type", "title", "status", "detail", "code", "request_id"],
    "properties": {
        "type": {"type": "string", "const": "about:blank"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "For people, in their language."},
        "code": {"type": "string", "description": "Stable; for programs.", "examples": ["ERR-MFA-INVALID"]},
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
        "enrol": {"type": "string", "description": "With ERR-MFA-ENROL: where a person sets up a second factor."},
        "acr_values": {"type": "string", "description": "With ERR-STEP-UP: the level needed (RFC 9470)."},
        "max_age": {"type": "integer", "description": "With ERR-STEP-UP: the oldest proof that counts, in seconds."},
        "challenge": {
            "type": "string",
            "description": "With every 401, and ERR-MFA-ENROL: a page for a window of its own, on which a person can "
            "do what is missing. What they cannot mend has none.",
        },
    },
}


async def document(request: web.Request) -> web.Response:
    """`api/openapi.json`."""
    return json(describe(request.app[DESK].prefix))


async def docs(request: web.Request) -> web.Response:
    """`api/docs`, for people."""
    spec = describe(request.app[DESK].prefix)
    operations = [
        {
            "method": endpoint.method,
            "path": f"{request.app[DESK].prefix}api/v1/{endpoint.path}",
            "summary": endpoint.summary,
            "fresh": endpoint.fresh,
            "status": endpoint.status,
            "takes": _members(spec, endpoint.takes) if endpoint.takes is not Empty else (),
            "answers": _members(spec, endpoint.answers) if endpoint.answers else (),
            "codes": _codes(endpoint),
        }
        for endpoint in ENDPOINTS
    ]
    return page(request, "docs.html", language=ENGLISH, operations=operations)


@cache
def describe(prefix: str) -> dict[str, Any]:
    """The document."""
    models = {model for one in ENDPOINTS for model in (one.takes, one.answers) if model is not None}
    ordered = sorted(models, key=lambda model: model.__name__)
    _, schemas = models_json_schema(
        [(model, "validation") for model in ordered], ref_template="#/components/schemas/{model}"
    )
    paths: dict[str, dict[str, Any]] = {}
    for one in ENDPOINTS:
        paths.setdefault(f"/{one.path}", {})[one.method.lower()] = _operation(one)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Sallyport",
            "version": "1",
            "description": "Second factors, challenges, sessions of whoever calls; of others, limits, and "
            "addresses that take nothing, for administrators.",
        },
        "servers": [{"url": f"{prefix}api/v1"}],
        "security": [{"session": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "session": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": "__Host-sallyport",
                    "description": "`sallyport` where the gateway speaks plain http.",
                }
            },
            "schemas": {**schemas.get("$defs", {}), "Problem": PROBLEM},
        },
    }


def _operation(one: Endpoint) -> dict[str, Any]:
    name = re.sub(r"\W+", "_", f"{one.method.lower()} {one.path}").strip("_")
    said: dict[str, Any] = {"operationId": name, "summary": one.summary, "tags": [one.path.partition("/")[0]]}
    parameters: list[dict[str, Any]] = [
        {"name": each, "in": "path", "required": True, "schema": {"type": "string"}}
        for each in re.findall(r"{(\w+)}", one.path)
    ]
    parameters += [
        {"name": name, "in": "query", "description": description, "schema": {"type": "string"}}
        for name, description in one.query
    ]
    if parameters:
        said["parameters"] = parameters
    if one.method == "POST":
        said["requestBody"] = {"required": one.takes is not Empty, "content": {"application/json": _schema(one.takes)}}
    good: dict[str, Any] = {"description": HTTPStatus(one.status).phrase}
    if one.answers is not None:
        good["content"] = {"application/json": _schema(one.answers)}
    said["responses"] = {str(one.status): good}
    by_status: dict[int, list[str]] = {}
    for status, code in _codes(one):
        by_status.setdefault(status, []).append(code)
    for status, codes in sorted(by_status.items()):
        said["responses"][str(status)] = {
            "description": ", ".join(f"`{code}`" for code in codes),
            "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
    return said


def _codes(one: Endpoint) -> list[tuple[int, str]]:
    own = list(one.codes)
    if one.fresh:
        own.append((401, "ERR-STEP-UP"))
    if "{" in one.path or one.query:
        own.append((400, "ERR-BAD-TARGET"))
    if one.method == "POST":
        own += [(400, "ERR-JSON"), (400, "ERR-BODY"), (413, "ERR-TOO-LARGE"), (415, "ERR-CONTENT-TYPE")]
    return [*own, *COMMON]


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}


def _members(spec: dict[str, Any], model: type[BaseModel]) -> tuple[tuple[str, str, str], ...]:
    """`(name, type, description)` of each member, for the page."""
    schema = spec["components"]["schemas"][model.__name__]
    return tuple(
        (name, _type(member), member.get("description", "")) for name, member in schema.get("properties", {}).items()
    )


def _type(member: dict[str, Any]) -> str:
    if "$ref" in member:
        return str(member["$ref"]).rpartition("/")[2]
    if "anyOf" in member:
        return " or ".join(_type(each) for each in member["anyOf"])
    if "enum" in member:
        return " | ".join(map(str, member["enum"]))
    if member.get("type") == "array":
        return f"list of {_type(member.get('items', {}))}"
    return str(member.get("format") or member.get("type", "any"))
