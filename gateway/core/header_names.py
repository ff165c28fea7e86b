"""Header names that mean something to us, and how a service may read a name.

Services fold names: CGI and WSGI turn `-` into `_`, some turn every other sign into `_`. So a name is judged by its
folded form, by the wire that lets it pass and by the policy that may speak of it.
"""

from __future__ import annotations

HOP_BY_HOP = frozenset(
    "connection keep-alive proxy-connection proxy-authenticate proxy-authorization proxy-authentication-info "
    "te trailer transfer-encoding upgrade http2-settings".split()
)
"""RFC 9110, section 7.6.1, and the h2c upgrade of RFC 7540."""

FRAMING = frozenset("host content-length expect cookie".split())
"""Written anew by us for every service."""

_OURS = frozenset(
    "forwarded x-real-ip x-client-ip x-cluster-client-ip true-client-ip client-ip x-request-id x-rewrite-url "
    "x-http-method x-http-method-override x-method-override proxy".split()
)
_CERTIFICATES = ("client-cert", "x-client-cert", "ssl-client", "x-ssl-", "tls-client", "x-tls-client", "x-amzn-mtls-")
"""By which those who end TLS tell services of a client's certificate; RFC 9440, Apache, nginx, HAProxy, AWS."""
_OUR_PREFIXES = ("x-forwarded-", "x-original-", "remote-", "x-auth-request-", "sallyport-", *_CERTIFICATES)


_NOT_FOR_RULES = frozenset("x-forwarded remote sallyport signature".split())
_FOLD = bytes(ord(chr(octet).lower()) if chr(octet).isascii() and chr(octet).isalnum() else 45 for octet in range(256))


def folded(name: bytes) -> str:
    """The name as the most generous service would read it, in lower case: every other sign is a `-`."""
    return name.translate(_FOLD).decode("ascii")


def is_ours(fold: str) -> bool:
    """Whether a folded name says who somebody is, or where a request came from: never a client's to say."""
    return fold in _OURS or fold.startswith(_OUR_PREFIXES)


def is_reserved(fold: str) -> bool:
    """Whether a folded name is the gateway's own to write, so that no rule may add it."""
    return (
        fold in FRAMING
        or fold in HOP_BY_HOP
        or fold in _NOT_FOR_RULES
        or fold.startswith(("proxy-", "signature-"))
        or is_ours(fold)
    )
