"""Keeps things.

- `Near`: a bounded dict, for what may be forgotten at any time.
- `MemoryKeyValue`, `SqlKeyValue`: small things that expire; single use is claimed in one step.
- `Records`: the database; `tables` says what is in it.
"""
