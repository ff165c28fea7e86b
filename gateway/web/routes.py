"""Every path there is."""

from __future__ import annotations

from collections.abc import Iterator

from aiohttp import web

from gateway.web import (
    about,
    account,
    addresses,
    callbacks,
    dialog,
    enrol,
    enrol_code,
    enrol_first,
    enrol_key,
    language,
    login,
    logout,
    own_address,
    person,
    recover,
    recoveries,
    resume,
    verify,
    verify_link,
)
from gateway.web.api import openapi
from gateway.web.guard import Handler

PAGES: tuple[tuple[str, str, Handler], ...] = (
    ("GET", "login", login.show),
    ("POST", "login", login.submit),
    ("GET", "logout", logout.show),
    ("POST", "logout", logout.submit),
    ("GET", "resume/{ticket}", resume.show),
    ("POST", "resume/{ticket}", resume.submit),
    ("GET", "dialog", dialog.show),
    ("GET", "dialog/words", dialog.words),
    ("GET", "dialog/done", dialog.done),
    ("GET", "verify/link", verify_link.show),
    ("POST", "verify/link", verify_link.submit),
    ("GET", "verify/{ticket}", verify.show),
    ("POST", "verify/{ticket}", verify.submit),
    ("POST", "verify/{ticket}/send", verify.send),
    ("GET", "enrol-first", enrol_first.show),
    ("POST", "enrol-first", enrol_first.submit),
    ("GET", "enrol", enrol.show),
    ("POST", "enrol", enrol.begin),
    ("POST", "enrol/{setup}", enrol.confirm),
    ("GET", "enrol-code/{factor}", enrol_code.show),
    ("POST", "enrol-code/{factor}", enrol_code.begin),
    ("GET", "enrol-code/{factor}/{setup}", enrol_code.look),
    ("POST", "enrol-code/{factor}/{setup}", enrol_code.confirm),
    ("POST", "enrol-code/{factor}/{setup}/send", enrol_code.again),
    ("GET", "enrol-key", enrol_key.show),
    ("POST", "enrol-key", enrol_key.submit),
    ("GET", "recover", recover.show),
    ("POST", "recover", recover.ask),
    ("GET", "recover/link", recover.show_link),
    ("POST", "recover/link", recover.use_link),
    ("GET", "recover/cancel", recover.show_cancel),
    ("POST", "recover/cancel", recover.cancel),
    ("GET", "recoveries", recoveries.show),
    ("POST", "recoveries", recoveries.ask),
    ("POST", "recoveries/{recovery}/approve", recoveries.approve),
    ("POST", "recoveries/{recovery}/refuse", recoveries.refuse),
    ("GET", "person", person.show),
    ("POST", "person", person.find),
    ("POST", "person/require", person.require),
    ("POST", "person/lift", person.lift),
    ("POST", "person/trusted-devices/forget-all", person.forget_all),
    ("POST", "person/trusted-devices/{device}/forget", person.forget),
    ("GET", "addresses", addresses.show),
    ("POST", "addresses/release", addresses.release),
    ("GET", "account", account.show),
    ("POST", "account/factors/{factor}/remove", account.remove_factor),
    ("POST", "account/preference", account.prefer),
    ("POST", "account/backup-codes", account.new_backup_codes),
    ("GET", "account/email", own_address.show),
    ("POST", "account/email/confirm", own_address.confirm),
    ("POST", "account/email/send", own_address.send),
    ("POST", "account/recovery/stop", account.stop_recovery),
    ("POST", "account/trusted-devices/forget-all", account.forget_all_trusted),
    ("POST", "account/trusted-devices/{device}/forget", account.forget_trusted),
    ("POST", "account/sessions/{session}/end", account.end_session),
    ("POST", "account/sessions/end-others", account.end_others),
    ("POST", "account/sessions/extend", account.extend),
    ("POST", "account/notices", account.choose_notices),
    ("POST", callbacks.PATH + "{sender}", callbacks.take),
    ("POST", "language", language.choose),
    ("GET", "whoami", about.whoami),
    ("GET", "jwks.json", about.jwks),
    ("GET", "client.js", about.client),
    ("GET", "static/{name}", about.static),
    ("GET", "api/openapi.json", openapi.document),
    ("GET", "api/docs", openapi.docs),
)


def routes(prefix: str) -> Iterator[web.RouteDef]:
    """All of them, below `prefix`. A GET answers HEAD too."""
    for method, path, handler in PAGES:
        yield _route(method, prefix + path, handler)
    # Plain paths before those with parameters, so that `sessions/stats` is not taken for a session.
    for endpoint in sorted(openapi.ENDPOINTS, key=lambda one: "{" in one.path):
        yield _route(endpoint.method, f"{prefix}api/v1/{endpoint.path}", endpoint.__call__)


def _route(method: str, path: str, handler: Handler) -> web.RouteDef:
    return web.get(path, handler) if method == "GET" else web.route(method, path, handler)
