"""HTTP on sockets: the data plane.

- `Wire`: the listeners, the connections and the timers.
- `ClientConnection`: one TCP connection from a client; parses requests, keeps their order.
- `Exchange`: one request and its answer, from head to last byte.
- `Upstream`, `UpstreamConnection`: a service behind, and one TCP connection to it; parses answers.
- `target`, `authority`, `headers`, `forwarded`: what a request says, made canonical, once.
- `answers`: what we say ourselves: refusals, challenges, redirects.
- `IdentityHeaders`: what the service is told about the caller, with the signed assertion.

llhttp (through `httptools`, in its strict default) parses both directions. What it lets through and we do not:
no `Host` or two, HTTP/0.9 and 2.0 request lines, `Transfer-Encoding` in HTTP/1.0 or other than `chunked`, absolute
form with a foreign authority, `#` in the target. Whatever reaches a service has been written by us, byte for byte:
framing, host, target and header names are never copied from a client's framing.

On the warm path (session, rule, risk, assertion and a pooled connection known) a request creates no task and awaits
nothing: `Exchange.run` is a coroutine that is simply stepped to its end (`eager`).
"""
