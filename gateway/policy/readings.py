"""The rules a request is also judged by, because a service may read it in another way."""

from __future__ import annotations

from gateway.core.facts import Facts
from gateway.core.identity import Identity
from gateway.core.rule import Rule
from gateway.policy.book import Book
from gateway.policy.decide import choose


def other_rules(book: Book, facts: Facts, identity: Identity | None, rule: Rule | None) -> list[Rule | None]:
    """The rules of every other reading that differ from `rule`; None: by some reading no rule allows it.

    The gate takes the strictest answer, so a reading can only add demands, never take one away.
    """
    others: list[Rule | None] = []
    for method, path in book.readings(facts):
        other = choose(book.find_reading(facts, method, path), facts, identity)
        if other is not rule and other not in others:
            others.append(other)
    return others
