"""Diagrams of the conversations that are tables: drawn from the tables that decide, so they cannot disagree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

Arrow = tuple[str, str, str, str]
"""State, what happens, the next state, what is said of it."""

INTRODUCTION = """\
# Conversations

Two things here are conversations of several steps: proving it again, and recovery. Each is a table in the code, and
what is not in its table does not happen. These pictures are drawn from the tables by `sallyport schema --write docs`.
"""

CHALLENGE = """\
## A challenge

A rule asks for a second factor ([concepts](../concepts.md), `gateway/mfa/stepup.py`). A challenge lies under the
session that was asked, for ten minutes. There is one way to a proof, taken once. *Over* is one state on purpose:
answered, expired, somebody else's and never begun cannot be told apart.
"""

RECOVERY = """\
## A recovery

Somebody has lost every second factor ([recovery](../factors/recovery.md), `gateway/mfa/recovery_states.py`). Each arrow
is one statement in the database, so of any number of people who do the same at once one has done it. What is over stays
over.
"""


def markdown() -> str:
    """The page `reference/conversations.md`."""
    from gateway.mfa import recovery_states, stepup

    challenge = [
        (state.value, outcome.value.replace("_", " "), after.value, code or "a proof")
        for (state, outcome), (after, code) in stepup.NEXT.items()
    ]
    recovery = [
        (state.value, happens.value, after.value, "") for (state, happens), after in recovery_states.NEXT.items()
    ]
    return "\n".join(
        [
            INTRODUCTION,
            CHALLENGE,
            *drawn(challenge, begins=(stepup.State.OPEN.value,)),
            RECOVERY,
            *drawn(recovery, begins=(recovery_states.State.WAITING.value, recovery_states.State.PENDING.value)),
        ]
    ).rstrip() + "\n"  # fmt: skip


def drawn(arrows: Iterable[Arrow], *, begins: Iterable[str]) -> list[str]:
    """A state diagram (Mermaid), and the same as a table; states that nothing leaves are ends."""
    arrows = list(arrows)
    together = _together(arrows)
    ends = dict.fromkeys(after for _, _, after, _ in arrows if all(a == after for s, _, a, _ in arrows if s == after))
    return [
        "```mermaid",
        "stateDiagram-v2",
        *(f"    [*] --> {state}" for state in begins),
        *(f"    {state} --> {after}: {', '.join(happens)}{f' → {said}' if said else ''}"
          for (state, after, said), happens in together.items()),
        *(f"    {state} --> [*]" for state in ends),
        "```",
        "",
        "| state | what happens | next |",
        "| --- | --- | --- |",
        *(f"| {state} | {', '.join(happens)} | {after}{f', {_shown(said)}' if said else ''} |"
          for (state, after, said), happens in together.items()),
        "",
    ]  # fmt: skip


def _shown(said: str) -> str:
    return f"`{said}`" if said.startswith("ERR-") else said


def _together(arrows: Iterable[Arrow]) -> Mapping[tuple[str, str, str], list[str]]:
    """What leads from one state to another with the same words, in one arrow."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for state, happens, after, said in arrows:
        found.setdefault((state, after, said), []).append(happens)
    return found
