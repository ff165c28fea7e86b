from __future__ import annotations

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from gateway.audit import metrics as module
from gateway.audit.metrics import Metrics
from gateway.core.decision import Allow, Quota, Score, Verdict
from gateway.core.events import Event, Kind, Severity
from gateway.core.identity import Identity
from gateway.core.reasons import Reason
from gateway.core.rule import LimitSpec


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    body, content_type = metrics.render()
    assert content_type.startswith("text/plain; version=")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return samples(metrics)["sallyport_" + name, tuple(sorted(labels.items()))]


def test_everything_by_its_name() -> None:
    metrics = Metrics("1.2.3")
    limit = LimitSpec("per-user", ("user",), "token_bucket", 30, 60.0, 10)
    spent = (Quota(limit, True, 1, 1.0, 0.0), Quota(limit, False, 0, 1.0, 1.0))
    verdict = Verdict(Allow((Reason.GRANTED,)), None, Identity("default", "1", "ann"), Score(0.45), spent)
    metrics.served("admin", "GET", 200, 0.003, "app", 0.002, verdict)
    metrics.served("admin", "GET", 200, 0.3)
    metrics.challenge("totp", "passed")
    metrics.factor_setup("totp", "started")
    metrics.delivery("smtp", "failed", 0.2)
    metrics.read("users", lambda: 4)
    metrics.read("users_able", lambda: {"totp": 2, "any": 3})
    metrics.event(Event(Kind.SIGN_IN_FAILED, Severity.WARNING))
    metrics.read("sessions", lambda: 7)
    metrics.read("enrolments", lambda: {"totp": 2, "backup_code": 1})
    metrics.read("store_up", lambda: {"records": 1})
    metrics.read("policy_reload_success", lambda: 1)
    metrics.read("policy_reload_timestamp_seconds", lambda: 1_700_000_000.5)
    metrics.read("events_dropped", lambda: 3)
    for name, labels, number in (
        ("requests_total", {"rule": "admin", "method": "GET", "code": "200"}, 2),
        ("request_duration_seconds_bucket", {"rule": "admin", "le": "0.0025"}, 0),
        ("request_duration_seconds_bucket", {"rule": "admin", "le": "0.005"}, 1),
        ("request_duration_seconds_bucket", {"rule": "admin", "le": "+Inf"}, 2),
        ("request_duration_seconds_count", {"rule": "admin"}, 2),
        ("request_duration_seconds_sum", {"rule": "admin"}, 0.303),
        ("upstream_duration_seconds_count", {"upstream": "app"}, 1),
        ("decisions_total", {"answer": "allow", "reason": "granted"}, 1),
        ("limits_total", {"limit": "per-user", "outcome": "allowed"}, 1),
        ("limits_total", {"limit": "per-user", "outcome": "refused"}, 1),
        ("risk_score_bucket", {"le": "0.5"}, 1),
        ("risk_score_bucket", {"le": "0.4"}, 0),
        ("risk_score_sum", {}, 0.45),
        ("challenges_total", {"factor": "totp", "outcome": "passed"}, 1),
        ("factor_setups_total", {"factor": "totp", "outcome": "started"}, 1),
        ("deliveries_total", {"sender": "smtp", "outcome": "failed"}, 1),
        ("delivery_duration_seconds_sum", {"sender": "smtp"}, 0.2),
        ("users", {}, 4),
        ("users_able", {"factor": "any"}, 3),
        ("events_total", {"event": "sign_in_failed", "severity": "warning"}, 1),
        ("sessions", {}, 7),
        ("enrolments", {"factor": "totp"}, 2),
        ("store_up", {"store": "records"}, 1),
        ("policy_reload_success", {}, 1),
        ("policy_reload_timestamp_seconds", {}, 1_700_000_000.5),
        ("events_dropped_total", {}, 3),
        ("build_info", {"version": "1.2.3"}, 1),
    ):
        assert value(metrics, name, **labels) == pytest.approx(number), name


def test_the_process_and_python_are_there() -> None:
    names = {name for name, _ in samples(Metrics("1"))}
    assert {"process_resident_memory_bytes", "process_open_fds", "python_info", "python_gc_collections_total"} <= names


def test_what_clients_make_up_does_not_grow_the_metrics() -> None:
    metrics = Metrics("1")
    for number in range(1000):
        metrics.served("r", f"M{number}", 405, 0.001)
        metrics.served("r", "get", 405, 0.001)
    assert value(metrics, "requests_total", rule="r", method="other", code="405") == 2000
    assert sum(name == "sallyport_requests_total" for name, _ in samples(metrics)) == 1


def test_scraping_twice_counts_once_and_folding_loses_nothing() -> None:
    metrics = Metrics("1")
    for number in range(2 * module.FOLD + 10):
        metrics.served("r", "GET", 200, (number % 4) * 0.01)
    for _ in range(2):
        assert value(metrics, "requests_total", rule="r", method="GET", code="200") == 2 * module.FOLD + 10
        assert value(metrics, "request_duration_seconds_count", rule="r") == 2 * module.FOLD + 10
        assert value(metrics, "request_duration_seconds_bucket", rule="r", le="0.01") == module.FOLD + 6
    metrics.served("r", "GET", 200, 100.0)
    assert value(metrics, "request_duration_seconds_bucket", rule="r", le="30.0") == 2 * module.FOLD + 10
    assert value(metrics, "request_duration_seconds_bucket", rule="r", le="+Inf") == 2 * module.FOLD + 11


def test_openmetrics_for_who_asks() -> None:
    metrics = Metrics("1")
    metrics.served('ru"le\n', "GET", 200, 0.001)
    body, content_type = metrics.render("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    rules = [
        s.labels["rule"] for f in openmetrics(body.decode()) for s in f.samples if s.name == "sallyport_requests_total"
    ]
    assert rules == ['ru"le\n']


def test_only_what_is_listed_can_be_read() -> None:
    with pytest.raises(KeyError):
        Metrics("1").read("moon", lambda: 1)
