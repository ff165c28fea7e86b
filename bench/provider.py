"""The smallest OpenID provider: whoever asks is `bench`. For peers that only know sessions made by a real sign-in.

The code it gives is the nonce it was asked with, so it keeps nothing. Its ID tokens are signed with the client's own
secret (HS256), which OpenID Connect Core 1.0 section 10.1 allows.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def provider(port: int, client: str, secret: str) -> Iterator[None]:
    """Its metadata at `/`, `/authorize` and `/token` on 127.0.0.1:`port`, until it is left."""
    issuer = f"http://127.0.0.1:{port}"

    metadata: dict[str, object] = {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}/authorize",
        "token_endpoint": f"{issuer}/token",
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["HS256"],
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/":
                return self._answer(metadata)
            asked = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query))
            back = urllib.parse.urlencode({"code": asked["nonce"], "state": asked["state"]})
            self.send_response(302)
            self.send_header("Location", f"{asked['redirect_uri']}?{back}")
            self.send_header("Content-Length", "0")
            return self.end_headers()

        def do_POST(self) -> None:
            form = self.rfile.read(int(self.headers["Content-Length"])).decode()
            now = int(time.time())
            claims: dict[str, object] = {"iss": issuer, "sub": "bench", "aud": client, "iat": now, "exp": now + 3600}
            claims["nonce"] = dict(urllib.parse.parse_qsl(form))["code"]
            told: dict[str, object] = {"access_token": "bench", "token_type": "Bearer", "expires_in": 3600}
            self._answer(told | {"id_token": id_token(claims, secret)})

        def _answer(self, told: dict[str, object]) -> None:
            body = json.dumps(told).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def id_token(claims: dict[str, object], secret: str) -> str:
    """A JWT with HS256 (RFC 7515 section 3.1)."""
    parts = [_encoded(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims)]
    return ".".join([*parts, _encoded(hmac.digest(secret.encode(), ".".join(parts).encode(), hashlib.sha256))])


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
