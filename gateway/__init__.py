"""Sallyport: an identity gateway that stands in front of services that exist already.

A request arrives at the **gate**. *Who is this?* (`identity`) *How often?* (`limits`) *How strange is it?*
(`risk`) *What does the policy ask?* (`policy`). If more proof is needed, *prove it again* (`mfa`); the `wire`
carries it on, and `audit` remembers. `web` is our own front desk. Underneath: the words (`core`), the keys
(`crypto`) and the shelves (`store`).

Read `gate.py` first: it is the walk of one request, top to bottom.
"""

__version__ = "0.1.0"
