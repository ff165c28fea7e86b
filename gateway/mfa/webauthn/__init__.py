"""Security keys and passkeys as a factor (W3C Web Authentication Level 3); imported only where one is configured.

    relying_party   who we are to a key, and which keys the operator takes
    ceremony        a question that is asked once: its challenge, kept for five minutes
    key             what is kept of a key, sealed
    client_data     what the browser says it did, and where
    registration    a new key: the steps of section 7.1
    attestation     who made it
    assertion       an answer: the steps of section 7.2
    factor          `webauthn` among the other factors
    binding         setting a key up

Signatures and CBOR are `py_webauthn`'s. What it leaves to its caller (frames, backup flags, counters, handles, lengths,
trailing bytes) is here, and so is everything that is compared: strictly, text against text.
"""
