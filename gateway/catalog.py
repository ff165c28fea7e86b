"""What is built in: one visible list. A new one is one file, one line here, one entry in its contract suite."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.core.contracts import Step
from gateway.limits import sliding_window, token_bucket

ALGORITHMS: Mapping[str, Step] = {
    "token_bucket": token_bucket.step,
    "sliding_window": sliding_window.step,
}
"""How a limit counts."""
