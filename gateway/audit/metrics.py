"""Counts and durations, in Prometheus' words.

A request costs a handful of dict and list operations; everything Prometheus wants to see is made from them when it
asks. Durations are kept as they come and sorted into their buckets a few thousand at a time, which is cheaper than
finding the bucket of each. Whoever scrapes therefore pays for the last few thousand, nobody else for more.

Label values come from closed lists or from the operator's own files (rules, limits, upstreams). What a client can
make up, the method, is one of a closed list or `other`; so no client can make the metrics grow.

`prometheus_client` is imported when somebody asks for the first time: a start should not wait for it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from gateway.core.decision import ANSWERS, Decision, Quota, Verdict
from gateway.core.events import Event
from gateway.core.reasons import Reason

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

PREFIX: Final = "sallyport_"

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY"})

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of the buckets of durations."""
SCORES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Upper bounds of the buckets of risk scores."""

COUNTERS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "requests": ("Requests answered", ("rule", "method", "code")),
    "decisions": ("Decisions of the gate, by answer and first reason", ("answer", "reason")),
    "limits": (
        "Requests counted by each limit; outcome: allowed, refused, shadow_allowed, shadow_refused",
        ("limit", "outcome"),
    ),
    "limits_away": (
        "Requests that could not be counted for all replicas; did: refuse, local, allow",
        ("limit", "did"),
    ),
    "challenges": (
        "Step-up challenges; outcome: asked, sent, resend_refused, passed, failed, throttled, disabled …",
        ("factor", "outcome"),
    ),
    "factor_setups": ("Second factors being set up; outcome: started, completed, failed", ("factor", "outcome")),
    "trusted_device_uses": (
        "Sign-ins with the cookie of a trusted browser; outcome: used, repeated, void, stolen",
        ("outcome",),
    ),
    "recoveries": (
        "Recoveries of people who lost every factor; outcome: asked, ready, used, approved, failed, cancelled, proven, "
        "void, refused, expired, unreachable",
        ("way", "outcome"),
    ),
    "notifications": (
        "Messages to people; outcome: queued, dropped, sent, retried, failed",
        ("channel", "outcome"),
    ),
    "deliveries": ("Tries of each sender; outcome: accepted, refused, failed, unsure", ("sender", "outcome")),
    "delivery_reports": (
        "What senders told later; outcome: delivered, undelivered, bounced, complained, repeated, unknown, refused",
        ("sender", "outcome"),
    ),
    "interrupted": (
        "Requests of browsers that were interrupted; outcome: kept, resumed, given_back, large, busy, elsewhere",
        ("outcome",),
    ),
    "events": ("Security events", ("event", "severity")),
}
HISTOGRAMS: Final[Mapping[str, tuple[str, str, tuple[float, ...]]]] = {
    "request_duration_seconds": ("From a request's first byte to its answer's last", "rule", SECONDS),
    "upstream_duration_seconds": ("Until a service began its answer", "upstream", SECONDS),
    "delivery_duration_seconds": ("Until a sender took a message over, or did not", "sender", SECONDS),
    "loop_lag_seconds": ("How late the loop turns, looked at ten times a second", "", SECONDS),
    "risk_score": ("Risk scores of requests by somebody known", "", SCORES),
}
READ: Final[Mapping[str, tuple[str, str, str]]] = {
    "enrolments": ("gauge", "Second factors enrolled", "factor"),
    "users": ("gauge", "People who may sign in", ""),
    "users_able": ("gauge", "Of them, who could answer with a second factor now; `any`: with one at least", "factor"),
    "mfa_required": ("gauge", "People who must have a second factor, and those of them who have none", "state"),
    "trusted_devices": ("gauge", "Browsers that people trust", ""),
    "sessions": ("gauge", "Sessions alive", ""),
    "policy_reload_success": ("gauge", "1 when the last reading of the policies succeeded", ""),
    "policy_reload_timestamp_seconds": ("gauge", "When the policies in force were read", ""),
    "certificate_reload_success": (
        "gauge",
        "1 when the last reading of a listener's certificates succeeded",
        "listener",
    ),
    "certificate_expiry_timestamp_seconds": ("gauge", "When a certificate of ours ends", "listener name"),
    "store_up": ("gauge", "1 when the store answered last", "store"),
    "open_tunnels": ("gauge", "WebSockets open", ""),
    "notifications_waiting": ("gauge", "Messages to people that are not sent yet", ""),
    "limit_counters": ("gauge", "Counters kept by rate limits in this process", ""),
    "limits_unasked": ("counter", "Requests refused by a limit known to be over, without asking the shared store", ""),
    "replicas": ("gauge", "Replicas that count together", ""),
    "events_dropped": ("counter", "Security events that could not be kept", ""),
    "connections": ("gauge", "Connections of clients", ""),
    "connections_turned_away": ("counter", "Connections that were too many", ""),
    "requests_in_flight": ("gauge", "Requests that wait for an answer to begin", ""),
    "requests_shed": ("counter", "Requests that were too many, refused before any work", ""),
    "access_log_dropped": ("counter", "Access log lines that could not be written", ""),
    "upstream_endpoint_up": ("gauge", "1 while an endpoint takes part", "upstream endpoint"),
    "upstream_connections": ("gauge", "Open connections to an endpoint", "upstream endpoint"),
    "upstream_waiting": ("gauge", "Requests that wait for a connection", "upstream"),
    "upstream_breaker": ("gauge", "0 closed, 1 half-open, 2 open", "upstream"),
    "upstream_retries": ("counter", "Requests tried again; outcome: tried, over_budget", "upstream outcome"),
    "upstream_resolve_failures": ("counter", "Resolutions of a host name that failed", "upstream endpoint"),
}
"""What somebody else knows: kind, meaning, labels with blanks between them."""

FOLD: Final = 1024
"""Durations of one rule that are kept before all are sorted into their buckets."""

Read = Callable[[], float | Mapping[str, float] | Mapping[tuple[str, str], float]]
"""The value now; with a label, a value for each label value; with two, for each pair of them."""


class Metrics:
    """The metrics of one process."""

    def __init__(self, version: str) -> None:
        self._version = version
        self._counters: dict[str, defaultdict[tuple[str, ...], int]] = {name: defaultdict(int) for name in COUNTERS}
        self._histograms: dict[str, defaultdict[str, Histogram]] = {
            name: _histograms(bounds) for name, (_, _, bounds) in HISTOGRAMS.items()
        }
        self._read: dict[str, Read] = {}
        self._registry: CollectorRegistry | None = None
        self._requests: defaultdict[tuple[str, str, int], int] = defaultdict(int)
        self._decisions: defaultdict[tuple[type[Decision], Reason], int] = defaultdict(int)
        self._limits = self._counters["limits"]
        self._durations = self._histograms["request_duration_seconds"]
        self._upstreams = self._histograms["upstream_duration_seconds"]
        self._scores = self._histograms["risk_score"][""]
        self._lags = self._histograms["loop_lag_seconds"][""]

    def served(
        self,
        rule: str,
        method: str,
        code: int,
        seconds: float,
        upstream: str = "",
        upstream_seconds: float = 0.0,
        verdict: Verdict | None = None,
    ) -> None:
        """A request was answered: one call for all that is counted of it.

        `rule` is empty where none was found, `upstream` where no service was asked, `verdict` None where the gate was
        not; `seconds` in all, `upstream_seconds` until the service began its answer.
        """
        self._requests[rule, method if method in METHODS else "other", code] += 1
        durations = self._durations[rule]
        if verdict is not None:
            decision = verdict.decision
            self._decisions[decision.__class__, decision.reasons[0]] += 1
            limits = self._limits
            for quota in verdict.quotas:
                limits[quota[0].name, _outcome(quota)] += 1
            if verdict.identity is not None:
                self._scores.new.append(verdict.risk.value)
        if upstream_seconds:
            self._upstreams[upstream].new.append(upstream_seconds)
        new = durations.new
        new.append(seconds)
        if len(new) >= FOLD:
            self._fold()

    def _fold(self) -> None:
        """Sort all new values into their buckets, so that no list of them grows for ever."""
        for histograms in self._histograms.values():
            for histogram in histograms.values():
                histogram.fold()

    def lag(self, seconds: float) -> None:
        """The loop turned so late."""
        lags = self._lags
        lags.new.append(seconds)
        if len(lags.new) >= FOLD:
            lags.fold()

    def limit_away(self, limit: str, did: str) -> None:
        """A limit could not be counted for all replicas; `did` is what the policy says for that."""
        self._counters["limits_away"][limit, did] += 1

    def challenge(self, factor: str, outcome: str) -> None:
        """A challenge was answered."""
        self._counters["challenges"][factor, outcome] += 1

    def factor_setup(self, factor: str, outcome: str) -> None:
        """Somebody began to set a second factor up, was done, or gave an answer that was wrong."""
        self._counters["factor_setups"][factor, outcome] += 1

    def trusted_device(self, outcome: str) -> None:
        """Somebody signed in with the cookie of a trusted browser."""
        self._counters["trusted_device_uses"][outcome,] += 1

    def recovery(self, way: str, outcome: str) -> None:
        """Somebody asked for a recovery, or something came of one."""
        self._counters["recoveries"][way, outcome] += 1

    def notification(self, channel: str, outcome: str) -> None:
        """A message to somebody was written, or came to something."""
        self._counters["notifications"][channel, outcome] += 1

    def delivery(self, sender: str, outcome: str, seconds: float) -> None:
        """A sender was asked to take a message over."""
        self._counters["deliveries"][sender, outcome] += 1
        self._histograms["delivery_duration_seconds"][sender].new.append(seconds)

    def delivery_report(self, sender: str, outcome: str) -> None:
        """A sender told what became of a message, or somebody pretended to be one."""
        self._counters["delivery_reports"][sender, outcome] += 1

    def interrupted(self, outcome: str) -> None:
        """A request was interrupted, or went on."""
        self._counters["interrupted"][(outcome,)] += 1

    def event(self, event: Event) -> None:
        """A security event; for `Recorder.subscribe`."""
        self._counters["events"][event.kind.value, event.severity.name.lower()] += 1

    def read(self, name: str, value: Read) -> None:
        """Ask `value` for the metric `name` (one of `READ`) whenever somebody scrapes. Raises KeyError."""
        READ[name]
        self._read[name] = value

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Everything, and its content type: as OpenMetrics for a scraper that asks for it, else in Prometheus' text."""
        from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
        from prometheus_client.exposition import choose_encoder

        if self._registry is None:
            self._registry = CollectorRegistry(auto_describe=False)
            ProcessCollector(registry=self._registry)
            PlatformCollector(registry=self._registry)
            GCCollector(registry=self._registry)
            self._registry.register(self)
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def describe(self) -> list[Metric]:
        """Nothing beforehand; part of prometheus_client's Collector."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Every family; part of prometheus_client's Collector."""
        from prometheus_client.metrics_core import (
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
            InfoMetricFamily,
        )

        requests = self._counters["requests"]
        for (rule, method, code), count in list(self._requests.items()):
            requests[rule, method, str(code)] = count
        decisions = self._counters["decisions"]
        for (decision, reason), count in list(self._decisions.items()):
            decisions[ANSWERS[decision], reason.value] = count
        for name, (meaning, labels) in COUNTERS.items():
            counter = CounterMetricFamily(PREFIX + name, meaning, labels=labels)
            for values, count in list(self._counters[name].items()):
                counter.add_metric(values, count)
            yield counter
        for name, (meaning, label, _) in HISTOGRAMS.items():
            histogram = HistogramMetricFamily(PREFIX + name, meaning, labels=[label] if label else [])
            for value, each in list(self._histograms[name].items()):
                histogram.add_metric([value] if label else [], *each.cumulative())
            yield histogram
        for name, (kind, meaning, about) in READ.items():
            if name not in self._read:
                continue
            family: Any = CounterMetricFamily if kind == "counter" else GaugeMetricFamily
            metric = family(PREFIX + name, meaning, labels=about.split())
            now = self._read[name]()
            for told, number in now.items() if isinstance(now, Mapping) else [((), now)]:
                metric.add_metric([told] if isinstance(told, str) else told, number)
            yield metric
        yield InfoMetricFamily(PREFIX + "build", "What is running", value={"version": self._version})


class Histogram:
    """How many values fell into each bucket, and their sum."""

    __slots__ = ("_bounds", "_counts", "_sum", "new")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self.new: list[float] = []
        """Values not sorted into their buckets yet."""

    def fold(self) -> None:
        """Sort the new values into their buckets."""
        self.new.sort()
        below = 0
        for index, bound in enumerate(self._bounds):
            up_to = bisect_right(self.new, bound)
            self._counts[index] += up_to - below
            below = up_to
        self._counts[-1] += len(self.new) - below
        self._sum += sum(self.new)
        self.new.clear()

    def cumulative(self) -> tuple[list[tuple[str, float]], float]:
        """`(upper bound, how many up to it)` for each bucket, and the sum."""
        self.fold()
        bounds = [*(repr(bound) for bound in self._bounds), "+Inf"]
        return list(zip(bounds, map(float, accumulate(self._counts)), strict=True)), self._sum


def _outcome(quota: Quota) -> str:
    if quota[5] == "shadow":
        return "shadow_allowed" if quota[1] else "shadow_refused"
    return "allowed" if quota[1] else "refused"


def _histograms(bounds: tuple[float, ...]) -> defaultdict[str, Histogram]:
    return defaultdict(lambda: Histogram(bounds))
