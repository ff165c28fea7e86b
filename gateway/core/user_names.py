"""The one spelling of a user name, wherever it is typed: at the sign-in page, in a policy, in the configuration.

`Bob`, `BOB`, ` bob ` and full-width or zero-width variants of it are one name. The spelling follows NFKC_Casefold
(Unicode Standard Annex #31, and the idea of RFC 8265), in no language's own way: `I` and `i` are one letter, and the
Turkish `İ` and `ı` are others. Two rules that differ in one letter would be a rule about somebody that is about nobody.
"""

from __future__ import annotations

import re
import unicodedata

_IGNORABLE = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]")
"""Default ignorable code points that are not of category Cf, which are dropped as well."""
_ROUNDS = 4
"""Folding can uncover something that normalises again; it settles after three."""


def folded(name: str) -> str:
    """`name` in its one spelling, whether or not somebody may be called that; `folded(folded(x)) == folded(x)`."""
    for _ in range(_ROUNDS):
        name = _fold(name)
    return name


def _fold(name: str) -> str:
    visible = (
        character for character in unicodedata.normalize("NFKC", name) if unicodedata.category(character) != "Cf"
    )
    return unicodedata.normalize("NFKC", _IGNORABLE.sub("", "".join(visible)).casefold()).strip()
