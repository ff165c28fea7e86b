"""Codes that are sent to somebody: one implementation, and one small file for each way (`mfa.sms`, `mfa.email`).

- `code`: six digits, what is kept of them, and how they are claimed.
- `link`: a link that does the same, in letters.
- `sends`: how often one may be sent, to whom.
- `masked`: an address as its owner recognises it and nobody else can use it.
- `factor`: the factor: who has which address, sending to it, judging the answer.
- `binding`: having an address bound, which is a code too.
"""
