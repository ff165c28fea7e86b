"""The services behind the gate, as the configuration describes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from gateway.core.clock import Clock
from gateway.core.contracts import Ledger
from gateway.wire.breaker import Tripping
from gateway.wire.health import Health
from gateway.wire.retries import Retries
from gateway.wire.upstream import Ejection, Place, Queue, Times, Upstream
from gateway.wire.upstream_tls import UpstreamTls

if TYPE_CHECKING:
    from gateway.audit.metrics import Metrics
    from gateway.settings import Upstream as UpstreamSettings


def make_upstream(name: str, settings: UpstreamSettings, clock: Clock, ledger: Ledger) -> Upstream:
    """One service. Raises `ConfigError` where its TLS files cannot be used."""
    several = len(settings.places) > 1
    retries = settings.retries
    return Upstream(
        name,
        [Place(one.url, one.path or (one.host, one.port), one.tls) for one in settings.places],
        now=clock.monotonic,
        times=Times(**settings.timeouts.model_dump()),
        connections=settings.connections,
        queue=Queue(**settings.queue.model_dump()),
        balance=settings.balance,
        hash_by=settings.hash,
        health=Health(**settings.health.model_dump()) if settings.health is not None else None,
        ejection=Ejection(**settings.ejection.model_dump()) if settings.ejection is not None else None,
        retries=Retries(retries.attempts, retries.budget, frozenset(retries.on))
        if retries is not None
        else Retries()
        if several
        else None,
        breaker=Tripping(**settings.breaker.model_dump()) if settings.breaker is not None else None,
        tls=open_tls(name, settings),
        resolve_every=settings.resolve,
        ledger=ledger,
    )


def open_tls(name: str, settings: UpstreamSettings) -> UpstreamTls | None:
    """TLS to a service, where an endpoint wants it. Raises `ConfigError` where its files cannot be used."""
    if not any(place.tls for place in settings.places):
        return None
    said = settings.tls
    if said is None:
        return UpstreamTls(name)
    return UpstreamTls(
        name,
        ca=said.ca,
        certificate=said.certificate,
        key=said.key,
        server_name=said.server_name,
        verify=said.verify is True,
    )


def publish(upstreams: Mapping[str, Upstream], metrics: Metrics) -> None:
    """What is asked of the services when somebody scrapes."""
    each = [(name, endpoint) for name, upstream in upstreams.items() for endpoint in upstream.endpoints]
    metrics.read("upstream_endpoint_up", lambda: {(name, one.name): float(one.up) for name, one in each})
    metrics.read("upstream_connections", lambda: {(name, one.name): float(len(one.open)) for name, one in each})
    metrics.read(
        "upstream_resolve_failures",
        lambda: {(name, one.name): float(one.addresses.failures) for name, one in each if one.addresses is not None},
    )
    metrics.read(
        "upstream_breaker",
        lambda: {name: float(one.breaker.state) for name, one in upstreams.items() if one.breaker is not None},
    )
    metrics.read("upstream_waiting", lambda: {name: float(len(one.waiting)) for name, one in upstreams.items()})
    metrics.read(
        "upstream_retries",
        lambda: {
            (name, outcome): float(count) for name, one in upstreams.items() for outcome, count in one.retried.items()
        },
    )
