"""No risk scores: where nothing is remembered of anybody, nothing they do is unlike them."""

from __future__ import annotations

from gateway.core.decision import CALM, Score
from gateway.core.facts import Facts
from gateway.core.identity import Identity


class Calm:
    """The `Strangeness` of a gateway without records."""

    def remembered(self, facts: Facts, identity: Identity) -> Score:
        """Nothing strange."""
        return CALM

    async def score(self, facts: Facts, identity: Identity) -> Score:
        """Nothing strange."""
        return CALM
