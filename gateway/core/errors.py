"""What can go wrong, as a tree.

SallyportError
├── ConfigError        config, policy, keys or database are not fit to run with; a list of problems
├── StoreAway          a store cannot be reached or answers nonsense
├── Undelivered        a message was not taken over by whoever should carry it
├── Broken             a credential is ours to judge and is damaged (not: absent, not: wrong)
├── NotProven          an answer proves nothing, and operators want to know why
└── UserError          a person asked for something that cannot be; carries a stable code
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class SallyportError(Exception):
    """Anything of ours."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to mend in a file."""

    message: str
    """What is wrong, in a sentence without a full stop."""
    file: str = ""
    line: int = 0
    """1-based; 0 where no line can be named."""
    suggestion: str = ""
    """What to do about it."""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}: " if self.line else f"{self.file}: " if self.file else ""
        return f"{where}{self.message}" + (f" ({self.suggestion})" if self.suggestion else "")


class ConfigError(SallyportError):
    """What the operator gave is not fit to run with; every problem at once."""

    def __init__(self, problems: Sequence[Problem] | str, suggestion: str = "") -> None:
        self.problems: tuple[Problem, ...] = (
            (Problem(problems, suggestion=suggestion),) if isinstance(problems, str) else tuple(problems)
        )
        super().__init__("\n".join(map(str, self.problems)))


class StoreAway(SallyportError):  # noqa: N818 - the state is the name
    """A store cannot be reached, or what it answers makes no sense."""


class Undelivered(SallyportError):  # noqa: N818
    """A message was not taken over. The text holds nothing of the message, and no address.

    `final`: trying again is of no use. `unsure`: it may have been taken over nevertheless. `retry_after`: seconds that
    were asked for.
    """

    def __init__(self, why: str, *, final: bool = False, unsure: bool = False, retry_after: float = 0.0) -> None:
        super().__init__(why)
        self.why = why
        self.final = final
        self.unsure = unsure
        self.retry_after = retry_after


class Broken(SallyportError):  # noqa: N818
    """A credential that is ours to judge is damaged."""


class NotProven(SallyportError):  # noqa: N818
    """An answer proves nothing. `why` is a word of a short list, for operators; whoever answered is not told.

    `copied` is the id of the factor that there may be a copy of, or empty.
    """

    def __init__(self, why: str, *, copied: str = "") -> None:
        super().__init__(why)
        self.why = why
        self.copied = copied


class UserError(SallyportError):
    """A person asked for something that cannot be.

    `code` is stable (`ERR-MFA-INVALID`), `status` the HTTP status, `detail` a sentence for people.
    """

    def __init__(self, code: str, detail: str, status: int = 400, retry_after: float = 0.0) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.status = status
        self.retry_after = retry_after
