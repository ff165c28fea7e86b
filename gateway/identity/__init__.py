"""Who is this?

- `LocalUsers`: people with a password kept here; `Passwords` hashes and compares, `users` spells their names.
- `Sessions`: who is signed in, since when, with which proofs; `SessionCookie` finds them in a request, `Strip` keeps
  them from services.
- `SignInThrottle`: how often somebody may try; `DeviceCookie` tells a browser that has been here from one that has not.
"""
