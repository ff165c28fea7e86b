"""Prove it again.

- `StepUps`: the conversation. A challenge is asked, answered and turned into one `Proof`; its states are a table.
- `Factors`: what a user can answer with, how often it may be tried, and when it is taken out of use.
- `Totp`, `BackupCodes`: the factors (contract `Factor` of `gateway.core.contracts`); `otp` has the arithmetic.
- `Attempts`: five tries in fifteen minutes for each user and method, counted before anything is checked.
- `Enrolment`: who may bind or remove a factor, and how.
- `InterruptedRequests`: the request that a challenge or a sign-in cut short, sealed until it goes on.
- `qr`: the secret as a picture.

Everything is keyed by the user's subject, never by a typed name: however somebody spells their name at sign-in, there
is one set of factors and one counter.
"""
