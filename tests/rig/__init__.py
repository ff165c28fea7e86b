"""A gateway, a client and a service that hide nothing: everything here speaks bytes.

- `messages`: one deliberately dumb and strict parser for both directions; what it does not like is an error.
- `RecordingUpstream`: a service that keeps every byte it was sent, and answers by script.
- `RawClient`: a client that sends what it is told and reads exactly one answer at a time.
- `Gateway`: the real application between the two.
"""
