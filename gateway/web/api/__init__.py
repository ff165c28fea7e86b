"""The REST API: everything the pages can do, for programs.

Each path is one `Endpoint`: handler, what it takes, what it answers. The routes and the OpenAPI document are made
from the same list, so neither can say what the other does not do.

A program authenticates as a browser does, with the session cookie, and so has to say where it comes from as a
browser does (`Origin`). Errors are problem details (RFC 9457).
"""
