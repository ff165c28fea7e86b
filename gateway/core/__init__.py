"""The words everyone speaks. No input, no output, nothing that waits.

- `Facts`: one request as the gate sees it, canonical and frozen in meaning.
- `Identity`, `Session`, `Proof`: who is asking, since when, and what they have shown.
- `Rule`: one compiled paragraph of the operator's policy.
- `Decision`: what the gate answers: `Allow`, `SignIn`, `StepUp`, `Throttle` or `Refuse`.
- `Reason`: why, from one closed list.
- `Event`: something a security officer wants to know about.
- `contracts`: what a room may ask of another without knowing it.
"""
