"""Our own front desk: the pages people see and the REST API they can use instead.

An aiohttp application on a private Unix socket. Only the wire connects to it; for the wire it is one more upstream.

- `Desk`: everything the pages need, handed in by `app`.
- `Caller`: one request as the front desk sees it: what the wire vouches for, our cookies, and who is signed in.
- `guard`: the middlewares, outermost first; what every answer wears and what every request must pass.
- one file per family of pages (`login`, `logout`, `verify`, `enrol`, `account`, `resume`, `about`), and `api/`.
- `routes`: every path there is, in one list.
- `pages/`: templates, and the error page that the wire shows too; `static/`: one stylesheet, one mark.

Nothing here needs JavaScript, and the content security policy allows none.
"""
