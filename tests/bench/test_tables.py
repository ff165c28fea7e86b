from __future__ import annotations

from pathlib import Path

import pytest

from bench import document
from bench.bars import Bar
from bench.bodies import Bodies, Body
from bench.connections import Idle
from bench.forward_auth import BARE, BEFORE, Answers
from bench.load import LoadError, Round
from bench.memory import Memory
from bench.openloop import Latencies, Measured, Pair, Point, read
from bench.options import Gateway, Options
from bench.rules import HOPELESS, Asked, Growth
from bench.sallyport import Sallyport
from bench.shared import LEASED, MODES, NO_LIMITS, Shared
from bench.subjects import Apache, GoProxy, Nginx, OAuth2Proxy
from bench.throughput import Comparison, Result


def result(name: str, *rates: float, busy: float = 1.0) -> Result:
    return Result(name, "1.0", "works", tuple(Round(rate, 1.0, 2.0, busy) for rate in rates))


def comparison(*results: Result) -> Comparison:
    return Comparison(results, ("oauth2-proxy (not here)",), 5.0, 200_000.0, "wrk 4")


def verdicts(bars: list[Bar]) -> list[str]:
    return [bar.verdict for bar in bars]


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    mine, bare = result(Sallyport.name, 30, 10, 90), result(GoProxy.name, 10, 10, 100)
    assert mine.times(bare) == 1.0


def test_the_bars_of_throughput() -> None:
    mine, bare, nginx = result(Sallyport.name, 12), result(GoProxy.name, 10), result(Nginx.name, 40)
    table = comparison(mine, bare, nginx, result(OAuth2Proxy.name, 6))
    assert [bar.measured for bar in table.bars()] == [1.2, 2.0, 0.3]
    assert verdicts(table.bars()) == ["pass", "pass", "FAIL"]


def test_a_peer_that_is_not_here_is_not_measured_whoever_stands_beside() -> None:
    table = comparison(result(Sallyport.name, 30), result(GoProxy.name, 10), result(Apache.name, 5))
    assert verdicts(table.bars()) == ["pass", "NOT MEASURED", "NOT MEASURED"]
    assert f"× {Apache.name}" in table.markdown()
    assert "its figures are no oauth2-proxy's" in table.markdown()
    assert "**Left out: oauth2-proxy (not here).**" in table.markdown()


def test_the_bars_are_about_the_first_gateway() -> None:
    mine, other = result("Sallyport compiled", 20), result(Sallyport.name, 5)
    table = Comparison((mine, other, result(GoProxy.name, 10)), (), 5.0, 200_000.0, "wrk 4", "Sallyport compiled")
    assert table.bars()[0].measured == 2.0


def test_the_table_says_what_was_held_back() -> None:
    table = comparison(result(GoProxy.name, 20_000), result(Nginx.name, 80_000, busy=0.8)).markdown()
    assert "| ≥ 80,000 |" in table
    assert "| 20,000 |" in table
    assert "| 100,000 (5.00 ×) |" in table


def point(p99: float, rate: int = 1000) -> Point:
    return Point(rate, float(rate), 0, {"p50": 10.0, "p99": p99, "p99.9": p99}, 5.0)


def latencies(*halves: tuple[str, float]) -> Latencies:
    bare = (point(30.0), point(30.0), point(90.0))
    measured = tuple(
        Measured(name, 2000.0, half=Pair((point(p99), point(p99), point(p99 + 60)), bare)) for name, p99 in halves
    )
    return Latencies(measured, (1000,), {1000: bare}, (), 3, 3.0, Sallyport.name)


@pytest.mark.parametrize(("p99", "verdict"), [(130.0, "pass"), (131.0, "FAIL")])
def test_what_is_added_is_compared_with_the_identity_proxy(p99: float, verdict: str) -> None:
    (bar,) = latencies((Sallyport.name, p99), (OAuth2Proxy.name, 130.0), (Apache.name, 10.0)).bars()
    assert (bar.measured, bar.limit, bar.verdict) == (p99 - 30, 100.0, verdict)
    assert "stands in" not in bar.what


def test_who_stands_in_is_named() -> None:
    told = latencies((Sallyport.name, 130.0), (Apache.name, 130.0))
    assert f"{Apache.name} (stands in for oauth2-proxy, which is not here)" in told.bars()[0].what
    assert f"| {Apache.name} | carries 2,000/s at most |" in told.markdown()


def test_without_a_peer_or_with_a_peer_faster_than_nothing_there_is_no_verdict() -> None:
    assert verdicts(latencies((Sallyport.name, 130.0)).bars()) == ["NOT MEASURED"]
    (bar,) = latencies((Sallyport.name, 130.0), (OAuth2Proxy.name, 20.0)).bars()
    assert (bar.verdict, "not quiet" in bar.why) == ("NOT MEASURED", True)


@pytest.mark.parametrize("output", ["", '{"rate": 10, "requests": 5, "errors": 1}'])
def test_a_round_of_the_generator_with_errors_is_none(output: str) -> None:
    with pytest.raises(LoadError, match="Caddy"):
        read(output, "", "Caddy")


def test_growth_is_judged_row_by_row_and_the_hopeless_one_is_only_told() -> None:
    rates = {10: (100.0, 100.0), 1_000: (100.0, 100.0), 10_000: (89.0, 89.0)}
    growth = Growth((Asked("ordinary", False, rates), Asked(HOPELESS, True, rates)), 2, 1.0)
    (bar,) = growth.bars()
    assert (bar.measured, bar.verdict) == (0.89, "FAIL")
    assert growth.markdown().count("89 (0.89 ×)") == 2


def test_a_body_is_judged_by_clock_or_processor_whichever_is_less() -> None:
    theirs, mine = Body(1.0, 0.5, 0), Body(1.0, 1.25, 2**20)
    bodies = Bodies(
        {Nginx.name: dict.fromkeys(("down", "up"), (theirs,)), "Sallyport": dict.fromkeys(("down", "up"), (mine,))},
        "Sallyport",
    )
    assert [bar.measured for bar in bodies.bars()] == [0.4, 0.4, 1.0, 1.0]
    assert verdicts(bodies.bars()) == ["FAIL", "FAIL", "pass", "pass"]


def test_an_idle_connection_is_what_was_added_by_number() -> None:
    idle = Idle({0: 90_000_000, 1_000: 100_000_000, 5_000: 155_000_000})
    assert [bar.measured for bar in idle.bars()] == [10.0, 13.0]
    assert verdicts(idle.bars()) == ["pass", "FAIL"]


def test_a_data_plane_that_does_not_run_alone_is_not_measured() -> None:
    bars = Memory((0.9, 0.9, 2.0), 100_000_000, 101_000_000, None, "store.records: none is not there").bars()
    assert verdicts(bars) == ["pass", "NOT MEASURED", "pass"]
    assert str(bars[1]).startswith("NOT MEASURED  resident when idle, data plane alone: store.records: none")


def test_forward_auth_is_compared_with_a_handler_in_front() -> None:
    rounds = {BARE: (40, 80), BEFORE: (10, 20), "Sallyport": (8, 16)}
    answers = Answers(
        {name: tuple(Round(rate, 1, 2) for rate in each) for name, each in rounds.items()}, 0.0, "Sallyport"
    )
    assert "| Sallyport | 12 | 0.80 | 0.20 |" in answers.markdown()
    (bar,) = answers.bars()
    assert (bar.measured, bar.verdict) == (0.8, "pass")


@pytest.mark.parametrize(
    ("at_least", "measured", "met"), [(True, 1.0, True), (True, 0.99, False), (False, 1.01, False)]
)
def test_bar(at_least: bool, measured: float, met: bool) -> None:
    assert Bar("it", measured, 1.0, " s", at_least=at_least).met is met


def test_an_installation_is_an_interpreter_with_a_name() -> None:
    assert Gateway.parse("compiled=/opt/python").name == "Sallyport compiled"
    assert Gateway.parse("/opt/python") == Gateway("/opt/python", "")
    assert Gateway().name == Sallyport.name
    assert Options(only=("go",)).wants(GoProxy.name)
    assert not Options(only=("caddy",)).wants(GoProxy.name)


def test_only_what_stands_between_the_markers_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "performance.md"
    path.write_text("before\n<!-- bench:judge -->\nold\n<!-- /bench:judge -->\nafter\n")
    monkeypatch.setattr(document, "DOCUMENT", path)
    document.write("judge", "new")
    assert path.read_text() == "before\n<!-- bench:judge -->\nnew\n<!-- /bench:judge -->\nafter\n"
    with pytest.raises(RuntimeError, match="bench:memory"):
        document.write("memory", "new")


def test_the_bars_of_counting_together_are_medians_of_the_rounds() -> None:
    def point(p99: float) -> Point:
        return Point(1000, 1000.0, 0, {"p50": 1.0, "p99": p99, "p99.9": 9.0}, 1.0)

    def rounds(*rates: float) -> tuple[Round, ...]:
        return tuple(Round(rate, 1.0, 2.0, 1.0) for rate in rates)

    table = Shared(
        {
            "in memory": rounds(10, 20, 10),
            "in Redis": rounds(8, 10, 8),
            "leased": rounds(9, 9, 9),
            "no limits": rounds(9, 9, 9),
        },
        {mode: (point(2000 if mode == "in Redis" else 500),) for mode in MODES},
        1000,
        "Redis 7",
        1.0,
    )
    assert [bar.measured for bar in table.bars()] == [0.8, 1.5]
    assert verdicts(table.bars()) == ["pass", "FAIL"]
    assert "| in Redis | 8 | 0.80 |" in table.markdown()


def test_the_gateways_that_are_compared_differ_in_their_limits_alone() -> None:
    assert "limits" not in NO_LIMITS
    assert NO_LIMITS.count("upstream: app") == 2
    assert LEASED.count("mode: leased") == 2
