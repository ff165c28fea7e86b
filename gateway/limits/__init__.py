"""How often?

- `fixed_window`, `sliding_window`, `token_bucket`, `gcra`: `step`, one request against one key; pure, exact, whole
  numbers only. Beside each lies its twin in Lua, the same step for where Redis counts.
- `backoff`: what it costs to run into a limit again and again; with its twin.
- `Limiter`: keeps the state of every key in memory, within a fixed number of keys.
- `counted_by`: what a limit counts by: the caller's network, account, session, a header, a claim, the rule.
- `headers`: how clients are told (`RateLimit-Policy`, `RateLimit`, `Retry-After`).
"""
