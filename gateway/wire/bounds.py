"""How large and how slow things may be."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of one listener. Sizes in bytes, times in seconds."""

    head: int = 32_768
    """Request line and headers together; 431 above."""
    target: int = 8_192
    """Request target; 414 above."""
    headers: int = 100
    """Number of header lines; 431 above."""
    body: int = 0
    """Request body; 413 above. 0: no limit."""
    interrupted: int = 1_048_576
    """Largest body that is kept while its sender proves who they are."""
    head_time: float = 10.0
    """From the first byte of a request to the end of its head."""
    body_time: float = 30.0
    """Longest silence inside a request body, and longest stall of a client that does not read."""
    idle_time: float = 75.0
    """Between two requests on one connection."""
    pipeline: int = 32
    """Requests that may wait their turn on one connection."""
    drain: int = 262_144
    """Bytes of an unwanted body that are read and thrown away, so that the refusal can be read."""
    drain_time: float = 2.0
    """How long that may take."""
    stream: float = 3600.0
    """Longest silence of an event stream, and of a WebSocket without pings."""
    message: int = 16_777_216
    """Largest WebSocket message of a client; closed with 1009 above. 0: no limit."""
    clients: int = 10_000
    """Connections of clients at once."""
    per_address: int = 0
    """Of these, from one address; 0: as many as come."""
    in_flight: int = 5_000
    """Requests that may wait for an answer to begin; 503 above."""
    wait: float = 1.0
    """How long requests may wait for their turn; 503 above."""
    ping: float = 30.0
    """Silence of a client on a WebSocket before it is asked whether it is there. 0: never asked."""
