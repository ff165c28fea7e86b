"""The limits of our own pages: which no policy names, so that none can forget them."""

from __future__ import annotations

from gateway.core.rule import LimitSpec

RULE = "sallyport-pages"
"""What their rule is called where rules are told apart."""

EVERYTHING = (LimitSpec("pages", ("address",), "token_bucket", 20, 1.0, 60),)
GUESSES = (
    *EVERYTHING,
    LimitSpec("pages-proofs", ("address",), "token_bucket", 120, 60.0, 40, when_away="refuse"),
)
"""For POSTs that check a password or a code: each costs a hash. Beside the throttles of the account and the factor."""
