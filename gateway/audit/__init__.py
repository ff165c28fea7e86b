"""Remember it.

- `Recorder`: security events, into the store in batches; the `Ledger` of everybody else.
- `AccessLog`: one JSON line for each request, written in batches.
- `Metrics`: counts and durations, in Prometheus' words.
- `visible`: what strangers wrote, made fit to be read by people and machines.
"""
