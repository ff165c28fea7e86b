"""What is built in: one visible list. A new one is one file, one line here, one entry in its contract suite."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.core.contracts import Step
from gateway.limits import fixed_window, gcra, sliding_window, token_bucket

ALGORITHMS: Mapping[str, Step] = {
    "fixed_window": fixed_window.step,
    "sliding_window": sliding_window.step,
    "token_bucket": token_bucket.step,
    "gcra": gcra.step,
}
"""How a limit counts."""
