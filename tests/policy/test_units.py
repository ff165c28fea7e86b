from __future__ import annotations

import pytest

from gateway.policy.units import Rate, duration, percent, rate, size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("30s", 30), ("10m", 600), ("1h30m", 5400), ("7d", 604800), ("1.5h", 5400), (0, 0)],
)
def test_durations(text: str | int, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "10", 10, 1.5, True, None, "10 m", "m", "-5m", "1w", "5M", "1h-5m", "٣m"])
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match="duration"):
        duration(text)


@pytest.mark.parametrize(
    ("text", "many"), [("0", 0), (512, 512), ("32k", 32768), ("8M", 8 << 20), ("1G", 1 << 30), ("64KiB", 65536)]
)
def test_sizes(text: str | int, many: int) -> None:
    assert size(text) == many


@pytest.mark.parametrize("text", ["", "k", "-1", -1, 1.5, True, None, "1T", "1 k", "٣k"])
def test_what_is_no_size(text: object) -> None:
    with pytest.raises(ValueError, match="size"):
        size(text)


@pytest.mark.parametrize(
    ("text", "read"),
    [("5/s", (5, 1)), ("100/m", (100, 60)), ("1000/h", (1000, 3600)), ("10/30s", (10, 30)), ("1/d", (1, 86400))],
)
def test_rates(text: str, read: tuple[int, float]) -> None:
    assert rate(text) == Rate(*read)


@pytest.mark.parametrize("text", ["", "5", "5/", "/s", "0/s", "5/0s", "-5/s", "5/x", "5 / s", "1.5/s", 5, None, "٣/s"])
def test_what_is_no_rate(text: object) -> None:
    with pytest.raises(ValueError, match="rate"):
        rate(text)


@pytest.mark.parametrize(("text", "share"), [("0%", 0.0), ("20%", 0.2), ("12.5%", 0.125), ("100%", 1.0)])
def test_shares(text: str, share: float) -> None:
    assert percent(text) == share


@pytest.mark.parametrize("text", ["", "%", "20", 20, 0.2, None, "-1%", "101%", "20 %", "٣%", "1e2%"])
def test_what_is_no_share(text: object) -> None:
    with pytest.raises(ValueError, match="share"):
        percent(text)
