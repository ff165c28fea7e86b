"""What pydantic found wrong, in words for the person who wrote the file: where, what, and what to do."""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gateway.core.errors import ConfigError, Problem
from gateway.policy.document import Document

_M = TypeVar("_M", bound=BaseModel)

Path = tuple[str | int, ...]


def validate(model: type[_M], document: Document, context: dict[str, Any] | None = None) -> _M:
    """`document` as a `model`; `context` is for its validators. Raises `ConfigError` with every problem, by line."""
    found = dict.fromkeys(document.problems)
    try:
        read = model.model_validate(document.data, context=context)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            # A list whose items were refused is reported as too short as well; an empty key was told by the reader.
            repeated = detail["type"] == "too_short" and detail["input"]
            if not repeated and not (found and detail["input"] is None):
                found[problem_of(detail, document, model)] = None
        found = found or {document.problem("the file is not fit to be read"): None}
    else:
        if not found:
            return read
    raise ConfigError(sorted(found, key=lambda problem: problem.line))


def problem_of(detail: ErrorDetails, document: Document, model: type[BaseModel]) -> Problem:
    """One pydantic error as a `Problem`."""
    kind, context = detail["type"], detail.get("ctx", {})
    path = _in_file(detail["loc"], document.data)
    if kind == "missing":
        path = (*path, detail["loc"][-1])
    where = shown(path)
    match kind:
        case "extra_forbidden":
            key = str(path[-1])
            later = {name: why for part in _models_at(model, path[:-1]) for name, why in _later(part).items()}
            if key in later:
                return document.problem(f"`{where}` is not there yet", path, later[key])
            known = [name for part in _models_at(model, path[:-1]) for name in _keys(part)]
            return document.problem(f"`{where}` is not a known key", path, meant(key, known, "known here"))
        case "missing":
            return document.problem(f"`{where}` is missing", path)
        case "literal_error" | "enum":
            allowed = [
                word for word in str(context.get("expected", "")).split("'") if word.strip(" ,") not in ("", "or")
            ]
            given = detail["input"]
            suggestion = meant(given, allowed, "one of") if isinstance(given, str) else _one_of(allowed)
            # Only a plain word is repeated: a URL in the wrong place may hold a password.
            said = f" `{given}`" if re.fullmatch(r"[\w.-]{1,40}", str(given)) else " that"
            return document.problem(f"`{where}` cannot be{said}", path, suggestion)
        case "value_error":
            return document.problem(f"`{where}`: {context.get('error')}", path)
        case "string_type":
            quote = isinstance(detail["input"], int | float)
            return document.problem(f"`{where}` must be text", path, "put it in quotes" if quote else "")
        case "tuple_type" | "list_type" | "set_type" | "frozen_set_type":
            single = isinstance(detail["input"], str)
            return document.problem(f"`{where}` must be a list", path, "write [a, b]" if single else "")
        case "model_type" | "dict_type" | "model_attributes_type":
            return document.problem(f"`{where}` must be a mapping" if where else "the file must be a mapping", path)
        case "too_short":
            return document.problem(f"`{where}` is empty", path, "name something, or remove the key")
        case "string_pattern_mismatch":
            return document.problem(f"`{where}` is not written right", path, f"it has to fit {context.get('pattern')}")
        case "bool_type" | "bool_parsing":
            return document.problem(f"`{where}` must be true or false", path)
        case "int_type" | "int_parsing" | "int_from_float" | "float_type" | "float_parsing":
            return document.problem(f"`{where}` must be a number", path)
    return document.problem(f"`{where}`: {detail['msg'][:1].lower()}{detail['msg'][1:]}", path)


def shown(path: Path) -> str:
    """A path as people write it: `rules[2].step_up.max_age`; lists count from one, as people do."""
    text = ""
    for step in path:
        text += f"[{step + 1}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def meant(given: str, known: Iterable[str], otherwise: str) -> str:
    """`did you mean …?`, or all of `known` where nothing is near."""
    known = list(dict.fromkeys(known))
    near = difflib.get_close_matches(given.lower(), known, n=1, cutoff=0.6)
    if near:
        return f"did you mean `{near[0]}`?"
    return f"{otherwise}: {', '.join(known)}" if known else ""


def _one_of(allowed: list[str]) -> str:
    return f"one of: {', '.join(allowed)}"


def _in_file(loc: Path, data: Any) -> Path:
    """The steps of `loc` that are in the file; pydantic adds the names of union members and `[key]`."""
    path: list[str | int] = []
    here = data
    for step in loc:
        known = step in here if isinstance(here, dict) else isinstance(here, list) and isinstance(step, int)
        if known:
            path.append(step)
            here = here[step]
    return tuple(path)


def _models_at(model: type[BaseModel], path: Path) -> list[type[BaseModel]]:
    """The models that could describe what is at `path`."""
    here: list[Any] = [model]
    for step in path:
        following: list[Any] = []
        if isinstance(step, str):  # the only item of a list may stand there without the list
            here = [member for part in here for member in _items(part)]
        for part in here:
            if isinstance(part, type) and issubclass(part, BaseModel):
                following += (
                    field.annotation for name, field in part.model_fields.items() if (field.alias or name) == step
                )
            else:
                following += get_args(part)[-1:] if get_origin(part) is dict else get_args(part)[:1]
        here = [part for annotation in following for part in _members(annotation)]
    whole = [member for part in here for member in _items(part)]
    return [part for part in whole if isinstance(part, type) and issubclass(part, BaseModel)]


def _items(part: Any) -> Iterator[Any]:
    """What a list holds; anything else is itself."""
    if get_origin(part) in (tuple, list):
        for item in get_args(part)[:1]:
            yield from _members(item)
    else:
        yield part


def _members(annotation: Any) -> Iterator[Any]:
    """The types an annotation stands for, unions and `Annotated` opened."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _members(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from _members(member)
    else:
        yield annotation


def _keys(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield field.alias or name


def _later(model: type[BaseModel]) -> dict[str, str]:
    """Keys the model knows of that mean nothing yet → what to do meanwhile."""
    return getattr(model, "later", {})
