"""The names and attributes of our cookies.

On https every name carries the `__Host-` prefix: the browser then refuses a `Domain=`, a longer `Path=` and plain
http, so no sibling host can plant one (RFC 6265bis, section 4.1.3.2).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cookies:
    """Cookie names for one scheme."""

    secure: bool
    session: str
    """The session's secret token; HttpOnly, SameSite=Lax."""
    browser: str
    """A random value for a browser nobody has signed in with yet: binds forms and interrupted requests to it."""
    device: str
    """Says that this browser has signed in as somebody before; only ever makes throttling milder."""
    resume: str
    """Names an interrupted request that the next POST to its target continues; lives a minute."""
    trusted: str
    """The secret of a browser that somebody trusts; SameSite=Strict, for only forms of our own need it."""
    language: str
    """The language that somebody chose; no secret."""

    @classmethod
    def over(cls, scheme: str) -> Cookies:
        """The cookies of `http` or `https`."""
        prefix = "__Host-" if scheme == "https" else ""
        return cls(
            scheme == "https",
            f"{prefix}sallyport",
            f"{prefix}sallyport-browser",
            f"{prefix}sallyport-device",
            f"{prefix}sallyport-resume",
            f"{prefix}sallyport-trusted",
            f"{prefix}sallyport-language",
        )

    @property
    def names(self) -> frozenset[bytes]:
        """Every one of them, as it stands in headers."""
        return frozenset(
            name.encode()
            for name in (self.session, self.browser, self.device, self.resume, self.trusted, self.language)
        )

    def set(self, name: str, value: str, max_age: int | None = None, *, strict: bool = False) -> str:
        """A `Set-Cookie` value. `max_age` in seconds; None: until the browser closes; 0: remove it.

        `strict`: it does not come with anything that another site began, links included.
        """
        parts = [f"{name}={value}", "Path=/", "HttpOnly", f"SameSite={'Strict' if strict else 'Lax'}"]
        if self.secure:
            parts.append("Secure")
        if max_age is not None:
            parts.append(f"Max-Age={max_age}")
        return "; ".join(parts)
