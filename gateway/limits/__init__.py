"""How often?

- `token_bucket.step`, `sliding_window.step`: one request against one key; pure, exact, integers only.
- `Limiter`: keeps the state of every key in memory, within a fixed number of keys.
- `counted_by`: what a limit counts by: the caller's network, account, session, a header, a claim, the rule.
- `headers`: how clients are told (`RateLimit-Policy`, `RateLimit`, `Retry-After`).
"""
