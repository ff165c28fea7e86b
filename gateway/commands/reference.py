"""The references and JSON Schemas, made from the models that read the files: they cannot disagree.

`sallyport schema --write docs` writes them all; a test compares them with what the models say today.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

Schema = dict[str, Any]

TITLES = {
    "config": "Sallyport configuration",
    "policy": "Sallyport policy",
    "test": "Sallyport policy test",
}

_INTRODUCTIONS = {
    "config": """\
Where the gateway listens, what stands behind it, where things are kept. One file, `config.yaml`; `--config` or
`$SALLYPORT_CONFIG` names another. It is read at start; `sallyport check` tells every mistake in it at once.

Any value may come from the environment, `${NAME}` or `${NAME:-default}` (`$$` is a dollar sign; within `{…}` or `[…]`
put it in quotes), or from a file, `!file path`. Relative paths are relative to the folder of the file. Durations are
written `30s`, `10m`, `1h30m`, `7d`; sizes `512`, `32k`, `8M`, `1G`.

A key that is not here is an error. Keys are not repeated, one file holds one document, and neither merge keys (`<<`)
nor tags other than `!file` are read.
""",
    "policy": """\
Who may enter, proven how, how often. The files of `policies/` (`*.yaml`, not below it) are read in name order, rules
in order. The first rule that matches a request decides; what no rule matches is refused. An edit counts within about
a second, all of it or nothing: a policy with a mistake, or whose own examples come out wrong, leaves the last good one
in force. `sallyport check` says whether it would be taken, `sallyport explain` which rule decides and why.

Environment variables are read as in config.yaml. A key without a value is an error, so that lost lines never loosen
a rule.

**What is matched.** Host names ignore letter case, a final dot and the port. Paths are matched percent-decoded, with
dot segments resolved and slashes merged, over their whole length; a slash at the end changes nothing, and a query never
takes part. `*` stands for anything within a segment, `**` for any number of whole segments, so `/admin/**` is `/admin`
and everything below it.

**Other readings.** Some services take `/Admin`, `/admin;x=1` or `/admin.json` for `/admin`. Every such reading of a
request is held against the rules that name a path, and the strictest answer holds: a reading can only add demands.
A method in `_method` is judged as a request of its own.

**Administrators.** A rule that lets in nobody but members of `mfa.required_groups` (config.yaml) asks for aal2,
whatever it says itself.

**Risk.** From `step_up_at` on a second factor is asked for, unless one that the rule counts was shown within its
`max_age`, or within 10 minutes where it names none; from `refuse_at` on the request is refused, whatever was shown.
""",
    "test": "",
}


def schema_of(kind: str) -> Schema:
    """The JSON Schema (2020-12) of `config`, `policy` or `test` files."""
    from pydantic import BaseModel

    from gateway.policy.schema import PolicyText, TestText
    from gateway.settings import Settings

    models: dict[str, type[BaseModel]] = {"config": Settings, "policy": PolicyText, "test": TestText}
    schema = models[kind].model_json_schema(by_alias=True)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **_without_titles(schema),
        "title": TITLES[kind],
    }


def markdown_of(kind: str) -> str:
    """The reference of `config` or `policy` files."""
    schema = schema_of(kind)
    lines = [f"# {TITLES[kind].removeprefix('Sallyport ').capitalize()} reference", "", _INTRODUCTIONS[kind]]
    for path, section in _sections(schema):
        lines += [f"## `{path}`" if path else "## At the top", "", section.get("description", ""), ""]
        lines += ["| key | value | default | meaning |", "| --- | --- | --- | --- |"]
        required = section.get("required", ())
        for name, field in section.get("properties", {}).items():
            default = "required" if name in required else _default(field)
            lines.append(f"| `{name}` | {_kind(field, schema)} | {default} | {_cell(_meaning(field, schema))} |")
        if not section.get("properties"):
            lines.append("| | | | nothing to say yet; write `{}` |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def write(folder: Path) -> list[Path]:
    """Write every schema and reference under `folder`; returns the files."""
    return [_written(folder / name, text) for name, text in files().items()]


def files() -> Mapping[str, str]:
    """Name under `docs/` → content."""
    from gateway.commands import conversations
    from gateway.commands.common import as_json

    schemas = {f"schema/{kind}.json": as_json(schema_of(kind)) + "\n" for kind in TITLES}
    references = {f"reference/{kind}.md": markdown_of(kind) for kind in ("config", "policy")}
    return schemas | references | {"reference/conversations.md": conversations.markdown()}


def _written(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def _without_titles(value: Any) -> Any:
    """Without the titles pydantic derives from field names: they say nothing a key does not."""
    if isinstance(value, dict):
        kept = {key: part for key, part in value.items() if key != "title" or not isinstance(part, str)}
        return {key: _without_titles(part) for key, part in kept.items()}
    return [_without_titles(part) for part in value] if isinstance(value, list) else value


def _sections(schema: Schema) -> Iterator[tuple[str, Schema]]:
    """Every mapping of the schema with the path that leads to it first, in reading order."""
    seen: set[str] = set()
    waiting: list[tuple[str, Schema]] = [("", schema)]
    while waiting:
        path, section = waiting.pop(0)
        yield path, section
        below = []
        for name, field in section.get("properties", {}).items():
            for suffix, reference in _references(field):
                if reference not in seen:
                    seen.add(reference)
                    where = f"{path}.{name}{suffix}" if path else f"{name}{suffix}"
                    below.append((where, schema["$defs"][reference]))
        waiting = below + waiting


def _references(field: Schema) -> Iterator[tuple[str, str]]:
    if "$ref" in field:
        yield "", field["$ref"].rpartition("/")[2]
    for part in (*field.get("anyOf", ()), *field.get("oneOf", ())):
        yield from _references(part)
    if isinstance(items := field.get("items"), dict):
        yield from ((f"[]{suffix}", name) for suffix, name in _references(items))
    if isinstance(values := field.get("additionalProperties"), dict):
        yield from ((f".<name>{suffix}", name) for suffix, name in _references(values))
    for values in field.get("patternProperties", {}).values():
        yield from ((f".<name>{suffix}", name) for suffix, name in _references(values))


def _meaning(field: Schema, schema: Schema) -> str:
    """What a key is for; pydantic leaves it out where the mapping it leads to says the same."""
    if "description" in field:
        return str(field["description"])
    return next((schema["$defs"][name].get("description", "") for _, name in _references(field)), "")


def _kind(field: Schema, schema: Schema) -> str:
    """What may stand there, in a few words."""
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{word}`" for word in field["enum"])
    if parts := [part for part in (*field.get("anyOf", ()), *field.get("oneOf", ())) if part.get("type") != "null"]:
        return " or ".join(dict.fromkeys(_kind(part, schema) for part in parts))
    if "$ref" in field:
        return "mapping"
    kind = field.get("type")
    if kind == "array":
        items = field.get("items") or (field.get("prefixItems") or [{}])[0]
        return f"list of {_kind(items, schema)}" if items else "list"
    named = {"ms|s|m|h|d": "duration", "[kKmMgG]": "size", "/[0-9]*(s|m|h|d)": "rate", "%$": "percentage"}
    for mark, name in named.items():
        if mark in field.get("pattern", ""):
            return name
    if kind == "object":
        return "mapping"
    bounds = "".join(
        f" {sign} {field[key]:g}"
        for key, sign in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"))
        if key in field
    )
    return {"string": "text", "integer": "number", "boolean": "true or false"}.get(
        str(kind), str(kind or "any")
    ) + bounds


def _default(field: Schema) -> str:
    default = field.get("default")
    if default is None or default in ({}, [], ""):
        return "–"
    if isinstance(default, list):
        return "`[" + ", ".join(map(str, default)) + "]`"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
