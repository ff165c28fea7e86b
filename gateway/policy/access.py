"""`access:` compiled: who may enter, once known; and whether that takes a group of administrators."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from gateway.core.identity import Identity
from gateway.policy.criteria import claims_fit
from gateway.policy.schema import Who

Admits = Callable[[Identity], bool]


def everybody(identity: Identity) -> bool:
    """Anybody who is signed in."""
    return True


def no_one(identity: Identity) -> bool:
    """Not a soul."""
    return False


def admits(who: Who) -> Admits:
    """The function that lets in exactly those `who` describes; every key of it has to hold."""
    tests: list[Admits] = []
    if who.users is not None:
        users = frozenset(who.users)
        tests.append(lambda identity: identity.user in users)
    if who.groups is not None:
        groups = frozenset(who.groups)
        tests.append(lambda identity: not groups.isdisjoint(identity.groups))
    if who.claims is not None:
        wanted = listed(who.claims)
        tests.append(lambda identity: claims_fit(wanted, identity))
    if who.any_ is not None:
        some = tuple(map(admits, who.any_))
        tests.append(lambda identity: any(test(identity) for test in some))
    if who.all_ is not None:
        tests.extend(map(admits, who.all_))
    if who.not_ is not None:
        but = admits(who.not_)
        tests.append(lambda identity: not but(identity))
    if len(tests) == 1:
        return tests[0]
    together = tuple(tests)
    return lambda identity: all(test(identity) for test in together)


def only_through(who: Who, groups: Collection[str]) -> bool:
    """Whether nobody enters who is in none of `groups`."""
    return (
        (who.groups is not None and all(group in groups for group in who.groups))
        or (who.any_ is not None and all(only_through(part, groups) for part in who.any_))
        or (who.all_ is not None and any(only_through(part, groups) for part in who.all_))
    )


def spoken(access: str | Who) -> str:
    """`access` in one line, for `explain`."""
    if isinstance(access, str):
        return access
    return ", ".join(
        f"{key}: {_spoken(value)}" for key, value in access.model_dump(by_alias=True, exclude_none=True).items()
    )


def _spoken(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_spoken(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_spoken, value)) + "]"
    return str(value)


def listed(claims: Mapping[str, object]) -> dict[str, tuple[object, ...]]:
    """Claims with every value a tuple."""
    return {name: value if isinstance(value, tuple) else (value,) for name, value in claims.items()}
