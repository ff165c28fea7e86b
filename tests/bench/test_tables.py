from __future__ import annotations

from pathlib import Path

import pytest

from bench import document
from bench.bars import Bar
from bench.load import Round
from bench.subjects import GoProxy, Sallyport
from bench.throughput import Comparison, Result


def result(name: str, *rates: float, busy: float = 1.0) -> Result:
    return Result(name, "1.0", "works", tuple(Round(rate, 1.0, 2.0, busy) for rate in rates))


def comparison(*results: Result) -> Comparison:
    return Comparison(results, ("oauth2-proxy (not here)",), 5.0, 200_000.0, "wrk 4")


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    mine, bare = result(Sallyport.name, 30, 10, 90), result(GoProxy.name, 10, 10, 100)
    assert mine.times(bare) == 1.0
    (bar,) = comparison(mine, bare).bars()
    assert (bar.measured, bar.met) == (1.0, True)


def test_slower_than_the_bare_proxy_fails() -> None:
    (bar,) = comparison(result(Sallyport.name, 9), result(GoProxy.name, 10)).bars()
    assert not bar.met
    assert str(bar).startswith("FAIL")


def test_the_table_says_what_was_held_back_and_left_out() -> None:
    table = comparison(result(GoProxy.name, 20_000), result("nginx proxy_pass", 80_000, busy=0.8)).markdown()
    assert "| ≥ 80,000 |" in table
    assert "| 20,000 |" in table
    assert "| 100,000 (5.00 ×) |" in table
    assert "Left out: oauth2-proxy (not here)." in table


@pytest.mark.parametrize(
    ("at_least", "measured", "met"), [(True, 1.0, True), (True, 0.99, False), (False, 1.01, False)]
)
def test_bar(at_least: bool, measured: float, met: bool) -> None:
    assert Bar("it", measured, 1.0, " s", at_least=at_least).met is met


def test_only_what_stands_between_the_markers_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "performance.md"
    path.write_text("before\n<!-- bench:judge -->\nold\n<!-- /bench:judge -->\nafter\n")
    monkeypatch.setattr(document, "DOCUMENT", path)
    document.write("judge", "new")
    assert path.read_text() == "before\n<!-- bench:judge -->\nnew\n<!-- /bench:judge -->\nafter\n"
    with pytest.raises(RuntimeError, match="bench:memory"):
        document.write("memory", "new")
