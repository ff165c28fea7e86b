"""Keys, and what is done with them.

- `KeyRing`: the folder of keys; what it opens is handed out as three capabilities:
- `Sealer` keeps secrets at rest, `Mac` recognises what we said ourselves, `Signer` speaks to services behind us.
- `tokens`: fresh random secrets, and the digests they are stored as.
"""
