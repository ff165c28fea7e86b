"""Targets for fuzzers: each file `fuzz_<name>.py` has `one(data)`, which raises when a property is broken.

`python -m tests.fuzz` runs them for long, `test_fuzz.py` for a moment in `make test`. Beginnings to mutate are in
`corpus/<name>/`; what once broke something stays there.
"""
