"""The templates, and how they become bytes.

The wire shows `error_page` for its own refusals, dressed in `HEADERS` like everything else we answer. Pages carry
no inline script or style, so the policy can forbid both; pictures are our own files or `data:` (the QR code). The two
pages that ask for a security key may run one file of ours and call the API for it (`with_script`), the last page of a
dialog one that tells its opener (`with_last_word`). They are named by their whole address: a service of the same origin
has scripts too, and none of them may run here.

`Referrer-Policy` is `no-referrer`, for a page's URL can hold a ticket. The templates' `<meta name="referrer">` widens
that to `strict-origin`, which still names no path: with `no-referrer` browsers send forms with `Origin: null`, and the
origin is how a form of ours is told from somebody else's (Fetch, "append a request Origin header").

Each language has its templates compiled once. What they say themselves is marked `_()` or `{% trans %}`; what was said
elsewhere (`core.words`) is put into the page's language where it is written out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.core.languages import ENGLISH, LANGUAGES, catalogue, chosen, spoken, wanted
from gateway.core.page_headers import CONTENT_SECURITY_POLICY
from gateway.core.words import Said, say

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

    from gateway.core.facts import Facts

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
    400: say("That request could not be understood"),
    401: say("Please sign in"),
    403: say("You cannot go in here"),
    404: say("There is nothing here"),
    405: say("That cannot be done here"),
    409: say("That was already done"),
    410: say("That is over"),
    413: say("That is too large"),
    415: say("That format is not understood"),
    429: say("Too many tries"),
    500: say("Something went wrong on our side"),
    502: say("The service behind did not answer properly"),
    503: say("Not available right now"),
    504: say("The service behind did not answer in time"),
}
"""What an error is called where nobody gives it a better title."""


@cache
def _templates(language: str) -> Environment:
    # Imported with the first page: a gateway that only carries requests never pays for it.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        extensions=["jinja2.ext.i18n"],
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: spoken(value, language) if isinstance(value, Said) else value,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.policies["ext.i18n.trimmed"] = True
    environment.filters["spoken"] = lambda value: spoken(value, language)
    environment.newstyle_gettext = True  # type: ignore[attr-defined] # values come by name, and are escaped
    one, some = _gettext(language)
    environment.globals.update(gettext=one, ngettext=some, languages=tuple(LANGUAGES.items()), language=language)
    return environment


def _gettext(language: str) -> tuple[Callable[..., Markup], Callable[..., Markup]]:
    """What templates call. The catalogue is ours like the templates, so it may hold markup; values may not."""
    from markupsafe import Markup

    words = catalogue(language)

    def gettext(text: str, /, **values: Any) -> Markup:
        said = Markup(words.gettext(text))  # noqa: S704
        return Markup(said % spoken(values, language)) if "%" in said else said  # noqa: S704

    def ngettext(one: str, many: str, number: int, /, **values: Any) -> Markup:
        text = words.ngettext(one, many, number)
        return Markup(Markup(text) % spoken({"num": number, **values}, language))  # noqa: S704

    return gettext, ngettext


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


def render(template: str, prefix: str, language: str, *, here: str = "", **values: Any) -> bytes:
    """The page `template` (`login.html` …), UTF-8. `here`: its address, where it can be asked for once more."""
    page = _templates(language).get_template(template)
    return page.render(prefix=prefix, version=static_version(), here=here, **values).encode()


def error_page(
    status: int,
    code: str,
    title: str,
    detail: str,
    request_id: str,
    *,
    prefix: str = DEFAULT_PREFIX,
    action: tuple[str, str] | None = None,
    language: str = ENGLISH,
    here: str = "",
) -> bytes:
    """A page that says what went wrong and what to tell whoever is asked for help.

    Where `title` is empty or only names the status, a friendlier one is found. `action` is `(label, path)` of a way on.
    Goes out with `HEADERS`.
    """
    phrase = HTTPStatus(status).phrase
    if title in ("", phrase):
        title = TITLES.get(status, phrase)
    if action is None and status in DEAD_ENDS:
        action = say("Your account"), f"{prefix}account"
    return render(
        "error.html",
        prefix,
        language,
        here=here,
        status=status,
        code=code,
        title=title,
        detail=detail,
        request_id=request_id,
        action=action,
    )


class ErrorPages:
    """Error pages for whoever sent a request to the wire, in their language."""

    def __init__(self, prefix: str, cookie: str, default: str) -> None:
        """`cookie` is the name of the one that holds a chosen language; `default` the operator's."""
        self._prefix = prefix
        self._cookie = cookie
        self._default = default

    def __call__(
        self,
        facts: Facts,
        status: int,
        code: str,
        title: str,
        detail: str,
        request_id: str,
        /,
        *,
        action: tuple[str, str] | None = None,
    ) -> tuple[bytes, str]:
        """The document, and its language."""
        accept = b",".join(facts.header(b"accept-language")).decode("latin-1")
        language = wanted(chosen(facts.cookie, self._cookie), accept, self._default)
        here = facts.target.decode("ascii", "replace") if facts.method == "GET" else ""
        page = error_page(
            status, code, title, detail, request_id, prefix=self._prefix, action=action, language=language, here=here
        )
        return page, language
