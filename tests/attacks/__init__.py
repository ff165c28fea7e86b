"""Attack cases over raw sockets. Each test names the case it proves (`case-54-…`).

Two outcomes: *rejected*, where nothing reaches the service, the connection closes and one security event is kept; and
*clean*, where the service receives exactly one request, framed by us, with only our identity headers.
"""
