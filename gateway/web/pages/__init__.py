"""The templates, and how they become bytes.

The wire shows `error_page` for its own refusals, dressed in `HEADERS` like everything else we answer. Pages carry
no inline script or style, so the policy can forbid both; pictures are our own files or `data:` (the QR code). The two
pages that ask for a security key may run one file of ours and call the API for it (`with_script`), the last page of a
dialog one that tells its opener (`with_last_word`). They are named by their whole address: a service of the same origin
has scripts too, and none of them may run here.

`Referrer-Policy` is `no-referrer`, for a page's URL can hold a ticket. The templates' `<meta name="referrer">` widens
that to `strict-origin`, which still names no path: with `no-referrer` browsers send forms with `Origin: null`, and the
origin is how a form of ours is told from somebody else's (Fetch, "append a request Origin header").
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.core.page_headers import CONTENT_SECURITY_POLICY

if TYPE_CHECKING:
    from jinja2 import Environment

STATIC = Path(__file__).parent.parent / "static"

LEADS_ON = {"Content-Security-Policy": CONTENT_SECURITY_POLICY.format("'self' http: https:")}
"""Instead, for pages whose form leads on to a service. Chromium holds every redirect after a form against this list
(CSP 3, section 6.4.1): with `'self'` alone nobody could sign in to a service that sends them on to another origin."""

SCRIPT = "webauthn.js"


def with_script(policy: str, origin: str, prefix: str) -> str:
    """`policy`, and one script of ours, on pages of `origin`."""
    return (
        f"{policy}; script-src {origin}{prefix}static/{SCRIPT}; connect-src {origin}{prefix}api/v1/mfa/webauthn/; "
        "require-trusted-types-for 'script'"
    )


def with_last_word(policy: str, origin: str, prefix: str) -> str:
    """`policy`, and the one script that tells other windows of `origin` that a dialog is done."""
    return f"{policy}; script-src {origin}{prefix}static/done.js; require-trusted-types-for 'script'"


DEAD_ENDS = frozenset({400, 403, 404, 409, 410, 415})
"""Errors after which a person needs a way on."""

DEFAULT_PREFIX = "/.sallyport/"

TITLES = {
    400: "That request could not be understood",
    401: "Please sign in",
    403: "You cannot go in here",
    404: "There is nothing here",
    405: "That cannot be done here",
    409: "That was already done",
    410: "That is over",
    413: "That is too large",
    415: "That format is not understood",
    429: "Too many tries",
    500: "Something went wrong on our side",
    502: "The service behind did not answer properly",
    503: "Not available right now",
    504: "The service behind did not answer in time",
}
"""What an error is called where nobody gives it a better title."""


@cache
def _templates() -> Environment:
    # Imported with the first page: a gateway that only carries requests never pays for it.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )


@cache
def static_files() -> Mapping[str, tuple[str, bytes]]:
    """Name → media type and content of each of our files; they are few and small."""
    types = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
    return {
        file.name: (types[file.suffix], file.read_bytes()) for file in sorted(STATIC.iterdir()) if file.suffix in types
    }


@cache
def static_version() -> str:
    """A short hash of all of them: it makes their URLs change whenever their content does."""
    return hashlib.sha256(b"".join(body for _, body in static_files().values())).hexdigest()[:12]


def render(template: str, prefix: str, **values: Any) -> bytes:
    """The page `template` (`login.html` …), UTF-8."""
    page = _templates().get_template(template)
    return page.render(prefix=prefix, version=static_version(), **values).encode()


def error_page(
    status: int,
    code: str,
    title: str,
    detail: str,
    request_id: str,
    *,
    prefix: str = DEFAULT_PREFIX,
    action: tuple[str, str] | None = None,
) -> bytes:
    """A page that says what went wrong and what to tell whoever is asked for help.

    Where `title` is empty or only names the status, a friendlier one is found. `action` is `(label, path)` of a way on.
    Goes out with `HEADERS`.
    """
    phrase = HTTPStatus(status).phrase
    if title in ("", phrase):
        title = TITLES.get(status, phrase)
    if action is None and status in DEAD_ENDS:
        action = "Your account", f"{prefix}account"
    return render(
        "error.html",
        prefix,
        status=status,
        code=code,
        title=title,
        detail=detail,
        request_id=request_id,
        action=action,
    )
