"""Flask; runs under gunicorn."""

from __future__ import annotations

from flask import Flask, Response, request

app = Flask(__name__, static_folder=None)
app.url_map.strict_slashes = False


@app.get("/admin")
@app.get("/admin/<path:rest>")
def admin(rest: str = "") -> Response:
    return Response(f"admin\n{request.path}", mimetype="text/plain")


@app.get("/")
@app.get("/<path:rest>")
def other(rest: str = "") -> Response:
    return Response(f"other\n{request.path}", mimetype="text/plain")
